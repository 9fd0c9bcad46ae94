"""A model through a suite, what is kept of hand-made answers, files, comparisons and the page."""

import math
from dataclasses import replace
from functools import cache

import model_samples
import numpy as np
import pytest
from evaluation_samples import SPLIT, noisy_predictions, sample_data
from truth_samples import truth_as_predictions

from sparsedrive.data.failure_script import FailureScript, FaultSpan
from sparsedrive.evaluation.predictions import PredictionSet, frame_of_rows
from sparsedrive.evaluation.results import Header
from sparsedrive.evaluation.robustness import Answers, Judge, judge_scenario, run_suite
from sparsedrive.evaluation.robustness_compare import gains
from sparsedrive.evaluation.robustness_matrix import matrix_picture
from sparsedrive.evaluation.robustness_page import page_html, write_page
from sparsedrive.evaluation.robustness_results import MEASURES, RobustnessResult, ScenarioResult, check_comparable, robobev
from sparsedrive.evaluation.robustness_scenarios import Scenario, choose, suite_scenarios
from sparsedrive.evaluation.run import evaluate, predict
from sparsedrive.structures import NUSCENES_CAMERAS

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")
BOX_MAP, BLIND_MAP = MEASURES[0], next(measure for measure in MEASURES if measure.blind)


@pytest.fixture(scope="module")
def model():
    return model_samples.build(replace(model_samples.config(), camera_names=CAMERAS))


@pytest.fixture(scope="module")
def suite(numbers) -> tuple[Scenario, ...]:
    scenes = [numbers.scene(name) for name in numbers.split("val")]
    return choose(suite_scenarios("quick", scenes, CAMERAS), ["S1-front", "O-front"])


def run(model, data, scenarios, **changes) -> RobustnessResult:
    options = {"suite": "quick", "seed": 0, "weights": "w", "library": "1", "date": "d", "label": "small", "workers": 0}
    return run_suite(model, data, "val", scenarios, **(options | changes))


@pytest.fixture(scope="module")
def result(model, numbers, suite) -> RobustnessResult:
    return run(model, numbers, suite)


@cache
def sample_judge() -> Judge:
    return Judge.of(sample_data(), SPLIT, NUSCENES_CAMERAS)


DEAD = {"C0": (), "S1-front": NUSCENES_CAMERAS[:1], "S2a-both": NUSCENES_CAMERAS[:2]}
"""Failures of the sample data, by hand: front camera dead, front and its right neighbour dead."""


@cache
def answers(said: PredictionSet) -> Answers:
    return Answers.of(sample_judge(), said)


@cache
def scenario_result(name: str, said: PredictionSet, clean: PredictionSet) -> ScenarioResult:
    spans = [
        FaultSpan(scene=scene.name, camera=camera, start=0, stop=scene.num_frames, kind="black")
        for scene in sample_judge().truth.scenes
        for camera in DEAD[name]
    ]
    scenario = Scenario(name=name, group=name.split("-")[0], text="by hand", script=FailureScript(spans=tuple(spans)))
    return judge_scenario(sample_judge(), scenario, answers(said), answers(clean), np.full(10, 0.1))


def judged(said_by_scenario: dict[str, PredictionSet], clean: PredictionSet, label: str) -> RobustnessResult:
    """Answers made by hand as a result."""
    rows = [scenario_result(name, said, clean) for name, said in said_by_scenario.items()]
    header = Header(
        data="made", version="v", split=SPLIT, num_scenes=8, num_frames=1, preset="p", weights="w", parity=(), library="1", date="d",
        notes=(),
    )  # fmt: skip
    frames, classes = sample_judge().truth.frames, tuple("abcdefghij")
    return RobustnessResult(header=header, suite="own", seed=0, label=label, classes=classes, frames=frames, scenarios=tuple(rows))


@cache
def without_ahead(said: PredictionSet, half_width_deg: float) -> PredictionSet:
    """A model that says nothing about boxes ahead."""
    box = said.boxes.box
    ahead = np.abs(np.degrees(np.arctan2(box[:, 0], box[:, 1]))) < half_width_deg
    frame = frame_of_rows(said.boxes.splits)[~ahead]
    columns = {name: getattr(said.boxes, name)[~ahead] for name in ("box", "score", "label", "track_id")}
    splits = np.concatenate([[0], np.cumsum(np.bincount(frame, minlength=len(said.boxes.splits) - 1))])
    return replace(said, boxes=replace(said.boxes, splits=splits, **columns), forecasts=None)


@pytest.fixture(scope="module")
def perfect() -> PredictionSet:
    return truth_as_predictions(sample_data(), SPLIT)


def test_a_perfect_model_keeps_all_and_a_blind_one_loses_its_sector(perfect):
    names = ("C0", "S1-front", "S2a-both")
    found = judged(dict.fromkeys(names, perfect), perfect, "perfect")
    for one in found.scenarios[1:]:
        assert one.blind.num_boxes > 10 and one.blind.box_map == pytest.approx(1) and one.blind.recall == 1 and one.blind.false_alarms == 0
        assert one.blind.line_map == pytest.approx(1) and one.blind.overconfidence == pytest.approx(-0.1)
        assert all(measure.retention(one, found) == pytest.approx(1) for measure in MEASURES if measure.field not in ("l2_m",))
    assert math.isnan(found.clean.blind.box_map) and found.clean.lost_share == 0 and found.clean.rest.recall == 1
    blind = judged({name: perfect if name == "C0" else without_ahead(perfect, 17) for name in names}, perfect, "blind")
    lost = blind.get("S1-front")
    assert lost.lost_share == pytest.approx(1 / 6) and lost.blind.recall < 0.1 and lost.blind.box_map < 0.1 and lost.clean_blind.recall == 1
    assert lost.rest.box_map > 0.9 and 0.6 < BOX_MAP.retention(lost, blind) < 1 and BLIND_MAP.retention(lost, blind) < 0.1


def test_retention_of_an_error_and_against_another_model(perfect):
    noisy = noisy_predictions(sample_data(), noise_m=1.0)
    found = judged({"C0": noisy, "S1-front": noisy}, noisy, "noisy")
    plain = judged({"C0": perfect, "S1-front": without_ahead(perfect, 17)}, perfect, "plain")
    one = found.get("S1-front")
    assert BOX_MAP.retention(one, found) == pytest.approx(1)
    assert BOX_MAP.retention(one, plain) == pytest.approx(found.clean.whole.box_map / plain.clean.whole.box_map)
    assert BLIND_MAP.retention(one, plain) == pytest.approx(one.blind.box_map) and one.blind.box_map < 0.7
    error = next(measure for measure in MEASURES if not measure.higher_is_better)
    half = replace(one, whole=replace(one.whole, l2_m=2 * found.clean.whole.l2_m))
    assert error.retention(half, found) == pytest.approx(0.5)


def test_gain_is_the_share_won_back(perfect):
    lost = without_ahead(perfect, 17)
    clean, names = perfect, ("S1-front", "S2a-both")
    baseline = judged({"C0": clean} | dict.fromkeys(names, lost), clean, "dropout")
    best = judged({"C0": clean} | dict.fromkeys(names, perfect), clean, "all back")
    found = gains(best, baseline, rounds=200)
    assert [one.group for one in found.groups] == ["S1", "S2a", "S1 + S2a"] and found.clean.difference == 0
    for one in found.groups:
        assert one.gain == pytest.approx(1) and one.blind.low > 0 and one.clean == pytest.approx(1)
    nothing = gains(baseline, baseline, rounds=200)
    assert all(one.gain == 0 and one.blind.low == one.blind.high == 0 for one in nothing.groups)
    half = judged({"C0": clean, "S1-front": perfect, "S2a-both": lost}, clean, "half")
    assert 0.2 < gains(half, baseline, rounds=200).groups[-1].gain < 0.8
    worse = gains(baseline, half, rounds=200).groups[0]
    assert worse.blind.high < 0 and math.isnan(worse.gain)  # the baseline lost nothing there


def test_the_clean_run_is_an_evaluation_and_failures_change_answers(result, model, numbers):
    said = predict(model, numbers, "val", weights="w", library="1", workers=0)
    clean = evaluate(said, numbers, tasks=["det", "track", "map", "motion", "plan"], date="d")
    ours = result.clean.whole
    assert (ours.box_map, ours.nds) == (clean.detection.mean_ap, clean.detection.nds) and ours.line_map == clean.map.mean_ap
    assert ours.l2_m == pytest.approx(clean.planning.planner("model").get("uniad").mean_l2_m)
    assert ours.mean_l2_m == pytest.approx(clean.planning.planner("model").get("st-p3").mean_l2_m)
    assert [one.name for one in result.scenarios] == ["C0", "S1-front", "O-front"]
    assert result.clean.lost_share == 0 and result.get("S1-front").lost_share == pytest.approx(1 / 3)
    assert 0 < result.get("O-front").lost_share < 1 / 3 and result.get("O-front").onset is not None and result.clean.onset is None
    assert result.clean.judged[0] > 0 and (result.clean.collided <= result.clean.judged).all()
    dead = predict(model, numbers, "val", weights="w", library="1", workers=0, failures=_script(numbers, "S1-front"))
    assert not np.array_equal(dead.boxes.box, said.boxes.box)


def _script(data, name: str) -> FailureScript:
    scenes = [data.scene(scene) for scene in data.split("val")]
    return next(one.script for one in suite_scenarios("quick", scenes, CAMERAS) if one.name == name)


def test_files_come_back(result, tmp_path):
    loaded = RobustnessResult.load(result.save(tmp_path / "robustness.json"))
    assert page_html(loaded) == page_html(result) and loaded.get("S1-front").digest == result.get("S1-front").digest
    (tmp_path / "evaluation.json").write_text('{"schema": "sparsedrive-evaluation"}')
    with pytest.raises(ValueError, match="expected schema 'sparsedrive-robustness'"):
        RobustnessResult.load(tmp_path / "evaluation.json")
    with pytest.raises(ValueError, match="expected the clean scenario C0 first"):
        RobustnessResult.load(replace(result, scenarios=result.scenarios[1:]).save(tmp_path / "other.json"))


def test_the_same_for_any_batch(model, result, numbers, suite):
    again = run(model, numbers, suite, batch_size=2)
    assert page_html(again) == page_html(result)


def test_what_cannot_be_run_or_compared(model, numbers, suite, result, perfect):
    with pytest.raises(ValueError, match="expected the clean scenario C0 first"):
        run(model, numbers, suite[1:])
    other = FailureScript(spans=(FaultSpan(scene="scene-0002", camera="CAM_TOP", start=0, stop=2, kind="black"),))
    with pytest.raises(ValueError, match="no such camera"):
        run(model, numbers, (suite[0], replace(suite[1], script=other)))
    with pytest.raises(ValueError, match="compare results of the same data"):
        check_comparable(result, judged({"C0": perfect}, perfect, "other data"))
    changed = replace(result, scenarios=(result.clean, replace(result.scenarios[1], digest="0")))
    with pytest.raises(ValueError, match="different lists"):
        gains(result, changed)


def test_robobev_by_hand(result):
    def with_nds(clean: float, *levels: float) -> RobustnessResult:
        rows = [replace(result.clean, whole=replace(result.clean.whole, nds=clean))]
        names = [f"{group}-{level}" for group in ("CC", "FL") for level in (2, 4, 5)]
        rows += [replace(rows[0], name=name, whole=replace(rows[0].whole, nds=nds)) for name, nds in zip(names, levels, strict=True)]
        return replace(result, scenarios=tuple(rows))

    ours, plain = with_nds(0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1), with_nds(0.6, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1)
    retained, error = robobev(ours, plain)
    assert retained == pytest.approx((0.9 / 1.5 + 0.3 / 1.5) / 2) and error == pytest.approx((2.1 / 2.4 + 1) / 2)
    assert math.isnan(robobev(ours, None)[1]) and math.isnan(robobev(result, None)[0])


def test_the_page_and_the_matrix_say_it(result, perfect, tmp_path):
    page = write_page(result, tmp_path / "deep" / "page.html", plain=result, compared=[gains(result, result, rounds=200)]).read_text()
    for text in ("S1-front", "Blind sector", "Since the failure", "small", "Gain", result.get("S1-front").digest[:12]):
        assert text in page, text
    assert page.count("<svg") == 3 and "script" not in page.lower().replace("description", "")
    found = judged({"C0": perfect, "S1-front": without_ahead(perfect, 17)}, perfect, "a & <b>")
    picture = matrix_picture(found)
    kept = BOX_MAP.retention(found.get("S1-front"), found)
    assert f">{100 * kept:.0f}</text>" in picture and "a &amp; &lt;b&gt;" in picture and picture.count("<rect") == 1 + len(MEASURES) + 6
