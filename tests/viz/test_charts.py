import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsedrive.viz.charts import (
    HEIGHT_PX,
    PALETTE,
    WIDTH_PX,
    Axis,
    Line,
    histogram,
    line_chart,
    on_white,
    path_chart,
    spread_chart,
    ticks,
)

X, Y = Axis(label="time [s]", low=0.0, high=4.0), Axis(label="error [m]", low=0.0, high=8.0)


def line(y, name="a", **options) -> Line:
    y = np.asarray(y, float)
    return Line(name=name, x=np.arange(len(y), dtype=float), y=y, colour=PALETTE[0], **options)


def points(svg: str) -> list[np.ndarray]:
    return [np.array([pair.split(",") for pair in found.split()], float) for found in re.findall(r'points="([^"]*)"', svg)]


def test_lines_stand_where_the_axes_say():
    (drawn,) = points(line_chart("title", [line([0, 4, 8])], X, Y))
    bottom, top = drawn[0, 1], drawn[2, 1]
    assert top < bottom and np.isclose(drawn[1, 1], (top + bottom) / 2, atol=0.1)
    assert np.allclose(np.diff(drawn[:, 0]), drawn[1, 0] - drawn[0, 0], atol=0.15) and drawn[0, 0] < drawn[2, 0] < WIDTH_PX


def test_unknown_values_break_a_line_and_single_ones_are_dots():
    svg = line_chart("title", [line([1, 2, np.nan, 3, np.nan, 4, 5])], X, Y)
    assert [len(piece) for piece in points(svg)] == [2, 2] and svg.count("<circle") == 1


def test_labels_units_names_and_titles_are_there_and_escaped():
    svg = line_chart("a < b", [line([1, 2], name="<one>"), line([2, 1], name="two & three", dashed=True)], X, Y)
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    assert {"a < b", "<one>", "two & three", "time [s]", "error [m]"} <= set(texts)
    assert "stroke-dasharray" in svg


def test_nothing_to_draw_is_an_empty_chart():
    for svg in (line_chart("empty", [], X, Y), line_chart("nan", [line([np.nan])], Axis(label="x"), Axis(label="y"))):
        ElementTree.fromstring(svg)
        assert not points(svg)
    for chart in (histogram, spread_chart):
        svg = chart("none", {"a": np.zeros(0), "b": np.array([np.nan])}, PALETTE, Axis(label="x"))
        assert ElementTree.fromstring(svg) is not None and "nan" not in svg


def test_a_histogram_shows_the_share_of_each_group():
    svg = histogram("h", {"near": np.array([0.5] * 3 + [9.5]), "far": np.array([9.5, 99.0, np.nan])}, PALETTE, Axis(label="m", high=10.0))
    near, far = points(svg)
    lowest = near[:, 1].max()
    heights = lowest - near[:, 1]
    assert np.isclose(heights.max(), 3 * heights[-1], rtol=0.01), "three of four values are in one bin, one in the last"
    assert np.argmax(lowest - far[:, 1]) >= len(far) - 2 and "near (4)" in svg and "far (2)" in svg


def test_a_spread_shows_median_and_quartiles():
    values = np.linspace(0.0, 100.0, 101)
    svg = spread_chart("s", {"car & van": values, "bus": np.zeros(0)}, PALETTE, Axis(label="m", high=100.0))
    box = {
        name: float(value) for name, value in re.findall(r'(x|width)="([\d.]+)" ', re.findall(r'<rect [^>]*fill="#1f66c7"[^>]*>', svg)[0])
    }
    whole = next(float(x2) - float(x1) for x1, x2 in re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]*stroke-width="1.5"', svg))
    assert np.isclose(box["width"] / whole, 50 / 90, atol=0.01) and "median 50, 5 to 95 %: 5 to 95" in svg and ">bus<" in svg


def test_paths_have_one_scale():
    path = Line(name="p", x=np.array([0.0, 3.0, 3.0]), y=np.array([0.0, 0.0, 3.0]), colour=PALETTE[0])
    (drawn,) = points(path_chart("p", [path, line([20.0])], "right [m]", "forward [m]"))
    assert np.isclose(drawn[1, 0] - drawn[0, 0], drawn[1, 1] - drawn[2, 1], atol=0.2)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 10))
def test_ticks_are_few_round_and_inside(low, span, about):
    found = ticks(low, low + span, about)
    assert len(found) <= about + 1
    assert (found >= low - 1e-6 * abs(low) - 1e-6 * span).all() and (found <= low + span + 1e-6 * abs(low) + 1e-6 * span).all()


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 50, [0, 10, 20, 30, 40, 50]), (-1, 1, [-1, -0.5, 0, 0.5, 1])]
)
def test_ticks_of_usual_axes(low, high, expected):
    assert np.allclose(ticks(low, high), expected)


def test_colours_get_darker_on_white():
    assert all(dark < bright for dark, bright in zip(on_white((200, 100, 50)), (200, 100, 50), strict=True)) and HEIGHT_PX < WIDTH_PX
