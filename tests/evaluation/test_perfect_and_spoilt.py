"""The truth as prediction is perfect in every task, and the truth spoilt in a known way loses exactly what it must."""

from dataclasses import replace

import numpy as np
import pytest
from truth_samples import truth_as_predictions

from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.predictions import PredictionSet
from sparsedrive.evaluation.results import GROUND_TRUTH, MODEL, Evaluation
from sparsedrive.evaluation.run import evaluate
from sparsedrive.metrics.detection import ERRORS
from sparsedrive.structures import DETECTION_CLASSES


@pytest.fixture(scope="module")
def perfect(drive) -> PredictionSet:
    return truth_as_predictions(drive, "train")


@pytest.fixture(scope="module")
def perfect_result(drive, perfect) -> Evaluation:
    return evaluate(perfect, drive, date="today")


def spoilt(perfect: PredictionSet, drive: PreparedData, *tasks: str, **changes: np.ndarray) -> Evaluation:
    return evaluate(replace(perfect, boxes=replace(perfect.boxes, **changes)), drive, date="today", tasks=tasks)


def moved(perfect: PredictionSet, **columns: float) -> np.ndarray:
    """The boxes with something added to columns."""
    box = perfect.boxes.box.copy()
    for name, value in columns.items():
        box[:, {"x": 0, "y": 1, "length": 3, "yaw": 6, "vx": 7}[name]] += value
    return box


def test_the_truth_is_perfect(perfect_result):
    detection, tracking, lines, forecasts = (getattr(perfect_result, name) for name in ("detection", "tracking", "map", "forecasting"))
    there = detection.num_truth > 0
    assert there.sum() >= 3 and detection.ap[there] == pytest.approx(1.0) and (detection.ap[~there] == 0).all()
    assert np.nanmax(np.abs(detection.error[there][:, :3])) < 1e-5
    assert detection.truth == "nuScenes tables" and detection.num_predictions[there].tolist() == detection.num_truth[there].tolist()
    assert tracking.mean_amota == pytest.approx(1.0) and tracking.scene_amota == pytest.approx(np.ones(1))
    assert dict(zip(tracking.score_names, tracking.mean, strict=True))["ids"] == 0
    assert lines.ap[lines.num_truth > 0] == pytest.approx(1.0) and lines.num_truth.sum() > 0
    assert (forecasts.plain[:, :3] == 0).all() and forecasts.plain[:, 3] == pytest.approx(1.0) and (forecasts.published[:, :3] == 0).all()


def test_the_driven_path_is_the_perfect_plan(perfect_result):
    plan = perfect_result.planning
    assert plan is not None and plan.planners[0].name == MODEL and plan.planners[-1].name == GROUND_TRUTH
    model = plan.planner(MODEL)
    assert np.nanmax(model.frame_l2_m) == 0 and model.mean_change_m == pytest.approx(0, abs=1e-6)
    for numbers in model.numbers:
        true = plan.planner(GROUND_TRUTH).get(numbers.protocol, numbers.subset, numbers.horizon_s)
        assert np.array_equal(numbers.collision_rate, true.collision_rate, equal_nan=True)
        assert numbers.num_plans == 0 or np.nanmax(numbers.l2_m) == 0
    assert {numbers.protocol for numbers in model.numbers} == set(plan.protocols) == {"uniad", "st-p3", "sparsedrive", "plain"}
    assert plan.planner("constant_velocity").get("uniad").mean_l2_m > 0


def test_boxes_moved_by_d_have_translation_error_d(perfect, drive):
    result = spoilt(perfect, drive, "det", box=moved(perfect, x=0.12, y=0.16)).detection
    whole = (result.num_truth > 0) & (result.num_predictions == result.num_truth)  # none was moved over the edge of the judged range
    assert whole.sum() >= 2 and result.ap[whole] == pytest.approx(1.0)
    assert result.matches.errors[:, ERRORS.index("trans_err")] == pytest.approx(0.2, abs=1e-3)  # the ego frame may be tilted
    result = spoilt(perfect, drive, "det", box=moved(perfect, y=1.5)).detection
    there = result.num_truth > 0
    apart = there & np.isin(result.classes, ["truck", "bus", "construction_vehicle"])  # larger than the shift: no neighbour is nearer
    assert (result.ap[there][:, :2] < 1).all() and result.ap[apart][:, 2:] == pytest.approx(1.0)


def test_size_heading_and_velocity_errors(perfect, drive):
    longer = perfect.boxes.box.copy()
    longer[:, 3] *= 2
    errors = spoilt(perfect, drive, "det", box=longer).detection.matches.errors
    assert errors[:, ERRORS.index("scale_err")] == pytest.approx(0.5)
    result = spoilt(perfect, drive, "det", box=moved(perfect, yaw=0.2, vx=3.0)).detection
    orientation, velocity = (result.matches.errors[:, ERRORS.index(name)] for name in ("orient_err", "vel_err"))
    assert orientation[~np.isnan(orientation)] == pytest.approx(0.2, abs=1e-3)
    assert np.nanmedian(velocity) == pytest.approx(3.0, abs=1e-2)
    cones = [result.classes[label] == "traffic_cone" for label in result.matches.label]
    assert np.isnan(orientation[cones]).all() and np.isnan(velocity[cones]).all()


def test_counts_of_every_frame(perfect, drive, perfect_result):
    """One class gone from the first frame, one box too many in the second."""
    boxes, hits = perfect.boxes, perfect_result.detection.hits
    car = perfect_result.detection.classes.index("car")
    first = np.arange(len(boxes.box)) < boxes.splits[1]
    label = np.where(first & (boxes.label == 0), DETECTION_CLASSES.index("trailer"), boxes.label)
    result = spoilt(perfect, drive, "det", label=label).detection
    assert np.array_equal(result.hits.num_truth, hits.num_truth)
    cars = hits.num_truth[:, car]
    trailer = result.classes.index("trailer")
    counts = result.hits.counts(2, np.zeros(len(result.classes)))
    assert counts[0, car].tolist() == [0, 0, cars[0]] and cars[0] > 0
    assert counts[0, trailer, 1] == cars[0] and (counts[1:, car] == np.stack([cars[1:], 0 * cars[1:], 0 * cars[1:]], -1)).all()
    assert counts[..., 0].sum() == len(result.matches.frame)


def test_a_new_name_is_a_switch(perfect, drive):
    late = np.arange(len(perfect.boxes.box)) >= perfect.boxes.splits[2]
    result = spoilt(perfect, drive, "track", track_id=perfect.boxes.track_id + 1000 * late).tracking
    numbers = dict(zip(result.score_names, result.mean, strict=True))
    assert numbers["ids"] > 0 and numbers["fn"] == numbers["fp"] == 0 and result.mean_amota < 1


def test_lines_moved_aside_pass_larger_thresholds_only(perfect, drive):
    lines = replace(perfect.lines, points_m=perfect.lines.points_m + 1.2)
    result = evaluate(replace(perfect, lines=lines), drive, date="today", tasks=["map"]).map
    straight = evaluate(perfect, drive, date="today", tasks=["map"]).map
    assert result.mean_ap < straight.mean_ap and (result.chamfer_m[np.isfinite(result.chamfer_m)] > 0.1).all()
    assert (np.diff(result.ap, axis=1) >= 0).all() and np.array_equal(result.hits.hit.any(0), np.array([False, False, True]))


def test_forecasts_off_by_a_metre(perfect, drive):
    far = replace(perfect.forecasts, trajectory_m=perfect.forecasts.trajectory_m + np.array([0.6, 0.8]))
    result = evaluate(replace(perfect, forecasts=far), drive, date="today", tasks=["motion"]).forecasting
    known = result.matches.steps > 0
    assert result.plain[:, :2] == pytest.approx(1.0) and (result.plain[:, 2] == 0).all() and result.plain[:, 3] == pytest.approx(1.0)
    assert result.matches.errors[known][:, 0] == pytest.approx(1.0) and (result.matches.errors[~known] == 0).all()
    assert result.scene_truth.sum(0).tolist() == result.num_truth.tolist() and (result.scene_false_positives == 0).all()
    one_right = far.trajectory_m.copy()
    one_right[:, 2] -= np.array([0.6, 0.8])
    best = evaluate(replace(perfect, forecasts=replace(far, trajectory_m=one_right)), drive, date="today", tasks=["motion"]).forecasting
    assert best.plain[:, :2] == pytest.approx(0.0)


def test_going_straight_on_stands_beside_every_forecast(perfect, drive, perfect_result):
    beside = perfect_result.forecasting
    known = beside.num_truth > 0
    assert known.any() and (beside.baseline_plain[known, 0] > 0).all() and (beside.baseline_plain[known, 0] < 6).all()
    box, futures = perfect.boxes.box, perfect.forecasts
    time_s = 0.5 * np.arange(1, futures.trajectory_m.shape[2] + 1)
    straight = box[futures.row, None, :2] + box[futures.row, None, 7:9] * time_s[:, None]
    same = replace(perfect, forecasts=replace(futures, trajectory_m=np.repeat(straight[:, None], futures.trajectory_m.shape[1], 1)))
    as_forecast = evaluate(same, drive, date="today", tasks=["motion"]).forecasting
    for definition in ("published", "plain"):
        told, beside_it = (getattr(as_forecast, name) for name in (definition, f"baseline_{definition}"))
        assert told == pytest.approx(beside_it, abs=1e-9, nan_ok=True)
        assert beside_it == pytest.approx(getattr(beside, f"baseline_{definition}"), abs=1e-9, nan_ok=True)


def test_unsure_boxes_are_not_forecast(perfect, drive):
    score = np.where(np.arange(len(perfect.boxes.score)) % 2, 0.9, 0.19)
    result = evaluate(replace(perfect, boxes=replace(perfect.boxes, score=score)), drive, date="today", tasks=["motion"]).forecasting
    all_of_them = evaluate(perfect, drive, date="today", tasks=["motion"]).forecasting
    assert 0 < result.num_predictions.sum() < all_of_them.num_predictions.sum()
    assert np.array_equal(result.num_truth, all_of_them.num_truth)


def test_a_plan_off_by_a_metre_in_every_protocol(numbers):
    perfect = truth_as_predictions(numbers, "train")
    result = evaluate(replace(perfect, plan_m=perfect.plan_m + np.array([0.6, 0.8])), numbers, date="today", tasks=["plan"]).planning
    model = result.planner(MODEL)
    for protocol in ("st-p3", "sparsedrive", "plain"):
        assert model.get(protocol).l2_m == pytest.approx(1.0) and model.get(protocol).mean_l2_m == pytest.approx(1.0)
    known = result.truth_valid.mean(0)
    assert model.get("uniad").l2_m == pytest.approx(known)  # what the recording does not hold counts as no error
    assert np.array_equal(np.isnan(model.frame_l2_m), ~result.truth_valid)
    assert model.get("st-p3").num_plans == result.truth_valid.all(1).sum() < model.get("plain").num_plans
    with pytest.raises(ValueError, match=r"no numbers for \('uniad', 'all', 6.0\)"):
        model.get("uniad", horizon_s=6.0)
    with pytest.raises(ValueError, match="no planner 'expert'; there are"):
        result.planner("expert")


def test_a_longer_plan_is_judged_at_its_own_horizon_too(numbers):
    perfect = truth_as_predictions(numbers, "train", plan_steps=8)
    short = evaluate(truth_as_predictions(numbers, "train"), numbers, date="today", tasks=["plan"]).planning.planner("constant_velocity")
    result = evaluate(perfect, numbers, date="today", tasks=["plan"]).planning.planner("constant_velocity")
    assert (
        len(result.get("plain", horizon_s=4.0).l2_m) == 8 and result.get("st-p3", horizon_s=4.0).num_plans < result.get("st-p3").num_plans
    )
    for protocol in ("uniad", "st-p3", "sparsedrive", "plain"):
        assert np.array_equal(result.get(protocol).l2_m, short.get(protocol).l2_m)
