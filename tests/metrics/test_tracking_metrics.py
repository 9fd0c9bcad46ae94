"""Tracking metrics: the official numbers, tracks judged by hand, and what must hold for any tracks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from golden_metrics import numbers as published_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_boxes import (
    CAR,
    CASES,
    MINI_VAL,
    PEDESTRIAN,
    boxes,
    case_boxes,
    case_truth,
    golden_metrics,
    key_frames,
    largest_difference,
    real_folder,
    unpack_golden,
)
from scipy.optimize import linear_sum_assignment

from sparsedrive.metrics.association import associate
from sparsedrive.metrics.nuscenes_truth import read_ground_truth
from sparsedrive.metrics.records import GroundTruth
from sparsedrive.metrics.submission import read_tracks
from sparsedrive.metrics.tracking import SCORES, TrackingConfig, TrackingMetrics, evaluate_tracking
from sparsedrive.metrics.tracks import complete_tracks, steps_of

STEPS = np.arange(6)
ALONG = np.stack([STEPS * 1.0, np.zeros(6)], -1)
FAR = np.array([0.0, 20.0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['truth']['frame'])} boxes")
def test_official_numbers_of_crowded_worlds(case):
    metrics = evaluate_tracking(case_truth(case), case_boxes(case, "predictions"))
    assert largest_difference(metrics.summary(), case["official"]["tracking"]) < 1e-9


@pytest.mark.parametrize("name", ["cc3dt_greedy", "gt_perturbed"])
def test_official_numbers_of_real_scenes(name):
    root = real_folder()
    truth = read_ground_truth(root / "v1.0-mini", MINI_VAL)
    metrics = evaluate_tracking(truth, read_tracks(root / "results" / f"{name}_tracks.json", truth.frames))
    official = json.loads((root / "reference" / f"{name}_tracking_metrics.json").read_text())
    assert largest_difference(metrics.summary(), official) < 1e-6


def test_official_numbers_of_the_synthetic_log(tmp_path):
    tables, files = unpack_golden(tmp_path)
    truth = read_ground_truth(tables)
    metrics = evaluate_tracking(truth, read_tracks(files["tracking"], truth.frames))
    official = json.loads((golden_metrics() / "tracking_metrics_summary.json").read_text())
    assert largest_difference(metrics.summary(), official) < 1e-6
    published = {name.removeprefix("img_bbox_NuScenes/"): value for name, value in published_numbers("tracking").items()}
    ours = metrics.summary()
    assert {name: ours[name] for name in published} == pytest.approx(published, abs=1e-6)


def of_one_car(names: list[str], xy_m: np.ndarray = ALONG, **columns) -> TrackingMetrics:
    """A car seen in six frames, and one predicted box a frame with these track names."""
    truth = GroundTruth(frames=key_frames(6), boxes=boxes(STEPS, ALONG, track_id="car"))
    return evaluate_tracking(truth, boxes(STEPS, xy_m, track_id=np.array(names), **columns))


def numbers(metrics: TrackingMetrics, *names: str, label: str = "car") -> list[float]:
    return [float(getattr(metrics.best, name)[metrics.classes.index(label)]) for name in names]


def test_perfect_tracks():
    truth = case_truth(CASES[0])
    metrics = evaluate_tracking(truth, truth.boxes)
    known = metrics.best.gt > 0
    assert metrics.mean_amota == 1 and metrics.mean_amotp == 0
    for name, expected in {"mota": 1, "recall": 1, "ml": 0, "fp": 0, "fn": 0, "ids": 0, "frag": 0, "tid": 0, "lgd": 0, "faf": 0}.items():
        assert (getattr(metrics.best, name)[known] == expected).all(), name
    assert (metrics.best.tp[known] == metrics.best.gt[known]).all() and known.sum() == 3


def test_nothing_predicted_has_the_worst_numbers():
    truth = GroundTruth(frames=key_frames(6), boxes=boxes([*STEPS, 0], [*ALONG, FAR], track_id=["a"] * 6 + ["b"]))
    metrics = evaluate_tracking(truth, truth.boxes[np.zeros(0, int)])
    assert metrics.mean_amota == 0 and metrics.mean_amotp == 2
    assert numbers(metrics, "mota", "recall", "gt", "tp", "fn", "ml", "mt", "faf", "tid", "lgd", "motp") == [
        0,
        0,
        7,
        0,
        7,
        2,
        0,
        500,
        20,
        20,
        2,
    ]
    assert np.isnan(numbers(metrics, "fp", "ids", "frag")).all() and np.isnan(metrics.threshold).all()


def test_a_recall_that_is_not_reached_counts_as_nothing_found():
    frames = key_frames(20)
    truth = GroundTruth(frames=frames, boxes=boxes(np.arange(20), np.zeros((20, 2)), track_id="a"))
    metrics = evaluate_tracking(truth, boxes([0], [[0, 0]], track_id="x"))  # recall 0.05 < 0.1
    assert metrics.mean_amota == 0 and numbers(metrics, "fn", "recall", "ml") == [20, 0, 1]
    metrics = evaluate_tracking(truth, boxes([0, 1], np.zeros((2, 2)), track_id="x"))
    assert metrics.mean_amota == pytest.approx(1 / 40) and metrics.mean_amotp == pytest.approx(39 / 40 * 2)


def test_classes_that_are_not_annotated_are_unknown():
    truth = GroundTruth(frames=key_frames(6), boxes=boxes(STEPS, ALONG, track_id="a"))
    metrics = evaluate_tracking(truth, boxes(STEPS, ALONG, track_id="x", label=[CAR] * 5 + [PEDESTRIAN]))
    assert all(np.isnan(numbers(metrics, *SCORES, label="pedestrian"))) and np.isnan(metrics.amota[metrics.classes.index("pedestrian")])
    assert numbers(metrics, "tp") == [5] and metrics.mean_amota == metrics.amota[metrics.classes.index("car")]
    nothing = evaluate_tracking(replace(truth, boxes=truth.boxes[:0]), truth.boxes)
    assert np.isnan(nothing.mean_amota) and nothing.summary()["tp"] == 0


def test_a_switch_of_identity():
    metrics = of_one_car(["x", "x", "x", "y", "y", "y"])
    assert numbers(metrics, "tp", "ids", "fp", "fn", "frag", "mt") == [5, 1, 0, 0, 0, 1]
    assert numbers(metrics, "mota", "recall", "motar") == pytest.approx([1 - 1 / 6, 1, 1])
    # Only the five matches count for the recalls that have a threshold.
    assert metrics.mean_amota == pytest.approx((np.linspace(0.1, 1, 40) <= 5 / 6).mean())


def test_a_fragment():
    metrics = of_one_car(["x"] * 6, np.where(np.isin(STEPS, [2, 3])[:, None], FAR, ALONG))
    assert numbers(metrics, "tp", "ids", "fp", "fn", "frag", "mt", "ml") == [4, 0, 2, 2, 1, 0, 0]
    assert numbers(metrics, "lgd", "tid", "faf") == pytest.approx([1.0, 0.0, 100 * 2 / 6])


def test_a_late_start_and_an_early_end_are_gaps_but_no_fragments():
    metrics = of_one_car(["x"] * 6, np.where(np.isin(STEPS, [0, 1, 5])[:, None], FAR, ALONG))
    assert numbers(metrics, "tp", "fn", "frag", "tid", "lgd") == [3, 3, 0, 1.0, 1.0]


def test_the_best_threshold_is_that_of_the_highest_mota():
    truth = GroundTruth(frames=key_frames(6), boxes=boxes(STEPS, ALONG, track_id="a"))
    predictions = boxes([*STEPS, *STEPS], [*ALONG, *(ALONG + FAR)], track_id=["x"] * 6 + ["y"] * 6, score=[0.8] * 6 + [0.3] * 6)
    metrics = evaluate_tracking(truth, predictions)
    assert numbers(metrics, "fp", "mota") == [0, 1]
    assert metrics.threshold[metrics.classes.index("car")] == pytest.approx(np.full(40, 0.8))
    metrics = evaluate_tracking(truth, replace(predictions, score=1 - predictions.score))
    assert numbers(metrics, "fp", "mota", "faf") == [6, 0, 100]


def test_the_score_of_a_track_is_the_mean_of_its_boxes():
    metrics = of_one_car(["x"] * 6, score=[0.1, 0.9, 0.1, 0.9, 0.5, 0.5])
    assert metrics.threshold[metrics.classes.index("car")] == pytest.approx(np.full(40, 0.5))
    assert numbers(metrics, "tp") == [6]


def test_holes_are_filled_with_the_ends_weighed_the_wrong_way_round():
    frames = key_frames(5)
    sparse = boxes([0, 4, 2], [[0, 0], [8, 4], [5, 5]], track_id=["a", "a", "b"], score=[0.2, 0.6, 0.9], label=[CAR, PEDESTRIAN, CAR])
    points = complete_tracks(sparse, frames)
    first = points.track == points.track[0]
    assert points.frame[first].tolist() == [0, 1, 2, 3, 4] and points.frame[~first].tolist() == [2]
    assert points.xy_m[first] == pytest.approx(np.array([[0, 0], [6, 3], [4, 2], [2, 1], [8, 4]]))
    assert points.label[first].tolist() == [CAR] + [PEDESTRIAN] * 4 and points.score[first] == pytest.approx(np.full(5, 0.4))


def test_the_same_name_in_another_scene_is_another_track():
    frames = key_frames(3, scenes=2)
    points = complete_tracks(boxes([0, 5], [[0, 0], [1, 1]], track_id="a", score=[0.2, 0.8]), frames)
    assert len(points.frame) == 2 and points.score.tolist() == [0.2, 0.8] and len(set(points.track)) == 2
    truth = GroundTruth(frames=frames, boxes=boxes([0, 1, 3, 4], np.zeros((4, 2)), track_id=["a", "a", "b", "b"]))
    metrics = evaluate_tracking(truth, boxes([0, 1, 3, 4], np.zeros((4, 2)), track_id="x"))
    assert numbers(metrics, "tp", "ids", "mt") == [4, 0, 2]


def test_steps_follow_time_in_each_scene():
    frames = key_frames(3, scenes=2)
    frames = replace(frames, scene=np.array([7, 1, 7, 1, 7, 1]), timestamp_us=np.array([30, 5, 10, 6, 20, 4]))
    assert steps_of(frames).tolist() == [2, 1, 0, 2, 1, 0]


def test_a_scene_of_one_frame():
    truth = GroundTruth(frames=key_frames(1), boxes=boxes([0, 0], [[0, 0], [5, 0]], track_id=["a", "b"]))
    metrics = evaluate_tracking(truth, boxes([0, 0], [[0.5, 0], [9, 0]], track_id=["x", "y"]))
    assert numbers(metrics, "tp", "fp", "fn", "motp", "tid", "lgd", "mt", "ml") == [1, 1, 1, 0.5, 0, 0, 1, 1]


def run_associate(pairs: list[tuple]) -> list[str]:
    step, thing, track, distance_m = (np.array(column) for column in zip(*pairs, strict=True))
    chosen, switched = associate(step, thing, track, distance_m)
    return ["switch" if other else "match" if one else "-" for one, other in zip(chosen, switched, strict=True)]


def test_association_keeps_a_pair_although_another_is_nearer():
    assert run_associate([(0, 0, 0, 0.1), (1, 0, 0, 1.9), (1, 0, 1, 0.1)]) == ["match", "match", "-"]


def test_association_prefers_more_pairs_to_less_distance():
    assert run_associate([(0, 0, 0, 0.1), (0, 0, 1, 1.5), (0, 1, 0, 1.9)]) == ["-", "match", "match"]
    assert run_associate([(0, 0, 0, 0.1), (0, 0, 1, 1.5), (0, 1, 0, 1.9), (0, 1, 1, 1.9)]) == ["match", "-", "-", "match"]


def test_association_remembers_a_track_over_a_gap():
    assert run_associate([(0, 0, 0, 0.1), (5, 0, 0, 1.0), (5, 0, 1, 0.2)]) == ["match", "match", "-"]
    assert run_associate([(0, 0, 0, 0.1), (5, 0, 1, 0.2)]) == ["match", "switch"]


def test_a_track_that_two_objects_claim_stays_with_the_first():
    # Track 0 followed object 0, then object 1; when both are near again object 0 comes first.
    story = [(0, 0, 0, 0.1), (1, 1, 0, 0.1), (2, 0, 0, 1.0), (2, 1, 0, 0.1), (2, 1, 1, 1.0)]
    assert run_associate(story) == ["match", "match", "match", "-", "switch"]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), things=st.integers(1, 7), tracks=st.integers(1, 7), share=st.floats(0.1, 1.0))
def test_association_is_the_best_of_all_assignments(seed, things, tracks, share):
    rng = np.random.default_rng(seed)
    thing, track = np.nonzero(rng.random((things, tracks)) < share)
    distance_m = rng.uniform(0, 2, len(thing))
    chosen, switched = associate(np.zeros(len(thing), int), thing, track, distance_m)
    assert not switched.any()
    assert len(set(thing[chosen])) == len(set(track[chosen])) == chosen.sum()
    cost = np.full((things, tracks), 100.0)  # far more than all pairs together
    cost[thing, track] = distance_m
    assert distance_m[chosen].sum() + 100.0 * (min(things, tracks) - chosen.sum()) == pytest.approx(cost[linear_sum_assignment(cost)].sum())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_scores_of_tracks_are_those_of_each_alone_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    frame, name = np.divmod(rng.permutation(30 * 12)[:250], 12)
    score = rng.random(250)
    points = complete_tracks(boxes(frame, np.zeros((250, 2)), track_id=np.char.add("t", name.astype(np.str_)), score=score), key_frames(30))
    in_time = np.argsort(frame, kind="stable")
    for one in np.unique(name):
        assert score[in_time[name[in_time] == one]].mean() in points.score


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_predictions_and_frames_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth, predictions = case_truth(CASES[0]), case_boxes(CASES[0], "predictions")
    # A name that several boxes of a frame share is the one thing in which the order counts.
    names = np.array([f"{name}-{label}" for name, label in zip(predictions.track_id, predictions.label, strict=True)])
    predictions = replace(predictions, track_id=names)
    frames, new_frame = truth.frames, rng.permutation(len(truth.frames))
    old_frame = np.argsort(new_frame)
    shuffled = GroundTruth(
        frames=replace(
            frames,
            tokens=tuple(frames.tokens[old] for old in old_frame),
            scene=9 - frames.scene[old_frame],
            timestamp_us=frames.timestamp_us[old_frame],
            car_xy_m=frames.car_xy_m[old_frame],
        ),
        boxes=replace(truth.boxes, frame=new_frame[truth.boxes.frame]),
    )
    moved = replace(predictions, frame=new_frame[predictions.frame])[rng.permutation(len(predictions))]
    before = evaluate_tracking(truth, predictions).summary()
    assert largest_difference(evaluate_tracking(shuffled, moved).summary(), before) < 1e-12


def test_counts_add_up_at_every_threshold():
    for case in CASES:
        curves = evaluate_tracking(case_truth(case), case_boxes(case, "predictions")).curves
        known = ~np.isnan(curves.tp)
        assert known.any()
        assert ((curves.tp + curves.ids + curves.fn)[known] == curves.gt[known]).all()
        simplified, full = curves.motar[known], 1 - (curves.ids + curves.fp + curves.fn - (curves.gt - curves.tp))[known] / curves.tp[known]
        assert simplified == pytest.approx(np.maximum(full, 0))


def test_wrong_input_is_refused():
    truth = GroundTruth(frames=key_frames(6), boxes=boxes(STEPS, ALONG, track_id="a"))
    with pytest.raises(ValueError, match=r"'frame3' has two boxes of class car with track_id 'x'"):
        evaluate_tracking(truth, boxes([2, 3, 3], ALONG[:3], track_id="x"))
    with pytest.raises(ValueError, match=r"predictions: 1 of 2 boxes have no track_id"):
        evaluate_tracking(truth, boxes([2, 3], ALONG[:2], track_id=["", "x"]))
    with pytest.raises(ValueError, match=r"predictions: boxes lie in frames 6\.\.6, expected 0\.\.5"):
        evaluate_tracking(truth, boxes([6], ALONG[:1], track_id="x"))
    with pytest.raises(ValueError, match="unknown classes"):
        TrackingConfig(range_of_class_m={"tram": 50.0})
    evaluate_tracking(truth, boxes([3, 3], ALONG[:2], track_id="x", label=[CAR, PEDESTRIAN]))  # one name a class is allowed
