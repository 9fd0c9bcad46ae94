"""Numbers of the published evaluation code on a synthetic world of two scenes.

`golden_subset.npz` holds the parts of a few frames that can be checked by themselves; the whole is in the golden folder. Names begin with
what they belong to: map_, plan_, unit_ (single headings and pairs of boxes).
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sources import golden_folder
from sparsedrive.metrics.mapping import MapLines
from sparsedrive.metrics.planning import FutureObjects, PlanFrames


@cache
def subset() -> Mapping[str, np.ndarray]:
    with np.load(Path(__file__).with_name("golden_subset.npz"), allow_pickle=False) as archive:
        return dict(archive)


@cache
def stored(name: str) -> Mapping[str, np.ndarray]:
    with np.load(_folder() / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def numbers(task: str) -> dict:
    return json.loads((_folder() / "golden_metrics.json").read_text(encoding="utf-8"))[task]


def _folder() -> Path:
    folder = golden_folder() / "metrics"
    if not folder.is_dir():
        pytest.skip(f"no golden metrics at {folder}; set SPARSEDRIVE_GOLDEN")
    return folder


def map_lines(frame: np.ndarray, label: np.ndarray, points: np.ndarray, splits: np.ndarray, score: np.ndarray | None = None) -> MapLines:
    return MapLines.from_lines(frame, label, np.split(points.astype(np.float64), splits[1:-1]), score)


def plan_frames(plan_m: np.ndarray, truth_m: np.ndarray, box: np.ndarray, splits: np.ndarray) -> PlanFrames:
    steps = plan_m.shape[1]
    cell = np.repeat(np.arange(len(splits) - 1), np.diff(splits.astype(np.int64)))
    objects = FutureObjects(box=box, label=np.zeros(len(box), int), frame=cell // steps, step=cell % steps)
    valid = np.ones(plan_m.shape[:2], bool)
    return PlanFrames(plan_m=plan_m.astype(np.float64), truth_m=truth_m.astype(np.float64), truth_valid=valid, objects=objects)
