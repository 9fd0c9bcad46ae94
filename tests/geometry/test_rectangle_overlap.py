"""Rectangles on the ground: by hand and against shapely."""

import numpy as np
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsedrive.geometry.rectangles import corners_m, touch

CAR = [0.0, 0.0, 4.0, 2.0, 0.0]
QUARTER = np.pi / 2
rectangles = st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.2, 8), st.floats(0.2, 8), st.floats(-7, 7))


def touching(first, second) -> bool:
    return bool(touch(np.array(first), np.array(second)))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([4.0, 0.0, 4.0, 2.0, 0.0], True),  # edge on edge
        ([4.001, 0.0, 4.0, 2.0, 0.0], False),
        ([0.0, 2.9, 4.0, 2.0, QUARTER], True),
        ([0.0, 3.1, 4.0, 2.0, QUARTER], False),
        ([0.0, 0.0, 0.5, 20.0, 0.0], True),  # a cross: no corner of one is in the other
        ([0.0, 0.0, 0.1, 0.1, 0.3], True),
        ([3.3, 1.0, 2.0, 2.0, np.pi / 4], True),  # the tip reaches in
        ([3.3, 2.3, 2.0, 2.0, np.pi / 4], False),  # rectangles around both do overlap
    ],
)
def test_hand_made_pairs(other, expected):
    assert touching(CAR, other) is touching(other, CAR) is expected


@given(rectangles, rectangles)
def test_touching_is_that_of_shapely(first, second):
    one, other = (shapely.Polygon(corners_m(np.array(rectangle))) for rectangle in (first, second))
    gap_m = one.distance(other) or -shapely.intersection(one, other).area
    assume(abs(gap_m) > 1e-9)
    assert touching(first, second) is bool(one.intersects(other))


def test_corners_by_hand():
    assert corners_m(np.array(CAR)) == pytest.approx(np.array([[2, 1], [-2, 1], [-2, -1], [2, -1]]))
    assert corners_m(np.array([[1.0, 0, 4, 2, QUARTER]])) == pytest.approx(np.array([[[0, 2], [0, -2], [2, -2], [2, 2]]]))


def test_all_pairs_by_broadcasting():
    random = np.random.default_rng(0)
    many, others = (random.uniform((-5, -5, 1, 1, -4), (5, 5, 6, 3, 4), (count, 5)) for count in (4, 7))
    found = touch(many[:, None], others[None])
    assert found.shape == (4, 7) and 0 < found.mean() < 1
    assert all(found[i, j] == touching(many[i], others[j]) for i in range(4) for j in range(7))
