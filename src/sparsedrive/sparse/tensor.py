"""SparseTensor: features at some cells of a grid, and the cache of kernel maps that all tensors of one graph share."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.hash_query import unique_coords
from sparsedrive.sparse.kernel_map import MapCache, Site, require_inside, require_once

Triple = tuple[int, int, int]
Range = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseTensor:
    """Features `feats[i]` at cell `coords[i]` = (batch, x, y, z). Immutable: layers return new tensors.

    Coordinates count cells of the tensor's own resolution: after a convolution with stride 2 they are halved, and `stride` (cells of
    the input a cell covers, each axis) is doubled. x, y and z are just the three axes of the grid, in the order the weights have them.

    Args:
        coords: int32, no two rows alike (found out when a kernel map is built, and by `dense()`). Any order.
        feats: one row a cell, float64, float32, bfloat16 or float16.
        stride: cells of the original grid that a cell covers along x, y, z.
        spatial_range: (batch size, X, Y, Z) of the grid at this resolution: coordinates are in 0..X-1 and so on. None: unknown; then
            `dense()` needs it told, and a strided convolution takes the largest coordinate of the batch for the grid's end.
        maps: cache that tensors of one graph share. Layers hand it on; leave it out for new coordinates.
        site: name of this set of coordinates in the cache: the steps that led to it. Layers set it.

    Raises:
        ValueError: shapes, dtypes or devices do not go together.
    """

    coords: Int[Tensor, "N 4"]
    feats: Float[Tensor, "N C"]
    stride: Triple = (1, 1, 1)
    spatial_range: Range | None = None
    maps: MapCache = field(default_factory=MapCache, repr=False)
    site: Site = field(default=(), repr=False)

    def __post_init__(self) -> None:
        coords, feats = self.coords, self.feats
        if coords.dim() != 2 or coords.shape[1] != 4 or coords.dtype != torch.int32:
            got = f"{coords.dtype} {list(coords.shape)}"
            raise _error("coords", "int32 [N, 4], rows (batch, x, y, z)", got, "sparse_collate puts the batch index in front")
        if feats.dim() != 2 or feats.shape[0] != coords.shape[0]:
            raise _error("feats", f"[{coords.shape[0]}, C] to go with coords", list(feats.shape), "give one row a coordinate")
        if not feats.is_floating_point():
            raise _error("feats", "a floating point dtype", feats.dtype, "convert the features")
        if coords.device != feats.device:
            raise _error("feats", f"a tensor on {coords.device} like coords", feats.device, "move both to one device")
        if len(self.stride) != 3 or min(self.stride) < 1:
            raise _error("stride", "three positive numbers", self.stride, "write (s, s, s)")
        if self.spatial_range is not None and (len(self.spatial_range) != 4 or min(self.spatial_range) < 1):
            raise _error("spatial_range", "(B, X, Y, Z), all positive", self.spatial_range, "give the batch size first")

    @property
    def F(self) -> Float[Tensor, "N C"]:  # noqa: N802
        """`feats`, as ported code writes it."""
        return self.feats

    @property
    def C(self) -> Int[Tensor, "N 4"]:  # noqa: N802
        """`coords`, as ported code writes it."""
        return self.coords

    @property
    def s(self) -> Triple:
        """`stride`, as ported code writes it."""
        return self.stride

    def __len__(self) -> int:
        """Number of active cells."""
        return self.coords.shape[0]

    def with_feats(self, feats: Float[Tensor, "N D"]) -> "SparseTensor":
        """Other features at the same cells; coordinates and kernel maps are shared."""
        return replace(self, feats=feats)

    def to(self, device: torch.device | str) -> "SparseTensor":
        """Copy on another device, with a cache of its own. For another dtype: `x.with_feats(x.feats.to(dtype))`."""
        if self.coords.device == torch.device(device):
            return self
        return SparseTensor(
            coords=self.coords.to(device), feats=self.feats.to(device), stride=self.stride, spatial_range=self.spatial_range
        )

    def batch_size(self) -> int:
        """From `spatial_range`; without one, of the largest batch index (so trailing empty samples are not counted; waits for a GPU)."""
        if self.spatial_range is not None:
            return self.spatial_range[0]
        return int(self.coords[:, 0].max()) + 1 if len(self) else 0

    def dense(self, *, spatial_range: Range | None = None, channels_last: bool = False) -> Tensor:
        """The grid with zeros at inactive cells: [B, C, X, Y, Z], or [B, X, Y, Z, C] with `channels_last` (as TorchSparse has it).

        Args:
            spatial_range: grid to fill, if the tensor has none of its own (or another is wanted).

        Raises:
            ValueError: no range is known, a cell lies outside it, or is there twice.
        """
        full = spatial_range or self.spatial_range
        if full is None:
            raise _error("spatial_range", "(B, X, Y, Z)", None, "give it to SparseTensor or to dense()")
        require_inside(self.coords, full)
        if not self.site:  # layers make no cell twice
            require_once(self.coords, full)
        grid = self.feats.new_zeros(*full, self.feats.shape[1])
        grid = grid.index_put(tuple(self.coords.long().unbind(1)), self.feats)
        return grid if channels_last else grid.movedim(-1, 1).contiguous()

    def __add__(self, other: "SparseTensor") -> "SparseTensor":
        """Sum of features at the same cells in the same order (a residual connection); `generative_add` unites different cells."""
        return self.with_feats(self.feats + same_cells("+", self, other).feats)


def same_cells(name: str, first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """`second`, if it has the cells of `first` in the same order.

    Raises:
        ValueError: it has not.
    """
    shared = first.coords is second.coords or (first.maps is second.maps and first.site == second.site)
    if shared or (first.stride == second.stride and torch.equal(first.coords, second.coords)):
        return second
    got = f"{len(first)} cells of stride {first.stride} and {len(second)} of stride {second.stride}"
    raise ValueError(f"{name}: expected tensors with the same coordinates in the same order, got {got}; use generative_add to unite cells")


def cat(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Channels of tensors with the same cells side by side; all else is the first one's.

    Raises:
        ValueError: no tensors, or their cells differ.
    """
    if not tensors:
        raise ValueError("cat: expected at least one tensor, got none; leave the call out")
    first = tensors[0]
    return first.with_feats(torch.cat([same_cells("cat", first, tensor).feats for tensor in tensors], dim=1))


def generative_add(first: SparseTensor, second: SparseTensor) -> SparseTensor:
    """Sum over the union of both tensors' cells; a cell only one of them has keeps its features. Cells come sorted by (b, x, y, z).

    Raises:
        ValueError: strides, channels or ranges differ.
    """
    if first.stride != second.stride or first.feats.shape[1] != second.feats.shape[1] or first.spatial_range != second.spatial_range:
        wanted, got = (f"stride {x.stride}, {x.feats.shape[1]} channels, range {x.spatial_range}" for x in (first, second))
        raise ValueError(f"generative_add: expected {wanted} as the first tensor has, got {got}; bring both to one resolution")
    coords, inverse = unique_coords(torch.cat([first.coords, second.coords]))
    rows = inverse.split([len(first), len(second)])
    feats = first.feats.new_zeros(len(coords), first.feats.shape[1])
    feats = feats.index_add(0, rows[0], first.feats).index_add(0, rows[1], second.feats)
    return SparseTensor(coords=coords, feats=feats, stride=first.stride, spatial_range=first.spatial_range)


def _error(name: str, expected: str, got: object, remedy: str) -> ValueError:
    return ValueError(f"SparseTensor.{name}: expected {expected}, got {got}; {remedy}")
