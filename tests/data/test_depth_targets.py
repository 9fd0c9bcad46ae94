"""Depth maps against a loop over the returns, and on the real scan."""

import numpy as np
import pytest

from sparsedrive.data import NuScenesLog
from sparsedrive.data.depth_targets import depth_maps
from sparsedrive.data.lidar import gather_sweeps

FRONT = np.array([[100, 32, 0, 0], [0, 24, -100, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
"""A camera of 64 x 48 pixels at the origin that looks along y (forward), focal length 100 pixels."""


def at_pixel(x_px: float, y_px: float, depth_m: float) -> list[float]:
    """The ego point that the camera `FRONT` sees there."""
    return [(x_px - 32) / 100 * depth_m, depth_m, (24 - y_px) / 100 * depth_m]


def looped(points_m, cameras, wh_px, stride, max_depth_m):
    """The specification, one return at a time."""
    maps = np.zeros((len(cameras), -(-wh_px[1] // stride), -(-wh_px[0] // stride)), np.float32)
    for camera, matrix in zip(maps, cameras, strict=True):
        for point in points_m:
            x, y, depth = (matrix @ [*point, 1])[:3]
            if depth < 0.1:
                continue
            column, line = round(x / depth), round(y / depth)
            if 0 <= column < wh_px[0] and 0 <= line < wh_px[1]:
                known = camera[line // stride, column // stride]
                camera[line // stride, column // stride] = min(depth, max_depth_m, known or np.inf)
    return maps


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wh_px", [(64, 48), (61, 45)])
def test_maps_equal_a_loop_over_returns(seed, wh_px):
    rng = np.random.default_rng(seed)
    points = rng.uniform([-40, -90, -20], [40, 90, 20], (1500, 3)).astype(np.float32)
    back = FRONT @ np.diag([-1, -1, 1, 1])
    maps = depth_maps(points, np.stack([FRONT, back]), wh_px, strides=(1, 4, 16))
    assert maps[0].max() == 60
    for stride, found in zip((1, 4, 16), maps, strict=True):
        expected = looped(points.astype(np.float64), [FRONT, back], wh_px, stride, 60.0)
        assert found.shape == expected.shape and found.dtype == np.float32
        assert (expected > 0).sum() > 5
        # Float32 may round a return half way between two pixels to the other one.
        assert (np.abs(found - expected) > 1e-4).mean() < 1e-3


def test_nearest_return_of_a_cell_wins_whatever_their_order():
    near, far = at_pixel(10, 10, 5), at_pixel(11, 9, 30)
    for points in ([near, far], [far, near]):
        (cells,) = depth_maps(np.array(points), FRONT[None], (64, 48), (4,))
        assert cells[0, 2, 2] == pytest.approx(5) and (cells > 0).sum() == 1
        (pixels,) = depth_maps(np.array(points), FRONT[None], (64, 48), (1,))
        assert pixels[0, 10, 10] == pytest.approx(5) and pixels[0, 9, 11] == pytest.approx(30)


def test_far_returns_count_as_the_farthest_depth():
    (cells,) = depth_maps(np.array([at_pixel(10, 10, 300)]), FRONT[None], (64, 48), (4,), max_depth_m=80.0)
    assert cells.max() == 80


def test_what_the_camera_cannot_see_is_left_out():
    unseen = [at_pixel(10, 10, -5), at_pixel(10, 10, 0.05), at_pixel(-1, 10, 5), at_pixel(64, 10, 5), at_pixel(10, 48, 5), [0.0, 0.0, 0.0]]
    for cells in depth_maps(np.array(unseen), FRONT[None], (64, 48)):
        assert not cells.any()


def test_corner_pixels_are_seen():
    corners = [at_pixel(x, y, 5) for x in (0, 63) for y in (0, 47)]
    (cells,) = depth_maps(np.array(corners), FRONT[None], (64, 48), (1,))
    assert np.argwhere(cells[0]).tolist() == [[0, 0], [0, 63], [47, 0], [47, 63]]


def test_no_returns_give_empty_maps():
    maps = depth_maps(np.zeros((0, 3), np.float32), np.stack([FRONT] * 3), (64, 48))
    assert [cells.shape for cells in maps] == [(3, 12, 16), (3, 6, 8), (3, 3, 4)] and not any(cells.any() for cells in maps)


def test_coarse_cells_hold_the_nearest_of_the_fine_ones():
    points = np.random.default_rng(0).uniform([-20, 1, -5], [20, 50, 5], (4000, 3))
    fine, coarse = depth_maps(points, FRONT[None], (64, 48), (4, 16))
    blocks = np.where(fine > 0, fine, np.inf).reshape(1, 3, 4, 4, 4).min((2, 4))
    np.testing.assert_array_equal(np.where(coarse > 0, coarse, np.inf), blocks)


@pytest.mark.filterwarnings("ignore:scene-")
def test_real_scan_sees_the_annotated_cars_where_the_pictures_have_them(real_root):
    log = NuScenesLog(real_root)
    (frame,) = log.scene("scene-0061")
    (path,) = (real_root / "samples" / "LIDAR_TOP").iterdir()
    returns, _ = gather_sweeps([(path, np.eye(4))])
    image_T_ego = np.stack([camera.image_T_ego.numpy() for camera in frame.cameras])
    (depth_m,) = depth_maps(returns[:, :3], image_T_ego, (1600, 900), (16,))
    # The annotated depth of the middle of the nearest well-seen car, and the depth of the returns at its pixel.
    (sample,) = log.samples("scene-0061")
    global_T_ego = frame.global_T_ego.numpy()
    agree = []
    for row in log.annotations(sample):
        centre = image_T_ego @ np.linalg.inv(global_T_ego) @ [*row.translation_m, 1]
        for camera, (x, y, depth, _) in enumerate(centre):
            if depth > 1 and 0 < x / depth < 1600 and 0 < y / depth < 896 and row.size_wlh_m[1] > 3 and depth < 40:
                seen = depth_m[camera, int(y / depth) // 16, int(x / depth) // 16]
                agree.append(seen > 0 and abs(seen - depth) < row.size_wlh_m[1])
    assert len(agree) >= 3 and np.mean(agree) > 0.5
