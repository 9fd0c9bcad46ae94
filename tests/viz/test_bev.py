import numpy as np
import pytest
import torch
from viz_samples import box, detections, forecasts, lines, plan, scene

from sparsedrive.geometry import box_state
from sparsedrive.structures import Scene
from sparsedrive.viz import BevView, draw_bev, select
from sparsedrive.viz.style import class_colour, map_colour

VIEW = BevView()


def difference(shown: Scene, without: Scene) -> np.ndarray:
    """Where the two pictures differ."""
    return (draw_bev(select(shown), VIEW) != draw_bev(select(without), VIEW)).any(-1)


def bare(**parts) -> Scene:
    empty = {"detections": detections([]), "map": lines([]), "forecasts": None, "plan": None}
    return Scene(**{**empty, **parts})


def test_forward_is_up_and_right_is_right():
    assert VIEW.to_pixels(np.array([0.0, 50.0])) == pytest.approx([240.0, 0.0])
    assert VIEW.to_pixels(np.array([30.0, -30.0])) == pytest.approx([480.0, 640.0])
    assert VIEW.wh_px == (480, 640)


def test_box_appears_at_its_place():
    changed = difference(bare(detections=detections([(box(10.0, 20.0), 0, 0.9, -1)])), bare())
    rows, columns = np.nonzero(changed)
    assert abs(columns.mean() - VIEW.to_pixels(np.array([10.0, 20.0]))[0]) < 1.5
    assert abs((rows.min() + rows.max()) / 2 - VIEW.to_pixels(np.array([10.0, 20.0]))[1]) < 1.5
    assert abs(np.ptp(rows) - 4.5 * VIEW.px_per_m) <= 6 and abs(np.ptp(columns) - 1.9 * VIEW.px_per_m) <= 6  # lines have a width


def test_velocity_arrow_points_where_the_box_goes():
    still = bare(detections=detections([(box(10.0, 20.0), 0, 0.9, -1)]))
    moving = bare(detections=detections([(box(10.0, 20.0, velocity=(-6.0, 0.0)), 0, 0.9, -1)]))
    _, columns = np.nonzero(difference(moving, still))
    x_px = VIEW.to_pixels(np.array([10.0, 20.0]))[0]
    assert columns.max() <= x_px + 3
    assert abs(columns.min() - (x_px - 6 * VIEW.px_per_m)) <= 3


def test_map_line_has_the_colour_of_its_class():
    picture = draw_bev(select(bare(map=lines([([[-10.0, -10.0], [-10.0, 30.0]], 2, 0.9)]))), VIEW)
    x, y = VIEW.to_pixels(np.array([-10.0, 5.0])).astype(int)
    assert tuple(picture[y, x]) == map_colour(2)


def test_plan_goes_ahead_of_the_car():
    rows, columns = np.nonzero(difference(bare(plan=plan()), bare()))
    assert rows.min() == pytest.approx(VIEW.to_pixels(np.array([0.0, 18.0]))[1], abs=5)
    assert rows.max() < VIEW.to_pixels(np.array([0.0, 0.0]))[1] + 3
    assert abs(columns.min() - 240) < 6


def test_forecasts_of_moving_agents_only():
    full = scene()
    assert difference(full, Scene(detections=full.detections, map=full.map, forecasts=None, plan=full.plan)).any()
    standing = detections([(box(10.0, 20.0), 0, 0.9, -1)])
    assert not difference(bare(detections=standing, forecasts=forecasts(standing)), bare(detections=standing)).any()


def test_annotations_are_outlined_in_white():
    corners_m = box_state.corners(torch.tensor([box(10.0, 20.0)])).numpy()
    picture = draw_bev(select(bare()), VIEW, annotation_corners_m=corners_m)
    x, y = VIEW.to_pixels(corners_m[0, :2, :2].mean(0)).round().astype(int)  # middle of the left side
    assert (picture[y - 1 : y + 2, x - 1 : x + 2] > 200).all(-1).any()


def test_a_box_outside_the_view_draws_nothing():
    assert not difference(bare(detections=detections([(box(500.0, 20.0), 0, 0.9, 5)])), bare()).any()


def test_view_refuses_an_empty_range():
    with pytest.raises(ValueError, match=r"BevView\.px_per_m: expected a positive number, got 0"):
        BevView(px_per_m=0)


def test_all_classes_have_distinct_colours():
    colours = [class_colour(index) for index in range(10)] + [map_colour(index) for index in range(3)]
    assert len(set(colours)) == 13
