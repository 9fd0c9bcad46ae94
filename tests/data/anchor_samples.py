"""Prepared scenes made in code for the tests of anchors: one frame, no cameras, known boxes, futures and lines."""

import json
from pathlib import Path

import numpy as np

from sparsedrive.data.prepared import FORMAT, PreparedData, PreparedScene, scene_path


def scene_of(
    *,
    name: str = "scene-0001",
    box: np.ndarray | None = None,
    box_label: np.ndarray | None = None,
    agent_future_m: np.ndarray | None = None,
    agent_future_valid: np.ndarray | None = None,
    lines: list[tuple[int, np.ndarray]] | None = None,
    ego_future_m: np.ndarray | None = None,
    ego_future_valid: np.ndarray | None = None,
    command: int = 2,
) -> PreparedScene:
    """Agents and the ego vehicle stand unless told otherwise."""
    box = np.zeros((0, 10)) if box is None else np.asarray(box, np.float64)
    lines = lines or []
    num, points = len(box), [np.asarray(points_m, np.float64) for _, points_m in lines]
    standing = np.repeat(box[:, None, :2], 12, axis=1)
    return PreparedScene(
        name=name, location="nowhere", sample_tokens=("s0",), instance_tokens=tuple(f"i{row}" for row in range(num)),
        camera_names=(), image_paths=((),), lidar_paths=("",), sweep_paths=(), timestamp_us=np.array([1_000_000]),
        global_T_car=np.eye(4)[None], car_T_ego=np.eye(4)[None], ego_status=np.zeros((1, 10)),
        ego_status_known=np.zeros((1, 10), bool), command=np.array([command]),
        ego_future_m=np.zeros((1, 6, 2)) if ego_future_m is None else np.asarray(ego_future_m)[None],
        ego_future_valid=np.ones((1, 6), bool) if ego_future_valid is None else np.asarray(ego_future_valid)[None],
        image_present=np.zeros((1, 0), bool), image_wh_px=np.zeros((1, 0, 2), int), image_time_us=np.zeros((1, 0), int),
        intrinsic=np.zeros((1, 0, 3, 3)), camera_T_ego=np.zeros((1, 0, 4, 4)), lidar_present=np.zeros(1, bool),
        sweep_splits=np.array([0, 0]), sweep_time_us=np.zeros(0, int), ego_T_sweep=np.zeros((0, 4, 4)),
        box_splits=np.array([0, num]), box=box, box_label=np.zeros(num, int) if box_label is None else np.asarray(box_label),
        box_instance=np.arange(num), lidar_returns=np.ones(num, int), radar_returns=np.ones(num, int),
        agent_future_m=standing if agent_future_m is None else np.asarray(agent_future_m),
        agent_future_valid=np.ones((num, 12), bool) if agent_future_valid is None else np.asarray(agent_future_valid),
        map_splits=np.array([0, len(lines)]), map_label=np.array([label for label, _ in lines], int),
        point_splits=np.cumsum([0, *map(len, points)]), map_points_m=np.concatenate([np.zeros((0, 2)), *points]),
    )  # fmt: skip


def folder_of(folder: Path, scenes: list[PreparedScene], split: str = "train") -> PreparedData:
    """The scenes as a prepared folder on disk, and a split without scenes."""
    for scene in scenes:
        scene.save(scene_path(folder, scene.name))
    index = {"format": FORMAT, "root": ".", "version": "v1.0-made", "splits": {split: [scene.name for scene in scenes], "empty": []}}
    (folder / "prepared.json").write_text(json.dumps(index))
    return PreparedData.open(folder)
