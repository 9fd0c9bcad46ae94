"""A drive by hand: what every table must say about it can be worked out on paper."""

from dataclasses import dataclass

import numpy as np

from sparsedrive.world.rig import Rig, nuscenes_rig
from sparsedrive.world.state import Cast, EgoState, WorldState
from sparsedrive.world.tables import KeyFrame, SceneName, state_at
from sparsedrive.world.town import Crossing, Divider, Lane, Town

NAME = SceneName(scene="scene-0007", location="town-002", description="by hand", start_us=1_600_000_000_000_000)
RADIUS_M, SPEED_MPS = 40.0, 8.0
CATEGORIES = ("vehicle.car", "vehicle.car", "human.pedestrian.adult", "vehicle.bicycle", "movable_object.trafficcone", "vehicle.bus.rigid")
SIZES_LWH_M = np.array([[4.5, 1.9, 1.6], [4.2, 1.8, 1.5], [0.7, 0.6, 1.8], [1.7, 0.6, 1.3], [0.4, 0.4, 0.8], [11.0, 2.9, 3.4]])
FAR = 5
"""The actor that is never near."""


@dataclass(frozen=True)
class HandDrive:
    """The ego vehicle goes round a circle to the left; a car drives ahead, one waits, a pedestrian walks, a bus is far away."""

    rig: Rig
    cast: Cast
    drive: list[WorldState]
    parked: np.ndarray

    def key_frames(self, count: int, lidar_points: np.ndarray | None = None, visible: np.ndarray | None = None) -> list[KeyFrame]:
        points = np.full((count, len(self.cast)), 7) if lidar_points is None else lidar_points
        seen = np.ones((count, len(self.cast))) if visible is None else visible
        return [KeyFrame(state=state_at(self.drive, 0.1 + 0.5 * k), lidar_points=points[k], visible=seen[k]) for k in range(count)]


def ego_at(time_s: float) -> EgoState:
    angle, rate = SPEED_MPS / RADIUS_M * time_s, SPEED_MPS / RADIUS_M
    position_m = np.array([800.0, 1600.0]) + RADIUS_M * np.array([np.sin(angle), 1 - np.cos(angle)])
    wheels_rad = float(np.arctan(2.6 / RADIUS_M))
    return EgoState(
        position_m=position_m, yaw_rad=angle, speed_mps=SPEED_MPS, acceleration_mps2=0.5, steering_rad=wheels_rad, yaw_rate_radps=rate
    )


def hand_drive(seconds: float = 3.0) -> HandDrive:
    speeds_mps = np.array([9.0, 0.0, 1.4, 0.0, 0.0, 0.0])
    start = np.array([[815, 1600, 0.1], [830, 1604, 3.1], [812, 1593, 1.5], [805, 1610, -1.0], [820, 1597, 0.0], [950, 1600, 0.0]])
    drive = []
    for index in range(round(seconds / 0.05) + 1):
        time_s, pose = 0.05 * index, start.copy()
        pose[:, 0] += speeds_mps * np.cos(start[:, 2]) * time_s
        pose[:, 1] += speeds_mps * np.sin(start[:, 2]) * time_s
        drive.append(
            WorldState(time_s=time_s, ego=ego_at(time_s), pose=pose, speed_mps=speeds_mps, acceleration_mps2=np.zeros(6), minds=None)
        )
    cast = Cast(categories=CATEGORIES, size_lwh_m=SIZES_LWH_M, colour_rgb=np.full((6, 3), 128.0))
    return HandDrive(nuscenes_rig((352, 198)), cast, drive, np.array([False, False, False, True, False, False]))


def little_town() -> Town:
    """Two roads of two lanes a direction around a block of grass (a hole in the drivable ground), and a junction beside it."""
    outer, inner = _ring(0, 0, 40, 30), _ring(8, 8, 32, 22)
    road, junction = _ring(0, 0, 40, 30)[:-1], _ring(40, 5, 50, 15)[:-1]
    along = np.column_stack([np.linspace(0, 40, 41), np.full(41, 12.0)])
    turn_rad = np.linspace(0, np.pi / 2, 12)
    turning = np.column_stack([40 + 8 * np.sin(turn_rad), 12 + 8 * (1 - np.cos(turn_rad))])
    lanes = (
        Lane(lane_id=0, centre_m=along, width_m=3.5, speed_limit_mps=14.0, successors=(2,), right=1),
        Lane(lane_id=1, centre_m=along - [0, 3.5], width_m=3.5, speed_limit_mps=14.0, successors=(), left=0),
        Lane(lane_id=2, centre_m=turning, width_m=3.5, speed_limit_mps=8.0, successors=(), junction=0, turn="left", yields_to=(1,)),
    )
    return Town(
        name="little",
        extent_m=(0.0, 0.0, 60.0, 50.0),
        lanes=lanes,
        roads=(road, junction),
        boundaries=(outer, inner),
        pavements=(_ring(0, 30, 40, 33)[:-1],),
        crossings=(Crossing(outline_m=_ring(30, 0, 33, 8)[:-1], walk_m=np.array([[31.5, -2], [31.5, 10]]), lane_ids=(0, 1)),),
        dividers=(
            Divider(kind="lane", paint="dashed", points_m=along - [0, 1.75]),
            Divider(kind="road", paint="double", points_m=along - [0, -1.75]),
        ),
        parkings=(),
        buildings=(),
        trees=(),
    )


def _ring(left: float, bottom: float, right: float, top: float) -> np.ndarray:
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)], dtype=np.float64)
