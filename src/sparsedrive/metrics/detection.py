"""Detection metrics of the nuScenes benchmark ("detection_cvpr_2019"): average precision by centre distance, five errors, NDS.

For every class and each of the distances 0.5, 1, 2 and 4 m, after the filter of `metrics.records`:
1. Predictions of all frames, highest score first (of equal scores the later one), take the nearest annotation of the class in their frame
   that is not taken yet. It is a true positive if the centres are nearer than the distance in the horizontal plane.
2. Precision and score over recall are interpolated linearly at recall 0, 0.01 .. 1; beyond the highest recall both are 0.
   AP = mean over recall > 0.1 of max(precision - 0.1, 0), divided by 0.9.
   A class without annotations or true positives has AP 0. mAP = mean over classes and distances.
3. Errors of the true positives at 2 m: translation (m, horizontal), scale (1 - IoU of boxes put onto each other), orientation (rad;
   barriers look the same from behind), velocity (m/s) and attribute (1 - accuracy). The running mean of each over the descending score,
   which skips what the annotation leaves open, is interpolated at the scores of the 101 recalls;
   the error is its mean from recall 0.11 up to the highest recall, or 1 where that is below. Cones have no orientation, cones and barriers
   neither velocity nor attribute: NaN, left out of the mean over classes.
4. NDS = (5 mAP + sum over the errors of max(0, 1 - mean error)) / 10.

Source: Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", 2020, and nuscenes-devkit 1.2.0, whose numbers these are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.metrics.pairs import choose_in_turn, pairs_within
from sparsedrive.metrics.records import BoxRecords, GroundTruth, check_frames, counted
from sparsedrive.structures import DETECTION_CLASSES

ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
"""Names of the errors as the devkit writes them; the order of every `[.., 5]` axis here."""
RECALLS = np.linspace(0, 1, 101)
_UNDEFINED = {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionConfig:
    """Rules of one evaluation; the defaults are the official ones. Classes are evaluated in the order of `range_of_class_m`.

    Raises:
        ValueError: an unknown class, or `tp_distance_m` is none of `distances_m`.
    """

    range_of_class_m: Mapping[str, float] = field(
        default_factory=lambda: {
            "car": 50.0, "truck": 50.0, "bus": 50.0, "trailer": 50.0, "construction_vehicle": 50.0,
            "pedestrian": 40.0, "motorcycle": 40.0, "bicycle": 40.0, "traffic_cone": 30.0, "barrier": 30.0,
        }
    )  # fmt: skip
    distances_m: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    tp_distance_m: float = 2.0
    min_recall: float = 0.1
    min_precision: float = 0.1
    mean_ap_weight: float = 5.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.range_of_class_m if name not in DETECTION_CLASSES]
        if unknown:
            raise ValueError(f"DetectionConfig.range_of_class_m: unknown classes {unknown}; there are {list(DETECTION_CLASSES)}")
        if self.tp_distance_m not in self.distances_m:
            raise ValueError(f"DetectionConfig.tp_distance_m: {self.tp_distance_m} is none of distances_m {self.distances_m}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectionMetrics:
    """Result for C classes and D distances. Columns of errors are `ERRORS`; curves are over the 101 `RECALLS`.

    Attributes:
        classes: names of the rows.
        ap: [C, D] average precision.
        error: [C, 5], NaN where the class has none.
        precision, confidence: [C, D, 101] interpolated precision and score at each recall.
        error_curve: [C, 5, 101] running mean of the errors at the true-positive distance.
        num_truth, num_predictions: [C] boxes that counted.
        matched_truth: for every prediction (rows as given) the row of its annotation at the true-positive distance, -1 for a false
            positive, -2 where the prediction did not count.
        hit: [N, D] whether a prediction is a true positive at each distance.
    """

    config: DetectionConfig
    classes: tuple[str, ...]
    ap: Float[np.ndarray, "C D"]
    error: Float[np.ndarray, "C 5"]
    precision: Float[np.ndarray, "C D 101"]
    confidence: Float[np.ndarray, "C D 101"]
    error_curve: Float[np.ndarray, "C 5 101"]
    num_truth: Int[np.ndarray, "C"]
    num_predictions: Int[np.ndarray, "C"]
    matched_truth: Int[np.ndarray, "N"]
    hit: Bool[np.ndarray, "N D"]

    @property
    def mean_ap(self) -> float:
        """mAP."""
        return float(self.ap.mean())

    @property
    def mean_error(self) -> Float[np.ndarray, "5"]:
        """mATE, mASE, mAOE, mAVE, mAAE."""
        return np.array([np.nanmean(column) if np.isfinite(column).any() else np.nan for column in self.error.T])

    @property
    def nds(self) -> float:
        """nuScenes detection score."""
        scores = np.maximum(0.0, 1.0 - self.mean_error)
        return float((self.config.mean_ap_weight * self.mean_ap + scores.sum()) / (self.config.mean_ap_weight + len(scores)))

    def summary(self) -> dict:
        """For JSON, under the names of the devkit's `metrics_summary.json`."""
        return {
            "label_aps": {
                name: {str(distance_m): float(ap) for distance_m, ap in zip(self.config.distances_m, row, strict=True)}
                for name, row in zip(self.classes, self.ap, strict=True)
            },
            "mean_dist_aps": dict(zip(self.classes, self.ap.mean(1).tolist(), strict=True)),
            "mean_ap": self.mean_ap,
            "label_tp_errors": {
                name: dict(zip(ERRORS, row.tolist(), strict=True)) for name, row in zip(self.classes, self.error, strict=True)
            },
            "tp_errors": dict(zip(ERRORS, self.mean_error.tolist(), strict=True)),
            "tp_scores": dict(zip(ERRORS, np.maximum(0.0, 1.0 - self.mean_error).tolist(), strict=True)),
            "nd_score": self.nds,
        }


def evaluate_detection(truth: GroundTruth, predictions: BoxRecords, config: DetectionConfig | None = None) -> DetectionMetrics:
    """Detection metrics of the predictions of all key frames. A frame without predictions is one where nothing was found.

    `ValueError`: a prediction lies in a frame that is none of the key frames, or has a size that is not positive.
    """
    config = config or DetectionConfig()
    check_frames(predictions, truth.frames, "predictions")
    for name, boxes in (("ground truth", truth.boxes), ("predictions", predictions)):
        if not (boxes.size_wlh_m > 0).all():
            row = int(np.flatnonzero(~(boxes.size_wlh_m > 0).all(1))[0])
            raise ValueError(f"{name}: row {row} has size {boxes.size_wlh_m[row]} m; expected positive width, length and height")
    truth_counts = counted(truth, truth.boxes, config.range_of_class_m)
    prediction_counts = counted(truth, predictions, config.range_of_class_m)
    matched, hit = np.where(prediction_counts, -1, -2), np.zeros((len(predictions), len(config.distances_m)), bool)
    classes = tuple(config.range_of_class_m)
    results = []
    for name in classes:
        there = np.flatnonzero(truth_counts & (truth.boxes.label == DETECTION_CLASSES.index(name)))
        said = np.flatnonzero(prediction_counts & (predictions.label == DETECTION_CLASSES.index(name)))
        said = said[np.argsort(predictions.score[said], kind="stable")[::-1]]
        result, match, hit[said] = _evaluate_class(name, truth.boxes[there], predictions[said], config)
        matched[said[match >= 0]] = there[match[match >= 0]]
        results.append((*result, len(there), len(said)))
    ap, error, precision, confidence, curve, num_truth, num_predictions = (np.array(column) for column in zip(*results, strict=True))
    return DetectionMetrics(
        config=config, classes=classes, ap=ap, error=error, precision=precision, confidence=confidence, error_curve=curve,
        num_truth=num_truth, num_predictions=num_predictions, matched_truth=matched, hit=hit,
    )  # fmt: skip


def average_precision(
    truth_frame: Int[np.ndarray, "G"],
    truth_xy_m: Float[np.ndarray, "G 2"],
    frame: Int[np.ndarray, "N"],
    xy_m: Float[np.ndarray, "N 2"],
    score: Float[np.ndarray, "N"],
    distance_m: float = 2.0,
) -> float:
    """Average precision of boxes of one class at one centre distance, as above but without a filter: a quick look while training."""
    order = np.argsort(score, kind="stable")[::-1]
    said, there, away_m = pairs_within(frame[order], xy_m[order], truth_frame, truth_xy_m, distance_m)
    match = choose_in_turn(said, there, away_m, len(order), len(truth_frame))
    precision, _ = _curve(match >= 0, score[order], len(truth_frame))
    return _average(precision, DetectionConfig())


def _evaluate_class(
    name: str, truth: BoxRecords, predictions: BoxRecords, config: DetectionConfig
) -> tuple[tuple, Int[np.ndarray, "N"], Bool[np.ndarray, "N D"]]:
    """(ap, error, precision, confidence, error curve), the annotation each prediction got at the true-positive distance, hits at all."""
    radius_m = max(config.distances_m)
    said, there, away_m = pairs_within(predictions.frame, predictions.center_m[:, :2], truth.frame, truth.center_m[:, :2], radius_m)
    precisions, confidences, hits = [], [], []
    for distance_m in config.distances_m:
        near = away_m < distance_m
        match = choose_in_turn(said[near], there[near], away_m[near], len(predictions), len(truth))
        hits.append(match >= 0)
        precision, confidence = _curve(hits[-1], predictions.score, len(truth))
        precisions.append(precision)
        confidences.append(confidence)
        if distance_m == config.tp_distance_m:
            tp_match, tp_confidence = match, confidence
    hit = tp_match >= 0
    errors = match_errors(truth[tp_match[hit]], predictions[hit], half_turn_is_none=name == "barrier")
    curve = np.stack([_error_curve(column, predictions.score[hit], tp_confidence) for column in errors])
    first = round(100 * config.min_recall) + 1
    last = int(np.flatnonzero(tp_confidence).max(initial=0))
    error = curve[:, first : last + 1].mean(1) if last >= first else np.ones(len(ERRORS))
    error[[ERRORS.index(kind) for kind in _UNDEFINED.get(name, ())]] = np.nan
    ap = [_average(precision, config) for precision in precisions]
    return (ap, error, precisions, confidences, curve), tp_match, np.stack(hits, 1)


def _curve(hit: Bool[np.ndarray, "N"], score: Float[np.ndarray, "N"], num_truth: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and score at the 101 recalls, from hits in the order of descending score."""
    if not hit.any():
        return np.zeros_like(RECALLS), np.zeros_like(RECALLS)
    found = np.cumsum(hit)
    recall, precision = found / num_truth, found / np.arange(1, len(hit) + 1)
    return np.interp(RECALLS, recall, precision, right=0), np.interp(RECALLS, recall, score, right=0)


def _average(precision: Float[np.ndarray, "101"], config: DetectionConfig) -> float:
    above = np.maximum(precision[round(100 * config.min_recall) + 1 :] - config.min_precision, 0.0)
    return float(above.mean() / (1.0 - config.min_precision))


def match_errors(truth: BoxRecords, predictions: BoxRecords, *, half_turn_is_none: bool) -> Float[np.ndarray, "5 M"]:
    """Errors of matched boxes; NaN where the annotation leaves the value open."""
    away_m = np.sqrt(((predictions.center_m - truth.center_m)[:, :2] ** 2).sum(-1))
    shared = np.minimum(truth.size_wlh_m, predictions.size_wlh_m).prod(-1)
    overlap = shared / (truth.size_wlh_m.prod(-1) + predictions.size_wlh_m.prod(-1) - shared)
    period_rad = np.pi if half_turn_is_none else 2 * np.pi
    turned_rad = np.abs((truth.yaw_rad - predictions.yaw_rad + period_rad / 2) % period_rad - period_rad / 2)
    faster_mps = np.sqrt(((predictions.velocity_mps - truth.velocity_mps) ** 2).sum(-1))
    other = np.where(truth.attribute < 0, np.nan, predictions.attribute != truth.attribute)
    return np.stack([away_m, 1.0 - overlap, turned_rad, faster_mps, other])


def _error_curve(error: Float[np.ndarray, "M"], score: Float[np.ndarray, "M"], confidence: Float[np.ndarray, "101"]) -> np.ndarray:
    """Running mean over the known errors, in the order of descending score, at the scores of the 101 recalls. 1 where none is known."""
    known = ~np.isnan(error)
    if not known.any():
        return np.ones_like(RECALLS)
    mean = np.nancumsum(error) / np.maximum(np.cumsum(known), 1)
    return np.interp(confidence[::-1], score[::-1], mean[::-1])[::-1]
