"""Map elements as polylines of a fixed number of (x, y) points, flattened to one row: x0 y0 x1 y1 ... in ego metres."""

from jaxtyping import Float
from torch import Tensor

from sparsedrive.geometry import se3


def points(flat: Float[Tensor, "*batch PC"]) -> Float[Tensor, "*batch P 2"]:
    """Row -> points."""
    return flat.unflatten(-1, (-1, 2))


def transform(flat: Float[Tensor, "B N PC"], dst_T_src: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B N PC"]:
    """Polylines of frame `src` in frame `dst`, by the planar part of the transform (map elements have no height)."""
    rotation, shift = dst_T_src[:, None, None, :2, :2], dst_T_src[:, None, None, :2, 3]
    moved = se3.rotate(rotation, points(flat)) + shift
    return moved.flatten(-2)
