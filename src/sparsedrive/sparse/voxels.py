"""Between points and cells: which cell a point lies in, its eight neighbours, means one way and interpolation the other.

Source: point-voxel convolution of SPVNAS (arXiv:2007.16100, section 3); operations of mit-han-lab/torchsparse. A cell's features are
taken to stand at its lower corner, as there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.hash_query import lookup_coords, unique_coords
from sparsedrive.ops.voxelize import CORNERS, devoxelize, trilinear_weights, voxel_mean
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.tensor import Range, SparseTensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCells:
    """For N points their eight neighbours among the M cells of one SparseTensor: rows (-1: none there) and trilinear weights.

    The first neighbour is the cell the point lies in.
    """

    corner: Int[Tensor, "N 8"]
    weights: Float[Tensor, "N 8"]

    @property
    def cell(self) -> Int[Tensor, " N"]:
        """Row of the cell each point lies in; -1 where it is not active."""
        return self.corner[:, 0]


def initial_voxelize(points: PointTensor, spatial_range: Range | None = None) -> tuple[SparseTensor, Int[Tensor, " N"]]:
    """All cells of stride 1 that hold points, sorted by (batch, x, y, z), with the mean of their points' features; the cell of each point.

    Raises:
        ValueError: a place is not finite or beyond int32.
    """
    place = points.coords.detach().floor()
    if not bool((place.abs() < 2**31).all()):
        raise ValueError("initial_voxelize: expected finite places within int32 cells, got others; remove these points")
    coords, cell = unique_coords(place.int())
    return SparseTensor(coords=coords, feats=voxel_mean(points.feats, cell, len(coords)), spatial_range=spatial_range), cell


def find_cells(points: PointTensor, voxels: SparseTensor) -> PointCells:
    """Neighbours of the points among the cells of `voxels`, at its stride. Good for every tensor with these cells."""
    stride = points.coords.new_tensor((1, *voxels.stride))
    place = points.coords.detach() / stride
    corners = torch.tensor(CORNERS, dtype=torch.int32, device=place.device)
    queries = place.floor().int()[:, None] + torch.nn.functional.pad(corners, (1, 0))
    corner = lookup_coords(queries, voxels.coords)
    return PointCells(corner=corner, weights=trilinear_weights(place[:, 1:], corner))


def point_to_voxel(points: PointTensor, voxels: SparseTensor, cells: PointCells) -> SparseTensor:
    """Mean of the points in each cell of `voxels`; 0 for cells without points. Points outside all cells are left out.

    `cells` is what `find_cells(points, voxels)` gave.
    """
    return voxels.with_feats(voxel_mean(points.feats, _checked(points, cells).cell, len(voxels)))


def voxel_to_point(voxels: SparseTensor, points: PointTensor, cells: PointCells, *, nearest: bool = False) -> PointTensor:
    """The points with features of the cells around them: trilinear, or with `nearest` those of the cell they lie in.

    Neighbours that are not active do not count; a point without any neighbour gets 0.
    """
    corner, weights = _checked(points, cells).corner, cells.weights.to(voxels.feats.dtype)
    if nearest:
        corner, weights = corner[:, :1], torch.ones_like(weights[:, :1])
    return points.with_feats(devoxelize(voxels.feats, corner, weights))


def _checked(points: PointTensor, cells: PointCells) -> PointCells:
    if len(cells.corner) != len(points):
        raise ValueError(
            f"cells: expected those of {len(points)} points, got those of {len(cells.corner)}; call find_cells for these points"
        )
    return cells
