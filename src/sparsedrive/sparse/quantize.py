"""From points to cells and from samples to a batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.hash_query import unique_coords
from sparsedrive.sparse.tensor import SparseTensor


def sparse_quantize(
    points: Float[Tensor, "P 3"], voxel_size: float | tuple[float, float, float] = 1.0
) -> tuple[Int[Tensor, "N 3"], Int[Tensor, " N"], Int[Tensor, " P"]]:
    """Cells of a grid that points fall into: floor(point / voxel_size), each cell once, sorted by (x, y, z).

    The division is made in the points' own dtype, as NumPy and TorchSparse do it: float32 and float64 points can differ by a cell.

    Args:
        points: coordinates, of the unit of `voxel_size` (metres).
        voxel_size: edge of a cell, one for all axes or one each.

    Returns:
        cells (int32), for each cell the first point in it, for each point its cell.

    Raises:
        ValueError: wrong shape, a size that is not positive, or points too far for int32.
    """
    sizes = (voxel_size,) * 3 if isinstance(voxel_size, (int, float)) else tuple(voxel_size)
    if points.dim() != 2 or points.shape[1] != 3:
        raise ValueError(f"sparse_quantize.points: expected [P, 3], got {list(points.shape)}; give x, y, z only")
    if len(sizes) != 3 or min(sizes) <= 0:
        raise ValueError(f"sparse_quantize.voxel_size: expected one or three positive sizes, got {voxel_size}; give the cell's edges")
    cells = torch.floor(points / torch.tensor(sizes, dtype=points.dtype, device=points.device))
    if not bool((cells.abs() < 2**31).all()):
        raise ValueError("sparse_quantize.points: expected finite points within int32 cells, got others; remove them first")
    unique, inverse = unique_coords(cells.to(torch.int32))
    order = torch.arange(len(points), device=points.device)
    first = order.new_full((len(unique),), len(points)).scatter_reduce(0, inverse, order, "amin")
    return unique, first, inverse


def sparse_collate(samples: Sequence[SparseTensor | tuple[Int[Tensor, "N 3"], Float[Tensor, "N C"]]]) -> SparseTensor:
    """One tensor of several samples, sample i with batch index i. A sample may be empty.

    Args:
        samples: pairs (cells without batch index, features), or tensors of batch size 1, whose batch index is replaced.

    Returns:
        the batch. If all samples are tensors with one spatial range (1, X, Y, Z), it has (len(samples), X, Y, Z).

    Raises:
        ValueError: no samples, or samples of different strides or ranges.
    """
    if not samples:
        raise ValueError("sparse_collate: expected at least one sample, got none; skip empty batches")
    pairs = [(sample.coords[:, 1:], sample.feats) if isinstance(sample, SparseTensor) else sample for sample in samples]
    for cells, _ in pairs:
        if cells.dim() != 2 or cells.shape[1] != 3:
            raise ValueError(f"sparse_collate: expected cells [N, 3], got {list(cells.shape)}; leave the batch index out")
    kinds = {(s.stride, s.spatial_range and s.spatial_range[1:]) if isinstance(s, SparseTensor) else ((1, 1, 1), None) for s in samples}
    if len(kinds) > 1:
        raise ValueError(f"sparse_collate: expected samples of one stride and range, got {kinds}; bring them to one resolution")
    ((stride, shape),) = kinds
    coords = [torch.cat([cells.new_full((len(cells), 1), i), cells], dim=1) for i, (cells, _) in enumerate(pairs)]
    return SparseTensor(
        coords=torch.cat(coords).to(torch.int32),
        feats=torch.cat([feats for _, feats in pairs]),
        stride=stride,
        spatial_range=None if shape is None else (len(samples), *shape),
    )
