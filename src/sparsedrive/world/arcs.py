"""Polylines -> chains of straight pieces and circular arcs, the `arcline_path_3` of the nuScenes map expansion."""

from typing import Any

import numpy as np
from jaxtyping import Float

TOLERANCE_M = 0.02
STRAIGHT_RADIUS_M = 999.999
"""What nuScenes writes where a radius means nothing; flatter arcs count as straight."""


def arcline_path(points_m: Float[np.ndarray, "P 2"]) -> list[dict[str, Any]]:
    """As few arcs as follow all points within 2 cm, each through the points at which it begins and ends.

    A record is a path of three pieces of one radius, turning as its `shape` says (L left, R right, S straight); here two of the
    three have length 0. Poses are x [m], y [m], yaw [rad].
    """
    pieces, start = [], 0
    while start < len(points_m) - 1:
        end, piece = start + 1, _piece(points_m[start : start + 2])
        while end + 1 < len(points_m) and (longer := _piece(points_m[start : end + 2])) is not None:
            end, piece = end + 1, longer
        assert piece is not None, "two points have a straight piece between them"
        pieces.append(piece)
        start = end
    return pieces


def _piece(points_m: Float[np.ndarray, "P 2"]) -> dict[str, Any] | None:
    """The arc through the first, the middle and the last point; None where a point is off it."""
    first, middle, last = points_m[0], points_m[len(points_m) // 2], points_m[-1]
    chord = last - first
    length_m, heading = float(np.linalg.norm(chord)), float(np.arctan2(chord[1], chord[0]))
    curvature = _curvature(first, middle, last) if len(points_m) > 2 else 0.0
    if abs(curvature) * STRAIGHT_RADIUS_M < 1:
        across = np.array([-chord[1], chord[0]]) / length_m
        if np.abs((points_m - first) @ across).max() > TOLERANCE_M:
            return None
        return _record(first, heading, last, heading, "LSR", STRAIGHT_RADIUS_M, [0.0, length_m, 0.0])
    half_turn = float(np.arcsin(np.clip(curvature * length_m / 2, -1, 1)))
    radius_m, start_yaw, end_yaw = 1 / abs(curvature), heading - half_turn, heading + half_turn
    centre = first + np.array([-np.sin(start_yaw), np.cos(start_yaw)]) / curvature
    if np.abs(np.linalg.norm(points_m - centre, axis=1) - radius_m).max() > TOLERANCE_M:
        return None
    shape = "LSL" if curvature > 0 else "RSR"
    return _record(first, start_yaw, last, end_yaw, shape, radius_m, [2 * abs(half_turn) * radius_m, 0.0, 0.0])


def _curvature(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """One over the radius of the circle through three points, positive when they turn left."""
    (x0, y0), (x1, y1) = b - a, c - a
    return float(2 * (x0 * y1 - y0 * x1) / (np.linalg.norm(b - a) * np.linalg.norm(c - b) * np.linalg.norm(c - a)))


def _record(start: np.ndarray, start_yaw: float, end: np.ndarray, end_yaw: float, shape: str, radius_m: float, lengths: list[float]):
    return {
        "start_pose": [*start.tolist(), start_yaw],
        "end_pose": [*end.tolist(), end_yaw],
        "shape": shape,
        "radius": radius_m,
        "segment_length": lengths,
    }
