"""Rectangles and polygons on the ground: corners, exact overlap, points inside. A rectangle is x_m, y_m, yaw_rad, length_m, width_m."""

import numpy as np
from jaxtyping import Bool, Float


def corners(rectangles: Float[np.ndarray, "N 5"]) -> Float[np.ndarray, "N 4 2"]:
    """Corners counter-clockwise, front left first."""
    cos, sin = np.cos(rectangles[:, 2]), np.sin(rectangles[:, 2])
    forward = np.stack([cos, sin], 1) * rectangles[:, 3:4] / 2
    left = np.stack([-sin, cos], 1) * rectangles[:, 4:5] / 2
    return rectangles[:, None, :2] + np.stack([forward + left, left - forward, -forward - left, forward - left], 1)


def overlapping(a: Float[np.ndarray, "N 5"], b: Float[np.ndarray, "M 5"]) -> Bool[np.ndarray, "N M"]:
    """Which rectangles share area. Exact: two convex shapes are apart when one of their edge normals separates them."""
    overlap = np.ones((len(a), len(b)), bool)
    corners_a, corners_b = corners(a), corners(b)
    for yaw_rad, in_rows in ((a[:, 2], True), (b[:, 2], False)):
        for turn_rad in (0.0, np.pi / 2):
            axis = np.stack([np.cos(yaw_rad + turn_rad), np.sin(yaw_rad + turn_rad)], 1)
            axis = axis[:, None] if in_rows else axis[None]
            on_a = (corners_a[:, None] * axis[:, :, None]).sum(3)
            on_b = (corners_b[None] * axis[:, :, None]).sum(3)
            overlap &= (on_a.max(2) > on_b.min(2)) & (on_b.max(2) > on_a.min(2))
    return overlap


def inside_polygon(points_m: Float[np.ndarray, "P 2"], outline_m: Float[np.ndarray, "K 2"]) -> Bool[np.ndarray, "P"]:
    """Which points are inside a simple polygon, open or closed: a ray to the east crosses its edges an odd number of times."""
    x, y = points_m[:, 0, None], points_m[:, 1, None]
    begin, end = outline_m, np.roll(outline_m, -1, axis=0)
    straddles = (begin[:, 1] > y) != (end[:, 1] > y)
    height = np.where(straddles, end[:, 1] - begin[:, 1], 1.0)
    return np.asarray((straddles & (x < begin[:, 0] + (y - begin[:, 1]) * (end[:, 0] - begin[:, 0]) / height)).sum(1) % 2 == 1)
