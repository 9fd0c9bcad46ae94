import math

import torch
from torch.testing import assert_close

from sparsedrive.geometry import box_state
from sparsedrive.layers.keypoints import BoxKeyPoints, PolylineKeyPoints


def boxes() -> torch.Tensor:
    """One 4 x 2 x 1 m box ahead, heading left (+y); one of another size with the heading of +x."""
    metric = torch.tensor([[[10.0, 0, 1, 4, 2, 1, math.pi / 2, 0, 0, 0], [0, 5.0, 0, 8, 3, 2, 0, 0, 0, 0]]])
    return box_state.encode(metric)


def test_fixed_points_are_centre_and_faces_a_little_inside():
    points_m = BoxKeyPoints(8)(boxes(), torch.zeros(1, 2, 8))
    turned = [[10, 0, 1], [10, 1.8, 1], [10, -1.8, 1], [9.1, 0, 1], [10.9, 0, 1], [10, 0, 1.45], [10, 0, 0.55]]
    straight = [[0, 5, 0], [3.6, 5, 0], [-3.6, 5, 0], [0, 6.35, 0], [0, 3.65, 0], [0, 5, 0.9], [0, 5, -0.9]]
    assert points_m.shape == (1, 2, 13, 3)
    assert_close(points_m[0, :, :7], torch.tensor([turned, straight], dtype=torch.float32), atol=1e-5, rtol=1e-5)


def test_learned_points_stay_inside_their_box():
    torch.manual_seed(0)
    key_points, feature = BoxKeyPoints(8, num_learned=5), torch.randn(1, 2, 8) * 20
    points_m = key_points(boxes(), feature)[:, :, 7:]
    assert key_points.num_points == 12 and points_m.shape == (1, 2, 5, 3)
    box = box_state.decode(boxes())
    local = points_m - box[..., None, :3]
    local = local @ box_state.rotation_about_z(box[..., box_state.YAW].sin(), box[..., box_state.YAW].cos())
    share = local / box[..., None, 3:6]
    assert (share.abs() <= 0.5 + 1e-6).all() and share.abs().max() > 0.45
    raw = feature @ key_points.learned_points.weight.T
    assert_close(share.flatten(-2), raw.sigmoid() - 0.5, atol=1e-5, rtol=1e-5)


def test_polyline_points_at_every_height_and_offset():
    torch.manual_seed(0)
    key_points = PolylineKeyPoints(8, num_line_points=4, heights_m=(0.0, 0.5, -1.0), ground_height_m=-1.8, num_learned=2)
    line = torch.randn(1, 2, 8) * 10
    points_m = key_points(line, torch.zeros(1, 2, 8))  # zero feature, zero bias: no offsets
    assert key_points.num_points == 24 and points_m.shape == (1, 2, 24, 3)
    by_line = points_m.unflatten(2, (4, 3, 2))
    assert_close(by_line[..., :2], line.reshape(1, 2, 4, 1, 1, 2).expand(1, 2, 4, 3, 2, 2))
    heights_m = torch.tensor([-1.8, -1.3, -2.8])
    assert_close(by_line[..., 2], heights_m[:, None].expand(1, 2, 4, 3, 2))


def test_polyline_offsets_are_metres_in_the_published_order():
    key_points = PolylineKeyPoints(4, num_line_points=2, heights_m=(0.0, 1.0), ground_height_m=0.0, num_learned=3)
    with torch.no_grad():
        key_points.learned_offsets.bias.copy_(torch.arange(24.0))
    points_m = key_points(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    assert points_m[0, 0, :, :2].flatten().tolist() == list(range(24))
    assert points_m[0, 0, :, 2].tolist() == [0, 0, 0, 1, 1, 1] * 2


def test_heights_are_not_saved_and_fixed_points_are():
    assert set(BoxKeyPoints(4).state_dict()) == {"fixed_points", "learned_points.weight", "learned_points.bias"}
    assert set(PolylineKeyPoints(4, 2, (0.0,), 0.0).state_dict()) == {"learned_offsets.weight", "learned_offsets.bias"}
