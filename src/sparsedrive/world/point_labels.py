"""What each point of a simulated scan has met: the truth of LiDAR segmentation.

The scan's rays are followed once more, without noise, and marked with the class of the thing they meet instead of its echo.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from sparsedrive.world.lidar import AZIMUTHS, BEAMS, CORNERS, ELEVATION_RAD, RANGE_M, actor_prisms, cast_prism, town_prisms
from sparsedrive.world.rig import LidarMount
from sparsedrive.world.stage import global_T_car, turns
from sparsedrive.world.state import Cast, WorldState
from sparsedrive.world.town import Town

POINT_CLASSES = ("ground", "building", "vegetation", "car", "large_vehicle", "two_wheeler", "pedestrian", "barrier_or_cone")
GROUND, BUILDING, VEGETATION, CAR, LARGE_VEHICLE, TWO_WHEELER, PEDESTRIAN, BARRIER_OR_CONE = range(len(POINT_CLASSES))
ACTOR_CLASSES = {
    "vehicle.car": CAR,
    "vehicle.emergency": CAR,
    "vehicle.truck": LARGE_VEHICLE,
    "vehicle.bus": LARGE_VEHICLE,
    "vehicle.trailer": LARGE_VEHICLE,
    "vehicle.construction": LARGE_VEHICLE,
    "vehicle.motorcycle": TWO_WHEELER,
    "vehicle.bicycle": TWO_WHEELER,
    "human": PEDESTRIAN,
    "movable_object": BARRIER_OR_CONE,
}
"""By the beginning of the nuScenes category. Road, pavement and grass are one class: they are equally flat and bright."""


class PointLabeller:
    """Labels the scans of one town and cast, as `LidarScanner` makes them."""

    def __init__(self, town: Town, cast: Cast) -> None:
        buildings = len(town.buildings)
        still, (self._owner, actors) = town_prisms(town), actor_prisms(cast)
        kinds = np.array([_actor_class(category) for category in cast.categories], dtype=np.float64)
        still_kind = np.where(np.arange(len(still.low_m)) < buildings, BUILDING, VEGETATION)
        self._actors = replace(actors, intensity=kinds[self._owner] if len(self._owner) else actors.intensity)
        self._still = replace(still, intensity=still_kind.astype(np.float64))

    def label(self, points: Float[np.ndarray, "N 5"], state: WorldState, mount: LidarMount) -> Int[np.ndarray, "N"]:
        """Class (a place in `POINT_CLASSES`) of every point of the scan made of that state with that mount.

        Args:
            points: rows of `LidarScanner.scan`: x, y, z [m, lidar frame], intensity, ring. Any selection of them, in any order.
        """
        classes = self._classes(state, mount)
        azimuth_rad = np.arctan2(points[:, 1].astype(np.float64), points[:, 0])
        column = np.floor((azimuth_rad + np.pi) * AZIMUTHS / (2 * np.pi)).astype(np.int64) % AZIMUTHS
        return classes[points[:, 4].astype(np.int64), column]

    def _classes(self, state: WorldState, mount: LidarMount) -> Int[np.ndarray, "beams azimuths"]:
        """Class of what every ray meets; ground where it meets nothing."""
        lidar_T_global = np.linalg.inv(global_T_car(state.ego) @ mount.car_T_lidar)
        outline_m = self._still.outline_m
        if len(self._owner):
            turn, place_m = turns(state.pose[self._owner, 2]), state.pose[self._owner, None, :2]
            outline_m = np.concatenate([self._actors.outline_m @ np.swapaxes(turn, 1, 2) + place_m, outline_m])
        outline_m = outline_m @ lidar_T_global[:2, :2].T + lidar_T_global[:2, 3]
        assert outline_m.shape[1:] == (CORNERS, 2)
        low_m, high_m, kind = (
            np.concatenate([getattr(self._actors, name), getattr(self._still, name)]) for name in ("low_m", "high_m", "intensity")
        )
        eye_m = -lidar_T_global[2, 3] / lidar_T_global[2, 2]
        sink = -np.tan(ELEVATION_RAD)[:, None]
        reach_m = np.repeat(np.where(sink > 0, eye_m / np.maximum(sink, 1e-9), np.inf), AZIMUTHS, axis=1)
        classes = np.full((BEAMS, AZIMUTHS), float(GROUND))
        for prism in np.flatnonzero(np.linalg.norm(outline_m, axis=2).min(1) < RANGE_M + 30):
            cast_prism(reach_m, classes, outline_m[prism], low_m[prism] - eye_m, high_m[prism] - eye_m, kind[prism])
        return classes.astype(np.int64)


def _actor_class(category: str) -> int:
    for begin, label in ACTOR_CLASSES.items():
        if category.startswith(begin):
            return label
    raise AssertionError(f"{category}: a category without a class of points; add it to ACTOR_CLASSES")
