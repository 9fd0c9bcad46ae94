"""Average precision of map lines under the chamfer distance.

Lines are resampled to S points at equal steps of arc length (S = 200), open ones and rings alike; direction does not matter. With

    chamfer(p, g) = (mean over the points of p of the distance to the nearest point of g + the same from g to p) / 2

every prediction looks at one ground-truth line only: the nearest of its class in its frame. In descending score it is a true positive
if that line is not taken yet and chamfer <= threshold; else a false positive, without a second choice. Over all frames, in descending
score, recall = TP / ground truth and precision = TP / (TP + FP); AP is the area under the curve after precision is made to never rise
with recall. The score of a class is the mean over thresholds (0.5, 1.0 and 1.5 m), `mean_ap` the mean over all classes and thresholds;
a class without ground truth or without predictions counts 0.

Source: evaluation of swc-17/SparseDrive, which is that of StreamMapNet. Equal scores: the earlier row goes first (there: undefined).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int

from sparsedrive.structures import MAP_CLASSES

LINES_AT_ONCE, BOUNDS_AT_ONCE, PAIRS_AT_ONCE = 4096, 256, 8
"""So that a whole split fits in memory, and the numbers at work in the cache."""


@dataclass(frozen=True, kw_only=True)
class MapProtocol:
    """What there is to choose. Ground truth is simplified first (Douglas-Peucker, `simplify_m`; 0 leaves it as it is)."""

    name: str
    thresholds_m: tuple[float, ...] = (0.5, 1.0, 1.5)
    samples: int = 200
    simplify_m: float = 0.2


SPARSEDRIVE = MapProtocol(name="sparsedrive")
"""Also that of StreamMapNet."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapLines:
    """L polylines of many frames. `points_m[splits[i]:splits[i + 1]]` are the vertices of line i; a ring repeats its first point.

    `frame` is any number that names the frame, `label` indexes `MAP_CLASSES`, `score` is 1 for ground truth. `ValueError` says what
    does not fit.
    """

    frame: Int[np.ndarray, "L"]
    label: Int[np.ndarray, "L"]
    points_m: Float[np.ndarray, "P 2"]
    splits: Int[np.ndarray, "L+1"]
    score: Float[np.ndarray, "L"]

    def __post_init__(self) -> None:
        lines = len(self.frame)
        for name, rows, expected in (("label", self.label, lines), ("score", self.score, lines), ("splits", self.splits, lines + 1)):
            if np.shape(rows) != (expected,):
                raise ValueError(f"MapLines.{name}: expected {expected} values for {lines} lines, got shape {np.shape(rows)}")
        if self.points_m.ndim != 2 or self.points_m.shape[1] != 2:
            raise ValueError(f"MapLines.points_m: expected [P, 2] (x, y), got {list(self.points_m.shape)}; leave out the height")
        if self.splits[0] != 0 or self.splits[-1] != len(self.points_m):
            raise ValueError(f"MapLines.splits: expected to run from 0 to {len(self.points_m)}, got {self.splits[0]} to {self.splits[-1]}")
        short = np.flatnonzero(np.diff(self.splits) < 2)
        if len(short):
            raise ValueError(
                f"MapLines: expected at least two points a line, line {short[0]} has {np.diff(self.splits)[short[0]]}; drop it"
            )
        unknown = np.flatnonzero((self.label < 0) | (self.label >= len(MAP_CLASSES)))
        if len(unknown):
            raise ValueError(f"MapLines.label: expected indices into {MAP_CLASSES}, line {unknown[0]} has {self.label[unknown[0]]}")
        for name, values in (("points_m", self.points_m), ("score", self.score)):
            if not np.isfinite(values).all():
                raise ValueError(f"MapLines.{name}: expected finite numbers, got NaN or infinity; drop those lines")

    @classmethod
    def from_lines(
        cls, frame: Sequence[int], label: Sequence[int], lines: Sequence[np.ndarray], score: Sequence[float] | None = None
    ) -> "MapLines":
        """Lines given one by one, each [P, 2] with its own P. Without `score` they are ground truth."""
        splits = np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int64)
        points_m = np.concatenate([np.asarray(line, np.float64) for line in lines]) if len(lines) else np.zeros((0, 2))
        weight = np.ones(len(lines)) if score is None else np.asarray(score, np.float64)
        return cls(frame=np.asarray(frame, np.int64), label=np.asarray(label, np.int64), points_m=points_m, splits=splits, score=weight)

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: Int[np.ndarray, "M"]) -> "MapLines":
        """Some of the lines."""
        count = np.diff(self.splits)[rows]
        splits = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        points = np.arange(splits[-1]) + np.repeat(self.splits[:-1][rows] - splits[:-1], count)
        return MapLines(
            frame=self.frame[rows], label=self.label[rows], points_m=self.points_m[points], splits=splits, score=self.score[rows]
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapClassScore:
    """Curves of one class: `recall` and `precision` [thresholds, predictions], in descending `score`."""

    name: str
    num_truth: int
    num_predicted: int
    ap: tuple[float, ...]
    score: Float[np.ndarray, "N"]
    recall: Float[np.ndarray, "K N"]
    precision: Float[np.ndarray, "K N"]

    @property
    def mean_ap(self) -> float:
        """Mean over the thresholds."""
        return float(np.mean(self.ap))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapScores:
    """Result. Rows of the last three fields are those of the predictions: `true_positive` [L, thresholds], the nearest ground-truth line
    of the class and frame (-1 where there is none) and its chamfer distance (infinity: none, or certainly beyond all thresholds)."""

    protocol: MapProtocol
    classes: tuple[MapClassScore, ...]
    true_positive: Bool[np.ndarray, "L K"]
    nearest: Int[np.ndarray, "L"]
    chamfer_m: Float[np.ndarray, "L"] = field(repr=False)

    @property
    def mean_ap(self) -> float:
        """Mean over classes and thresholds; classes that the data does not have count 0."""
        return float(np.mean([score.mean_ap for score in self.classes]))


def evaluate_map(predicted: MapLines, truth: MapLines, protocol: MapProtocol = SPARSEDRIVE) -> MapScores:
    """Chamfer AP of predicted lines, all frames at once; both in the same frame of reference. Frames without predictions may be absent."""
    nearest, chamfer_m = nearest_truth(predicted, simplified(truth, protocol.simplify_m), protocol)
    order = np.argsort(-predicted.score, kind="stable")
    true_positive = np.zeros((len(predicted), len(protocol.thresholds_m)), bool)
    for column, threshold_m in enumerate(protocol.thresholds_m):
        candidates = order[chamfer_m[order] <= threshold_m]
        _, first = np.unique(nearest[candidates], return_index=True)
        true_positive[candidates[first], column] = True
    classes = []
    for label, name in enumerate(MAP_CLASSES):
        rows = order[predicted.label[order] == label]
        num_truth = int((truth.label == label).sum())
        hits = np.cumsum(true_positive[rows].T, axis=1, dtype=np.float64)
        recall, precision = hits / max(num_truth, 1), hits / np.arange(1, len(rows) + 1)
        classes.append(
            MapClassScore(
                name=name, num_truth=num_truth, num_predicted=len(rows), score=predicted.score[rows], recall=recall, precision=precision,
                ap=tuple(area_under_curve(recall[row], precision[row]) for row in range(len(recall))),
            )
        )  # fmt: skip
    return MapScores(protocol=protocol, classes=tuple(classes), true_positive=true_positive, nearest=nearest, chamfer_m=chamfer_m)


def area_under_curve(recall: Float[np.ndarray, "N"], precision: Float[np.ndarray, "N"]) -> float:
    """Area under precision over recall, with precision at a recall the best at this or any higher one."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def simplified(lines: MapLines, tolerance_m: float) -> MapLines:
    """Fewer vertices, nowhere further than `tolerance_m` from the line; rings stay rings (Douglas-Peucker as in GEOS)."""
    if not tolerance_m or not len(lines):
        return lines
    shapes = shapely.simplify(_shapes(lines), tolerance_m)
    points_m, line = shapely.get_coordinates(shapes, return_index=True)
    splits = np.searchsorted(line, np.arange(len(lines) + 1))
    return MapLines(frame=lines.frame, label=lines.label, points_m=points_m, splits=splits, score=lines.score)


def resampled(lines: MapLines, samples: int) -> Float[np.ndarray, "L samples 2"]:
    """Points at equal steps of arc length from the first to the last vertex."""
    if not len(lines):
        return np.zeros((0, samples, 2))
    step_m = np.hypot(*np.diff(lines.points_m, axis=0, prepend=lines.points_m[:1]).T)
    step_m[lines.splits[:-1]] = 1.0  # all lines on one ruler, a gap before each
    ruler_m = np.cumsum(step_m)
    begin_m, end_m = ruler_m[lines.splits[:-1], None], ruler_m[lines.splits[1:] - 1, None]
    at_m = np.minimum(begin_m + np.linspace(0.0, 1.0, samples) * (end_m - begin_m), end_m)
    return np.stack([np.interp(at_m, ruler_m, lines.points_m[:, axis]) for axis in (0, 1)], 2)


def nearest_truth(predicted: MapLines, truth: MapLines, protocol: MapProtocol) -> tuple[Int[np.ndarray, "L"], Float[np.ndarray, "L"]]:
    """Row of the nearest ground-truth line of the same class and frame, and its chamfer distance.

    Lines that a bound shows to be beyond the largest threshold are not measured: their distance is infinite, and -1 their row.
    """
    offered = _outlined(truth, protocol.samples)
    nearest, chamfer_m = np.full(len(predicted), -1), np.full(len(predicted), np.inf)
    for start in range(0, len(predicted), LINES_AT_ONCE):
        some = predicted.take(np.arange(start, min(start + LINES_AT_ONCE, len(predicted))))
        lines = _outlined(some, protocol.samples)
        row, other = _same_class_and_frame(some, truth)
        for bound in (_gap_between_m, _mean_outside_m):
            near = bound(lines, offered, row, other) <= max(protocol.thresholds_m)
            row, other = row[near], other[near]
        pair_m = chamfer_distance_m(lines.points_m, offered.points_m, row, other)
        best_first = np.lexsort((other, pair_m, row))
        found, first = np.unique(row[best_first], return_index=True)
        nearest[start + found], chamfer_m[start + found] = other[best_first[first]], pair_m[best_first[first]]
    return nearest, chamfer_m


def chamfer_distance_m(
    first_m: Float[np.ndarray, "L S 2"], second_m: Float[np.ndarray, "M S 2"], row: Int[np.ndarray, "N"], other: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    """Chamfer distance of the pairs (first_m[row], second_m[other]).

    |a - b|^2 = |a|^2 + |b|^2 - 2 ab is one matrix product a pair: exact to about 1e-7 m.
    """
    chamfer_m = np.zeros(len(row))
    for start in range(0, len(row), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        left, right = first_m[row[some]], second_m[other[some]]
        ones = np.ones((*left.shape[:2], 1))
        left = np.concatenate([left, (left**2).sum(2, keepdims=True), ones], 2)
        right = np.concatenate([-2 * right, ones, (right**2).sum(2, keepdims=True)], 2)
        squared = left @ right.transpose(0, 2, 1)
        for axis in (1, 2):
            chamfer_m[some] += np.sqrt(np.maximum(squared.min(axis), 0.0)).mean(1) / 2
    return chamfer_m


def _shapes(lines: MapLines) -> np.ndarray:
    """The lines as an array of shapely lines."""
    return np.asarray(shapely.linestrings(lines.points_m, indices=np.repeat(np.arange(len(lines)), np.diff(lines.splits))))


def _same_class_and_frame(predicted: MapLines, truth: MapLines) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all pairs that have class and frame in common."""
    _, frame = np.unique(np.concatenate([predicted.frame, truth.frame]), return_inverse=True)
    group = frame * len(MAP_CLASSES) + np.concatenate([predicted.label, truth.label])
    wanted, offered = group[: len(predicted)], group[len(predicted) :]
    by_group = np.argsort(offered, kind="stable")
    begin, end = np.searchsorted(offered[by_group], wanted, "left"), np.searchsorted(offered[by_group], wanted, "right")
    count = end - begin
    row = np.repeat(np.arange(len(predicted)), count)
    position = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(begin, count)
    return row, by_group[position]


class _Outlined(NamedTuple):
    """Resampled lines, and the rectangles around them."""

    points_m: np.ndarray
    low_m: np.ndarray
    high_m: np.ndarray


def _outlined(lines: MapLines, samples: int) -> _Outlined:
    low_m, high_m = (
        edge.reduceat(lines.points_m, lines.splits[:-1]) if len(lines) else np.zeros((0, 2)) for edge in (np.minimum, np.maximum)
    )
    return _Outlined(resampled(lines, samples), low_m, high_m)


def _gap_between_m(first: _Outlined, second: _Outlined, row: np.ndarray, other: np.ndarray) -> Float[np.ndarray, "N"]:
    """Not more than the chamfer distance of the pairs: the gap between the rectangles around the lines."""
    gap_m = np.maximum(first.low_m[row] - second.high_m[other], second.low_m[other] - first.high_m[row])
    return np.asarray(np.hypot(*np.maximum(gap_m, 0.0).T))


def _mean_outside_m(first: _Outlined, second: _Outlined, row: np.ndarray, other: np.ndarray) -> Float[np.ndarray, "N"]:
    """Not more than the chamfer distance of the pairs: how far points of one line are on average from the rectangle around the other."""
    bound_m = np.zeros(len(row))
    for inner, i, around, j in ((first, row, second, other), (second, other, first, row)):
        for start in range(0, len(row), BOUNDS_AT_ONCE):
            some = slice(start, start + BOUNDS_AT_ONCE)
            points_m = inner.points_m[i[some]]
            outside_m = points_m - np.clip(points_m, around.low_m[j[some], None], around.high_m[j[some], None])
            bound_m[some] += np.hypot(outside_m[..., 0], outside_m[..., 1]).mean(1) / 2
    return bound_m
