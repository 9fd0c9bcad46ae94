import numpy as np
import pytest
from viz_samples import FOCAL_PX, HEIGHT_PX, WIDTH_PX, look_along

from sparsedrive.viz.clip import NEAR_M, clip_polygon, clip_segment, to_image, to_pixels, view_planes

PLANES = view_planes(WIDTH_PX, HEIGHT_PX, margin_px=0.0)


def homogeneous(*points_m: tuple[float, float, float]) -> np.ndarray:
    return to_image(np.array(points_m), look_along().numpy())


def test_a_point_ahead_lands_where_the_pinhole_model_says():
    pixel = to_pixels(homogeneous((1.0, 10.0, -0.5)))[0]
    assert pixel == pytest.approx([WIDTH_PX / 2 + FOCAL_PX / 10, HEIGHT_PX / 2 + FOCAL_PX * 0.05])


def test_segment_through_the_camera_is_cut_at_the_near_plane():
    start, stop = homogeneous((0.01, -5.0, 0.01), (0.01, 5.0, 0.01))
    part = clip_segment(start, stop, PLANES)
    assert part is not None
    assert part[0, 2] == pytest.approx(NEAR_M)
    assert np.allclose(part[1], stop)
    assert np.isfinite(to_pixels(part)).all()


def test_segment_behind_the_camera_is_dropped():
    assert clip_segment(*homogeneous((0.0, -5.0, 0.0), (1.0, -1.0, 0.0)), PLANES) is None


@pytest.mark.parametrize("outside", [(100.0, 10.0, 0.0), (-100.0, 10.0, 0.0), (0.0, 10.0, 100.0), (0.0, 10.0, -100.0)])
def test_segment_leaving_the_picture_ends_at_its_border(outside):
    part = clip_segment(*homogeneous((0.0, 10.0, 0.0), outside), PLANES)
    assert part is not None
    x, y = to_pixels(part)[1]
    assert min(abs(x), abs(x - WIDTH_PX), abs(y), abs(y - HEIGHT_PX)) < 1e-9
    assert -1e-9 <= x <= WIDTH_PX + 1e-9 and -1e-9 <= y <= HEIGHT_PX + 1e-9


def test_segment_whose_ends_are_outside_on_two_sides_but_misses_the_picture():
    assert clip_segment(*homogeneous((0.0, 10.0, 20.0), (40.0, 10.0, 0.0)), PLANES) is None


def test_polygon_around_the_camera_keeps_the_part_in_view():
    square = homogeneous((-2.0, -2.0, -1.0), (2.0, -2.0, -1.0), (2.0, 20.0, -1.0), (-2.0, 20.0, -1.0))
    pixels = to_pixels(clip_polygon(square, PLANES))
    assert len(pixels) >= 4
    assert (pixels >= -1e-6).all() and (pixels <= np.array([WIDTH_PX, HEIGHT_PX]) + 1e-6).all()
    assert pixels[:, 1].min() == pytest.approx(HEIGHT_PX / 2 + FOCAL_PX / 20)


def test_polygon_behind_the_camera_is_empty():
    assert len(clip_polygon(homogeneous((-1.0, -5.0, 0.0), (1.0, -5.0, 0.0), (0.0, -5.0, 1.0)), PLANES)) == 0
