import math
from dataclasses import fields, replace

import numpy as np
import pytest
from golden_metrics import numbers, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedrive.metrics.forecasting import (
    ForecastErrors,
    PredictedAgents,
    TrueAgents,
    constant_velocity,
    evaluate_forecasts,
    forecast_errors,
)
from sparsedrive.structures import DETECTION_CLASSES

CAR, TRUCK, PEDESTRIAN, CONE = (DETECTION_CLASSES.index(name) for name in ("car", "truck", "pedestrian", "traffic_cone"))
EAST = np.stack([np.arange(1, 13), np.zeros(12)], 1)
"""One metre a step."""


def true_agents(centers, label=CAR, steps=12, frame=0, distance_m=0.0, returns=5):
    count = len(centers)
    centers = np.array(centers, float).reshape(count, 2)
    full = lambda value, kind: np.broadcast_to(np.asarray(value, kind), (count,)).copy()  # noqa: E731
    return TrueAgents(
        frame=full(frame, int), label=full(label, int), center_m=centers, distance_m=full(distance_m, float), returns=full(returns, int),
        future_m=centers[:, None] + EAST, steps=full(steps, int),
    )  # fmt: skip


def forecasts(centers, scores, label=CAR, frame=0, off_m=((0.0, 0.0),), distance_m=0.0):
    """Forecasts that go on like the true ones, each of the modes `off_m` (east, north) beside them."""
    count = len(centers)
    centers = np.array(centers, float).reshape(count, 2)
    full = lambda value, kind: np.broadcast_to(np.asarray(value, kind), (count,)).copy()  # noqa: E731
    return PredictedAgents(
        frame=full(frame, int), label=full(label, int), score=np.array(scores, float), center_m=centers,
        distance_m=full(distance_m, float), trajectory_m=centers[:, None, None] + EAST + np.array(off_m)[:, None],
    )  # fmt: skip


def car(predicted, truth):
    return evaluate_forecasts(predicted, truth)[0]


def rows_of(agents, rows):
    return type(agents)(**{field.name: getattr(agents, field.name)[rows] for field in fields(agents)})


def random_agents(rng):
    centers = rng.uniform(-30, 30, (40, 2))
    label, frame = rng.choice([CAR, TRUCK, PEDESTRIAN, CONE], 40), rng.integers(0, 3, 40)
    truth = true_agents(centers, label, rng.integers(0, 13, 40), frame, np.linalg.norm(centers, axis=1), rng.integers(0, 4, 40))
    seen = rng.choice(40, 55)
    guess = centers[seen] + rng.normal(0, 1.5, (55, 2))
    predicted = forecasts(guess, rng.permutation(55) / 55, label[seen], frame[seen], rng.normal(0, 1.5, (3, 2)))
    return replace(predicted, distance_m=np.linalg.norm(guess, axis=1)), truth


def test_published_numbers():
    data, expected = stored("motion_eval"), numbers("motion")
    label = {"car": CAR, "pedestrian": PEDESTRIAN, "barrier": CONE}

    def shared(prefix):
        center_m = data[f"{prefix}_translation"][:, :2]
        frame = data[f"{prefix}_frame"]
        distance_m = np.linalg.norm(center_m - data["ego_translation"][frame, :2], axis=1)
        return {"frame": frame, "label": np.array([label[name] for name in data[f"{prefix}_name"]]), "center_m": center_m} | {
            "distance_m": distance_m
        }

    predicted = PredictedAgents(score=data["pred_score"], trajectory_m=data["pred_traj"], **shared("pred"))
    future_m = np.nan_to_num(data["gt_traj"])
    truth = TrueAgents(returns=data["gt_num_pts"], future_m=future_m, steps=data["gt_traj_len"], **shared("gt"))
    for score in evaluate_forecasts(predicted, truth):
        golden = expected[score.name]
        assert (score.num_truth, score.num_predicted) == (golden["npos"], golden["npred"])
        assert score.published.min_ade_m == pytest.approx(golden["min_ade_err"], abs=1e-9)
        assert score.published.min_fde_m == pytest.approx(golden["min_fde_err"], abs=1e-9)
        assert score.published.miss_rate == pytest.approx(golden["miss_rate_err"], abs=1e-9)
        assert score.published.epa == pytest.approx(golden["EPA_reported"], abs=1e-9)
        false_positives = score.num_predicted - len(score.true_row)
        first_variant = ((score.errors[:, 1] < 2).sum() - 0.5 * false_positives) / score.num_truth
        assert first_variant == pytest.approx(golden["EPA_first_variant_unreported"], abs=1e-9)
        assert 100 * len(score.true_row) // score.num_truth == golden["max_recall_ind"]
        stems = ("min_ade", "min_fde", "miss_rate")
        np.testing.assert_allclose(score.curve, [data[f"md_{score.name}_{stem}_err"] for stem in stems], atol=1e-9)


def test_perfect_forecasts():
    centers = [[0, 0], [10, 0], [20, 0]]
    score = car(forecasts(centers, [0.9, 0.8, 0.7]), true_agents(centers))
    assert score.published == score.plain == ForecastErrors(min_ade_m=0.0, min_fde_m=0.0, miss_rate=0.0, epa=1.0)


def test_going_straight_on():
    centers, velocity_mps = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[2.0, 0.0], [0.0, -4.0]])
    going_on = constant_velocity(centers, velocity_mps, 3)
    assert going_on.tolist() == [[[[2, 2], [3, 2], [4, 2]]], [[[0, -2], [0, -4], [0, -6]]]]
    truth = true_agents([(0, 0), (50, 0)])  # 1 m a step is 2 m/s to the east
    straight = replace(
        forecasts([(0, 0), (50, 0)], [0.9, 0.8]), trajectory_m=constant_velocity(truth.center_m, np.array([[2.0, 0]] * 2), 12)
    )
    assert car(straight, truth).plain == ForecastErrors(min_ade_m=0, min_fde_m=0, miss_rate=0, epa=1)
    stands = replace(straight, trajectory_m=constant_velocity(truth.center_m, np.zeros((2, 2)), 12))
    assert car(stands, truth).plain == ForecastErrors(min_ade_m=6.5, min_fde_m=12, miss_rate=1, epa=0)


def test_the_best_mode_counts():
    score = car(forecasts([[0, 0]], [0.9], off_m=[[0, 3], [0, -1]]), true_agents([[0, 0]]))
    assert score.plain == ForecastErrors(min_ade_m=1.0, min_fde_m=1.0, miss_rate=0.0, epa=1.0)


def test_modes_are_chosen_anew_for_each_error():
    """One mode ends right, the other is better on average: ADE, FDE and miss each take their best."""
    future_m = np.zeros((1, 4, 2))
    modes = np.zeros((1, 2, 4, 2))
    modes[0, 0, :, 0], modes[0, 1, :, 0] = [4, 4, 4, 0], [1, 1, 1, 3]
    np.testing.assert_allclose(forecast_errors(modes, future_m, np.array([4])), [[1.5, 0.0, 1.0]])
    np.testing.assert_allclose(forecast_errors(modes, future_m, np.array([3])), [[1.0, 1.0, 0.0]])  # the track ends before the last
    np.testing.assert_allclose(forecast_errors(modes, future_m, np.array([0])), [[0.0, 0.0, 0.0]])


def test_false_positives_cost_half():
    predicted = forecasts([[0, 0], [50, 0], [60, 0]], [0.9, 0.8, 0.7])
    score = car(predicted, true_agents([[0, 0], [10, 0]]))
    assert score.published.epa == score.plain.epa == pytest.approx((1 - 0.5 * 2) / 2)


def test_a_match_that_ends_elsewhere_is_no_hit():
    """The better score sits on the box but drives off. It keeps the box in the plain EPA; the published one gives the box to the second."""
    predicted = forecasts([[0, 0], [0.5, 0]], [0.9, 0.8])
    predicted.trajectory_m[0] += 5.0
    score = car(predicted, true_agents([[0, 0]]))
    assert score.predicted_row.tolist() == [0] and score.plain.miss_rate == 1.0
    assert score.plain.epa == -0.5 and score.published.epa == 0.5


def test_a_box_without_future():
    """Published: a perfect match that lowers the mean, but no hit. Plain: left out."""
    predicted = forecasts([[0, 0], [10, 0]], [0.9, 0.8], off_m=[[0, 1]])
    score = car(predicted, true_agents([[0, 0], [10, 0]], steps=[0, 12]))
    assert score.plain == ForecastErrors(min_ade_m=1.0, min_fde_m=1.0, miss_rate=0.0, epa=1.0)
    assert score.published.epa == 0.5 and score.published.min_ade_m < 0.5


def test_recall_average_by_hand():
    """Two matches with errors 0 and 1, scores 1 and 0.5: the running mean is 0 up to recall 1/2, and 1/2 at recall 1."""
    predicted = forecasts([[0, 0], [10, 0]], [1.0, 0.5])
    predicted.trajectory_m[1, 0, :, 1] += 1.0
    score = car(predicted, true_agents([[0, 0], [10, 0]]))
    above_half = np.arange(51, 101) / 100 - 0.5
    assert score.published.min_ade_m == pytest.approx(above_half.sum() / 90)  # 90 steps of recall, from 0.11 to 1
    assert score.plain.min_ade_m == 0.5


def test_recall_below_a_tenth_is_1():
    centers = [[3.0 * index, 0] for index in range(-10, 10)]
    score = car(forecasts(centers[:1], [0.9]), true_agents(centers))
    assert score.published.min_ade_m == score.published.miss_rate == 1.0
    assert score.plain.min_ade_m == 0.0 and score.plain.epa == 0.05


def test_classes_are_merged_and_ranges_differ():
    truth = true_agents([[0, 0]] * 4, [CAR, TRUCK, PEDESTRIAN, CONE], distance_m=[49.9, 50.0, 39.9, 0.0])
    scores = evaluate_forecasts(forecasts([[0, 0]], [0.9], TRUCK), truth)
    assert [(score.name, score.num_truth) for score in scores] == [("car", 1), ("pedestrian", 1)]
    assert scores[0].plain.epa == 1.0 and scores[1].num_predicted == 0


def test_boxes_that_no_sensor_hit_do_not_count():
    assert car(forecasts([[0, 0]], [0.9]), true_agents([[0, 0]], returns=0)).num_truth == 0


def test_nothing_true_and_nothing_found():
    nothing = car(forecasts([[0, 0]], [0.9]), true_agents([]))
    assert all(
        math.isnan(value) for value in (nothing.plain.epa, nothing.published.epa, nothing.plain.min_ade_m, nothing.published.miss_rate)
    )
    missed = car(forecasts([], []), true_agents([[0, 0]]))
    assert missed.published == ForecastErrors(min_ade_m=1.0, min_fde_m=1.0, miss_rate=1.0, epa=0.0)
    assert math.isnan(missed.plain.min_ade_m) and missed.plain.epa == 0.0
    elsewhere = car(forecasts([[30, 0]], [0.9]), true_agents([[0, 0]]))
    assert elsewhere.published.epa == -0.5 and elsewhere.published.min_fde_m == 1.0


def test_equal_scores_the_later_row_goes_first():
    score = car(forecasts([[0, 0], [0.5, 0]], [0.9, 0.9]), true_agents([[0, 0]]))
    assert score.predicted_row.tolist() == [1]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = random_agents(rng)
    shuffled = evaluate_forecasts(rows_of(predicted, rng.permutation(55)), rows_of(truth, rng.permutation(40)))
    for one, other in zip(evaluate_forecasts(predicted, truth), shuffled, strict=True):
        for first, second in ((one.published, other.published), (one.plain, other.plain)):
            np.testing.assert_allclose([getattr(first, f.name) for f in fields(first)], [getattr(second, f.name) for f in fields(second)])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_matching_is_that_of_the_plain_definition(seed):
    """One prediction after the other, each looking through all boxes."""
    predicted, truth = random_agents(np.random.default_rng(seed))
    score = car(predicted, truth)
    usable = np.isin(truth.label, (CAR, TRUCK)) & (truth.returns > 0) & (truth.distance_m < 50)
    free, pairs = set(np.flatnonzero(usable)), []
    for row in np.argsort(-predicted.score):
        if predicted.label[row] in (CAR, TRUCK) and predicted.distance_m[row] < 50:
            gaps = {
                box: math.dist(truth.center_m[box], predicted.center_m[row]) for box in free if truth.frame[box] == predicted.frame[row]
            }
            nearest = min(gaps, key=gaps.__getitem__, default=None)
            if nearest is not None and gaps[nearest] < 2:
                free.remove(nearest)
                pairs.append((row, nearest))
    assert list(zip(score.predicted_row, score.true_row, strict=True)) == pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": np.array([np.nan])}, "score: expected finite"),
        ({"label": np.array([10])}, "label: expected indices"),
        ({"center_m": np.zeros((1, 3))}, r"center_m: expected \[1, 2\]"),
        ({"trajectory_m": np.zeros((1, 12, 2))}, "trajectory_m"),
        ({"distance_m": np.zeros(2)}, "to go with 1 boxes"),
    ],
)
def test_forecasts_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        replace(forecasts([[0, 0]], [0.9]), **change)


def test_futures_that_do_not_fit():
    with pytest.raises(ValueError, match="steps: expected 0 to 12, got 13"):
        true_agents([[0, 0]], steps=13)
    short = forecasts([[0, 0]], [0.9])
    with pytest.raises(ValueError, match="expected forecasts of 12 steps"):
        evaluate_forecasts(replace(short, trajectory_m=short.trajectory_m[:, :, :6]), true_agents([[0, 0]]))
