"""The little world of the demo log: a road that bends, boxes along it, and an OpenCV painter that shows it to a camera.

Global frame: x, y on flat ground at z = 0, metres, z up. `s` runs along the middle of the road, `side` to the left of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SKY_BGR, HORIZON_BGR, GRASS_BGR = np.array((214, 160, 110)), np.array((226, 214, 200)), (72, 118, 92)
ASPHALT_BGR, PAVEMENT_BGR, PAINT_BGR, BUILDING_BGR = (84, 80, 78), (150, 152, 156), (228, 232, 232), (140, 152, 160)
COLOUR_BGR = {
    "vehicle.car": (50, 60, 200), "vehicle.truck": (190, 120, 40), "human.pedestrian.adult": (200, 50, 180),
    "movable_object.trafficcone": (20, 110, 245), "movable_object.barrier": (40, 200, 215),
}  # fmt: skip
"""Colour of the annotated boxes; faces turned away from the sun are darker shades of it."""
SUN = np.array([0.5, 0.3, 0.81])
ORIGIN_M = (600.0, 1600.0)  # where the road starts: global coordinates as large as in real logs
NEAR_M = 0.3
STRIPS = [(2, 2.3, -7.0, 7.0, PAVEMENT_BGR), (2, 2.3, -4.0, 4.0, ASPHALT_BGR), (6, 3.0, -0.08, 0.08, PAINT_BGR)]
STRIPS += [(2, 2.1, -3.78, -3.62, PAINT_BGR), (2, 2.1, 3.62, 3.78, PAINT_BGR)]
"""Road surface in the order of painting: every so many metres a piece so long, from a side offset to another [m], in a colour."""
CAST = [
    ("vehicle.car", (4.6, 1.9, 1.6), (14,), -2.0, (7.5, 8.5)),
    ("vehicle.car", (4.6, 1.9, 1.6), (-20, 26, 75), 2.0, (-7.5, -6.5)),
    ("vehicle.car", (4.6, 1.9, 1.6), (-14, 4, 20), -8.4, (0, 0)),
    ("vehicle.truck", (8.0, 2.5, 3.2), (44,), 2.0, (-6.5, -5.5)),
    ("human.pedestrian.adult", (0.6, 0.6, 1.75), (8, 18, 30, 40), 6.0, (-1.4, 1.4)),
    ("human.pedestrian.adult", (0.6, 0.6, 1.75), (-6, 12, 25), -6.0, (-1.4, 1.4)),
    ("movable_object.trafficcone", (0.4, 0.4, 0.8), (9, 12, 15, 18), -4.4, (0, 0)),
    ("movable_object.barrier", (2.4, 0.4, 1.0), (12, 15), 4.6, (0, 0)),
    (None, (11.0, 7.0, 6.0), range(-50, 110, 15), 14.5, (0, 0)),
    (None, (12.0, 7.0, 9.0), range(-50, 110, 15), -15.5, (0, 0)),
]
"""Category, size l w h [m], places along the road [m], to the left of its middle [m], range of speeds [m/s]."""


@dataclass(frozen=True)
class Road:
    """Straight for `straight_m`, a quarter circle of `radius_m`, straight again. `turn` is +1 to the left, -1 to the right."""

    straight_m: float
    radius_m: float
    turn: int

    def pose(self, s_m: Any, side_m: Any) -> tuple[Any, Any, Any]:
        """x, y and yaw_rad of points (numbers or arrays) `side_m` to the left of the middle; s may be negative."""
        s_m = np.asarray(s_m, dtype=np.float64)
        angle = np.clip((s_m - self.straight_m) / self.radius_m, 0.0, np.pi / 2)
        after_m = np.maximum(s_m - self.straight_m - self.radius_m * np.pi / 2, 0.0)
        x = np.minimum(s_m, self.straight_m) + self.radius_m * np.sin(angle)
        y = self.turn * (self.radius_m * (1 - np.cos(angle)) + after_m)
        yaw_rad = self.turn * angle
        return ORIGIN_M[0] + x - side_m * np.sin(yaw_rad), ORIGIN_M[1] + y + side_m * np.cos(yaw_rad), yaw_rad


@dataclass(frozen=True)
class Actor:
    """A box that keeps its place beside the road or moves along it; `category` None is scenery without annotation."""

    category: str | None
    size_lwh_m: tuple[float, float, float]
    s_m: float
    side_m: float
    speed_mps: float = 0.0

    def pose(self, road: Road, time_s: float) -> tuple[float, float, float]:
        """x, y, yaw_rad; oncoming traffic (negative speed) faces the other way."""
        x, y, yaw_rad = road.pose(self.s_m + self.speed_mps * time_s, self.side_m)
        return x, y, yaw_rad + (np.pi if self.speed_mps < 0 else 0.0)

    def parts(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Boxes (low corner, high corner, brightness) around the origin on the ground: one, and dark glass on top for a car."""
        size, waist = np.array(self.size_lwh_m), 0.62 if self.category == "vehicle.car" else 1.0
        body = (size * [-0.5, -0.5, 0.0], size * [0.5, 0.5, waist], 1.0)
        glass = (size * [-0.4, -0.45, waist], size * [0.25, 0.45, 1.0], 0.4)
        return [body, glass] if waist < 1.0 else [body]


def make_actors(rng: np.random.Generator) -> list[Actor]:
    """Everything in `CAST`, up to 1 m along and 0.2 m beside its place."""
    return [
        Actor(category, size_lwh_m, s_m + rng.uniform(-1, 1), side_m + rng.uniform(-0.2, 0.2), rng.uniform(*speed_mps))
        for category, size_lwh_m, places_m, side_m, speed_mps in CAST
        for s_m in places_m
    ]


class Painter:
    """One camera's picture. `image_T_global` [4, 4] takes metres to (pixel_x * depth, pixel_y * depth, depth, 1)."""

    def __init__(self, image_T_global: np.ndarray, wh_px: tuple[int, int]) -> None:
        width, height = wh_px
        self.image_T_global = image_T_global
        self.eye_m = -np.linalg.solve(image_T_global[:3, :3], image_T_global[:3, 3])
        fade = np.linspace(0, 1, height)[:, None, None]
        self.bgr = np.repeat((1 - fade) * SKY_BGR + fade * HORIZON_BGR, width, axis=1).astype(np.uint8)
        # Half-spaces a (u d, v d, d) + b >= 0: in front of the camera, and a little beyond the four borders of the picture.
        self._planes = np.array([[0, 0, 1], [1, 0, 9], [-1, 0, width + 9], [0, 1, 9], [0, -1, height + 9]], dtype=np.float64)
        self._offsets = np.array([-NEAR_M, 0, 0, 0, 0])

    def polygon(self, points_m: np.ndarray, colour_bgr: Sequence[float]) -> None:
        """Fill a convex polygon [N, 3] of global points."""
        points = points_m @ self.image_T_global[:3, :3].T + self.image_T_global[:3, 3]
        inside = points @ self._planes.T + self._offsets
        if (inside < 0).all(0).any():
            return
        for index in np.flatnonzero((inside < 0).any(0)):
            points = _clip(points, points @ self._planes[index] + self._offsets[index])
        if len(points) >= 3:
            pixels = np.round(points[:, :2] / points[:, 2:] * 16).astype(np.int32)
            cv2.fillConvexPoly(self.bgr, pixels, colour_bgr, lineType=cv2.LINE_AA, shift=4)

    def ground(self, road: Road) -> None:
        """Grass, pavements, asphalt and lane paint."""
        self.polygon(self.eye_m * [1, 1, 0] + 2000.0 * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), GRASS_BGR)
        for every_m, length_m, right_m, left_m, colour_bgr in STRIPS:
            start_m = np.arange(-90.0, 150.0, every_m)
            along_m, side_m = np.array([(0, right_m), (length_m, right_m), (length_m, left_m), (0, left_m)]).T
            x, y, _ = road.pose(start_m[:, None] + along_m, side_m)
            for quad in np.stack([x, y, np.zeros_like(x)], -1):
                self.polygon(quad, colour_bgr)

    def actors(self, actors: Sequence[Actor], road: Road, time_s: float) -> None:
        """Boxes from far to near."""
        poses = [(actor, *actor.pose(road, time_s)) for actor in actors]
        for actor, x, y, yaw_rad in sorted(poses, key=lambda item: -np.hypot(item[1] - self.eye_m[0], item[2] - self.eye_m[1])):
            colour_bgr = np.array(COLOUR_BGR[actor.category] if actor.category else BUILDING_BGR)
            for low, high, brightness in actor.parts():
                self._box(low, high, (x, y, yaw_rad), colour_bgr * brightness)

    def _box(self, low_m: np.ndarray, high_m: np.ndarray, pose: tuple[float, float, float], colour_bgr: np.ndarray) -> None:
        x, y, yaw_rad = pose
        rotation, spread = turn_about_z(yaw_rad), (high_m - low_m) / 2
        for axis in range(3):
            along, across = np.roll(np.eye(3) * spread, -axis, 0)[1:]
            square = np.array([along + across, along - across, -along - across, -along + across])
            for sign in (-1.0, 1.0):
                normal = sign * rotation[:, axis]
                face = ((low_m + high_m) / 2 + square + sign * np.eye(3)[axis] * spread) @ rotation.T + [x, y, 0.0]
                if normal @ (self.eye_m - face[0]) > 0:
                    self.polygon(face, tuple(colour_bgr * (0.7 + 0.3 * max(0.0, float(normal @ SUN)))))


def turn_about_z(yaw_rad: float) -> np.ndarray:
    """Rotation matrix [3, 3], counter-clockwise seen from above."""
    return np.array([[np.cos(yaw_rad), -np.sin(yaw_rad), 0], [np.sin(yaw_rad), np.cos(yaw_rad), 0], [0, 0, 1]])


def _clip(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The part of a convex polygon [N, 3] where `distance` (one value a corner) is not negative."""
    kept = []
    for point, here, last_point, before in zip(points, distance, np.roll(points, 1, 0), np.roll(distance, 1), strict=True):
        if (here < 0) != (before < 0):
            kept.append(last_point + (point - last_point) * before / (before - here))
        if here >= 0:
            kept.append(point)
    return np.array(kept).reshape(-1, 3)
