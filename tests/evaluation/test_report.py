import base64
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from evaluation_samples import DATE, noisy_predictions, sample_data, sample_evaluation

from sparsedrive.evaluation.compare import compare
from sparsedrive.evaluation.frames import chosen_frames, plan_error_m
from sparsedrive.evaluation.html import Row, number, percent, table
from sparsedrive.evaluation.report import report_html, write_report
from sparsedrive.evaluation.results import GROUND_TRUTH, MODEL
from sparsedrive.evaluation.run import evaluate

VOID = {"meta", "img", "br", "link", "input"}
BOX_COLUMNS, LINE_COLUMNS = ("box", "score", "label", "track_id"), ("points_m", "score", "label")
FUTURE_COLUMNS = ("row", "trajectory_m", "mode_score")
SELF_CLOSED = {"line", "path", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Tags that are open, cells of tables, all text, and whatever would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert tag not in ("script", "link", "iframe", "object")
        assert not any(name.startswith("on") for name in found)
        self.loads += [found[name] for name in ("src", "href", "xlink:href", "srcset") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SELF_CLOSED | VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data)
            if self.open and self.open[-1] == "td":
                self.rows[-1].append(data)
                self.cells.append(data)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report_html(sample_evaluation()))


@pytest.fixture(scope="module")
def pictured() -> str:
    return report_html(sample_evaluation(), data=sample_data(), predictions=noisy_predictions(sample_data()))


def test_the_page_is_whole_and_loads_nothing(page, pictured):
    assert page.open == []
    assert {link[1:] for link in page.loads} <= set(page.ids) and all(link.startswith("#") for link in page.loads)
    found = Page(pictured)
    assert found.open == [] and all(link.startswith(("#", "data:image/jpeg;base64,")) for link in found.loads)
    assert not re.search(r"https?://|url\(|@import|<script", pictured)


def numbers_of(found) -> dict[str, list[str]]:
    """What must stand in the tables, by task."""
    det, track, lines, motion, plan = found.detection, found.tracking, found.map, found.forecasting, found.planning
    return {
        "det": [percent(value) for value in (*det.ap.ravel(), det.mean_ap)]
        + [number(value) for value in (*det.error.ravel(), *det.mean_error)]
        + [str(value) for value in (*det.num_truth, *det.num_predictions)],
        "track": [number(value) for value in (*track.amota, *track.amotp_m, track.mean_amota, track.mean_amotp_m)]
        + [number(value, 0) for value in track.best[:, track.score_names.index("ids")]],
        "map": [percent(value) for value in (*lines.ap.ravel(), lines.mean_ap)],
        "motion": [
            (percent if column == 2 else number)(value)
            for both in (motion.published, motion.plain, motion.baseline_published, motion.baseline_plain)
            for row in both
            for column, value in enumerate(row)
        ],
        "plan": [
            text
            for planner in plan.planners
            for one in planner.numbers
            for text in (
                *([number(one.mean_l2_m), *map(number, one.l2_m[1::2])] if planner.name != GROUND_TRUTH else []),
                *map(percent, one.collision_rate[1::2]),
                *map(percent, one.boundary_rate[1::2]),
                percent(one.mean_boundary_rate),
            )
        ],
    }


@pytest.mark.parametrize("task", ["det", "track", "map", "motion", "plan"])
def test_every_number_of_the_result_is_in_a_table(task, page):
    missing = [text for text in numbers_of(sample_evaluation())[task] if text not in page.cells]
    assert missing == []


def test_planners_stand_side_by_side_in_every_protocol(page):
    planning = sample_evaluation().planning
    for planner in planning.planners:
        values = [planner.get(protocol) for protocol in planning.protocols]
        cells = [percent(value) for one in values for value in (*one.collision_rate[1::2], one.mean_collision_rate)]
        assert [planner.name.replace("_", " "), *cells] in page.rows


def test_header_notes_and_limits_are_told(page):
    header = sample_evaluation().header
    text = " ".join(page.texts)
    for word in (header.data, header.version, header.split, header.weights, header.date, *header.notes, "not nuScenes scores", "open loop"):
        assert word in text


def test_names_are_escaped():
    found = sample_evaluation()
    evil = "<script>alert('x')</script>&\""
    frames = replace(found.frames, scene_names=tuple(f"{evil}{row}" for row in range(len(found.frames.scene_names))))
    text = report_html(replace(found, header=replace(found.header, preset=evil, weights=evil, notes=(evil,)), frames=frames))
    assert "<script" not in text and "&lt;script&gt;" in text and Page(text).open == []
    assert unescape(text).count(evil) >= 3 + len(frames.scene_names)


def test_tasks_that_are_not_there_leave_no_trace():
    found = replace(sample_evaluation(), tracking=None, forecasting=None, planning=None)
    page = Page(report_html(found))
    assert page.open == [] and {"det", "map", "scenes", "frames"} == set(page.ids)
    assert not any("L2" in text or "AMOTA" in text or "open loop" in text for text in page.texts)
    assert set(Page(report_html(replace(found, detection=None, map=None))).ids) == {"scenes", "frames"}


def test_a_baseline_that_is_as_good_as_the_model_is_called_out():
    found = sample_evaluation()
    model, *others = found.planning.planners
    first = others[0]
    copied = replace(first, numbers=model.numbers)
    said = report_html(replace(found, planning=replace(found.planning, planners=(model, copied, *others[1:]))))
    assert "The baseline constant velocity" in said and "The baseline ground truth" not in said
    assert "The baseline constant velocity" not in report_html(found)


def test_forecasts_no_better_than_going_straight_on_are_called_out():
    found = sample_evaluation()
    motion = found.forecasting
    assert "Going straight on" not in report_html(replace(found, forecasting=replace(motion, baseline_plain=motion.plain + 1.0)))
    worse = np.array([[1.0], [-1e-3]]) + motion.plain  # cars are forecast better than going straight on, pedestrians are not
    page = report_html(replace(found, forecasting=replace(motion, baseline_plain=worse)))
    assert "no larger than the model's forecasts: pedestrian." in unescape(page)


def test_pictures_are_of_the_chosen_frames(pictured):
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', pictured)
    chosen = chosen_frames(sample_evaluation())
    assert len(pictures) == len(chosen) > 3
    for (data, caption), frame in zip(pictures, chosen, strict=True):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] == 1600 and picture.std() > 10
        assert sample_evaluation().frames.tokens[frame.row] in caption and frame.reason in unescape(caption)


def test_worst_frames_are_the_worst_and_none_comes_twice():
    found = sample_evaluation()
    chosen = chosen_frames(found, worst_each=2)
    assert len({frame.row for frame in chosen}) == len(chosen)
    error_m = plan_error_m(found.planning.planner(MODEL).frame_l2_m)
    assert chosen[0].row == np.nanargmax(error_m) and f"{np.nanmax(error_m):.2f} m" in chosen[0].reason
    assert found.frames.scene[chosen[0].row] != found.frames.scene[chosen[1].row]


def test_a_report_is_written_whole_and_anew(tmp_path):
    path = write_report(sample_evaluation(), tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == report_html(sample_evaluation())
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_predictions_of_other_frames_are_refused():
    predictions = noisy_predictions(sample_data())
    other = replace(predictions, frames=replace(predictions.frames, tokens=predictions.frames.tokens[::-1]))
    with pytest.raises(ValueError, match="frames of the evaluation"):
        report_html(sample_evaluation(), data=sample_data(), predictions=other)


def test_numbers_that_are_not_defined_are_a_dash():
    assert (number(float("nan")), number(None), percent(None), number(1 / 3, 2), percent(0.5, 0)) == ("–", "–", "–", "0.33", "50")


def test_a_table_has_a_cell_for_every_column():
    text = table(["a", "b", "c"], [Row(cells=["<x>", "1", "2"], shades=[None, 0.5])], [("both", 2)])
    assert 'colspan="2"' in text and "&lt;x&gt;" in text and text.count("<td") == 3 and text.count("background") == 1


@pytest.mark.parametrize("seconds", [2, 6])
def test_other_horizons_are_reported_as_they_are(seconds):
    predictions = noisy_predictions(sample_data())
    plan_m = np.repeat(predictions.plan_m, 2, axis=1)[:, : 2 * seconds]
    found = evaluate(replace(predictions, plan_m=plan_m), sample_data(), tasks=["plan"], date=DATE)
    page = Page(report_html(found))
    heads = {f"All frames, {min(seconds, 3)} s"} | ({"All frames, 6 s (73 plans)"} if seconds == 6 else set())
    assert heads <= set(page.texts)
    numbers = found.planning.planner(MODEL).get("uniad", horizon_s=float(seconds))
    assert all(number(value) in page.cells for value in (*numbers.l2_m[1::2], numbers.mean_l2_m))


def test_a_model_that_says_nothing_has_a_report_and_can_be_compared():
    said = noisy_predictions(sample_data())
    nothing = replace(
        said,
        boxes=replace(said.boxes, splits=np.zeros_like(said.boxes.splits), **{name: getattr(said.boxes, name)[:0] for name in BOX_COLUMNS}),
        lines=replace(
            said.lines, splits=np.zeros_like(said.lines.splits), **{name: getattr(said.lines, name)[:0] for name in LINE_COLUMNS}
        ),
        forecasts=replace(said.forecasts, **{name: getattr(said.forecasts, name)[:0] for name in FUTURE_COLUMNS}),
    )
    found = evaluate(nothing, sample_data(), date=DATE)
    text = report_html(found, data=sample_data(), predictions=nothing)
    assert Page(text).open == [] and "nan" not in re.sub(r"base64,[^\"]*", "", text)
    compared = {one.name: one.result for one in compare(sample_evaluation(), found, rounds=100).numbers}
    assert compared["mAP"].b == 0 and compared["mAP"].high < 0
