"""Tracking metrics of the nuScenes benchmark ("tracking_nips_2019"): AMOTA, AMOTP and the CLEAR MOT family.

After the filter of `metrics.records` and the completion of `metrics.tracks`, for every class with P annotated boxes:
1. All predictions are associated (`metrics.association`, centres nearer than 2 m in the horizontal plane). The scores of the matches (no
   switches), highest first, over recall = rank / P give by linear interpolation the score thresholds for 40 recalls 0.1 .. 1.
   Recalls above the highest one have no threshold.
2. With the predictions at or above each threshold the association is made anew. It gives TP (matches), IDS (switches), FP, FN and
   - MOTAR = max(0, 1 - (IDS + FP + FN - (1 - r) P) / (r P)) with r = TP / P; since TP + IDS + FN = P this is max(0, 1 - FP / TP)
   - MOTA = max(0, 1 - (IDS + FP + FN) / P); MOTP [m] = mean distance of matches and switches; recall = (TP + IDS) / P
   - FAF = 100 FP / frames in which the class is annotated or predicted
   - MT, ML: annotated tracks associated in at least 80 %, in less than 20 % of their boxes
   - FRAG: how often a track is lost and found again
   - TID, LGD [s]: time until a track is first found, and its longest gap (start and end count), 0.5 s a frame, mean over found tracks.
3. AMOTA, AMOTP = mean of MOTAR and MOTP over the 40 recalls, with 0 and 2 m where there is no threshold. The other numbers are those at the
   threshold of the highest MOTA (of equal ones the highest recall). A class without annotations has NaN everywhere; one in which
   recall 0.1 is not reached has the worst values. Over classes TP, FP, FN, IDS, FRAG, MT and ML are summed, the others averaged.

Source: Caesar et al. 2020; Weng and Kitani, "A baseline for 3D multi-object tracking", 2019; nuscenes-devkit 1.2.0 with py-motmetrics
1.4.0, whose numbers these are. It computes distances from products of global coordinates, which costs it digits: two boxes at one place
are up to 3e-5 m apart there and 0 m here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Float

from sparsedrive.metrics.association import associate
from sparsedrive.metrics.pairs import pairs_within
from sparsedrive.metrics.records import BoxRecords, GroundTruth, check_frames, counted
from sparsedrive.metrics.tracks import TrackPoints, complete_tracks, numbered, steps_of
from sparsedrive.structures import DETECTION_CLASSES

TRACKING_CLASSES = ("bicycle", "bus", "car", "motorcycle", "pedestrian", "trailer", "truck")
FRAME_PERIOD_S = 0.5
WORST_MOTP_M, WORST_FAF, WORST_DURATION_S = 2.0, 500.0, 20.0
_SUMMED = ("mt", "ml", "tp", "fp", "fn", "ids", "frag")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """Rules of one evaluation; the defaults are the official ones. `ValueError` for a class the detection classes lack."""

    range_of_class_m: Mapping[str, float] = field(
        default_factory=lambda: {name: 40.0 if name in ("bicycle", "motorcycle", "pedestrian") else 50.0 for name in TRACKING_CLASSES}
    )
    distance_m: float = 2.0
    min_recall: float = 0.1
    num_thresholds: int = 40

    def __post_init__(self) -> None:
        unknown = [name for name in self.range_of_class_m if name not in DETECTION_CLASSES]
        if unknown:
            raise ValueError(f"TrackingConfig.range_of_class_m: unknown classes {unknown}; there are {list(DETECTION_CLASSES)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackingScores:
    """Numbers of the definition above, each as an array of one shape: over classes, or over classes and thresholds."""

    recall: np.ndarray
    motar: np.ndarray
    gt: np.ndarray
    mota: np.ndarray
    motp: np.ndarray
    mt: np.ndarray
    ml: np.ndarray
    faf: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    ids: np.ndarray
    frag: np.ndarray
    tid: np.ndarray
    lgd: np.ndarray


SCORES = tuple(item.name for item in fields(TrackingScores))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackingMetrics:
    """Result for C classes and T thresholds, the highest recall first.

    Attributes:
        classes: names of the rows.
        amota, amotp: [C].
        best: [C] each number at the threshold of the highest MOTA.
        curves: [C, T] each number at each threshold; NaN where the recall is not reached.
        threshold: [C, T] score; NaN where the recall is not reached.
        recall_target: [T] recalls the thresholds are made for.
    """

    config: TrackingConfig
    classes: tuple[str, ...]
    amota: Float[np.ndarray, "C"]
    amotp: Float[np.ndarray, "C"]
    best: TrackingScores
    curves: TrackingScores
    threshold: Float[np.ndarray, "C T"]
    recall_target: Float[np.ndarray, "T"]

    @property
    def mean_amota(self) -> float:
        """AMOTA over the classes that are annotated."""
        return _over_classes("amota", self.amota)

    @property
    def mean_amotp(self) -> float:
        """AMOTP [m] over the classes that are annotated."""
        return _over_classes("amotp", self.amotp)

    def summary(self) -> dict:
        """For JSON, under the names of the devkit's `metrics_summary.json`."""
        columns = {"amota": self.amota, "amotp": self.amotp} | {name: getattr(self.best, name) for name in SCORES}
        labels = {name: dict(zip(self.classes, column.tolist(), strict=True)) for name, column in columns.items()}
        return {"label_metrics": labels} | {name: _over_classes(name, column) for name, column in columns.items()}


def evaluate_tracking(truth: GroundTruth, predictions: BoxRecords, config: TrackingConfig | None = None) -> TrackingMetrics:
    """Tracking metrics of the predicted tracks of all key frames. Tracks are known by their name within a scene.

    `ValueError`: a prediction lies in a frame that is none of the key frames, has no track name, or a track has two boxes of one class in a
    frame (which the rules leave open).
    """
    config = config or TrackingConfig()
    check_frames(predictions, truth.frames, "predictions")
    completed = []
    for name, boxes in (("ground truth", truth.boxes), ("predictions", predictions)):
        kept = boxes[counted(truth, boxes, config.range_of_class_m)]
        _check_tracks(kept, truth, name)
        completed.append(complete_tracks(kept, truth.frames))
    steps = steps_of(truth.frames)
    recall_target = np.linspace(config.min_recall, 1, config.num_thresholds).round(12)[::-1]
    results = []
    for name in sorted(config.range_of_class_m):
        there, said = (points.of_class(DETECTION_CLASSES.index(name)) for points in completed)
        results.append(_evaluate_class(there, said, steps, recall_target, config))
    thresholds, curves = zip(*results, strict=True)
    every = {name: np.stack([curve[name] for curve in curves]) for name in SCORES}
    mota = np.nan_to_num(every["mota"], nan=-1.0).argmax(1)
    return TrackingMetrics(
        config=config,
        classes=tuple(sorted(config.range_of_class_m)),
        amota=_mean_with_worst(every["motar"], 0.0),
        amotp=_mean_with_worst(every["motp"], WORST_MOTP_M),
        best=TrackingScores(**{name: values[np.arange(len(mota)), mota] for name, values in every.items()}),
        curves=TrackingScores(**every),
        threshold=np.stack(thresholds),
        recall_target=recall_target,
    )


def _evaluate_class(
    truth: TrackPoints, said: TrackPoints, steps: np.ndarray, recall_target: np.ndarray, config: TrackingConfig
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Score threshold, and every number of `SCORES`, for each recall [T]."""
    unknown = np.full(len(recall_target), np.nan)
    if not len(truth.frame):
        return unknown, dict.fromkeys(SCORES, unknown)
    there, track, away_m = pairs_within(truth.frame, truth.xy_m, said.frame, said.xy_m, config.distance_m)
    pairs = _Pairs(there=there, said=track, distance_m=away_m)
    chosen, switched = _associate(pairs, np.zeros(len(there), int), truth, said, steps)
    scores = np.sort(said.score[pairs.said[chosen & ~switched]])[::-1]
    recall = np.arange(1, len(scores) + 1) / len(truth.frame)
    reached = recall_target <= recall.max(initial=0.0)
    if not reached.any():
        return unknown, {name: np.full(len(recall_target), value) for name, value in _worst(truth).items()}
    threshold = np.where(reached, np.interp(recall_target, recall, scores), np.nan)
    different, which = np.unique(threshold[reached], return_inverse=True)
    numbers = _at_thresholds(different, pairs, truth, said, steps)
    curves = {name: unknown.copy() for name in SCORES}
    for name, values in numbers.items():
        curves[name][reached] = values[which]
    return threshold, curves


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pairs:
    """Annotated and predicted boxes of one frame that are near each other: rows of both, and their distance."""

    there: np.ndarray
    said: np.ndarray
    distance_m: np.ndarray


def _associate(pairs: _Pairs, run: np.ndarray, truth: TrackPoints, said: TrackPoints, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`associate` of pairs that belong to several runs; a run has objects and tracks of its own."""
    return associate(
        steps[truth.frame[pairs.there]],
        run * (truth.track.max(initial=0) + 1) + truth.track[pairs.there],
        run * (said.track.max(initial=0) + 1) + said.track[pairs.said],
        pairs.distance_m,
    )


def _at_thresholds(
    thresholds: np.ndarray, pairs: _Pairs, truth: TrackPoints, said: TrackPoints, steps: np.ndarray
) -> dict[str, np.ndarray]:
    """Every number of `SCORES` at each of the K thresholds [K]."""
    run, pair = np.nonzero(said.score[pairs.said][None] >= thresholds[:, None])
    picked = _Pairs(there=pairs.there[pair], said=pairs.said[pair], distance_m=pairs.distance_m[pair])
    chosen, switched = _associate(picked, run, truth, said, steps)
    found = np.zeros((len(thresholds), len(truth.frame)), bool)
    found[run[chosen], picked.there[chosen]] = True

    def count(rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(run[rows], weights, minlength=len(thresholds)).astype(float)

    num_truth = float(len(truth.frame))
    hits, ids = count(chosen), count(switched)
    tp = hits - ids
    above = np.searchsorted(np.sort(said.score), thresholds)
    fp = len(said.score) - above - hits
    fn = num_truth - hits
    with np.errstate(divide="ignore", invalid="ignore"):
        motar = np.where(tp > 0, np.maximum(0.0, 1.0 - fp / tp), np.nan)
        motp = np.where(hits > 0, count(chosen, picked.distance_m[chosen]) / hits, np.nan)
    return {
        "recall": hits / num_truth,
        "motar": motar,
        "gt": np.full(len(thresholds), num_truth),
        "mota": np.maximum(0.0, 1.0 - (fn + ids + fp) / num_truth),
        "motp": motp,
        "faf": 100.0 * fp / _busy_frames(thresholds, truth, said),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "ids": ids,
    } | _of_tracks(found, truth)


def _busy_frames(thresholds: np.ndarray, truth: TrackPoints, said: TrackPoints) -> np.ndarray:
    """Frames with an annotation, or a prediction at or above the threshold [K]."""
    annotated = np.unique(truth.frame)
    best = np.full(int(said.frame.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(best, said.frame, said.score)
    best[annotated[annotated < len(best)]] = -np.inf
    return len(annotated) + (best[None] >= thresholds[:, None]).sum(1)


def _of_tracks(found: np.ndarray, truth: TrackPoints) -> dict[str, np.ndarray]:
    """Numbers that look at whole annotated tracks, from found [K, boxes]. Completed tracks have a box in every frame of their life."""
    order = np.argsort(truth.track, kind="stable")
    found, track = found[:, order], truth.track[order]
    start = np.flatnonzero(np.diff(track, prepend=-1))
    length = np.diff(start, append=len(track))
    first_of_box, index = np.repeat(start, length), np.arange(len(track))

    ratio = np.add.reduceat(found, start, axis=1, dtype=float) / length
    first_hit = np.minimum.reduceat(np.where(found, index, len(track)), start, axis=1)
    last_hit = np.maximum.reduceat(np.where(found, index, -1), start, axis=1)
    previous_hit = np.maximum.accumulate(np.where(found, index, first_of_box - 1), axis=1)
    gap = np.maximum.reduceat(index - previous_hit, start, axis=1)
    lost = ~found & np.roll(found, 1, axis=1) & (index > first_of_box) & (index < np.repeat(last_hit, length, axis=1))

    tracked = last_hit >= 0
    with np.errstate(invalid="ignore"):
        late_s = FRAME_PERIOD_S * np.where(tracked, first_hit - start, 0).sum(1) / tracked.sum(1)
        gap_s = FRAME_PERIOD_S * np.where(tracked, gap, 0).sum(1) / tracked.sum(1)
    return {
        "mt": (ratio >= 0.8).sum(1).astype(float),
        "ml": (ratio < 0.2).sum(1).astype(float),
        "frag": lost.sum(1).astype(float),
        "tid": late_s,
        "lgd": gap_s,
    }


def _worst(truth: TrackPoints) -> dict[str, float]:
    """What a class gets in which not even the lowest recall is reached; how its errors would split is not known."""
    worst = dict.fromkeys(SCORES, 0.0)
    worst |= {"motp": WORST_MOTP_M, "faf": WORST_FAF, "tid": WORST_DURATION_S, "lgd": WORST_DURATION_S}
    worst |= dict.fromkeys(("fp", "ids", "frag"), np.nan)
    return worst | {"gt": len(truth.frame), "fn": len(truth.frame), "ml": len(np.unique(truth.track))}


def _check_tracks(boxes: BoxRecords, truth: GroundTruth, name: str) -> None:
    if (boxes.track_id == "").any():
        raise ValueError(f"{name}: {(boxes.track_id == '').sum()} of {len(boxes)} boxes have no track_id; tracking needs one for every box")
    number = numbered(boxes.track_id)
    order = np.lexsort((number, boxes.label, boxes.frame))
    same = [np.diff(column[order]) == 0 for column in (number, boxes.label, boxes.frame)]
    twice = np.flatnonzero(np.logical_and.reduce(same))
    if len(twice):
        row = order[twice[0]]
        raise ValueError(
            f"{name}: sample {truth.frames.tokens[boxes.frame[row]]!r} has two boxes of class {DETECTION_CLASSES[boxes.label[row]]} with "
            f"track_id {str(boxes.track_id[row])!r}; give every object of a frame its own"
        )


def _mean_with_worst(values: np.ndarray, worst: float) -> np.ndarray:
    """[C] mean over thresholds; where there is none `worst` counts, and a class with none at all is unknown."""
    known = ~np.isnan(values)
    return np.where(known.any(1), np.where(known, values, worst).mean(1), np.nan)


def _over_classes(name: str, column: np.ndarray) -> float:
    known = column[~np.isnan(column)]
    if name in _SUMMED:
        return float(known.sum())
    return float(known.mean()) if len(known) else float("nan")
