"""Evaluations made in code: a small prepared folder, predictions that are its truth with noise, and what the metrics say of them."""

import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.predictions import PredictedBoxes, PredictedFutures, PredictedLines, PredictionSet
from sparsedrive.evaluation.results import Evaluation
from sparsedrive.evaluation.run import evaluate
from sparsedrive.evaluation.truth import SplitTruth, driven_path, read_split

sys.path.append(str(Path(__file__).parents[1] / "data"))
from prepared_samples import write_prepared

FOLDER = TemporaryDirectory(prefix="evaluation-samples-")
"""Goes when Python does."""
SPLIT, DATE, LINE_POINTS = "train", "2026-01-02", 20


def noisy_predictions(data: PreparedData, *, noise_m: float = 0.4, seed: int = 0, preset: str = "tiny") -> PredictionSet:
    """Every true box, line, future and path, moved by about `noise_m`; boxes that are nearer the truth tend to have higher scores."""
    truth, random = read_split(data, SPLIT), np.random.default_rng(seed)
    box = np.nan_to_num(np.concatenate([scene.box for scene in truth.scenes]))
    moved_m = random.normal(0, noise_m, (len(box), 3))
    box[:, :3] += moved_m
    box[:, 3:6] *= random.uniform(0.9, 1.1, (len(box), 3))
    box[:, 6:9] += random.normal(0, 0.2, (len(box), 3))
    score = np.clip(0.9 - 0.4 * np.linalg.norm(moved_m, axis=1) + random.normal(0, 0.05, len(box)), 0.05, 0.99)
    track = np.concatenate([100 * number + scene.box_instance for number, scene in enumerate(truth.scenes)])
    label = np.concatenate([scene.box_label for scene in truth.scenes]).astype(np.int64)
    splits = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(scene.box_splits) for scene in truth.scenes]))]).astype(np.int64)
    boxes = PredictedBoxes(splits=splits, box=box, score=score, label=label, track_id=track.astype(np.int64))
    row = np.flatnonzero(score >= 0.2)
    future_m = np.concatenate([scene.agent_future_m for scene in truth.scenes])[row, None].repeat(3, 1)
    futures = PredictedFutures(
        row=row, trajectory_m=future_m + random.normal(0, noise_m, future_m.shape), mode_score=random.uniform(size=(len(row), 3))
    )
    path_m, _ = driven_path(truth, 6)
    return PredictionSet(
        version=data.version, split=SPLIT, preset=preset, weights="some.safetensors", parity=(), library="0.0", frames=truth.frames,
        boxes=boxes, lines=_lines(truth, noise_m, random), forecasts=futures, plan_m=path_m + random.normal(0, noise_m, path_m.shape),
    )  # fmt: skip


def _lines(truth: SplitTruth, noise_m: float, random: np.random.Generator) -> PredictedLines:
    lines, labels, counts = [], [], [0]
    for scene in truth.scenes:
        for number in range(scene.num_frames):
            of_frame = [(label, points_m[:, :2]) for label, points_m in scene.lines_of(number)]
            counts.append(len(of_frame))
            for label, points_m in of_frame:
                points_m = np.clip(points_m, (-15, -30), (15, 30))
                at = np.linspace(0, len(points_m) - 1, LINE_POINTS)
                lines.append(np.stack([np.interp(at, np.arange(len(points_m)), points_m[:, axis]) for axis in (0, 1)], 1))
                labels.append(label)
    points_m = np.stack(lines) + random.normal(0, noise_m, (len(lines), 1, 2))
    return PredictedLines(
        splits=np.cumsum(counts), points_m=points_m, score=random.uniform(0.2, 0.9, len(lines)), label=np.array(labels, np.int64)
    )


@cache
def sample_data() -> PreparedData:
    """Eight short scenes, made once."""
    return write_prepared(Path(FOLDER.name), frames=(8, 10, 9, 11, 8, 9, 10, 8), wh_px=(96, 54))


@cache
def sample_evaluation(noise_m: float = 0.4, seed: int = 0, preset: str = "tiny") -> Evaluation:
    """Of noisy predictions for `sample_data`, with all tasks."""
    data = sample_data()
    return evaluate(noisy_predictions(data, noise_m=noise_m, seed=seed, preset=preset), data, date=DATE)
