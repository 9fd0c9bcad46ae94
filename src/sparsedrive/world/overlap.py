"""Rectangles and polygons on the ground: corners, exact overlap, points inside. A rectangle is x_m, y_m, yaw_rad, length_m, width_m."""

import numpy as np
from jaxtyping import Bool, Float

from sparsedrive.geometry.rectangles import corners_m, touch

_YAW_LAST = [0, 1, 3, 4, 2]


def corners(rectangles: Float[np.ndarray, "N 5"]) -> Float[np.ndarray, "N 4 2"]:
    """Corners counter-clockwise, front left first."""
    return corners_m(rectangles[:, _YAW_LAST])


def overlapping(a: Float[np.ndarray, "N 5"], b: Float[np.ndarray, "M 5"]) -> Bool[np.ndarray, "N M"]:
    """Which rectangles have a point in common."""
    return touch(a[:, None, _YAW_LAST], b[None, :, _YAW_LAST])


def inside_polygon(points_m: Float[np.ndarray, "P 2"], outline_m: Float[np.ndarray, "K 2"]) -> Bool[np.ndarray, "P"]:
    """Which points are inside a simple polygon, open or closed: a ray to the east crosses its edges an odd number of times."""
    x, y = points_m[:, 0, None], points_m[:, 1, None]
    begin, end = outline_m, np.roll(outline_m, -1, axis=0)
    straddles = (begin[:, 1] > y) != (end[:, 1] > y)
    height = np.where(straddles, end[:, 1] - begin[:, 1], 1.0)
    return np.asarray((straddles & (x < begin[:, 0] + (y - begin[:, 1]) * (end[:, 0] - begin[:, 0]) / height)).sum(1) % 2 == 1)
