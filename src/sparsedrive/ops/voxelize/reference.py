"""The specification: one point after the other. The cell of a point is found as in the fast form, everything else in plain Python."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.voxelize.voxels import CORNERS, WEIGHT_EPS, Grid, Voxels


def voxelize(points: Float[Tensor, "N C"], grid: Grid, batch_index: Int[Tensor, "N"]) -> Voxels:
    """See the public function."""
    cell = ((points[:, :3] - points.new_tensor(grid.low_m)) / points.new_tensor(grid.voxel_m)).floor()
    number: dict[tuple[int, ...], int] = {}
    kept: list[list[Tensor]] = []
    in_sample: dict[int, int] = {}
    voxel_of_point = torch.full((len(points),), -1)
    for row, (place, batch) in enumerate(zip(cell.tolist(), batch_index.tolist(), strict=True)):
        if not all(0 <= index < size for index, size in zip(place, grid.shape, strict=True)):
            continue
        coord = (batch, *map(int, place))
        if coord not in number:
            if grid.max_voxels is not None and in_sample.get(batch, 0) == grid.max_voxels:
                continue
            in_sample[batch] = in_sample.get(batch, 0) + 1
            number[coord] = len(kept)
            kept.append([])
        voxel_of_point[row] = number[coord]
        if len(kept[number[coord]]) < grid.max_points:
            kept[number[coord]].append(points[row])
    feats = torch.stack([torch.stack(rows).mean(0) for rows in kept]) if kept else points[:0]
    return Voxels(
        coords=torch.tensor(list(number), dtype=torch.int32).reshape(-1, 4),
        feats=feats,
        count=torch.tensor([len(rows) for rows in kept], dtype=torch.int64),
        voxel_of_point=voxel_of_point,
    )


def voxel_mean(feats: Float[Tensor, "N C"], voxel: Int[Tensor, "N"], num_voxels: int) -> Float[Tensor, "M C"]:
    """See the public function."""
    rows = [feats[voxel == number] for number in range(num_voxels)]
    return torch.stack([row.mean(0) if len(row) else feats.new_zeros(feats.shape[1]) for row in rows])


def trilinear_weights(points: Float[Tensor, "N 3"], corner: Int[Tensor, "N 8"]) -> Float[Tensor, "N 8"]:
    """See the public function."""
    rows = []
    for point, found in zip(points, corner.tolist(), strict=True):
        part = point - point.floor()
        row = []
        for offset, index in zip(CORNERS, found, strict=True):
            factors = [part[axis] if up else 1 - part[axis] for axis, up in enumerate(offset)]
            row.append(factors[0] * factors[1] * factors[2] * (index >= 0))
        rows.append(torch.stack(row) / (torch.stack(row).sum() + WEIGHT_EPS))
    return torch.stack(rows)


def devoxelize(feats: Float[Tensor, "M C"], voxel: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]) -> Float[Tensor, "N C"]:
    """See the public function."""
    rows = []
    for found, weight in zip(voxel.tolist(), weights, strict=True):
        row = feats.new_zeros(feats.shape[1])
        for index, factor in zip(found, weight, strict=True):
            row = row + factor * feats[index] if index >= 0 else row
        rows.append(row)
    return torch.stack(rows)
