from dataclasses import replace

import numpy as np
import pytest
from evaluation_samples import sample_evaluation

from sparsedrive.evaluation.compare import compare
from sparsedrive.evaluation.results import Evaluation

ROUNDS = 200


def by_name(comparison) -> dict:
    return {one.name: one for one in comparison.numbers}


@pytest.fixture(scope="module")
def good() -> Evaluation:
    return sample_evaluation(0.2)


@pytest.fixture(scope="module")
def bad() -> Evaluation:
    return sample_evaluation(0.6, seed=1)


def test_equal_results_do_not_differ(good):
    for one in compare(good, good, rounds=ROUNDS).numbers:
        assert (one.result.difference, one.result.low, one.result.high, one.result.p) == (0, 0, 0, 1), one.name


def test_a_worse_model_is_found_out(good, bad):
    found = compare(good, bad, rounds=ROUNDS)
    names = ("NDS", "mAP", "map mAP", "AMOTP [m], mean of scenes", "minADE [m], car", "L2 [m], plain, 3 s", "L2 [m], uniad, 3 s")
    for name in names:
        one = by_name(found)[name]
        assert (one.result.difference < 0) == one.higher_is_better, name
        assert one.result.p < 0.05 and one.result.low * one.result.high > 0, name
        assert one.result.low <= one.result.difference <= one.result.high, name
    assert (found.scenes, found.rounds, found.left_out) == (8, ROUNDS, ())


def test_the_numbers_are_those_of_the_results(good, bad):
    found = by_name(compare(good, bad, rounds=ROUNDS))
    assert (found["NDS"].result.a, found["NDS"].result.b) == (good.detection.nds, bad.detection.nds)
    assert found["map mAP"].result.b == bad.map.mean_ap and "chamfer" in found["map mAP"].protocol
    model = bad.planning.planner("model").get("st-p3")
    assert found["L2 [m], st-p3, 3 s"].result.b == model.mean_l2_m


def test_the_order_of_scenes_is_irrelevant(good, bad):
    first = compare(good, bad, rounds=ROUNDS)
    for one, other in zip(first.numbers, compare(reversed_scenes(good), reversed_scenes(bad), rounds=ROUNDS).numbers, strict=True):
        assert np.allclose(
            [one.result.low, one.result.high, one.result.p], [other.result.low, other.result.high, other.result.p], atol=1e-9
        ), one.name  # fmt: skip


def reversed_scenes(found: Evaluation) -> Evaluation:
    """The same frames in the same rows, scenes numbered from behind."""
    frames = found.frames
    last = len(frames.scene_names) - 1
    tracking = replace(
        found.tracking, scene_amota=found.tracking.scene_amota[::-1], scene_amotp_m=found.tracking.scene_amotp_m[::-1]
    )  # fmt: skip
    return replace(found, frames=replace(frames, scene_names=frames.scene_names[::-1], scene=last - frames.scene), tracking=tracking)


def test_what_only_one_has_is_left_out_and_said(good, bad):
    found = compare(replace(good, planning=None), replace(bad, tracking=None), rounds=ROUNDS)
    assert found.left_out == ("planning: only in B", "tracking: only in A")
    assert not any(one.task in ("plan", "track") for one in found.numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: replace(found, header=replace(found.header, split="val")), "split differs: A has 'train', B has 'val'"),
        (lambda found: replace(found, header=replace(found.header, version="v2")), "version differs"),
        (lambda found: replace(found, frames=replace(found.frames, tokens=("x", *found.frames.tokens[1:]))), "data differ.* 2 are in one"),
        (lambda found: replace(found, detection=replace(found.detection, protocol="mine")), "protocol of detection differs.*mine"),
        (lambda found: replace(found, map=replace(found.map, thresholds_m=(1.0, 2.0, 3.0))), "protocol of map differs"),
        (lambda found: replace(found, map=replace(found.map, num_truth=found.map.num_truth + 1)), "truth of map differs"),
        (lambda found: replace(found, forecasting=replace(found.forecasting, min_score=0.5)), "protocol of forecasting differs"),
        (
            lambda found: replace(found, detection=None, tracking=None, map=None, forecasting=None, planning=None),
            "no task in common",
        ),
    ],
)
def test_results_that_cannot_be_compared_are_refused(change, message, good, bad):
    with pytest.raises(ValueError, match=message):
        compare(good, change(bad))


def test_one_scene_is_not_enough(good):
    one = replace(good.frames, scene_names=("all",), scene=np.zeros_like(good.frames.scene))
    with pytest.raises(ValueError, match="at least 2 scenes"):
        compare(replace(good, frames=one), replace(good, frames=one))
