"""One scene: drive it, take the pictures, scan, and say it in tables and CAN bus messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int
from scipy.spatial import cKDTree

from sparsedrive.world.camera import Renderer
from sparsedrive.world.can_bus import can_bus_messages
from sparsedrive.world.generate import generate_town
from sparsedrive.world.lidar import LidarScanner, count_points_in_boxes
from sparsedrive.world.looks import LOOKS
from sparsedrive.world.rig import Rig, nuscenes_rig
from sparsedrive.world.simulation import World, drive
from sparsedrive.world.stage import global_T_car
from sparsedrive.world.state import Cast, WorldState
from sparsedrive.world.tables import KEY_FRAME_US, KeyFrame, Row, SceneName, Tables, object_tables, sample_tables, state_at
from sparsedrive.world.town import Town

FIRST_KEY_FRAME_US = 100_000
"""A little after the start, for pictures are taken before the time of their key frame."""
STILL_M, ON_LANE_PART = 0.1, 0.35


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePlan:
    """All that a scene depends on. `writes_map`: it is the scene of its town that leaves the town's map, too."""

    name: SceneName
    seed: int
    town_seed: int
    look: str
    writes_map: bool
    key_frames: int
    wh_px: tuple[int, int]
    lidar: bool
    jpeg_quality: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """What a scene adds to the tables, and its CAN bus messages by kind."""

    tables: Tables
    can_bus: dict[str, list[Row]]


def drive_scene(plan: ScenePlan) -> tuple[World, list[WorldState]]:
    """The world of a scene, and its states 20 times a second."""
    world = World.create(plan.seed, town=generate_town(plan.town_seed, plan.name.location))
    return world, drive(world, 1e-6 * (FIRST_KEY_FRAME_US + (plan.key_frames - 1) * KEY_FRAME_US))


def record_scene(root: Path, plan: ScenePlan) -> Recording:
    """Writes pictures and point clouds of a scene below `root`. `OSError` when a file cannot be written."""
    rig = nuscenes_rig(plan.wh_px)
    world, states = drive_scene(plan)
    renderer = Renderer(world.town, world.cast, LOOKS[plan.look](), plan.seed)
    scanner = LidarScanner(world.town, world.cast, plan.seed)
    frames = []
    for index in range(plan.key_frames):
        state = state_at(states, 1e-6 * (FIRST_KEY_FRAME_US + index * KEY_FRAME_US))
        _take_pictures(root, plan, renderer, rig, states, state.time_s)
        visible = renderer.visible_fraction(state, rig)
        points = _scan(root, plan, scanner, rig, world.cast, state) if plan.lidar else (visible > 0).astype(np.int64)
        frames.append(KeyFrame(state=state, lidar_points=points, visible=visible))
    parked = parked_actors(world.town, states)
    tables = sample_tables(plan.name, rig, states, frames) | object_tables(plan.name, world.cast, parked, frames)
    return Recording(tables=tables, can_bus=can_bus_messages(plan.name, states))


def parked_actors(town: Town, states: Sequence[WorldState]) -> Bool[np.ndarray, "A"]:
    """Who stands still all the time beside the lanes; who waits on one is stopped, not parked."""
    poses = np.array([state.pose[:, :2] for state in states])
    parked = np.ptp(poses, axis=0).max(-1) < STILL_M
    for lane in town.lanes:
        away_m = cKDTree(lane.centre_m).query(poses[0])[0]
        parked &= away_m > ON_LANE_PART * lane.width_m
    return parked


def _take_pictures(root: Path, plan: ScenePlan, renderer: Renderer, rig: Rig, states: Sequence[WorldState], time_s: float) -> None:
    for mount in rig.cameras:
        taken_s = time_s - mount.early_s
        path = root / plan.name.file(mount.name, plan.name.time_us(taken_s))
        path.parent.mkdir(parents=True, exist_ok=True)
        bgr = cv2.cvtColor(renderer.render(state_at(states, taken_s), mount), cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, plan.jpeg_quality]):
            raise OSError(f"could not write {path}; is the disk full or the folder read-only?")


def _scan(root: Path, plan: ScenePlan, scanner: LidarScanner, rig: Rig, cast: Cast, state: WorldState) -> Int[np.ndarray, "A"]:
    """Writes one point cloud; returns how many points lie in every actor's box."""
    points = scanner.scan(state, rig.lidar)
    path = root / plan.name.file(rig.lidar.name, plan.name.time_us(state.time_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    points.astype("<f4").tofile(path)
    lidar_T_global = np.linalg.inv(global_T_car(state.ego) @ rig.lidar.car_T_lidar)
    middle_m = np.column_stack([state.pose[:, :2], cast.size_lwh_m[:, 2] / 2]) @ lidar_T_global[:3, :3].T + lidar_T_global[:3, 3]
    turn_rad = np.arctan2(lidar_T_global[1, 0], lidar_T_global[0, 0])
    return count_points_in_boxes(points, middle_m, cast.size_lwh_m, state.pose[:, 2] + turn_rad)
