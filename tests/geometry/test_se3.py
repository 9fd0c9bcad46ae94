import math

import torch
from geometry_samples import affine, generator, planar_poses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sparsedrive.geometry import se3

SEEDS = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(SEEDS)
def test_invert_is_the_matrix_inverse_also_off_orthonormal(seed):
    dst_T_src = torch.cat([affine(seed, 3), planar_poses(seed, 2)])
    assert_close(se3.invert(dst_T_src), torch.linalg.inv(dst_T_src), rtol=1e-9, atol=1e-9)


def test_invert_of_a_mirror_and_of_any_leading_shape():
    mirror = torch.diag(torch.tensor([-1.0, 2.0, 4.0, 1.0], dtype=torch.float64))
    assert_close(se3.invert(mirror), torch.diag(torch.tensor([-1.0, 0.5, 0.25, 1.0], dtype=torch.float64)))
    stacked = affine(0, 6).reshape(2, 3, 4, 4)
    assert_close(se3.invert(stacked), torch.linalg.inv(stacked))


def test_invert_has_the_gradient_of_the_inverse():
    dst_T_src = affine(1, 2)[:, :3]
    bottom = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(2, 1, 4)
    upper = (dst_T_src / torch.tensor([1.0, 1, 1, 1000])).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: se3.invert(torch.cat([rows, bottom], dim=1)), (upper,))


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(SEEDS)
def test_relative_takes_points_of_one_frame_to_the_other(seed):
    global_T_a, global_T_b = planar_poses(seed, 2), affine(seed + 1, 2)
    points_m = torch.randn(2, 5, 3, generator=generator(seed), dtype=torch.float64)
    in_b = se3.transform_points(se3.relative(global_T_b, global_T_a), points_m)
    assert_close(se3.transform_points(global_T_b, in_b), se3.transform_points(global_T_a, points_m), rtol=1e-9, atol=1e-9)


def test_relative_is_exact_a_thousand_kilometres_out():
    far_m = 1e6
    pose = [se3.from_yaw(*(torch.tensor([v], dtype=torch.float64) for v in (far_m + x, far_m, 1.0))) for x in (0.0, 0.25)]
    now_T_then = se3.relative(pose[1], pose[0])
    expected = torch.tensor([-0.25 * math.cos(1), 0.25 * math.sin(1), 0], dtype=torch.float64)
    assert (now_T_then[0, :3, 3] - expected).abs().max() < 1e-8


def test_transform_points_is_the_homogeneous_product():
    dst_T_src, points_m = affine(2, 3), torch.randn(3, 7, 3, generator=generator(0), dtype=torch.float64)
    homogeneous = torch.cat([points_m, torch.ones(3, 7, 1, dtype=torch.float64)], -1)
    assert_close(se3.transform_points(dst_T_src, points_m), torch.einsum("bij,bnj->bni", dst_T_src, homogeneous)[..., :3])


def test_from_yaw_turns_left_and_then_moves():
    pose = se3.from_yaw(torch.tensor(5.0), torch.tensor(-3.0), torch.tensor(math.pi / 2))
    assert_close(se3.transform_points(pose, torch.tensor([[2.0, 0, 7]])), torch.tensor([[5.0, -1, 7]]))
    assert pose[3].tolist() == [0, 0, 0, 1]
