"""What a model said of every frame of a split, as plain arrays: an evaluation can be repeated from them without the model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from sparsedrive.evaluation import storage
from sparsedrive.evaluation.results import FrameIndex
from sparsedrive.metrics.decoded import records_of
from sparsedrive.metrics.mapping import MapLines
from sparsedrive.metrics.records import BoxRecords, cat_boxes
from sparsedrive.structures import Detections, Scene

SCHEMA, SCHEMA_VERSION = "sparsedrive-predictions", 1
MIN_FORECAST_SCORE = 0.2
"""Boxes below are not forecast: the published evaluation leaves them out, and they would be most of the file."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedBoxes:
    """N boxes, those of frame f in rows `splits[f]:splits[f + 1]`, best first; columns as `structures.Detections`."""

    splits: Int[np.ndarray, "offsets"]
    box: Float[np.ndarray, "N 10"]
    score: Float[np.ndarray, "N"]
    label: Int[np.ndarray, "N"]
    track_id: Int[np.ndarray, "N"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedLines:
    """L map lines of P points, those of frame f in rows `splits[f]:splits[f + 1]`, best first; columns as `structures.MapElements`."""

    splits: Int[np.ndarray, "offsets"]
    points_m: Float[np.ndarray, "L P 2"]
    score: Float[np.ndarray, "L"]
    label: Int[np.ndarray, "L"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedFutures:
    """M futures of K of the boxes: `row` indexes `PredictedBoxes`; positions in the ego frame of the box's frame, 0.5 s apart."""

    row: Int[np.ndarray, "K"]
    trajectory_m: Float[np.ndarray, "K M T 2"]
    mode_score: Float[np.ndarray, "K M"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionSet:
    """Predictions for all frames of a split, in the ego frame of each frame (x right, y forward, z up).

    `lines`, `forecasts` and `plan_m` [F, T, 2] (0.5 s apart, the selected mode of the given command) are None for a model without
    them; without tracking every `track_id` is -1.
    """

    version: str
    split: str
    preset: str
    weights: str | None
    parity: tuple[str, ...]
    library: str
    frames: FrameIndex
    boxes: PredictedBoxes
    lines: PredictedLines | None
    forecasts: PredictedFutures | None
    plan_m: Float[np.ndarray, "F T 2"] | None

    @property
    def tracked(self) -> bool:
        """Whether boxes have track ids."""
        return bool((self.boxes.track_id >= 0).any()) or len(self.boxes.track_id) == 0

    def save(self, path: Path | str) -> Path:
        """Write `path` (.json) and its arrays (.npz beside it)."""
        return storage.save(self, path, SCHEMA, SCHEMA_VERSION)

    @classmethod
    def load(cls, path: Path | str) -> "PredictionSet":
        """Read what `save` wrote, equal to the last bit. `ValueError` says what does not fit."""
        loaded = storage.load(cls, path, SCHEMA, SCHEMA_VERSION)
        check(loaded, str(path))
        return loaded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FramePredictions:
    """What is kept of one frame's `Scene` (N boxes, L lines); fields as in `PredictionSet`, `future_row` within the frame."""

    box: np.ndarray
    score: np.ndarray
    label: np.ndarray
    track_id: np.ndarray
    points_m: np.ndarray | None
    line_score: np.ndarray | None
    line_label: np.ndarray | None
    future_row: np.ndarray | None
    trajectory_m: np.ndarray | None
    mode_score: np.ndarray | None
    plan_m: np.ndarray | None


def kept(scene: Scene, stream: int) -> FramePredictions:
    """What is kept of one stream of a decoded scene (on the CPU): rows that are `valid`."""
    found, lines, futures = scene.detections, scene.map, scene.forecasts
    rows = found.valid[stream]
    believed = found.score[stream][rows] >= MIN_FORECAST_SCORE
    return FramePredictions(
        box=found.box[stream][rows].numpy(),
        score=found.score[stream][rows].numpy(),
        label=found.label[stream][rows].numpy(),
        track_id=found.track_id[stream][rows].numpy(),
        points_m=None if lines is None else lines.points_m[stream][lines.valid[stream]].numpy(),
        line_score=None if lines is None else lines.score[stream][lines.valid[stream]].numpy(),
        line_label=None if lines is None else lines.label[stream][lines.valid[stream]].numpy(),
        future_row=None if futures is None else np.flatnonzero(believed.numpy()),
        trajectory_m=None if futures is None else futures.trajectory_m[stream][rows][believed].numpy(),
        mode_score=None if futures is None else futures.mode_score[stream][rows][believed].numpy(),
        plan_m=None if scene.plan is None else scene.plan.trajectory_m[stream].numpy(),
    )


def joined(
    frames: Sequence[FramePredictions],
) -> tuple[PredictedBoxes, PredictedLines | None, PredictedFutures | None, np.ndarray | None]:
    """Boxes, lines, futures and plans of all frames as columns."""

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(frame, name) for frame in frames])

    splits = _splits(len(frame.box) for frame in frames)
    boxes = PredictedBoxes(
        splits=splits, box=column("box"), score=column("score"), label=column("label"), track_id=column("track_id")
    )  # fmt: skip
    lines = None
    if frames[0].points_m is not None:
        lines = PredictedLines(
            splits=_splits(len(frame.points_m) for frame in frames if frame.points_m is not None),
            points_m=column("points_m"),
            score=column("line_score"),
            label=column("line_label"),
        )
    futures = None
    if frames[0].trajectory_m is not None:
        row = np.concatenate([first + frame.future_row for first, frame in zip(splits, frames, strict=False)]).astype(np.int64)
        futures = PredictedFutures(row=row, trajectory_m=column("trajectory_m"), mode_score=column("mode_score"))
    return boxes, lines, futures, None if frames[0].plan_m is None else np.stack([np.asarray(frame.plan_m) for frame in frames])


def frame_of_rows(splits: Int[np.ndarray, "offsets"]) -> Int[np.ndarray, "N"]:
    """Frame of every row of ragged columns."""
    return np.repeat(np.arange(len(splits) - 1), np.diff(splits))


def box_records(predictions: PredictionSet, global_T_ego: Float[np.ndarray, "F 4 4"]) -> BoxRecords:
    """All predicted boxes in the global frame, as detection and tracking are judged on them."""
    boxes, frame = predictions.boxes, frame_of_rows(predictions.boxes.splits)
    parts = []
    for rows in np.array_split(np.arange(len(frame)), len(frame) // 100_000 + 1):
        columns = {name: torch.from_numpy(getattr(boxes, name)[rows][:, None]) for name in ("box", "score", "label", "track_id")}
        valid = torch.ones(len(rows), 1, dtype=torch.bool)
        found = Detections(**columns, class_score=columns["score"], query_index=columns["label"], valid=valid)
        parts.append(records_of(found, torch.from_numpy(global_T_ego[frame[rows]]), frame[rows]))
    return cat_boxes(parts)


def map_lines(predictions: PredictionSet) -> MapLines:
    """All predicted lines; `frame` is the row of `predictions.frames`."""
    lines = predictions.lines
    assert lines is not None, "the caller knows that there are lines"
    count, points = lines.points_m.shape[:2]
    return MapLines(
        frame=frame_of_rows(lines.splits), label=lines.label, points_m=lines.points_m.reshape(-1, 2).astype(np.float64),
        splits=np.arange(count + 1) * points, score=lines.score.astype(np.float64),
    )  # fmt: skip


def check(predictions: PredictionSet, name: str) -> None:
    """That columns go together and numbers are finite. `ValueError` names the first that does not."""
    frames, boxes, lines, futures = len(predictions.frames.tokens), predictions.boxes, predictions.lines, predictions.forecasts
    rows = [("boxes", boxes.splits, {item.name: getattr(boxes, item.name) for item in fields(PredictedBoxes)[1:]})]
    if lines is not None:
        rows.append(("lines", lines.splits, {item.name: getattr(lines, item.name) for item in fields(PredictedLines)[1:]}))
    for part, splits, columns in rows:
        if len(splits) != frames + 1 or splits[0] != 0 or (np.diff(splits) < 0).any():
            raise ValueError(f"{name}: {part}.splits: expected {frames + 1} numbers that never fall, from 0, got {len(splits)}")
        for column, values in columns.items():
            _check_column(f"{name}: {part}.{column}", values, int(splits[-1]))
    if futures is not None:
        for column in ("trajectory_m", "mode_score"):
            _check_column(f"{name}: forecasts.{column}", getattr(futures, column), len(futures.row))
        if len(futures.row) and not 0 <= futures.row.min() <= futures.row.max() < len(boxes.box):
            raise ValueError(
                f"{name}: forecasts.row: expected rows of {len(boxes.box)} boxes, got {futures.row.min()} to {futures.row.max()}"
            )
    if predictions.plan_m is not None:
        _check_column(f"{name}: plan_m", predictions.plan_m, frames)


def _check_column(name: str, values: np.ndarray, rows: int) -> None:
    if len(values) != rows:
        raise ValueError(f"{name}: expected {rows} rows, got {len(values)}; the .json and the .npz may be of two runs")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).reshape(rows, -1).all(1))[0])
        raise ValueError(f"{name}: row {bad} has NaN or infinity; check the weights and the frames that made it")


def _splits(counts: Iterable[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(list(counts))]).astype(np.int64)
