"""Folders the data tests read: the licensed sample (if there), and tiny hand-written tables."""

import json
import os
from pathlib import Path

import pytest

from sources import golden_folder

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="session")
def real_root() -> Path:
    root = Path(os.environ.get("SPARSEDRIVE_DATA", SHARED / "data")) / "nuscenes_real"
    if not root.is_dir():
        pytest.skip(f"no nuScenes sample at {root}; set SPARSEDRIVE_DATA to the folder that holds nuscenes_real")
    return root


@pytest.fixture(scope="session")
def golden_root() -> Path:
    root = golden_folder()
    if not root.is_dir():
        pytest.skip(f"no golden files at {root}; set SPARSEDRIVE_GOLDEN")
    return root


def tiny_tables() -> dict[str, list[dict]]:
    """Two key frames 0.5 s apart; the car drives 5 m along global x, one other car 2 m. One camera, LIDAR_TOP, one radar."""
    still = {"translation": [0.0, 0.0, 0.0], "rotation": [1.0, 0.0, 0.0, 0.0]}
    half = 0.5**0.5
    sensors = [("cam", "CAM_FRONT", "camera"), ("lid", "LIDAR_TOP", "lidar"), ("rad", "RADAR_FRONT", "radar")]
    calibrated = {
        "cam": {
            "translation": [1.0, 0.0, 1.0],
            "rotation": [0.5, -0.5, 0.5, -0.5],
            "camera_intrinsic": [[10, 0, 8], [0, 10, 4], [0, 0, 1]],
        },
        "lid": {"translation": [0.5, 0.0, 2.0], "rotation": [half, 0.0, 0.0, -half], "camera_intrinsic": []},
        "rad": {**still, "camera_intrinsic": []},
    }
    data, poses = [], []
    for index, (x, time_us) in enumerate([(0.0, 1_000_000), (5.0, 1_500_000)]):
        for token, channel, modality in sensors:
            key = f"{token}{index}"
            camera = modality == "camera"
            poses.append({**still, "token": key, "timestamp": time_us, "translation": [x - 0.2 * camera, 0.0, 0.0]})
            data.append({
                "token": key, "sample_token": f"s{index}", "ego_pose_token": key, "calibrated_sensor_token": f"c-{token}",
                "timestamp": time_us - 20_000 * camera, "is_key_frame": True, "width": 16 * camera, "height": 9 * camera,
                "filename": f"samples/{channel}/{index}.jpg", "prev": f"{token}0" if index else "",
            })  # fmt: skip
    sweep = {**data[0], "token": "sweep", "ego_pose_token": "sweep", "is_key_frame": False}
    box = {"instance_token": "i", "size": [2.0, 4.0, 1.5], "rotation": [1.0, 0.0, 0.0, 0.0], "num_lidar_pts": 7, "num_radar_pts": 1}
    return {
        "log": [{"token": "l", "location": "nowhere"}],
        "scene": [{"token": "sc", "name": "scene-0001", "log_token": "l"}],
        "sample": [{"token": f"s{i}", "scene_token": "sc", "timestamp": 1_000_000 + 500_000 * i} for i in (0, 1)],
        "sensor": [{"token": token, "channel": channel, "modality": modality} for token, channel, modality in sensors],
        "calibrated_sensor": [{"token": f"c-{token}", "sensor_token": token, **row} for token, row in calibrated.items()],
        "sample_data": [*data, sweep],
        "ego_pose": [*poses, {**still, "token": "sweep", "timestamp": 0}],
        "category": [{"token": "k", "name": "vehicle.car"}],
        "instance": [{"token": "i", "category_token": "k"}],
        "sample_annotation": [
            {**box, "token": "a0", "sample_token": "s0", "translation": [20.0, 3.0, 1.0], "prev": "", "next": "a1"},
            {**box, "token": "a1", "sample_token": "s1", "translation": [22.0, 3.0, 1.0], "prev": "a0", "next": ""},
        ],
    }


def write_tables(root: Path, tables: dict[str, list[dict]]) -> Path:
    folder = root / "v1.0-tiny"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return root


@pytest.fixture
def tiny() -> dict[str, list[dict]]:
    """Tables to break before they are written with the `tables_at` fixture."""
    return tiny_tables()


@pytest.fixture
def tables_at(tmp_path: Path):
    """Function: writes tables to a fresh folder and returns it."""
    return lambda tables: write_tables(tmp_path, tables)
