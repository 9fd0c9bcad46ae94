"""Detection, tracking, map and forecasts: predictions and truth through the metrics, into the sections of a result."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from sparsedrive.evaluation.hits import ScoredHits
from sparsedrive.evaluation.predictions import MIN_FORECAST_SCORE, PredictionSet, map_lines
from sparsedrive.evaluation.results import (
    FORECAST_NUMBERS,
    BoxMatches,
    DetectionSection,
    ForecastMatches,
    ForecastSection,
    MapSection,
    TrackingSection,
)
from sparsedrive.evaluation.truth import SplitTruth, agent_truth, map_truth, scene_rows
from sparsedrive.metrics.decoded import VELOCITY
from sparsedrive.metrics.detection import ERRORS, RECALLS, DetectionMetrics, evaluate_detection, match_errors
from sparsedrive.metrics.forecasting import (
    FORECAST_CLASSES,
    ForecastClassScore,
    PredictedAgents,
    TrueAgents,
    constant_velocity,
    evaluate_forecasts,
)
from sparsedrive.metrics.mapping import SPARSEDRIVE, MapLines, evaluate_map
from sparsedrive.metrics.records import BoxRecords, GroundTruth, counted
from sparsedrive.metrics.tracking import SCORES, TrackingMetrics, evaluate_tracking
from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES

DETECTION_PROTOCOL = "nuScenes detection (detection_cvpr_2019)"
TRACKING_PROTOCOL = "nuScenes tracking (tracking_nips_2019)"
MAP_PROTOCOL = "chamfer AP of SparseDrive and StreamMapNet, 30 m x 60 m"
FORECAST_PROTOCOLS = (
    "published (UniAD, SparseDrive): errors averaged over recall, EPA with a matching of its own",
    "plain: mean over matched boxes with a future",
)


def detection_section(truth: GroundTruth, said: BoxRecords, source: str) -> DetectionSection:
    """Detection metrics; `source` says where `truth` is from."""
    metrics = evaluate_detection(truth, said)
    return DetectionSection(
        protocol=DETECTION_PROTOCOL,
        truth=source,
        classes=metrics.classes,
        distances_m=metrics.config.distances_m,
        tp_distance_m=metrics.config.tp_distance_m,
        error_names=ERRORS,
        mean_ap=metrics.mean_ap,
        nds=metrics.nds,
        mean_error=metrics.mean_error,
        ap=metrics.ap,
        error=metrics.error,
        num_truth=metrics.num_truth,
        num_predictions=metrics.num_predictions,
        precision=metrics.precision,
        confidence=metrics.confidence,
        error_curve=metrics.error_curve,
        hits=_box_hits(truth, said, metrics),
        matches=_box_matches(truth, said, metrics),
    )


def _box_hits(truth: GroundTruth, said: BoxRecords, metrics: DetectionMetrics) -> ScoredHits:
    """Hits at every distance."""
    place = _places(metrics.classes)
    judged = np.flatnonzero(metrics.matched_truth > -2)
    there = counted(truth, truth.boxes, metrics.config.range_of_class_m)
    num_truth = np.zeros((len(truth.frames), len(metrics.classes)), np.int64)
    np.add.at(num_truth, (truth.boxes.frame[there], place[truth.boxes.label[there]]), 1)
    return ScoredHits(
        frame=said.frame[judged], label=place[said.label[judged]], score=said.score[judged], hit=metrics.hit[judged], num_truth=num_truth
    )


def _box_matches(truth: GroundTruth, said: BoxRecords, metrics: DetectionMetrics) -> BoxMatches:
    rows = np.flatnonzero(metrics.matched_truth >= 0)
    there, found = truth.boxes[metrics.matched_truth[rows]], said[rows]
    errors = np.zeros((len(rows), len(ERRORS)))
    barrier = found.label == DETECTION_CLASSES.index("barrier")
    for some, half_turn_is_none in ((barrier, True), (~barrier, False)):
        errors[some] = match_errors(there[some], found[some], half_turn_is_none=half_turn_is_none).T
    place = _places(metrics.classes)[found.label]
    errors[np.isnan(metrics.error[place])] = np.nan
    distance_m = np.linalg.norm(there.center_m[:, :2] - truth.frames.car_xy_m[there.frame], axis=1)
    return BoxMatches(frame=found.frame, label=place, score=found.score, distance_m=distance_m, errors=errors)


def _places(classes: tuple[str, ...]) -> np.ndarray:
    """Index into `classes` of every detection class."""
    return np.array([classes.index(name) for name in DETECTION_CLASSES])


def tracking_section(truth: GroundTruth, said: BoxRecords, source: str) -> TrackingSection:
    """Tracking metrics of the whole split, AMOTA and AMOTP of every scene beside."""
    metrics = evaluate_tracking(truth, said)
    summary = metrics.summary()
    of_scenes = [_of_scene(truth, said, scene) for scene in range(int(truth.frames.scene.max()) + 1)]
    return TrackingSection(
        protocol=TRACKING_PROTOCOL,
        truth=source,
        classes=metrics.classes,
        score_names=SCORES,
        mean_amota=metrics.mean_amota,
        mean_amotp_m=metrics.mean_amotp,
        amota=metrics.amota,
        amotp_m=metrics.amotp,
        mean=np.array([summary[name] for name in SCORES]),
        best=np.stack([getattr(metrics.best, name) for name in SCORES], -1),
        curves=np.stack([getattr(metrics.curves, name) for name in SCORES], -1),
        recall_target=metrics.recall_target,
        threshold=metrics.threshold,
        scene_amota=np.array([scene.mean_amota for scene in of_scenes]),
        scene_amotp_m=np.array([scene.mean_amotp for scene in of_scenes]),
    )


def _of_scene(truth: GroundTruth, said: BoxRecords, scene: int) -> TrackingMetrics:
    frames = truth.frames
    rows = np.flatnonzero(frames.scene == scene)
    place = np.full(len(frames), -1)
    place[rows] = np.arange(len(rows))
    these = replace(
        frames,
        tokens=tuple(frames.tokens[row] for row in rows),
        **{name: getattr(frames, name)[rows] for name in ("scene", "timestamp_us", "car_xy_m")},
    )
    boxes, found = (
        replace(some, frame=place[some.frame]) for some in (part[place[part.frame] >= 0] for part in (truth.boxes, said))
    )  # fmt: skip
    in_racks = place[truth.racks.frame] >= 0
    racks = replace(truth.racks, **{item.name: getattr(truth.racks, item.name)[in_racks] for item in fields(truth.racks)})
    return evaluate_tracking(GroundTruth(frames=these, boxes=boxes, racks=replace(racks, frame=place[racks.frame])), found)


def map_section(truth: SplitTruth, predictions: PredictionSet) -> MapSection:
    """Chamfer AP of the map lines."""
    there, said = map_truth(truth), map_lines(predictions)
    scores = evaluate_map(said, there, SPARSEDRIVE)
    num_truth = np.zeros((len(truth.frames.tokens), len(MAP_CLASSES)), np.int64)
    np.add.at(num_truth, (there.frame, there.label), 1)
    curves = [[_envelope(*row) for row in zip(one.recall, one.precision, strict=True)] for one in scores.classes]
    return MapSection(
        protocol=MAP_PROTOCOL,
        classes=MAP_CLASSES,
        thresholds_m=scores.protocol.thresholds_m,
        mean_ap=scores.mean_ap,
        ap=np.array([one.ap for one in scores.classes]),
        num_truth=np.array([one.num_truth for one in scores.classes]),
        num_predictions=np.array([one.num_predicted for one in scores.classes]),
        precision=np.array(curves),
        hits=_line_hits(said, scores.true_positive, num_truth),
        chamfer_m=scores.chamfer_m,
    )


def _line_hits(said: MapLines, hit: np.ndarray, num_truth: np.ndarray) -> ScoredHits:
    return ScoredHits(frame=said.frame, label=said.label, score=said.score, hit=hit, num_truth=num_truth)


def _envelope(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Best precision at each of 101 recalls or any higher one; 0 beyond the highest."""
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return best[np.searchsorted(recall, RECALLS, "left")]


def forecast_section(truth: SplitTruth, predictions: PredictionSet, said: BoxRecords) -> ForecastSection:
    """Forecast metrics; `said` are the predicted boxes in the global frame."""
    assert predictions.forecasts is not None
    futures = predictions.forecasts
    believed = np.flatnonzero(predictions.boxes.score[futures.row] >= MIN_FORECAST_SCORE)
    row, there = futures.row[believed], agent_truth(truth)
    horizon = min(futures.trajectory_m.shape[2], there.future_m.shape[1])
    there = replace(there, steps=np.minimum(there.steps, horizon))
    agents = PredictedAgents(
        frame=said.frame[row],
        label=said.label[row],
        score=said.score[row],
        center_m=said.center_m[row, :2],
        distance_m=np.linalg.norm(said.center_m[row, :2] - truth.car_xy_m[said.frame[row]], axis=1),
        trajectory_m=futures.trajectory_m[believed].astype(np.float64),
    )
    scores = evaluate_forecasts(agents, there)
    box, steps = predictions.boxes.box[row].astype(np.float64), agents.trajectory_m.shape[2]
    going_on = constant_velocity(box[:, :2], box[:, VELOCITY], steps)
    baseline = evaluate_forecasts(replace(agents, trajectory_m=going_on), there)
    scene_truth, scene_wrong = _forecast_counts(truth, agents, there)
    return ForecastSection(
        protocols=FORECAST_PROTOCOLS,
        classes=FORECAST_CLASSES,
        min_score=MIN_FORECAST_SCORE,
        horizon_s=0.5 * horizon,
        published=_forecast_numbers(scores, "published"),
        plain=_forecast_numbers(scores, "plain"),
        baseline_published=_forecast_numbers(baseline, "published"),
        baseline_plain=_forecast_numbers(baseline, "plain"),
        num_truth=np.array([one.num_truth for one in scores]),
        num_predictions=np.array([one.num_predicted for one in scores]),
        curve=np.stack([one.curve for one in scores]),
        matches=ForecastMatches(
            frame=np.concatenate([agents.frame[one.predicted_row] for one in scores]),
            label=np.repeat(np.arange(len(scores)), [len(one.predicted_row) for one in scores]),
            score=np.concatenate([agents.score[one.predicted_row] for one in scores]),
            distance_m=np.concatenate([there.distance_m[one.true_row] for one in scores]),
            steps=np.concatenate([there.steps[one.true_row] for one in scores]),
            errors=np.concatenate([one.errors for one in scores]),
        ),
        scene_truth=scene_truth,
        scene_false_positives=scene_wrong,
    )


def _forecast_numbers(scores: Sequence[ForecastClassScore], definition: str) -> np.ndarray:
    """[C, 4] as `FORECAST_NUMBERS`."""
    return np.array([[getattr(getattr(one, definition), name) for name in FORECAST_NUMBERS] for one in scores])


def _forecast_counts(truth: SplitTruth, agents: PredictedAgents, there: TrueAgents) -> tuple[np.ndarray, np.ndarray]:
    """True boxes and false positives of every scene and class: frames do not see each other, so scenes can be judged alone."""
    num_truth, wrong = [], []
    for rows, true_rows in zip(scene_rows(agents.frame, truth), scene_rows(there.frame, truth), strict=True):
        some = replace(agents, **{item.name: getattr(agents, item.name)[rows] for item in fields(agents)})
        true = replace(there, **{item.name: getattr(there, item.name)[true_rows] for item in fields(there)})
        scores = evaluate_forecasts(some, true)
        num_truth.append([one.num_truth for one in scores])
        wrong.append([one.num_predicted - len(one.predicted_row) for one in scores])
    return np.array(num_truth), np.array(wrong)
