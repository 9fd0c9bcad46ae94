"""Boxes, tables and official results for the tests of detection and tracking metrics."""

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sources import golden_folder
from sparsedrive.metrics.records import BoxRecords, GroundTruth, KeyFrames
from sparsedrive.structures import DETECTION_CLASSES

CASES: list[dict] = json.loads(Path(__file__).with_name("devkit_cases.json").read_text(encoding="utf-8"))
MINI_VAL = ("scene-0103", "scene-0916")
CAR, PEDESTRIAN, BICYCLE = (DETECTION_CLASSES.index(name) for name in ("car", "pedestrian", "bicycle"))


def key_frames(count: int, scenes: int = 1) -> KeyFrames:
    """`count` frames 0.5 s apart in each scene; the car stands at the origin."""
    return KeyFrames(
        tokens=tuple(f"frame{index}" for index in range(count * scenes)),
        scene=np.repeat(np.arange(scenes), count),
        timestamp_us=np.tile(np.arange(count) * 500_000, scenes) + 10**15,
        car_xy_m=np.zeros((count * scenes, 2)),
    )


def boxes(frame: Any, xy_m: Any, **columns: Any) -> BoxRecords:
    """Boxes at places; what is not given is a standing car of 2 x 4 x 1.5 m with one point and score 0.5."""
    count = len(frame)
    usual: dict[str, Any] = {
        "size_wlh_m": [[2.0, 4.0, 1.5]] * count,
        "yaw_rad": 0.0,
        "velocity_mps": np.zeros((count, 2)),
        "label": CAR,
        "score": 0.5,
        "attribute": -1,
        "track_id": "",
        "num_points": 1,
    }
    values = {name: np.asarray(columns.pop(name, value)) for name, value in usual.items()}
    values = {name: np.full(count, value) if value.ndim == 0 else value for name, value in values.items()}
    assert not columns
    return BoxRecords(frame=np.asarray(frame, int), center_m=np.c_[np.reshape(xy_m, (-1, 2)), np.zeros(count)], **values)


def case_boxes(case: dict, side: str) -> BoxRecords:
    """Annotations or predictions of one of the `CASES`."""
    columns = {name: np.array(values, float if name.endswith(("_m", "_mps", "_rad")) else None) for name, values in case[side].items()}
    return BoxRecords(**columns, num_points=np.full(len(columns["frame"]), 1))


def case_truth(case: dict) -> GroundTruth:
    frames = KeyFrames(
        tokens=tuple(map(str, range(len(case["scene"])))),
        scene=np.array(case["scene"]),
        timestamp_us=np.array(case["timestamp_us"]),
        car_xy_m=np.zeros((len(case["scene"]), 2)),
    )
    return GroundTruth(frames=frames, boxes=case_boxes(case, "truth"))


def largest_difference(ours: Any, official: Any, place: str = "") -> float:
    """Over all numbers of ours; not-a-number must stand in both. The official keys may be numbers."""
    if isinstance(ours, dict):
        return max(largest_difference(value, official[key], f"{place}/{key}") for key, value in ours.items())
    if np.isnan(ours) or np.isnan(official):
        assert np.isnan(ours) and np.isnan(official), f"{place}: {ours} is not {official}"
        return 0.0
    return abs(ours - official)


def real_folder() -> Path:
    """The licensed nuScenes sample; the test is skipped without it."""
    root = Path(os.environ.get("SPARSEDRIVE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "nuscenes_real"
    if not root.is_dir():
        pytest.skip(f"no nuScenes sample at {root}; set SPARSEDRIVE_DATA to the folder that holds nuscenes_real")
    return root


def golden_metrics() -> Path:
    """Stored official metrics of a synthetic log; the test is skipped without them."""
    folder = golden_folder() / "metrics"
    if not folder.is_dir():
        pytest.skip(f"no golden metrics at {folder}; set SPARSEDRIVE_GOLDEN")
    return folder


def unpack_golden(folder: Path) -> tuple[Path, dict[str, Path]]:
    """Table folder and result files (by task) of the synthetic log, unpacked into `folder`."""
    golden = golden_metrics()
    with zipfile.ZipFile(golden / "synthetic_nuscenes_v1.0-mini.zip") as archive:
        archive.extractall(folder)
    files = {task: folder / f"{task}.json" for task in ("detection", "tracking")}
    for task, path in files.items():
        path.write_bytes(gzip.decompress((golden / f"results_nusc_{task}.json.gz").read_bytes()))
    return folder / "v1.0-mini", files
