"""The truth of a split in the form of predictions, to be evaluated as it is or spoilt in a known way."""

import numpy as np

from sparsedrive.data.map_lines import clip_to_roi, resample
from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.predictions import PredictedBoxes, PredictedFutures, PredictedLines, PredictionSet
from sparsedrive.evaluation.truth import SplitTruth, driven_path, read_split

MODES, POINTS = 6, 400


def truth_as_predictions(data: PreparedData, split: str, *, plan_steps: int = 6) -> PredictionSet:
    """Every judged box, line, future and path, with score 0.9; all modes of a forecast are the truth."""
    truth = read_split(data, split)
    boxes, row = _boxes(truth)
    future_m = np.concatenate([scene.agent_future_m for scene in truth.scenes])[row]
    return PredictionSet(
        version=data.version,
        split=split,
        preset="truth",
        weights="truth",
        parity=(),
        library="test",
        frames=truth.frames,
        boxes=boxes,
        lines=_lines(truth),
        forecasts=PredictedFutures(
            row=np.arange(len(row)),
            trajectory_m=np.repeat(future_m[:, None], MODES, 1),
            mode_score=np.full((len(row), MODES), 1 / MODES),
        ),
        plan_m=driven_path(truth, plan_steps)[0],
    )


def _boxes(truth: SplitTruth) -> tuple[PredictedBoxes, np.ndarray]:
    """Boxes with at least one return, and their rows in the scenes one after the other."""
    counts = np.concatenate([np.diff(scene.box_splits) for scene in truth.scenes])
    frame = np.repeat(np.arange(len(counts)), counts)
    returns = np.concatenate([scene.lidar_returns + scene.radar_returns for scene in truth.scenes])
    row = np.flatnonzero(returns > 0)
    box = np.nan_to_num(np.concatenate([scene.box for scene in truth.scenes])[row])
    return PredictedBoxes(
        splits=np.concatenate([[0], np.cumsum(np.bincount(frame[row], minlength=len(counts)))]),
        box=box,
        score=np.full(len(row), 0.9),
        label=np.concatenate([scene.box_label for scene in truth.scenes])[row].astype(np.int64),
        track_id=np.concatenate([scene.box_instance for scene in truth.scenes])[row].astype(np.int64),
    ), row


def _lines(truth: SplitTruth) -> PredictedLines:
    found = [clip_to_roi(scene.lines_of(number)) for scene in truth.scenes for number in range(scene.num_frames)]
    points = [resample(points_m, POINTS) for lines in found for _, points_m in lines]
    return PredictedLines(
        splits=np.concatenate([[0], np.cumsum([len(lines) for lines in found])]).astype(np.int64),
        points_m=np.array(points).reshape(-1, POINTS, 2),
        score=np.full(len(points), 0.9),
        label=np.array([label for lines in found for label, _ in lines], np.int64),
    )
