"""Official nuScenes result files of predictions, and what the official devkit says of them.

The devkit knows the splits of nuScenes by name, and only in its own versions. It is shown a folder of links to the tables with a split of
our own instead, so that it judges the same scenes of any log in the nuScenes format.
"""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.predictions import PredictionSet, box_records
from sparsedrive.evaluation.results import DetectionSection, Evaluation, FrameIndex, TrackingSection
from sparsedrive.evaluation.truth import key_frames, read_split
from sparsedrive.metrics.detection import ERRORS
from sparsedrive.metrics.submission import write_detections, write_tracks

DETECTION_FILE, TRACKING_FILE = "results_nusc_detection.json", "results_nusc_tracking.json"
SPLIT = "evaluated_scenes"
INSTALL = "pip install --no-deps -r requirements-oracle.txt"
TRACKING_NUMBERS = ("amota", "amotp", "recall", "motar", "mota", "motp", "mt", "ml", "faf", "tp", "fp", "fn", "ids", "frag", "tid", "lgd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A number of ours and the devkit's."""

    name: str
    ours: float
    official: float


def write_submissions(folder: Path, predictions: PredictionSet, data: PreparedData) -> tuple[Path, Path | None]:
    """The official detection and tracking files of a split in `folder`; every frame is named. No second file without track ids."""
    truth = read_split(data, predictions.split)
    boxes = box_records(predictions, truth.global_T_ego)
    folder.mkdir(parents=True, exist_ok=True)
    write_detections(folder / DETECTION_FILE, boxes, key_frames(truth))
    if not predictions.tracked:
        return folder / DETECTION_FILE, None
    write_tracks(folder / TRACKING_FILE, boxes, key_frames(truth))
    return folder / DETECTION_FILE, folder / TRACKING_FILE


def check_devkit(data: PreparedData, *, tracking: bool) -> None:
    """`ValueError`: the log's tables are not there, or something that the devkit needs is not installed (and how to)."""
    tables = data.root / data.version
    if not (tables / "sample_annotation.json").is_file():
        raise ValueError(f"--official: expected the nuScenes tables in {tables}, found none; the devkit cannot do without")
    wanted = ["nuscenes"] + ["motmetrics", "pandas"] * tracking
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if "nuscenes" in missing:
        raise ValueError(f"--official: the nuScenes devkit is not installed; {INSTALL}")
    if missing:
        raise ValueError(f"--official: the devkit's tracking needs {' and '.join(missing)}; {INSTALL}, or leave 'track' out of --tasks")


def official_detection(file: Path, section: DetectionSection, data: PreparedData, frames: FrameIndex) -> list[Comparison]:
    """The devkit's detection numbers of a result file beside ours."""
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    with _links(data, frames) as (root, out), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        nusc = NuScenes(version=data.version, dataroot=str(root), verbose=False)
        run = DetectionEval(nusc, config_factory("detection_cvpr_2019"), str(file), SPLIT, str(out), verbose=False)
        found: dict[str, Any] = run.evaluate()[0].serialize()
    pairs = [("mAP", section.mean_ap, found["mean_ap"]), ("NDS", section.nds, found["nd_score"])]
    pairs += [(f"mean {name}", ours, found["tp_errors"][name]) for name, ours in zip(ERRORS, section.mean_error.tolist(), strict=True)]
    pairs += [(f"AP {name}", ours, found["mean_dist_aps"][name]) for name, ours in zip(section.classes, section.ap.mean(1), strict=True)]
    return [Comparison(name=name, ours=float(ours), official=float(official)) for name, ours, official in pairs]


def official_tracking(file: Path, section: TrackingSection, data: PreparedData, frames: FrameIndex) -> list[Comparison]:
    """The devkit's tracking numbers of a result file beside ours."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking.evaluate import TrackingEval

    with _links(data, frames) as (root, out), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        config = config_factory("tracking_nips_2019")
        run = TrackingEval(config, str(file), SPLIT, str(out), data.version, str(root), verbose=False)
        found: dict[str, Any] = run.evaluate()[0].serialize()
    ours = {"amota": section.mean_amota, "amotp": section.mean_amotp_m} | dict(zip(section.score_names, section.mean.tolist(), strict=True))
    return [Comparison(name=name, ours=ours[name], official=float(found[name])) for name in TRACKING_NUMBERS]


def largest_difference(pairs: list[Comparison]) -> float:
    """Over all pairs; a number that only one side knows counts as infinite."""
    ours, official = (np.array([getattr(pair, side) for pair in pairs]) for side in ("ours", "official"))
    both_unknown = np.isnan(ours) & np.isnan(official)
    return float(np.where(both_unknown, 0.0, np.nan_to_num(np.abs(ours - official), nan=np.inf)).max(initial=0.0))


def compare(evaluation: Evaluation, data: PreparedData, detections: Path | None, tracks: Path | None) -> list[Comparison]:
    """Ours beside the devkit's for the result files that were evaluated."""
    pairs: list[Comparison] = []
    if evaluation.detection is not None and detections is not None:
        pairs += official_detection(detections, evaluation.detection, data, evaluation.frames)
    if evaluation.tracking is not None and tracks is not None:
        pairs += official_tracking(tracks, evaluation.tracking, data, evaluation.frames)
    return pairs


@contextlib.contextmanager
def _links(data: PreparedData, frames: FrameIndex) -> Iterator[tuple[Path, Path]]:
    """A folder like the log's, with the evaluated scenes as a split of its own; and an empty folder for what the devkit writes."""
    tables = data.root / data.version
    with TemporaryDirectory() as temporary:
        root, out = Path(temporary) / "log", Path(temporary) / "out"
        (root / data.version).mkdir(parents=True)
        out.mkdir()
        for path in tables.glob("*.json"):
            if path.name != "splits.json":
                os.symlink(path.resolve(), root / data.version / path.name)
        for path in data.root.iterdir():
            if path.is_dir() and path.resolve() != tables.resolve():
                os.symlink(path.resolve(), root / path.name)
        (root / data.version / "splits.json").write_text(json.dumps({SPLIT: list(frames.scene_names)}), encoding="utf-8")
        yield root, out
