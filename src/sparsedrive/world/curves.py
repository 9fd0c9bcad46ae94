"""Plane curves as points: one smooth join between two directed points, of which all streets, lanes and kerbs are made."""

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "P 2"]
Vector = Float[np.ndarray, "2"]

INNER_HANDLE, OUTER_HANDLE = 0.2, 1.5
"""Shape of `join`, chosen by trying: its least radius is 0.85 or more of that of an arc for turns of up to 135 degrees."""
STRAIGHT_LEAD_M = 1.0
STRAIGHT_BELOW_RAD = np.radians(30)


def unit(vector: np.ndarray) -> np.ndarray:
    """The same direction(s), length one. [..., 2]."""
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def left_of(direction: np.ndarray) -> np.ndarray:
    """Directions turned a quarter to the left. [..., 2]."""
    return np.stack([-direction[..., 1], direction[..., 0]], axis=-1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """z of the cross product: positive when b is to the left of a."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def angle_between(a: Vector, b: Vector) -> float:
    """Signed angle from a to b, in (-pi, pi], positive to the left [rad]."""
    return float(np.arctan2(cross(a, b), a @ b))


def lengths_m(points_m: Points) -> Float[np.ndarray, "P"]:
    """Distance along the polyline of every point."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_m, axis=0), axis=1))])


def resample(points_m: Points, step_m: float) -> Points:
    """Equally spaced points, about `step_m` apart; both ends stay exactly where they are."""
    along_m = lengths_m(points_m)
    at_m = np.linspace(0.0, along_m[-1], max(1, round(along_m[-1] / step_m)) + 1)
    even_m = np.stack([np.interp(at_m, along_m, points_m[:, i]) for i in range(2)], axis=1)
    even_m[0], even_m[-1] = points_m[0], points_m[-1]
    return even_m


def curvature(points_m: Points) -> Float[np.ndarray, "P-2"]:
    """Signed curvature [1/m] at the inner points, from the change of heading; positive to the left."""
    steps_m = np.diff(points_m, axis=0)
    turn_rad = np.arctan2(cross(steps_m[:-1], steps_m[1:]), np.sum(steps_m[:-1] * steps_m[1:], axis=1))
    step_m = np.linalg.norm(steps_m, axis=1)
    return turn_rad / ((step_m[:-1] + step_m[1:]) / 2)


def join(start_m: Vector, start_direction: Vector, end_m: Vector, end_direction: Vector, step_m: float) -> Points:
    """A curve from one directed point to another whose curvature begins and ends at zero, so that wheels can follow it.

    A quintic Bezier curve with three control points on each tangent. Where the tangents meet at an angle both legs begin straight,
    the longer one until it is as long as the other, so that the turn is symmetric and as wide as it can be.
    """
    turn_rad = angle_between(start_direction, end_direction)
    first_m, last_m = start_m + STRAIGHT_LEAD_M * start_direction, end_m - STRAIGHT_LEAD_M * end_direction
    leg_m = float(np.linalg.norm(last_m - first_m)) / 2
    if abs(turn_rad) > STRAIGHT_BELOW_RAD:
        first_leg_m = float(cross(last_m - first_m, end_direction) / np.sin(turn_rad))
        last_leg_m = float(cross(start_direction, last_m - first_m) / np.sin(turn_rad))
        leg_m = min(first_leg_m, last_leg_m)
        first_m = first_m + (first_leg_m - leg_m) * start_direction
        last_m = last_m - (last_leg_m - leg_m) * end_direction
    assert leg_m > 0, f"the tangents at {start_m} and {end_m} do not meet between the points"
    outer_handle = OUTER_HANDLE * np.tan(turn_rad / 4) / np.tan(turn_rad / 2) if abs(turn_rad) > 1e-6 else OUTER_HANDLE / 2
    handles_m = leg_m * np.array([[0.0], [INNER_HANDLE], [outer_handle]])
    control_m = np.concatenate([first_m + handles_m * start_direction, (last_m - handles_m * end_direction)[::-1]])
    t = np.linspace(0.0, 1.0, max(8, int(8 * leg_m)))[:, None]
    weights = np.concatenate([n * t**k * (1 - t) ** (5 - k) for k, n in enumerate((1, 5, 10, 10, 5, 1))], axis=1)
    return resample(np.concatenate([start_m[None], weights @ control_m, end_m[None]]), step_m)
