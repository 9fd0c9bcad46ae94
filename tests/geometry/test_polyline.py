import torch
from geometry_samples import generator, planar_poses
from torch.testing import assert_close

from sparsedrive.geometry import polyline, se3


def test_points_are_x_y_pairs_in_order():
    flat = torch.arange(12.0).reshape(2, 6)
    assert polyline.points(flat).tolist() == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]


def test_transform_equals_that_of_points_on_the_ground():
    line_m = torch.randn(3, 4, 10, generator=generator(0), dtype=torch.float64) * 20
    dst_T_src = planar_poses(5, 3)
    ground_m = torch.cat([polyline.points(line_m), torch.zeros(3, 4, 5, 1, dtype=torch.float64)], -1)
    expected = se3.transform_points(dst_T_src, ground_m.flatten(1, 2))[..., :2].reshape(3, 4, 10)
    assert_close(polyline.transform(line_m, dst_T_src), expected)


def test_transform_leaves_height_out():
    """Points have no height, so what turns height into x or y (pitch) must not touch them."""
    dst_T_src = torch.eye(4)[None].clone()
    dst_T_src[0, 0, 2] = dst_T_src[0, 2, 3] = 100.0
    line_m = torch.arange(8.0).reshape(1, 2, 4)
    assert torch.equal(polyline.transform(line_m, dst_T_src), line_m)
