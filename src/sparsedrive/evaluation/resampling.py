"""Scores of an `Evaluation` as sums over scenes, so that scenes can be drawn again (`evaluation.bootstrap`).

Average precision is a function of how many hits and false alarms there are at each score. Scores of a class are sorted into `BINS` bins of
about as many predictions each, and counted by scene. A score made from the sums so differs from the exact one by about 0.001, much the
same in every draw.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from sparsedrive.evaluation.bootstrap import SceneParts, mean_parts, ratio
from sparsedrive.evaluation.hits import ScoredHits
from sparsedrive.evaluation.results import DetectionSection, ForecastSection, FrameIndex, MapSection
from sparsedrive.metrics.detection import RECALLS, DetectionConfig
from sparsedrive.metrics.planning import STEP_S

BINS = 100
FIRST_RECALL = 11
Average = Callable[[np.ndarray, np.ndarray], np.ndarray]


def detection_map(section: DetectionSection, frames: FrameIndex) -> SceneParts:
    """mAP of the boxes, as `metrics.detection` averages."""
    return box_hits_map(section.hits, frames)


def box_hits_map(hits: ScoredHits, frames: FrameIndex) -> SceneParts:
    """mAP of boxes over all classes of `hits`."""
    return _mean_over_classes(_binned(hits, frames), hits, _interpolated_average)


def box_map_of_sums(classes: int, thresholds: int) -> Callable[[Float[np.ndarray, "R sums"]], Float[np.ndarray, "R"]]:
    """How the sums of `box_hits_map` become mAP, for parts that were stored."""
    return _ap_of_sums((classes, BINS + 1, thresholds + 1), _interpolated_average)


def line_map(section: MapSection, frames: FrameIndex) -> SceneParts:
    """mAP of the map lines, as `metrics.mapping` averages."""
    return line_hits_map(section.hits, frames)


def line_hits_map(hits: ScoredHits, frames: FrameIndex) -> SceneParts:
    """mAP of map lines over all classes of `hits`."""
    return _mean_over_classes(_binned(hits, frames), hits, _area)


def nds(section: DetectionSection, frames: FrameIndex) -> SceneParts:
    """nuScenes detection score."""
    hits, matches, scenes = section.hits, section.matches, len(frames.scene_names)
    counts = _binned(hits, frames)
    errors, classes = len(section.error_names), len(section.classes)
    bins = _bins(hits, matches.label, matches.score)
    known = np.isfinite(matches.errors)
    columns = np.concatenate([np.nan_to_num(matches.errors), known], 1)
    sums = _by_scene(frames.scene[matches.frame], matches.label, bins, columns, scenes, classes)
    split, threshold = counts[0].size, section.distances_m.index(section.tp_distance_m)
    asked = np.isfinite(section.error)
    mean_ap = _ap_of_sums(counts.shape[1:], _interpolated_average)

    def value(totals: np.ndarray) -> np.ndarray:
        counted = totals[:, :split].reshape(-1, *counts.shape[1:])
        summed = totals[:, split:].reshape(-1, *sums.shape[1:])
        error = np.stack([_errors_of_sums(counted[:, row], summed[:, row], threshold) for row in range(classes)], 1)
        mean = np.where(asked, error, 0.0).sum(1) / asked.sum(0)
        weight = DetectionConfig().mean_ap_weight
        return (weight * mean_ap(totals[:, :split]) + np.maximum(0.0, 1.0 - mean).sum(1)) / (weight + errors)

    return SceneParts(parts=np.concatenate([counts.reshape(scenes, -1), sums.reshape(scenes, -1)], 1), value=value)


def forecast_error(section: ForecastSection, frames: FrameIndex, label: int, column: int) -> SceneParts:
    """minADE, minFDE or miss rate (columns 0, 1, 2) of a class, by the plain definition."""
    matches = section.matches
    rows = (matches.label == label) & (matches.steps > 0)
    return mean_parts(frames.scene[matches.frame[rows]], matches.errors[rows, column], len(frames.scene_names))


def plan_l2(frame_l2_m: Float[np.ndarray, "F T"], scene: Int[np.ndarray, "F"], scenes: int, protocol: str, horizon_s: float) -> SceneParts:
    """Mean L2 at whole seconds up to the horizon, as a protocol of `metrics.planning` counts it.

    `ValueError` for a protocol whose rule is not known here.
    """
    steps = round(horizon_s / STEP_S)
    l2_m, valid = np.nan_to_num(frame_l2_m[:, :steps]), np.isfinite(frame_l2_m[:, :steps])
    if protocol == "uniad":
        counted = np.ones_like(valid)
    elif protocol in ("st-p3", "sparsedrive"):
        counted = np.repeat(valid.all(1, keepdims=True), steps, 1)
        l2_m = np.cumsum(l2_m, 1) / np.arange(1, steps + 1)
    elif protocol == "plain":
        counted = valid
    else:
        raise ValueError(f"plan_l2: unknown protocol {protocol!r}; expected uniad, st-p3, sparsedrive or plain")
    return _mean_of_steps(l2_m, counted, scene, scenes)


def plan_collisions(frame_collides: Float[np.ndarray, "F T"], scene: Int[np.ndarray, "F"], scenes: int, horizon_s: float) -> SceneParts:
    """Mean collision rate at whole seconds, protocol "plain"."""
    values = frame_collides[:, : round(horizon_s / STEP_S)]
    return _mean_of_steps(np.nan_to_num(values), np.isfinite(values), scene, scenes)


def _mean_of_steps(values: np.ndarray, counted: np.ndarray, scene: np.ndarray, scenes: int) -> SceneParts:
    """Mean over frames at each whole second, then over the seconds."""
    columns = np.concatenate([np.where(counted, values, 0.0)[:, 1::2], counted[:, 1::2]], 1)
    parts = np.zeros((scenes, columns.shape[1]))
    np.add.at(parts, scene, columns)

    def value(totals: np.ndarray) -> np.ndarray:
        halves = np.stack(np.split(totals, 2, axis=1), -1)
        return ratio(halves.reshape(-1, 2)).reshape(halves.shape[:2]).mean(1)

    return SceneParts(parts=parts, value=value)


def _binned(hits: ScoredHits, frames: FrameIndex) -> Float[np.ndarray, "S C B+1 K+1"]:
    """Predictions, and hits at each of K distances, by scene, class and bin of score (best first); the truth is in one more bin."""
    scenes, classes = len(frames.scene_names), hits.num_truth.shape[1]
    columns = np.concatenate([np.ones((len(hits.score), 1)), hits.hit], 1)
    counts = _by_scene(frames.scene[hits.frame], hits.label, _bins(hits, hits.label, hits.score), columns, scenes, classes)
    truth = np.zeros((scenes, classes))
    np.add.at(truth, frames.scene, hits.num_truth)
    return np.concatenate([counts, np.broadcast_to(truth[:, :, None, None], (*truth.shape, 1, counts.shape[-1]))], 2)


def _bins(hits: ScoredHits, label: np.ndarray, score: np.ndarray) -> Int[np.ndarray, "N"]:
    """Bin of each score, 0 the best, by what its class's predictions score."""
    bins = np.zeros(len(score), np.int64)
    for kind in range(hits.num_truth.shape[1]):
        known = np.unique(hits.score[hits.label == kind])
        edges = known if len(known) <= BINS else np.quantile(hits.score[hits.label == kind], np.arange(BINS) / BINS)
        rows = label == kind
        bins[rows] = BINS - np.searchsorted(edges, score[rows], "right")
    return bins


def _by_scene(scene: np.ndarray, label: np.ndarray, bins: np.ndarray, columns: np.ndarray, scenes: int, classes: int) -> np.ndarray:
    """Sums of the columns [N, K] by scene, class and bin [S, C, BINS, K]."""
    cell = (scene * classes + label) * BINS + bins
    sums = [np.bincount(cell, column, minlength=scenes * classes * BINS) for column in columns.T]
    return np.stack(sums, -1).reshape(scenes, classes, BINS, len(sums))


def _mean_over_classes(counts: np.ndarray, hits: ScoredHits, average: Average) -> SceneParts:
    return SceneParts(parts=counts.reshape(len(counts), -1), value=_ap_of_sums(counts.shape[1:], average))


def _ap_of_sums(shape: tuple[int, ...], average: Average) -> Callable[[np.ndarray], np.ndarray]:
    """Function from sums [R, C * (B + 1) * (K + 1)] to the mean average precision [R]."""

    def value(totals: np.ndarray) -> np.ndarray:
        scores = [average(*_curves(of_class)) for of_class in totals.reshape(-1, *shape).transpose(1, 0, 2, 3)]
        return np.mean([score.reshape(len(totals), -1).mean(1) for score in scores], axis=0)

    return value


def _curves(counts: Float[np.ndarray, "R B+1 K+1"]) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision [R * K, B] at the end of every bin, of one class."""
    found = np.cumsum(counts[:, :-1], axis=1)
    truth = np.maximum(counts[:, -1:, 1:], 1.0)
    recall, precision = found[..., 1:] / truth, found[..., 1:] / np.maximum(found[..., :1], 1.0)
    precision = _from_first(precision, found[..., :1] > 0)
    return _rows(recall), _rows(precision)


def _from_first(values: Float[np.ndarray, "R B K"], known: np.ndarray) -> Float[np.ndarray, "R B K"]:
    """With the first known value in place of what comes before it: the curve does not begin before the first prediction."""
    known = np.broadcast_to(known, values.shape)
    first = np.take_along_axis(values, known.argmax(1)[:, None], 1)
    return np.where(np.maximum.accumulate(known, 1), values, first)


def _rows(curves: Float[np.ndarray, "R B K"]) -> Float[np.ndarray, "R*K B"]:
    return curves.transpose(0, 2, 1).reshape(-1, curves.shape[1])


def _interpolated_average(recall: Float[np.ndarray, "Q B"], precision: Float[np.ndarray, "Q B"]) -> Float[np.ndarray, "Q"]:
    """As `metrics.detection`."""
    config = DetectionConfig()
    above = np.maximum(_at_recalls(recall, precision)[:, FIRST_RECALL:] - config.min_precision, 0.0)
    return above.mean(1) / (1.0 - config.min_precision)


def _area(recall: Float[np.ndarray, "Q B"], precision: Float[np.ndarray, "Q B"]) -> Float[np.ndarray, "Q"]:
    """As `metrics.mapping`."""
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (np.diff(recall, axis=1, prepend=0.0) * best).sum(1)


def _at_recalls(recall: Float[np.ndarray, "Q B"], values: Float[np.ndarray, "Q B"]) -> Float[np.ndarray, "Q 101"]:
    """Each row interpolated at the 101 recalls, 0 beyond its highest recall and where there is none: all rows on one ruler."""
    rows = 2.0 * np.arange(len(recall))[:, None]
    first, highest = recall[:, :1], recall[:, -1:]
    at = np.clip(RECALLS[None], first, highest)
    found = np.interp((at + rows).ravel(), (recall + rows).ravel(), values.ravel()).reshape(at.shape)
    return np.where((highest + 1e-9 >= RECALLS) & (highest > 0), found, 0.0)


def _errors_of_sums(counts: np.ndarray, sums: np.ndarray, threshold: int) -> Float[np.ndarray, "R E"]:
    """The true positives' errors of one class [R, B, ..]: running means over the descending score, averaged over recall; 1 below 0.1."""
    errors = sums.shape[-1] // 2
    recall = np.cumsum(counts[:, :-1, 1 + threshold], 1) / np.maximum(counts[:, -1:, 1 + threshold], 1.0)
    total = np.cumsum(sums, 1)
    known = total[..., errors:]
    mean = _from_first(np.where(known > 0, total[..., :errors] / np.maximum(known, 1.0), 1.0), known > 0)
    curve = _at_recalls(np.repeat(recall, errors, 0), _rows(mean)).reshape(len(recall), errors, -1)
    highest = recall[:, -1:]
    reached = (highest > 0) & (highest + 1e-9 >= RECALLS) & (np.arange(len(RECALLS)) >= FIRST_RECALL)
    count = reached.sum(1)[:, None]
    return np.where(count > 0, (curve * reached[:, None]).sum(2) / np.maximum(count, 1), 1.0)
