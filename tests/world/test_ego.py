"""The ego vehicle: bicycle model, steering, plans."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedrive.world.ego import WHEELBASE_M, EgoControl, EgoPlan, follow, move, reference_of, steer
from sparsedrive.world.rig import LIDAR_AHEAD_M
from sparsedrive.world.state import EgoState

DT_S = 0.05


def ego_at(speed_mps: float, steering_rad: float = 0.0, yaw_rad: float = 0.0) -> EgoState:
    return EgoState(
        position_m=np.zeros(2), yaw_rad=yaw_rad, speed_mps=speed_mps, acceleration_mps2=0.0, steering_rad=steering_rad,
        yaw_rate_radps=speed_mps * np.tan(steering_rad) / WHEELBASE_M,
    )  # fmt: skip


@given(st.floats(-0.55, 0.55), st.floats(1.0, 15.0), st.floats(-3.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_constant_steering_drives_a_circle(steering_rad, speed_mps, yaw_rad):
    ego = ego_at(speed_mps, steering_rad, yaw_rad)
    for _ in range(60):
        ego = move(ego, EgoControl(acceleration_mps2=0.0, steering_rad=steering_rad), DT_S)
    curvature, way_m = np.tan(steering_rad) / WHEELBASE_M, speed_mps * 60 * DT_S
    turned = curvature * way_m
    local = way_m * np.array([np.sinc(turned / np.pi), np.sin(turned / 2) * np.sinc(turned / 2 / np.pi)])
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    assert ego.position_m == pytest.approx([cos * local[0] - sin * local[1], sin * local[0] + cos * local[1]], abs=1e-8)
    assert ego.yaw_rad == pytest.approx(yaw_rad + turned)


def test_limits_hold():
    ego = move(ego_at(5.0), EgoControl(acceleration_mps2=99.0, steering_rad=9.0), DT_S)
    assert ego.acceleration_mps2 == pytest.approx(4.0) and ego.steering_rad == pytest.approx(1.0 * DT_S)
    ego = move(ego_at(0.1), EgoControl(acceleration_mps2=-99.0, steering_rad=0.0), DT_S)
    assert ego.speed_mps == 0.0 and ego.acceleration_mps2 == pytest.approx(-2.0)


@pytest.mark.parametrize("speed_mps", [2.0, 6.0, 12.0])
def test_steering_returns_to_the_line(speed_mps):
    ego = ego_at(speed_mps)
    left_m = []
    for _ in range(round(60 / speed_mps / DT_S)):
        ego = move(ego, EgoControl(acceleration_mps2=0.0, steering_rad=steer(ego, np.array([ego.position_m[0], 1.0]), 0.0, 0.0)), DT_S)
        left_m.append(ego.position_m[1])
    assert left_m[-1] == pytest.approx(1.0, abs=0.01)
    assert max(left_m) < 1.15  # critically damped but for the lag of the wheel


@given(st.floats(2.0, 12.0), st.floats(-0.06, 0.06), st.floats(-1.5, 1.0))
@settings(max_examples=30, deadline=None)
def test_a_possible_plan_is_carried_out(speed_mps, curvature, pull_mps2):
    """The lidar's positions on an arc with constant acceleration come out again within a few centimetres."""
    steering_rad = float(np.arctan(curvature * WHEELBASE_M))
    truth, states = ego_at(speed_mps, steering_rad), []
    for _ in range(60):
        truth = move(truth, EgoControl(acceleration_mps2=pull_mps2, steering_rad=steering_rad), DT_S)
        states.append(truth)
    forward = lambda ego: np.array([np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)])  # noqa: E731
    lidar_m = np.array([state.position_m + LIDAR_AHEAD_M * forward(state) for state in states])[9::10] - [LIDAR_AHEAD_M, 0.0]
    start = ego_at(speed_mps, steering_rad)
    reference = reference_of(EgoPlan(position_m=np.stack([-lidar_m[:, 1], lidar_m[:, 0]], 1)), start, DT_S)
    ego = start
    for tick in range(60):
        ego = move(ego, follow(ego, reference, tick, DT_S), DT_S)
        assert np.hypot(*(ego.position_m - states[tick].position_m)) < 0.06
    assert abs(ego.yaw_rad - truth.yaw_rad) < 0.03


def test_a_plan_must_be_numbers():
    with pytest.raises(ValueError, match=r"\[T, 2\].*\[6, 3\]"):
        EgoPlan(position_m=np.zeros((6, 3)))
    with pytest.raises(ValueError, match="1 values not finite"):
        EgoPlan(position_m=np.array([[0.0, np.nan]]))
