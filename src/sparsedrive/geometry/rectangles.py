"""Rectangles on the ground, as arrays: rows x_m, y_m, length_m, width_m, yaw_rad (heading of the length from the x axis to the y axis)."""

import numpy as np
from jaxtyping import Bool, Float


def corners_m(rectangles: Float[np.ndarray, "*batch 5"]) -> Float[np.ndarray, "*batch 4 2"]:
    """Corners counter-clockwise, front left first."""
    cos, sin = np.cos(rectangles[..., 4:]), np.sin(rectangles[..., 4:])
    forward = np.concatenate([cos, sin], -1) * rectangles[..., 2:3] / 2
    left = np.concatenate([-sin, cos], -1) * rectangles[..., 3:4] / 2
    return rectangles[..., None, :2] + np.stack([forward + left, left - forward, -forward - left, forward - left], -2)


def touch(first: Float[np.ndarray, "*#batch 5"], second: Float[np.ndarray, "*#batch 5"]) -> Bool[np.ndarray, "*batch"]:
    """Whether two rectangles share a point, their edges included; shapes broadcast.

    Separating axes: two convex shapes are apart exactly if a side of one of them separates them.
    """
    return _no_side_separates(first, second) & _no_side_separates(second, first)


def _no_side_separates(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether `other`, seen along and across `one`, reaches into it."""
    cos, sin = np.cos(one[..., 4]), np.sin(one[..., 4])
    turn_rad = other[..., 4] - one[..., 4]
    cos_turn, sin_turn = np.abs(np.cos(turn_rad)), np.abs(np.sin(turn_rad))
    east_m, north_m = other[..., 0] - one[..., 0], other[..., 1] - one[..., 1]
    reach_along_m = (one[..., 2] + other[..., 2] * cos_turn + other[..., 3] * sin_turn) / 2
    reach_across_m = (one[..., 3] + other[..., 2] * sin_turn + other[..., 3] * cos_turn) / 2
    return (np.abs(east_m * cos + north_m * sin) <= reach_along_m) & (np.abs(north_m * cos - east_m * sin) <= reach_across_m)
