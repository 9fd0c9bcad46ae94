import numpy as np
import pytest
import shapely
from golden_metrics import map_lines, numbers, stored, subset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sparsedrive.metrics.mapping import (
    SPARSEDRIVE,
    MapLines,
    MapProtocol,
    area_under_curve,
    chamfer_distance_m,
    evaluate_map,
    nearest_truth,
    resampled,
    simplified,
)

STRAIGHT = np.array([[0.0, 0.0], [0.0, 20.0]])


def shifted(line, by_m):
    return np.add(line, [by_m, 0.0])


def aps(predicted, truth):
    return evaluate_map(predicted, truth).classes[1].ap


def dividers(lines, scores=None, frames=None):
    return MapLines.from_lines(frames if frames is not None else [0] * len(lines), [1] * len(lines), lines, scores)


def random_lines(rng, count, frames=4, scored=False):
    """Wiggly lines of 2 to 9 vertices in the map region."""
    lines = [np.cumsum(rng.normal(0, 3, (rng.integers(2, 10), 2)), 0) + rng.uniform(-10, 10, 2) for _ in range(count)]
    scores = rng.permutation(count) / count + 0.01 if scored else None
    return MapLines.from_lines(rng.integers(0, frames, count), rng.integers(0, 3, count), lines, scores)


def test_published_numbers():
    data, expected = stored("map_eval"), numbers("map")
    splits = np.arange(0, 20 * len(data["pred_pts"]) + 1, 20)
    predicted = map_lines(data["pred_frame"], data["pred_labels"], data["pred_pts"].reshape(-1, 2), splits, data["pred_scores"])
    truth = map_lines(data["gt_frame"], data["gt_labels"], data["gt_raw_pts"], data["gt_raw_offsets"])
    scores = evaluate_map(predicted, truth)
    assert scores.mean_ap == pytest.approx(expected["mAP_normal"], abs=1e-9)
    for label, score in enumerate(scores.classes):
        assert score.ap == pytest.approx([expected[score.name][f"AP@{threshold}"] for threshold in SPARSEDRIVE.thresholds_m], abs=1e-9)
        for row, threshold in enumerate(SPARSEDRIVE.thresholds_m):
            np.testing.assert_allclose(score.recall[row], data[f"recall_c{label}_t{threshold}"], atol=1e-9)
            np.testing.assert_allclose(score.precision[row], data[f"precision_c{label}_t{threshold}"], atol=1e-9)


def test_published_matches_of_some_frames():
    data = subset()
    points = data["map_pred_points"]
    splits = np.arange(0, points.shape[1] * len(points) + 1, points.shape[1])
    predicted = map_lines(data["map_pred_frame"], data["map_pred_label"], points.reshape(-1, 2), splits, data["map_pred_score"])
    truth = map_lines(data["map_true_frame"], data["map_true_label"], data["map_true_points"], data["map_true_splits"])
    scores = evaluate_map(predicted, truth)
    assert (scores.true_positive == data["map_true_positive"]).all()


def test_perfect_lines_score_1():
    truth = random_lines(np.random.default_rng(0), 60)
    assert evaluate_map(truth, truth).mean_ap == pytest.approx(1.0)


def test_a_shift_of_70_cm_fails_the_first_threshold_only():
    assert aps(dividers([shifted(STRAIGHT, 0.7)], [0.9]), dividers([STRAIGHT])) == pytest.approx((0.0, 1.0, 1.0))
    assert aps(dividers([shifted(STRAIGHT, 1.6)], [0.9]), dividers([STRAIGHT])) == pytest.approx((0.0, 0.0, 0.0))


def test_direction_does_not_matter():
    truth = dividers([np.array([[0.0, 0.0], [3.0, 10.0], [1.0, 20.0]])])
    assert aps(dividers([truth.points_m[::-1]], [0.9]), truth) == pytest.approx((1.0, 1.0, 1.0))


def test_two_predictions_of_one_line():
    """The better score takes the line though the other is closer; the second is a false positive."""
    lines = [shifted(STRAIGHT, 0.3), STRAIGHT]
    scores = evaluate_map(dividers(lines, [0.9, 0.8]), dividers([STRAIGHT]))
    assert scores.true_positive[:, 0].tolist() == [True, False]
    assert scores.classes[1].precision[0].tolist() == [1.0, 0.5]


def test_there_is_no_second_choice():
    """Both predictions have line 0 as their nearest, so the worse one is wrong although line 1 is within 1.5 m and free."""
    truth = dividers([STRAIGHT, shifted(STRAIGHT, 1.0)])
    predicted = dividers([shifted(STRAIGHT, 0.1), shifted(STRAIGHT, 0.2)], [0.9, 0.8])
    assert evaluate_map(predicted, truth).true_positive[:, 2].tolist() == [True, False]
    assert aps(predicted, truth)[2] == pytest.approx(0.5)


def test_area_by_hand():
    """Hit, miss, hit of two lines: precision 1 up to recall 1/2, then 2/3."""
    truth = dividers([STRAIGHT, shifted(STRAIGHT, 10)])
    predicted = dividers([STRAIGHT, shifted(STRAIGHT, 20), shifted(STRAIGHT, 10)], [0.9, 0.8, 0.7])
    assert aps(predicted, truth)[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert area_under_curve(np.zeros(0), np.zeros(0)) == 0.0


def test_equal_scores_go_in_order():
    first = dividers([STRAIGHT, shifted(STRAIGHT, 20)], [0.5, 0.5])
    assert aps(first, dividers([STRAIGHT]))[0] == pytest.approx(1.0)
    assert aps(first.take(np.array([1, 0])), dividers([STRAIGHT]))[0] == pytest.approx(0.5)


def test_other_frames_and_classes_are_not_seen():
    truth = dividers([STRAIGHT], frames=[1])
    assert evaluate_map(dividers([STRAIGHT], [0.9], [0]), truth).mean_ap == 0.0
    assert evaluate_map(MapLines.from_lines([1], [2], [STRAIGHT], [0.9]), truth).mean_ap == 0.0
    assert evaluate_map(dividers([STRAIGHT], [0.9], [1]), truth).mean_ap == pytest.approx(1 / 3)  # two classes that are not there count 0


@pytest.mark.parametrize("count", [(0, 0), (0, 3), (3, 0)])
def test_nothing_predicted_or_nothing_there(count):
    predicted, truth = dividers([STRAIGHT] * count[0], [0.5] * count[0]), dividers([STRAIGHT] * count[1])
    scores = evaluate_map(predicted, truth)
    assert scores.mean_ap == 0.0 and scores.classes[1].num_truth == count[1] and (scores.nearest == -1).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = random_lines(rng, 40, scored=True), random_lines(rng, 20)
    shuffled = predicted.take(rng.permutation(40)), truth.take(rng.permutation(20))
    assert evaluate_map(*shuffled).mean_ap == pytest.approx(evaluate_map(predicted, truth).mean_ap, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_nearest_line_is_that_of_the_plain_definition(seed):
    """All pairs with SciPy, without bounds that leave pairs out."""
    rng = np.random.default_rng(seed)
    predicted, truth = random_lines(rng, 20), random_lines(rng, 15)
    nearest, chamfer_m = nearest_truth(predicted, truth, SPARSEDRIVE)
    ours, theirs = resampled(predicted, 200), resampled(truth, 200)
    for row in range(20):
        same = np.flatnonzero((truth.frame == predicted.frame[row]) & (truth.label == predicted.label[row]))
        table = [cdist(ours[row], theirs[other]) for other in same]
        plain_m = np.array([(gaps.min(0).mean() + gaps.min(1).mean()) / 2 for gaps in table])
        if len(same) and plain_m.min() <= 1.5:
            assert nearest[row] == same[plain_m.argmin()] and chamfer_m[row] == pytest.approx(plain_m.min(), abs=1e-6)
        else:
            assert chamfer_m[row] > 1.5


def test_chamfer_of_parallel_lines_is_their_distance():
    lines = resampled(dividers([STRAIGHT, shifted(STRAIGHT, 2.0)]), 200)
    assert chamfer_distance_m(lines, lines, np.array([0, 0]), np.array([1, 0])) == pytest.approx([2.0, 0.0], abs=1e-6)


def test_points_at_equal_steps_of_length():
    lines = random_lines(np.random.default_rng(1), 30)
    expected = [shapely.LineString(lines.points_m[a:b]) for a, b in zip(lines.splits[:-1], lines.splits[1:], strict=True)]
    expected = [[shape.interpolate(share, normalized=True).coords[0] for share in np.linspace(0, 1, 50)] for shape in expected]
    np.testing.assert_allclose(resampled(lines, 50), expected, atol=1e-9)


def test_lines_that_repeat_points_or_are_one_point():
    lines = dividers([np.array([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]]), np.array([[5.0, 6.0], [5.0, 6.0]])])
    np.testing.assert_allclose(resampled(lines, 3), [[[0, 0], [1, 0], [2, 0]], [[5, 6]] * 3])


def test_simplification_drops_what_lies_on_the_way():
    bent = dividers([np.array([[0.0, 0.0], [0.1, 5.0], [0.0, 10.0], [4.0, 10.0]]), STRAIGHT])
    assert simplified(bent, 0.2).splits.tolist() == [0, 3, 5]
    assert simplified(bent, 0.0) is bent


def test_a_protocol_of_ones_own():
    strict = MapProtocol(name="strict", thresholds_m=(0.2,), samples=100, simplify_m=0.0)
    assert evaluate_map(dividers([shifted(STRAIGHT, 0.3)], [0.9]), dividers([STRAIGHT]), strict).classes[1].ap == (0.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.array([3])}, "label: expected indices"),
        ({"score": np.array([np.nan])}, "score: expected finite"),
        ({"points_m": np.full((2, 2), np.nan)}, "points_m: expected finite"),
        ({"points_m": np.zeros((2, 3))}, "leave out the height"),
        ({"splits": np.array([0, 1])}, "from 0 to 2"),
        ({"splits": np.array([0, 2, 2])}, "expected 2 values"),
        ({"score": np.zeros(2)}, "score: expected 1 values"),
    ],
)
def test_lines_that_do_not_fit(change, message):
    good = {"frame": np.array([0]), "label": np.array([1]), "points_m": STRAIGHT, "splits": np.array([0, 2]), "score": np.array([0.5])}
    with pytest.raises(ValueError, match=message):
        MapLines(**(good | change))


def test_a_line_of_one_point():
    with pytest.raises(ValueError, match="line 1 has 1; drop it"):
        dividers([STRAIGHT, STRAIGHT[:1]])
