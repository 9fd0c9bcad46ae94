"""Map lines as targets: the region's edge, pieces of crossings, equal spacing, all orders."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, Polygon

from sparsedrive.data.map_lines import clip_to_roi, is_ring, orders, resample, turn

CROSSING, DIVIDER, BOUNDARY = 0, 1, 2
METRES = st.floats(-100, 100).map(lambda value: round(value, 2))
POINTS = st.lists(st.tuples(METRES, METRES), min_size=2, max_size=12, unique=True).map(lambda points: np.array(points, np.float64))
QUICK = settings(max_examples=60, deadline=None, derandomize=True)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], np.float64)


def length_m(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def closed(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, points[:1]])


def test_dividers_end_at_the_region_and_boundaries_before_it():
    line = np.array([[1.0, -90.0], [1.0, 90.0]])
    (_, divider), (_, boundary) = clip_to_roi([(DIVIDER, line), (BOUNDARY, line)])
    np.testing.assert_allclose(divider, [[1, -30], [1, 30]])
    np.testing.assert_allclose(boundary, [[1, -29.8], [1, 29.8]])


def test_a_crossing_stays_a_ring_closed_along_the_region():
    for ring in (rectangle(10, 0, 50, 4), rectangle(10, 0, 50, 4)[::-1]):
        ((label, points),) = clip_to_roi([(CROSSING, ring)])
        assert label == CROSSING and is_ring(points) and shapely.is_ccw(shapely.LinearRing(points))
        assert shapely.equals(Polygon(points), shapely.box(10, 0, 15, 4))


def test_a_crossing_that_is_no_ring_is_a_line():
    ((label, points),) = clip_to_roi([(CROSSING, np.array([[0.0, 0.0], [40.0, 0.0]]))])
    assert label == CROSSING
    np.testing.assert_allclose(points, [[0, 0], [15, 0]])


def test_a_line_that_leaves_and_comes_back_is_two():
    line = np.array([[0, 0], [20, 0], [20, 5], [0, 5]], np.float64)
    assert [length_m(points) for _, points in clip_to_roi([(DIVIDER, line)])] == [15, 15]
    assert clip_to_roi([(DIVIDER, line + 100)]) == []


def test_a_boundary_ring_is_not_cut_where_it_starts():
    inside = rectangle(-5, -5, 5, 5)
    ((_, points),) = clip_to_roi([(BOUNDARY, inside)])
    assert is_ring(points) and shapely.equals(Polygon(points), Polygon(inside))
    ((_, points),) = clip_to_roi([(BOUNDARY, inside + np.array([12, 0]))])
    assert not is_ring(points) and length_m(points) == pytest.approx(2 * 7.8 + 10)


def test_directions_are_kept():
    line = np.array([[-3, -40], [2, 0], [-4, 40]], np.float64)
    for label in (DIVIDER, BOUNDARY):
        ((_, forward),), ((_, back),) = clip_to_roi([(label, line)]), clip_to_roi([(label, line[::-1])])
        assert forward[0, 1] < forward[-1, 1] and back[0, 1] > back[-1, 1]


def test_crumbs_at_the_corner_are_no_targets():
    line = np.array([[14.9999, 31.0], [14.9999, 29.9995]])
    assert clip_to_roi([(DIVIDER, line)]) == []


def test_pieces_of_a_crossing_are_one_and_neighbours_across_it_are_not():
    pieces = [rectangle(-6, 0, 0, 3), rectangle(0, 0, 6, 3)]
    across = rectangle(6, 3, 9, 12)
    areas = [Polygon(points) for _, points in clip_to_roi([(CROSSING, ring) for ring in [*pieces, across]])]
    assert [area.area for area in areas] == pytest.approx([36, 27])
    apart = clip_to_roi([(CROSSING, pieces[0]), (CROSSING, pieces[1] + np.array([0.1, 0]))])
    assert len(apart) == 2


def test_nearly_parallel_pieces_are_one_below_eight_degrees():
    first = rectangle(-6, 0, 0.5, 3)
    for degrees, count in ((7.0, 1), (9.0, 2), (173.0, 1)):
        ((_, second),) = turn([(CROSSING, rectangle(0, -1.5, 6.5, 1.5))], np.deg2rad(degrees))
        assert len(clip_to_roi([(CROSSING, first), (CROSSING, second + np.array([0, 1.5]))])) == count, degrees


def test_a_crossing_that_crosses_itself_is_cut_all_the_same():
    bow_tie = np.array([[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]], np.float64)
    assert sum(Polygon(points).area for _, points in clip_to_roi([(CROSSING, bow_tie)])) == pytest.approx(8)


@QUICK
@given(POINTS, st.floats(-7, 7))
def test_turning_keeps_lengths_and_turns_back(points, angle_rad):
    ((_, turned),) = turn([(DIVIDER, points)], angle_rad)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(points, axis=1), atol=1e-9)
    np.testing.assert_allclose(turn([(DIVIDER, turned)], -angle_rad)[0][1], points, atol=1e-9)


def test_turning_is_counter_clockwise():
    np.testing.assert_allclose(turn([(1, np.array([[1.0, 0.0]]))], np.pi / 2)[0][1], [[0, 1]], atol=1e-12)


@QUICK
@given(POINTS, st.integers(2, 40))
def test_resampled_points_lie_on_the_line_at_equal_distances(points, num):
    sampled = resample(points, num)
    assert sampled.shape == (num, 2)
    np.testing.assert_array_equal(sampled[[0, -1]], points[[0, -1]])
    whole = LineString(points)
    expected = shapely.get_coordinates(shapely.line_interpolate_point(whole, np.linspace(0, whole.length, num)))
    np.testing.assert_allclose(sampled, expected, atol=1e-6)


@QUICK
@given(POINTS)
def test_resampling_keeps_the_length_up_to_cut_corners(points):
    dense = resample(points, 4001)
    assert length_m(points) * (1 - 12 / 4000) - 1e-9 <= length_m(dense) <= length_m(points) + 1e-9


def test_repeated_vertices_do_no_harm():
    np.testing.assert_allclose(resample(np.array([[0, 0], [0, 0], [2, 0], [2, 0], [4, 0]], np.float64), 5)[:, 0], [0, 1, 2, 3, 4])


def test_a_ring_stays_a_ring_of_twenty_points_with_thirty_eight_orders():
    sampled = resample(rectangle(0, 0, 9, 4))
    assert is_ring(sampled) and orders(sampled).shape == (38, 20, 2)


@QUICK
@given(POINTS.filter(lambda points: len(points) > 2).map(closed))
def test_all_orders_of_a_ring_trace_the_same_edges(points):
    every = orders(points)
    num = len(points)
    assert every.shape == (2 * (num - 1), num, 2)
    np.testing.assert_array_equal(every[0], points)
    assert len({order.tobytes() for order in every}) == len(every)
    edges = [{frozenset(map(tuple, edge)) for edge in pairwise(order)} for order in every]
    assert all(is_ring(order) for order in every) and all(edge == edges[0] for edge in edges)
    # The published layout: starts shift backwards, first all in the line's direction, then all reversed.
    np.testing.assert_array_equal(every[1, :-1], np.roll(points[:-1], 1, axis=0))
    np.testing.assert_array_equal(every[num, :-1], np.roll(points[-2::-1], 1, axis=0))


@QUICK
@given(POINTS)
def test_an_open_line_has_two_orders(points):
    np.testing.assert_array_equal(orders(points), [points, points[::-1]])
