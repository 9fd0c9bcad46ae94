"""What a grid is, and what voxelising gives."""

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

CORNERS = tuple((x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1))
"""The eight grid points around a place, in TorchSparse's order for even kernels: z fastest."""
WEIGHT_EPS = 1e-8
"""Added to the sum that weights are divided by, as published: what is left fades to 0 where all of the weight is missing."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A box of space in metres and its voxels. `max_voxels` is per sample; later points and voxels are left out."""

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    voxel_m: tuple[float, float, float]
    max_points: int = 10
    max_voxels: int | None = None

    def __post_init__(self) -> None:
        if any(not (low < high and math.isfinite(high - low)) for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise ValueError(f"Grid: expected low_m below high_m, got {self.low_m} and {self.high_m}; order: x, y, z")
        if any(not size > 0 for size in self.voxel_m) or min(self.shape) < 1:
            raise ValueError(f"Grid.voxel_m: expected three sizes > 0 that fit into the box, got {self.voxel_m}; give metres")
        if self.max_points < 1 or (self.max_voxels is not None and self.max_voxels < 1):
            raise ValueError(
                f"Grid: expected limits of 1 or more, got {self.max_points} points and {self.max_voxels} voxels; None: no limit"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels in x, y and z."""
        sizes = zip(self.low_m, self.high_m, self.voxel_m, strict=True)
        x, y, z = (round((high - low) / size) for low, high, size in sizes)
        return x, y, z


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Voxels:
    """M voxels: (batch, x, y, z) int32, mean of the points that count, how many those are, and the voxel of each of the N points.

    `voxel_of_point` is -1 for points outside the grid and those of voxels beyond `max_voxels`; points beyond `max_points` have their
    voxel although they do not count in its mean.
    """

    coords: Int[Tensor, "M 4"]
    feats: Float[Tensor, "M C"]
    count: Int[Tensor, "M"]
    voxel_of_point: Int[Tensor, "N"]
