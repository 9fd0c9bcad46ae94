"""From cells in space to a picture seen from above."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.ops.hash_query import unique_coords
from sparsedrive.sparse.functional import Size, triple
from sparsedrive.sparse.kernel_map import require_inside
from sparsedrive.sparse.tensor import Range, SparseTensor

AXES = ("x", "y", "z")


class ToBEVReduction(nn.Module):
    """Sum of all cells that differ along one axis only (there the coordinate becomes 0). Stays sparse.

    Args:
        axis: 0, 1 or 2: which of (x, y, z) goes up.
    """

    def __init__(self, axis: int = 2) -> None:
        super().__init__()
        self.axis = _checked_axis(axis)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Cells sorted by (b, x, y, z); the range's size along the axis becomes 1."""
        flat = x.coords.clone()
        flat[:, self.axis + 1] = 0
        coords, inverse = unique_coords(flat)
        feats = x.feats.new_zeros(len(coords), x.feats.shape[1]).index_add(0, inverse, x.feats)
        return SparseTensor(coords=coords, feats=feats, stride=x.stride, spatial_range=_flat_range(x.spatial_range, self.axis))


class ToBEVHeightCompression(nn.Module):
    """Dense picture with the levels of the height in the channels: channel c * levels + level, as SECOND's encoder has it.

    Args:
        axis: 0, 1 or 2: which of (x, y, z) goes up.
    """

    def __init__(self, axis: int = 2) -> None:
        super().__init__()
        self.axis = _checked_axis(axis)

    def forward(self, x: SparseTensor) -> Float[Tensor, "B CZ X Y"]:
        """The two other axes stay in order. The tensor needs a `spatial_range`."""
        return x.dense().movedim(2 + self.axis, 2).flatten(1, 2)


class ToDenseBEVConvolution(nn.Module):
    """Each level of the height has a matrix of its own; what they make of the cells of a column is added up in a dense picture.

    Args:
        in_channels, out_channels: features a cell and a pixel.
        levels: cells of the height.
        stride: of tensors that will come, to know the size of `levels` at their resolution; the height's axis counts.
        axis: 0, 1 or 2: which of (x, y, z) goes up.
        bias: learn a number a channel that every pixel gets.
    """

    def __init__(self, in_channels: int, out_channels: int, levels: int, *, stride: Size = 1, axis: int = 2, bias: bool = False) -> None:
        super().__init__()
        self.axis = _checked_axis(axis)
        self.levels = math.ceil(levels / triple(stride, "ToDenseBEVConvolution.stride")[axis])
        bound = 1 / math.sqrt(in_channels)
        self.kernel = nn.Parameter(torch.empty(self.levels, in_channels, out_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: SparseTensor) -> Float[Tensor, "B D X Y"]:
        """The two other axes stay in order.

        Raises:
            ValueError: the tensor has no range, or one higher than `levels`, or cells outside it.
        """
        if x.spatial_range is None or x.spatial_range[self.axis + 1] > self.levels:
            expected = f"a spatial_range of at most {self.levels} along {AXES[self.axis]}"
            raise ValueError(f"ToDenseBEVConvolution: expected {expected}, got {x.spatial_range}; give the layer more levels")
        require_inside(x.coords, x.spatial_range)
        batch, *sizes = (size for i, size in enumerate(x.spatial_range) if i != self.axis + 1)
        level = x.coords[:, self.axis + 1].long()
        rows = x.feats.new_zeros(len(x), self.kernel.shape[2])
        for height in range(self.levels):  # a matrix product a level, never one copy of a matrix a cell
            (cells,) = torch.nonzero(level == height, as_tuple=True)
            rows = rows.index_add(0, cells, x.feats[cells] @ self.kernel[height])
        place = [x.coords[:, i].long() for i in range(4) if i != self.axis + 1]
        flat = (place[0] * sizes[0] + place[1]) * sizes[1] + place[2]
        picture = rows.new_zeros(batch * sizes[0] * sizes[1], rows.shape[1]).index_add(0, flat, rows)
        picture = picture if self.bias is None else picture + self.bias
        return picture.view(batch, *sizes, -1).movedim(-1, 1).contiguous()


def _checked_axis(axis: int) -> int:
    if axis not in (0, 1, 2):
        raise ValueError(f"axis: expected 0, 1 or 2 (x, y or z), got {axis}; the batch index is not counted")
    return axis


def _flat_range(full: Range | None, axis: int) -> Range | None:
    if full is None:
        return None
    batch, x, y, z = (1 if i == axis + 1 else size for i, size in enumerate(full))
    return batch, x, y, z
