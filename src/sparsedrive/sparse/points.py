"""PointTensor: points with places between the cells of a grid, the other half of point-voxel networks."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PointTensor:
    """Features `feats[i]` of points at `coords[i]` = (batch, x, y, z), x, y and z in cells of the grid with stride 1. Immutable.

    Args:
        coords: float32 or float64 [N, 4]; the batch index is a whole number. Sub-cell places matter, so no half precision.
        feats: one row a point.

    Raises:
        ValueError: shapes, dtypes or devices do not go together.
    """

    coords: Float[Tensor, "N 4"]
    feats: Float[Tensor, "N C"]

    def __post_init__(self) -> None:
        coords, feats = self.coords, self.feats
        if coords.dim() != 2 or coords.shape[1] != 4 or coords.element_size() < 4 or not coords.is_floating_point():
            got = f"{coords.dtype} {list(coords.shape)}"
            raise _error("coords", "float32 or float64 [N, 4], rows (batch, x, y, z)", got, "put the batch index in front")
        if feats.dim() != 2 or len(feats) != len(coords) or not feats.is_floating_point():
            got = f"{feats.dtype} {list(feats.shape)}"
            raise _error("feats", f"floating point [{len(coords)}, C] to go with coords", got, "give one row a point")
        if coords.device != feats.device:
            raise _error("feats", f"a tensor on {coords.device} like coords", feats.device, "move both to one device")

    def __len__(self) -> int:
        """Number of points."""
        return len(self.coords)

    def with_feats(self, feats: Float[Tensor, "N D"]) -> "PointTensor":
        """Other features at the same places."""
        return replace(self, feats=feats)


def _error(name: str, expected: str, got: object, remedy: str) -> ValueError:
    return ValueError(f"PointTensor.{name}: expected {expected}, got {got}; {remedy}")
