from dataclasses import replace

import numpy as np
import pytest
from evaluation_samples import sample_evaluation

from sparsedrive.evaluation import resampling
from sparsedrive.evaluation.bootstrap import SceneParts, mean_parts, paired_difference, ratio
from sparsedrive.evaluation.results import MODEL

SCENES, ROWS = 30, 8
SCENE = np.repeat(np.arange(SCENES), ROWS)


def scores(random: np.random.Generator, mean: float = 0.0) -> np.ndarray:
    """Rows of scenes that differ much more than their rows do."""
    return mean + np.repeat(random.normal(size=SCENES), ROWS) + 0.3 * random.normal(size=SCENES * ROWS)


def parts(values: np.ndarray) -> SceneParts:
    return mean_parts(SCENE, values, SCENES)


def test_a_model_does_not_differ_from_itself():
    found = paired_difference(*(parts(scores(np.random.default_rng(0))) for _ in range(2)), rounds=300)
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_shift_is_found_because_the_draws_are_paired():
    values = scores(np.random.default_rng(0))
    other = values + 0.1 + 0.02 * np.random.default_rng(1).normal(size=len(values))
    found = paired_difference(parts(values), parts(other), rounds=1000)
    assert 0.08 < found.low < found.difference < found.high < 0.12 and found.p < 0.01
    assert np.isclose(found.a, values.mean()) and np.isclose(found.difference, (other - values).mean())
    back = paired_difference(parts(other), parts(values), rounds=1000)
    assert np.allclose([back.low, back.high], [-found.high, -found.low]) and back.p == found.p


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random, inside, rejected, trials = np.random.default_rng(5), 0, 0, 200
    for _ in range(trials):
        found = paired_difference(parts(scores(random)), parts(scores(random, mean=0.5)), rounds=250)
        inside += found.low <= 0.5 <= found.high
        rejected += paired_difference(parts(scores(random)), parts(scores(random)), rounds=250).p < 0.05
    assert 0.89 <= inside / trials <= 0.985 and rejected / trials <= 0.1


def test_scenes_are_the_unit_not_frames():
    random = np.random.default_rng(0)
    by_scene = paired_difference(parts(scores(random)), parts(scores(random)), rounds=500)
    frames = [mean_parts(np.arange(len(SCENE)), scores(np.random.default_rng(seed)), len(SCENE)) for seed in (1, 2)]
    by_frame = paired_difference(*frames, rounds=500)
    assert by_scene.high - by_scene.low > 2 * (by_frame.high - by_frame.low)


def test_the_same_seed_gives_the_same_draws():
    one, other = (parts(scores(np.random.default_rng(seed))) for seed in (0, 1))
    first = paired_difference(one, other, rounds=200, seed=3)
    assert first == paired_difference(one, other, rounds=200, seed=3) != paired_difference(one, other, rounds=200, seed=4)


def test_open_scores_stay_open():
    nothing = mean_parts(np.zeros(0, int), np.zeros(0), 3)
    found = paired_difference(nothing, nothing, rounds=100)
    assert np.isnan([found.a, found.difference, found.low, found.p]).all()
    assert np.isnan(ratio(np.array([[1.0, 0.0]]))).all() and ratio(np.array([[1.0, 2.0]])) == 0.5


def test_stated_scores_take_the_place_of_those_from_parts():
    one = parts(scores(np.random.default_rng(0)))
    found = paired_difference(one, one, rounds=100, stated=(1.0, 3.0))
    assert (found.a, found.b, found.difference) == (1.0, 3.0, 2.0)


def test_other_numbers_of_scenes_are_refused():
    one = mean_parts(np.arange(3), np.ones(3), 3)
    for other in (mean_parts(np.arange(2), np.ones(2), 2), replace(one, parts=one.parts[:0])):
        with pytest.raises(ValueError, match="same scenes"):
            paired_difference(one, other)


@pytest.mark.parametrize("noise_m", [0.2, 0.6, 1.5])
def test_parts_of_scenes_make_the_scores_of_the_metrics(noise_m):
    found = sample_evaluation(noise_m)
    frames, scenes = found.frames, len(found.frames.scene_names)
    assert np.isclose(resampling.detection_map(found.detection, frames).score(), found.detection.mean_ap, atol=0.002)
    assert np.isclose(resampling.nds(found.detection, frames).score(), found.detection.nds, atol=0.002)
    assert np.isclose(resampling.line_map(found.map, frames).score(), found.map.mean_ap, atol=0.002)
    for row in range(len(found.forecasting.classes)):
        stated = [resampling.forecast_error(found.forecasting, frames, row, column).score() for column in range(3)]
        assert np.allclose(stated, found.forecasting.plain[row, :3])
    model = found.planning.planner(MODEL)
    for protocol in found.planning.protocols:
        l2_m = resampling.plan_l2(model.frame_l2_m, frames.scene, scenes, protocol, 3.0)
        assert np.isclose(l2_m.score(), model.get(protocol).mean_l2_m)
    collisions = resampling.plan_collisions(model.frame_collides, frames.scene, scenes, 3.0)
    assert np.isclose(collisions.score(), model.get("plain").mean_collision_rate)


def test_scenes_drawn_twice_count_twice():
    """A draw of all scenes k times leaves every score as it is; one of a single scene is that scene's score."""
    found = sample_evaluation(0.6)
    for made in (
        resampling.detection_map(found.detection, found.frames),
        resampling.nds(found.detection, found.frames),
        resampling.line_map(found.map, found.frames),
    ):
        assert np.isclose(made.value(3.0 * made.parts.sum(0, keepdims=True))[0], made.score())
    l2_m = found.planning.planner(MODEL).frame_l2_m[found.frames.scene == 2]
    parts_of_plan = resampling.plan_l2(
        found.planning.planner(MODEL).frame_l2_m, found.frames.scene, len(found.frames.scene_names), "plain", 3.0
    )
    assert np.isclose(parts_of_plan.value(parts_of_plan.parts[2:3])[0], np.nanmean(l2_m[:, 1::2], axis=0).mean())


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="mine"):
        resampling.plan_l2(np.zeros((2, 6)), np.zeros(2, int), 1, "mine", 3.0)
