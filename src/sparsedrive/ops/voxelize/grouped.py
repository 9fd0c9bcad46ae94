"""The same by sorting and gathering, in plain PyTorch on any device."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.ops.voxelize.voxels import CORNERS, WEIGHT_EPS, Grid, Voxels


def voxelize(points: Float[Tensor, "N C"], grid: Grid, batch_index: Int[Tensor, "N"]) -> Voxels:
    """See the public function."""
    shape = torch.tensor(grid.shape, device=points.device)
    with torch.no_grad():
        place = ((points[:, :3] - points.new_tensor(grid.low_m)) / points.new_tensor(grid.voxel_m)).floor()
        # On numbers, not on integers made of them: there is no integer for NaN or 1e30.
        row = ((place >= 0) & (place < shape)).all(1).nonzero()[:, 0]
        place = torch.cat([batch_index[row, None], place[row].long()], 1)
        voxel, first = _in_order_of_appearance(((place[:, 0] * shape[0] + place[:, 1]) * shape[1] + place[:, 2]) * shape[2] + place[:, 3])
        coords = place[first]
        if grid.max_voxels is not None:
            wanted = _position_in_group(coords[:, 0]) < grid.max_voxels
            voxel, coords = torch.where(wanted, wanted.cumsum(0) - 1, -1)[voxel], coords[wanted]
            row, voxel = row[voxel >= 0], voxel[voxel >= 0]
        counts = _position_in_group(voxel) < grid.max_points
    feats = voxel_mean(points[row[counts]], voxel[counts], len(coords))
    return Voxels(
        coords=coords.int(),
        feats=feats,
        count=torch.bincount(voxel[counts], minlength=len(coords)),
        voxel_of_point=torch.full_like(batch_index, -1).index_copy(0, row, voxel),
    )


def _in_order_of_appearance(key: Int[Tensor, "N"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "M"]]:
    """Number of each key, new keys counted as they come, and where each of the M keys comes first."""
    keys, number = torch.unique(key, return_inverse=True)
    rows = torch.arange(len(key), device=key.device)
    first = torch.full_like(keys, len(key)).scatter_reduce(0, number, rows, "amin")
    first, order = first.sort()
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=key.device))[number], first


def _position_in_group(group: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """How many earlier rows are of the same group."""
    ordered, order = group.sort(stable=True)
    position = torch.arange(len(group), device=group.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).index_copy(0, order, position)


def voxel_mean(feats: Float[Tensor, "N C"], voxel: Int[Tensor, "N"], num_voxels: int) -> Float[Tensor, "M C"]:
    """See the public function."""
    row = torch.where(voxel < 0, num_voxels, voxel)  # what belongs nowhere goes into one more row
    count = torch.bincount(row, minlength=num_voxels + 1)[:num_voxels].clamp(min=1)
    total = feats.new_zeros(num_voxels + 1, feats.shape[1]).index_add(0, row, feats)[:num_voxels]
    return total / count[:, None].to(feats.dtype)


def trilinear_weights(points: Float[Tensor, "N 3"], corner: Int[Tensor, "N 8"]) -> Float[Tensor, "N 8"]:
    """See the public function."""
    part = points - points.floor()
    up = torch.tensor(CORNERS, dtype=torch.bool, device=points.device)
    weights = torch.where(up, part[:, None], 1 - part[:, None]).prod(-1) * (corner >= 0)
    return weights / (weights.sum(1, keepdim=True) + WEIGHT_EPS)


def devoxelize(feats: Float[Tensor, "M C"], voxel: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]) -> Float[Tensor, "N C"]:
    """See the public function. One pass that stores no [N, K, C] tensor."""
    # Missing voxels read a row of zeros of their own: row 0 must not get their gradient.
    table = torch.cat([feats, feats.new_zeros(1, feats.shape[1])])
    return F.embedding_bag(torch.where(voxel < 0, len(feats), voxel), table, per_sample_weights=weights, mode="sum")
