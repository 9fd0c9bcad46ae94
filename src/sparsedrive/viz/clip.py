"""Clipping in homogeneous image coordinates (x * depth, y * depth, depth), before the division by depth.

A point behind the camera has no pixel; cutting edges and faces at a near plane and at the picture's sides first keeps every drawn
coordinate finite and on the right side.
"""

import numpy as np
from numpy.typing import NDArray

NEAR_M = 0.1

Array = NDArray[np.floating]


def view_planes(width_px: int, height_px: int, margin_px: float = 8.0) -> Array:
    """Five half-spaces [5, 3]: `planes @ point >= 0` (the near one: `>= NEAR_M`) for points that land in the picture and its margin."""
    left = (1.0, 0.0, margin_px)
    right = (-1.0, 0.0, width_px + margin_px)
    top = (0.0, 1.0, margin_px)
    bottom = (0.0, -1.0, height_px + margin_px)
    return np.array([(0.0, 0.0, 1.0), left, right, top, bottom])


def to_image(points_m: Array, image_T_ego: Array) -> Array:
    """Ego points [N, 3] -> homogeneous image coordinates [N, 3]."""
    return points_m @ image_T_ego[:3, :3].T + image_T_ego[:3, 3]


def to_pixels(points: Array) -> Array:
    """Homogeneous coordinates in front of the camera -> pixels [N, 2]."""
    return points[:, :2] / points[:, 2:]


def _margins(points: Array, planes: Array) -> Array:
    """Signed distances [planes, N]; negative outside."""
    margins = planes @ points.T
    margins[0] -= NEAR_M
    return margins


def clip_segment(start: Array, stop: Array, planes: Array) -> Array | None:
    """The part [2, 3] of a segment inside all planes, or None."""
    first, last = _margins(np.stack([start, stop]), planes).T
    low, high = 0.0, 1.0
    for a, b in zip(first, last, strict=True):
        if a < 0 and b < 0:
            return None
        if a < 0:
            low = max(low, a / (a - b))
        elif b < 0:
            high = min(high, a / (a - b))
    if low >= high:
        return None
    return np.stack([start + (stop - start) * low, start + (stop - start) * high])


def clip_polygon(points: Array, planes: Array) -> Array:
    """The part [M, 3] of a convex polygon inside all planes; empty when nothing is left. Source: Sutherland and Hodgman, 1974."""
    for index in range(len(planes)):
        if len(points) == 0:
            break
        margin = _margins(points, planes)[index]
        kept = []
        for here, there, a, b in zip(points, np.roll(points, -1, 0), margin, np.roll(margin, -1), strict=True):
            if a >= 0:
                kept.append(here)
            if (a >= 0) != (b >= 0):
                kept.append(here + (there - here) * (a / (a - b)))
        points = np.array(kept).reshape(-1, 3)
    return points
