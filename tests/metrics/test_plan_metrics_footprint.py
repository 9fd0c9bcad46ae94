import numpy as np
import pytest
import shapely
from golden_metrics import subset
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedrive.geometry.rectangles import corners_m, touch
from sparsedrive.metrics.footprint import ego_rectangles, heading_rad, hits_objects_on_grid

CAR = [0.0, 0.0, 4.0, 2.0, 0.0]
QUARTER = np.pi / 2
rectangles = st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.2, 8), st.floats(0.2, 8), st.floats(-7, 7))


def test_published_pairs_and_headings():
    data = subset()
    ego, other = data["unit_col_ego_box"].astype(float), data["unit_col_obj_box"].astype(float)[:, [0, 1, 3, 4, 6]]
    first = ego_rectangles(ego[:, None, :2], ego[:, None, 6], 1.0, 1.0, 0.5)[:, 0]
    first[:, 2:4] = ego[:, 3:5]
    assert (touch(first, other) == data["unit_col_out"]).all()
    np.testing.assert_allclose(heading_rad(data["unit_yaw_in_traj"].astype(float)), data["unit_yaw_out"], atol=1e-6)


@settings(deadline=None)
@given(rectangles, st.floats(-60, 60), st.floats(-60, 60))
def test_the_grid_is_wrong_by_a_cell_or_so(other, east, north):
    """What is more than 1.1 m apart never touches on the grid, what would overlap if both were that much smaller always does."""
    place = np.clip([east, north], -49, 45)
    thing = np.array([[other[0] + place[0], other[1] + place[1], *other[2:]]])
    if abs(thing[0, 0]) > 46 or abs(thing[0, 1]) > 42:
        thing[0, :2] = place
    path = place.reshape(1, 1, 2)
    ego = ego_rectangles(path, np.full((1, 1), QUARTER), 4.084, 1.85, 0.5)[0]
    first = np.zeros(1, int)
    hit = bool(hits_objects_on_grid(path, 4.084, 1.85, 0.5, thing, first, first)[0, 0])
    one, two = (shapely.Polygon(corners_m(rectangle)[0]) for rectangle in (ego, thing))
    if one.distance(two) > 1.1:
        assert not hit
    if one.buffer(-0.55).intersects(two.buffer(-0.55)):
        assert hit


def test_the_grid_by_hand():
    """At the origin the vehicle is the cells 97 to 104 ahead and 98 to 101 across; a cone's cells go up to half a metre further."""
    origin, first = np.zeros((1, 1, 2)), np.zeros(1, int)

    def hit(east, north):
        return bool(hits_objects_on_grid(origin, 4.084, 1.85, 0.5, np.array([[east, north, 0.2, 0.2, 0.0]]), first, first)[0, 0])

    assert [hit(0.0, north) for north in (-1.9, -1.6, 2.1, 2.4)] == [False, True, True, False]
    assert [hit(east, 0.0) for east in (-1.4, -1.1, 0.6, 0.9)] == [False, True, True, False]


def test_headings_by_hand():
    east = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 3.0]])
    assert heading_rad(east[None])[0] == pytest.approx([0.0, np.arctan2(3, 2), np.arctan2(3, 1)])
    assert heading_rad(0.1 * east[None])[0] == pytest.approx([QUARTER] * 3)  # stands, from first to last waypoint 0.36 m
    assert heading_rad(np.array([[[0.0, -2.0]]]))[0] == pytest.approx([QUARTER])  # a single waypoint: first is last
