import math

import pytest
import torch
from geometry_samples import boxes, planar_poses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sparsedrive.geometry import box_state, se3

SEEDS = st.integers(0, 10_000)
metres = st.floats(-100, 100)
sizes_m = st.floats(0.05, 40)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(metres, min_size=3, max_size=3), st.lists(sizes_m, min_size=3, max_size=3), st.floats(-3.14, 3.14), metres)
def test_decode_undoes_encode(centre_m, size_m, yaw_rad, velocity_mps):
    box = torch.tensor([[*centre_m, *size_m, yaw_rad, velocity_mps, -velocity_mps, 0.5]], dtype=torch.float64)
    assert_close(box_state.decode(box_state.encode(box)), box)


def test_columns_of_a_state():
    state = box_state.encode(torch.tensor([1.0, 2, 3, 4, 5, 6, math.pi / 6, 7, 8, 9]))
    expected = {"X": 1, "Y": 2, "Z": 3, "LOG_LENGTH": math.log(4), "LOG_WIDTH": math.log(5), "LOG_HEIGHT": math.log(6)}
    expected |= {"SIN_YAW": 0.5, "COS_YAW": math.sqrt(0.75), "VX": 7, "VY": 8, "VZ": 9}
    for name, value in expected.items():
        assert state[getattr(box_state, name)].item() == pytest.approx(value), name
    assert state.shape == (box_state.STATE_DIM,)


def test_decode_takes_an_unnormalised_yaw():
    state = box_state.encode(boxes(3, 5))
    longer = state.clone()
    longer[:, [box_state.SIN_YAW, box_state.COS_YAW]] *= 7
    assert_close(box_state.decode(longer), box_state.decode(state))


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(SEEDS)
def test_transform_composes_and_inverts(seed):
    state = box_state.encode(boxes(seed, 2, 6))
    b_T_a, c_T_b = planar_poses(seed, 2), planar_poses(seed + 1, 2)
    in_b = box_state.transform(state, b_T_a)
    assert_close(box_state.transform(in_b, c_T_b), box_state.transform(state, c_T_b @ b_T_a))
    assert_close(box_state.transform(in_b, se3.invert(b_T_a)), state)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(SEEDS)
def test_transform_moves_the_corners(seed):
    box, dst_T_src = boxes(seed, 2, 6), planar_poses(seed + 1, 2)
    moved = box_state.decode(box_state.transform(box_state.encode(box), dst_T_src))
    corners_m = box_state.corners(box)
    expected = se3.transform_points(dst_T_src, corners_m.flatten(1, 2)).unflatten(1, (6, 8))
    assert_close(box_state.corners(moved), expected)


def test_transform_with_elapsed_time_moves_by_velocity_first():
    box = torch.tensor([[[10.0, 0, 0, 4, 2, 1, 0, 3, 0, 0]], [[10.0, 0, 0, 4, 2, 1, 0, 3, 0, 0]]])
    quarter_turn = se3.from_yaw(torch.tensor([100.0, 0]), torch.tensor([0.0, 0]), torch.tensor([math.pi / 2, 0]))
    moved = box_state.decode(box_state.transform(box_state.encode(box), quarter_turn, torch.tensor([2.0, -1.0])))
    # 10 + 2 s * 3 m/s = 16 m ahead, then turned to the left and shifted by 100 m; the second stream goes 1 s back in time
    assert_close(moved[0, 0], torch.tensor([100.0, 16, 0, 4, 2, 1, math.pi / 2, 0, 3, 0]), atol=1e-5, rtol=1e-5)
    assert_close(moved[1, 0], torch.tensor([7.0, 0, 0, 4, 2, 1, 0, 3, 0, 0]))


def test_transform_without_time_keeps_the_place_of_a_moving_box():
    state = box_state.encode(boxes(0, 1, 3))
    assert_close(box_state.transform(state, torch.eye(4, dtype=torch.float64)[None]), state)


def test_corners_of_a_box_drawn_by_hand():
    """4 m long, 2 m wide, 1 m high at (10, 20, 30), heading along +y."""
    box = torch.tensor([10.0, 20, 30, 4, 2, 1, math.pi / 2, 0, 0, 0], dtype=torch.float64)
    front_left, back_left, back_right, front_right = [9, 22], [9, 18], [11, 18], [11, 22]
    expected = [[*xy, z] for z in (29.5, 30.5) for xy in (front_left, back_left, back_right, front_right)]
    assert_close(box_state.corners(box), torch.tensor(expected, dtype=torch.float64))


def test_yaw_is_in_minus_pi_to_pi():
    yaw_rad = torch.tensor([0.0, 3.0, -3.0, math.pi, 4.0], dtype=torch.float64)
    state = torch.zeros(5, 11, dtype=torch.float64)
    state[:, box_state.SIN_YAW], state[:, box_state.COS_YAW] = yaw_rad.sin(), yaw_rad.cos()
    assert_close(box_state.yaw_rad(state), torch.tensor([0.0, 3.0, -3.0, math.pi, 4.0 - 2 * math.pi], dtype=torch.float64))


def test_rotation_about_z_is_taken_as_given():
    matrix = box_state.rotation_about_z(torch.tensor(2.0), torch.tensor(0.5))
    assert matrix.tolist() == [[0.5, -2.0, 0.0], [2.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
