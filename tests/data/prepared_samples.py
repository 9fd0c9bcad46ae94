"""A small prepared folder made in code: pictures, boxes that move, futures, map lines, lidar. Nothing in it is nuScenes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from sparsedrive.data.prepared import FORMAT, INDEX_FILE, MAP_HALF_SIZE_M, PreparedData, PreparedScene, scene_path
from sparsedrive.structures import NUSCENES_CAMERAS

STEP_US = 500_000


def write_prepared(
    folder: Path,
    frames: Sequence[int] = (5, 4, 3),
    cameras: Sequence[str] = NUSCENES_CAMERAS,
    wh_px: tuple[int, int] = (160, 90),
    seed: int = 0,
) -> PreparedData:
    """Scenes of these many frames; splits "train" with all of them and "val" with the last one."""
    names = []
    for number, num_frames in enumerate(frames):
        scene = make_scene(f"scene-{number:04d}", num_frames, cameras, wh_px, seed + number)
        write_files(folder / "log", scene, seed + number)
        scene.save(scene_path(folder, scene.name))
        names.append(scene.name)
    index = {"format": FORMAT, "root": "log", "version": "tiny", "splits": {"train": names, "val": names[-1:]}}
    (folder / INDEX_FILE).write_text(json.dumps(index))
    return PreparedData.open(folder)


def change_scene(data: PreparedData, name: str, **changes: object) -> None:
    """Write a scene again with other fields."""
    replace(data.scene(name), **changes).save(scene_path(data.folder, name))


def make_scene(name: str, num_frames: int, cameras: Sequence[str], wh_px: tuple[int, int], seed: int) -> PreparedScene:
    """Ego drives a gentle curve; frame f has 2 + f boxes, one without lidar returns, and 3 + f map lines."""
    rng = np.random.default_rng(seed)
    counts = [2 + frame for frame in range(num_frames)]
    lines = [_lines(rng, 3 + frame) for frame in range(num_frames)]
    points = [points_m for of_frame in lines for _, points_m in of_frame]
    timestamp_us = 1_600_000_000_000_000 + seed * 10**9 + STEP_US * np.arange(num_frames)
    shape = (num_frames, len(cameras))
    boxes = sum(counts)
    camera_T_ego, intrinsic = _rig(len(cameras), wh_px)
    return PreparedScene(
        name=name,
        location="nowhere",
        sample_tokens=tuple(f"{name}-{frame}" for frame in range(num_frames)),
        instance_tokens=tuple(f"object-{number}" for number in range(max(counts))),
        camera_names=tuple(cameras),
        image_paths=tuple(tuple(f"samples/{camera}/{name}-{frame}.jpg" for camera in cameras) for frame in range(num_frames)),
        lidar_paths=tuple(f"samples/LIDAR/{name}-{frame}.pcd.bin" for frame in range(num_frames)),
        sweep_paths=tuple(f"sweeps/LIDAR/{name}-{frame}.pcd.bin" for frame in range(num_frames)),
        timestamp_us=timestamp_us,
        global_T_car=np.stack([_planar(3.0 * frame, 0.1 * frame, 0.05 * frame) for frame in range(num_frames)]),
        car_T_ego=np.tile(_planar(0.9, 0.0, -np.pi / 2), (num_frames, 1, 1)),
        ego_status=rng.normal(size=(num_frames, 10)),
        ego_status_known=rng.uniform(size=(num_frames, 10)) < 0.8,
        command=rng.integers(0, 3, num_frames),
        ego_future_m=np.stack([np.zeros((num_frames, 6)), np.tile(3.0 * np.arange(1, 7), (num_frames, 1))], -1),
        ego_future_valid=np.arange(1, 7) + np.arange(num_frames)[:, None] < num_frames,
        image_present=np.ones(shape, bool),
        image_wh_px=np.tile(wh_px, (*shape, 1)),
        image_time_us=timestamp_us[:, None] - 10_000 * np.arange(len(cameras)),
        intrinsic=np.tile(intrinsic, (*shape, 1, 1)),
        camera_T_ego=np.tile(camera_T_ego, (num_frames, 1, 1, 1)),
        lidar_present=np.ones(num_frames, bool),
        sweep_splits=np.arange(num_frames + 1),
        sweep_time_us=timestamp_us - 50_000,
        ego_T_sweep=np.tile(_planar(0.0, -0.3, 0.0), (num_frames, 1, 1)),
        box_splits=np.cumsum([0, *counts]),
        box=_boxes(rng, boxes),
        box_label=rng.integers(0, 10, boxes),
        box_instance=np.concatenate([np.arange(count) for count in counts]),
        lidar_returns=np.concatenate([[0, *rng.integers(1, 50, count - 1)] for count in counts]),
        radar_returns=np.concatenate([np.arange(count) < 1 for count in counts]).astype(np.int64),
        agent_future_m=rng.uniform(-40, 40, (boxes, 12, 2)),
        agent_future_valid=rng.uniform(size=(boxes, 12)) < 0.7,
        map_splits=np.cumsum([0, *map(len, lines)]),
        map_label=np.array([label for of_frame in lines for label, _ in of_frame]),
        point_splits=np.cumsum([0, *map(len, points)]),
        map_points_m=np.concatenate(points),
    )


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    box = np.concatenate(
        [
            rng.uniform((-38, -38, -2), (38, 38, 1), (count, 3)),
            rng.uniform(0.5, 5.0, (count, 3)),
            rng.uniform(-np.pi, np.pi, (count, 1)),
            rng.normal(0, 4, (count, 3)),
        ],
        axis=1,
    )
    box[::5, 7:] = np.nan
    return box


def _lines(rng: np.random.Generator, count: int) -> list[tuple[int, np.ndarray]]:
    """A crossing (a ring), then dividers and boundaries from one side of the square to the other."""
    centre = rng.uniform(-10, 10, 2)
    ring = centre + np.array([[-3, -1], [3, -1], [3, 1], [-3, 1], [-3, -1]])
    x_m = rng.uniform(-14, 14, count - 1)
    ends = np.array([-MAP_HALF_SIZE_M, 0.0, MAP_HALF_SIZE_M])
    return [(0, ring)] + [(1 + number % 2, np.stack([x + 0.02 * ends, ends], -1)) for number, x in enumerate(x_m)]


def _planar(x_m: float, y_m: float, yaw_rad: float) -> np.ndarray:
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin, 0, x_m], [sin, cos, 0, y_m], [0, 0, 1, 0.5], [0, 0, 0, 1]])


def _rig(cameras: int, wh_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cameras that look outward, evenly around; 90 degrees wide."""
    camera_T_ego = []
    for angle_rad in 2 * np.pi * np.arange(cameras) / cameras:
        forward = np.array([np.sin(angle_rad), np.cos(angle_rad), 0.0])
        rotation = np.stack([np.cross(forward, [0, 0, 1]), [0, 0, -1], forward])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, rotation @ -(0.5 * forward + np.array([0, 0, -0.3]))
        camera_T_ego.append(matrix)
    focal_px = wh_px[0] / 2
    return np.stack(camera_T_ego), np.array([[focal_px, 0, wh_px[0] / 2], [0, focal_px, wh_px[1] * 0.53], [0, 0, 1]])


def write_files(root: Path, scene: PreparedScene, seed: int) -> None:
    """Pictures (smooth noise, each another one) and lidar scans where the scene says they are."""
    rng = np.random.default_rng(seed + 1000)
    for frame in range(scene.num_frames):
        for camera, name in enumerate(scene.image_paths[frame]):
            width, height = scene.image_wh_px[frame, camera]
            noise = rng.integers(0, 256, (9, 16, 3)).astype(np.uint8)
            write_picture(root / name, cv2.resize(noise, (int(width), int(height)), interpolation=cv2.INTER_CUBIC))
        for name in (scene.lidar_paths[frame], scene.sweep_paths[frame]):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            points = np.concatenate([rng.uniform((-40, -40, -2), (40, 40, 3), (300, 3)), np.zeros((300, 2))], 1)
            points.astype(np.float32).tofile(root / name)


def write_picture(path: Path, bgr: np.ndarray) -> None:
    """Encode by the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    path.write_bytes(content.tobytes())
