import numpy as np
import pytest

from sparsedrive.metrics.baselines import (
    EgoMotion,
    baseline_plans,
    constant_turn_rate,
    constant_velocity,
    motion_from_poses,
    motion_from_status,
)


def motion(velocity, yaw_rate):
    return EgoMotion(velocity_mps=np.array([velocity], float), yaw_rate_radps=np.array([yaw_rate], float), known=np.array([True]))


def circle(frames, speed_mps, yaw_rate_radps, gap_s=0.5, slip_rad=0.0):
    """Poses along a circle far from the origin; the ego frame's y looks along it, but for `slip_rad`."""
    yaw = 0.3 + yaw_rate_radps * gap_s * np.arange(frames)
    radius = speed_mps / yaw_rate_radps
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, 0, 0], pose[:, 0, 1], pose[:, 1, 0], pose[:, 1, 1] = np.cos(yaw), -np.sin(yaw), np.sin(yaw), np.cos(yaw)
    pose[:, 0, 3], pose[:, 1, 3] = 600 + radius * np.cos(yaw + slip_rad), 1500 + radius * np.sin(yaw + slip_rad)
    return pose


def test_straight_on():
    plan = constant_velocity(motion([0.0, 8.0], 0.5), 6)
    np.testing.assert_allclose(plan[0], np.stack([np.zeros(6), 4.0 * np.arange(1, 7)], 1))
    np.testing.assert_allclose(constant_turn_rate(motion([0.0, 8.0], 0.0), 6), plan)


def test_a_quarter_turn_to_the_left():
    """Half a circle of 10 m radius in 6 s: after 3 s 10 m ahead and 10 m to the left."""
    rate = np.pi / 6
    plan = constant_turn_rate(motion([0.0, 10 * rate], rate), 12)
    np.testing.assert_allclose(plan[0, 5], [-10, 10], atol=1e-9)
    np.testing.assert_allclose(plan[0, 11], [-20, 0], atol=1e-9)


@pytest.mark.parametrize("slip_rad", [0.0, 0.1])
def test_a_circle_is_gone_on_with(slip_rad):
    """The plan made from two poses is where the next poses are, also when the vehicle does not look where it goes."""
    pose = circle(8, 7.0, -0.4, slip_rad=slip_rad)
    found = motion_from_poses(pose, 0.5 * np.arange(8), np.zeros(8, int))
    assert found.known.tolist() == [False] + [True] * 7
    assert found.yaw_rate_radps[1:] == pytest.approx(np.full(7, -0.4))
    assert np.linalg.norm(found.velocity_mps[1:], axis=1) == pytest.approx(np.full(7, 7.0))
    ahead = np.linalg.inv(pose[1]) @ pose[2:8, :, 3].T
    np.testing.assert_allclose(constant_turn_rate(found, 6)[1], ahead[:2].T, atol=1e-9)


def test_nothing_is_known_before_the_second_pose():
    found = motion_from_poses(circle(5, 7.0, 0.1), np.array([0.0, 0.5, 1.0, 3.0, 3.5]), np.array([1, 1, 2, 2, 2]))
    assert found.known.tolist() == [False, True, False, False, True]  # a new sequence, then a gap of 2 s
    assert not constant_turn_rate(found, 6)[[0, 2, 3]].any()


def test_the_future_is_not_used():
    pose, time = circle(6, 7.0, 0.2), 0.5 * np.arange(6)
    before = motion_from_poses(pose[:3], time[:3], np.zeros(3, int))
    pose[3:, :2, 3] += 100.0
    assert (motion_from_poses(pose, time, np.zeros(6, int)).velocity_mps[:3] == before.velocity_mps).all()


def test_motion_from_ego_status():
    status = np.arange(20.0).reshape(2, 10)
    known = np.ones((2, 10), bool)
    known[1, 5] = False
    found = motion_from_status(status, known)
    assert found.velocity_mps.tolist() == [[-7.0, 6.0], [0.0, 0.0]]  # forward is y, left is -x
    assert found.yaw_rate_radps.tolist() == [5.0, 0.0] and found.known.tolist() == [True, False]


def test_all_baselines_by_name():
    truth = np.ones((1, 12, 2))
    plans = baseline_plans(motion([0.0, 1.0], 0.1), truth)
    assert list(plans) == ["constant_velocity", "constant_turn_rate", "ground_truth"]
    assert all(plan.shape == (1, 12, 2) for plan in plans.values()) and (plans["ground_truth"] == truth).all()


def test_mistakes():
    with pytest.raises(ValueError, match="truth_m: expected"):
        baseline_plans(motion([0, 1], 0), np.ones((2, 6, 2)))
    with pytest.raises(ValueError, match="ego_status and known"):
        motion_from_status(np.zeros((2, 9)), np.ones((2, 9), bool))
    with pytest.raises(ValueError, match="expected global_T_ego"):
        motion_from_poses(np.eye(4)[None], np.zeros(2), np.zeros(1, int))
