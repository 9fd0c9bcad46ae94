"""From points to voxels and back: grid with at most so many points a voxel, means, and trilinear interpolation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.voxelize import grouped
from sparsedrive.ops.voxelize.voxels import CORNERS, Grid, Voxels

__all__ = ["CORNERS", "Grid", "Voxels", "devoxelize", "trilinear_weights", "voxel_mean", "voxelize"]


def voxelize(points: Float[Tensor, "N C"], grid: Grid, batch_index: Int[Tensor, "N"] | None = None) -> Voxels:
    """Voxels of a point cloud in the order in which their first point appears, with the mean of their first `grid.max_points` points.

    The cell of a point is floor((xyz - low) / size), computed in the points' own dtype as the published kernels do: float64 puts
    about one point in 30,000 into the neighbouring cell. Points outside the grid or not finite belong to no voxel.

    Args:
        points: x, y, z in metres and C - 3 more columns; float32 or float64. The means have a gradient.
        grid: range, voxel size and limits.
        batch_index: sample of each point, from 0; None for one sample.

    Raises:
        ValueError: an argument does not fit.

    Source: hard voxelisation of SECOND (Yan et al., Sensors 2018) as in open-mmlab/mmdetection3d, with the mean of its
    "HardSimpleVFE".
    """
    if points.dim() != 2 or points.shape[1] < 3:
        raise _error("voxelize.points", "[N, 3 or more]", list(points.shape), "give x, y, z first")
    if points.dtype not in (torch.float32, torch.float64):
        raise _error("voxelize.points", "float32 or float64", points.dtype, "half precision cannot name a voxel: use .float()")
    if batch_index is None:
        batch_index = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    if batch_index.shape != points.shape[:1] or batch_index.is_floating_point() or batch_index.device != points.device:
        got = f"{batch_index.dtype} {list(batch_index.shape)} on {batch_index.device}"
        raise _error("voxelize.batch_index", f"integers [{len(points)}] on {points.device}", got, "give the sample of each point")
    if len(batch_index) and int(batch_index.min()) < 0:
        raise _error("voxelize.batch_index", "0 or more", int(batch_index.min()), "count samples from 0")
    return grouped.voxelize(points, grid, batch_index.long())


def voxel_mean(feats: Float[Tensor, "N C"], voxel: Int[Tensor, "N"], num_voxels: int) -> Float[Tensor, "M C"]:
    """Mean of the rows that belong to each voxel; 0 for a voxel without any. Rows with voxel -1 belong to none.

    Differentiable. Sums are made in the order of the rows on a CPU; on a GPU with atomics, unless
    `torch.use_deterministic_algorithms(True)`.

    Raises:
        ValueError: shapes do not fit, or a voxel is outside -1..num_voxels - 1.

    Source: `spvoxelize` of mit-han-lab/torchsparse.
    """
    if feats.dim() != 2 or voxel.shape != feats.shape[:1]:
        raise _error("voxel_mean.voxel", f"[{len(feats)}] for feats [N, C]", f"{list(voxel.shape)} for {list(feats.shape)}", "one a row")
    _check_index("voxel_mean.voxel", voxel, num_voxels)
    return grouped.voxel_mean(feats, voxel.long(), num_voxels)


def trilinear_weights(points: Float[Tensor, "N 3"], corner: Int[Tensor, "N 8"]) -> Float[Tensor, "N 8"]:
    """Weights of the eight grid points around each point; the missing ones (-1) get 0 and the others share what they would have.

    They sum to 1 (to 1 - 1e-8 where all are there), and to 0 where no neighbour with any weight is there. Differentiable in `points`.

    Args:
        points: in units of the grid; grid points have whole numbers.
        corner: voxel at floor(points) + CORNERS, in the order of `CORNERS` (z fastest); -1 where there is none.

    Raises:
        ValueError: shapes do not fit.

    Source: `calc_ti_weights` of mit-han-lab/torchsparse.
    """
    if points.dim() != 2 or points.shape[1] != 3:
        raise _error("trilinear_weights.points", "[N, 3]", list(points.shape), "give x, y, z in units of the grid")
    if corner.shape != (len(points), len(CORNERS)):
        raise _error("trilinear_weights.corner", f"[{len(points)}, 8]", list(corner.shape), "one row a point, in the order of CORNERS")
    return grouped.trilinear_weights(points, corner)


def devoxelize(feats: Float[Tensor, "M C"], voxel: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]) -> Float[Tensor, "N C"]:
    """Weighted sum of K voxels for each point; voxel -1 adds nothing and has no gradient, whatever its weight.

    Differentiable in feats and weights.

    Raises:
        ValueError: shapes or dtypes do not fit, or a voxel is outside -1..M - 1.

    Source: `spdevoxelize` of mit-han-lab/torchsparse.
    """
    if feats.dim() != 2 or voxel.dim() != 2:
        raise _error("devoxelize", "feats [M, C] and voxel [N, K]", f"{list(feats.shape)} and {list(voxel.shape)}", "check their order")
    if weights.shape != voxel.shape or weights.dtype != feats.dtype:
        got = f"{weights.dtype} {list(weights.shape)}"
        raise _error("devoxelize.weights", f"{feats.dtype} {list(voxel.shape)}", got, "one weight a voxel, in the dtype of feats")
    _check_index("devoxelize.voxel", voxel, len(feats))
    return grouped.devoxelize(feats, voxel.long(), weights)


def _check_index(name: str, index: Tensor, size: int) -> None:
    if index.is_floating_point() or index.dtype == torch.bool:
        raise _error(name, "integers", index.dtype, "give row numbers")
    if index.numel() and (int(index.min()) < -1 or int(index.max()) >= size):
        raise _error(name, f"-1 to {size - 1}", f"{int(index.min())} to {int(index.max())}", "-1 is for what has no voxel")


def _error(name: str, expected: str, got: Sequence[int] | object, remedy: str) -> ValueError:
    return ValueError(f"{name}: expected {expected}, got {got}; {remedy}")
