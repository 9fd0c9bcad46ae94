"""The ego vehicle: a kinematic bicycle, how the expert steers it along a path, and how it follows a plan."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from sparsedrive.world.rig import LIDAR_AHEAD_M
from sparsedrive.world.state import EgoState

WHEELBASE_M = 2.588
STEERING_LIMIT_RAD, STEERING_RATE_RADPS = 0.62, 1.0
ACCELERATION_LIMIT_MPS2, BRAKE_LIMIT_MPS2 = 4.0, 8.0
PLAN_STEP_S = 0.5
PREVIEW_S = 0.2
SPEED_GAIN_1PS, PLACE_GAIN_1PS2 = 4.0, 4.0
"""Critically damped: errors along a plan are gone after a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgoControl:
    """What the pedals and the wheel do for one moment; steering positive to the left."""

    acceleration_mps2: float
    steering_rad: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EgoPlan:
    """Where the models' ego frame (x right, y forward; origin at the lidar) shall be 0.5, 1.0, ... s from now, seen from now."""

    position_m: Float[np.ndarray, "T 2"]

    def __post_init__(self):
        if self.position_m.ndim != 2 or self.position_m.shape[1] != 2 or not len(self.position_m) or not np.isfinite(self.position_m).all():
            raise ValueError(
                f"EgoPlan.position_m: expected finite positions [T, 2] with T >= 1, got {list(self.position_m.shape)} with "
                f"{int((~np.isfinite(self.position_m)).sum())} values not finite; give `plan.trajectory_m` of one stream as an array"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """Rear axle states to be reached, N ticks apart from now on; row 0 is now."""

    position_m: Float[np.ndarray, "N 2"]
    yaw_rad: Float[np.ndarray, "N"]
    speed_mps: Float[np.ndarray, "N"]
    curvature_1pm: Float[np.ndarray, "N"]


def move(ego: EgoState, control: EgoControl, dt_s: float) -> EgoState:
    """The kinematic bicycle, rear axle as reference, on the exact arc of constant steering. It does not roll backwards.

    The wheel turns no faster than `STEERING_RATE_RADPS` and the pedals do no more than the limits allow.
    """
    turn_rad = STEERING_RATE_RADPS * dt_s
    steering_rad = float(np.clip(control.steering_rad, ego.steering_rad - turn_rad, ego.steering_rad + turn_rad))
    steering_rad = float(np.clip(steering_rad, -STEERING_LIMIT_RAD, STEERING_LIMIT_RAD))
    wanted_mps2 = float(np.clip(control.acceleration_mps2, -BRAKE_LIMIT_MPS2, ACCELERATION_LIMIT_MPS2))
    speed_mps = max(ego.speed_mps + wanted_mps2 * dt_s, 0.0)
    way_m = (ego.speed_mps + speed_mps) / 2 * dt_s
    curvature_1pm = np.tan(steering_rad) / WHEELBASE_M
    half_turn_rad = curvature_1pm * way_m / 2
    chord_m = way_m * np.sinc(half_turn_rad / np.pi)
    direction_rad = ego.yaw_rad + half_turn_rad
    return EgoState(
        position_m=ego.position_m + chord_m * np.array([np.cos(direction_rad), np.sin(direction_rad)]),
        yaw_rad=float(ego.yaw_rad + 2 * half_turn_rad),
        speed_mps=speed_mps,
        acceleration_mps2=(speed_mps - ego.speed_mps) / dt_s,
        steering_rad=steering_rad,
        yaw_rate_radps=float(speed_mps * curvature_1pm),
    )


def steer(ego: EgoState, position_m: Float[np.ndarray, "2"], yaw_rad: float, curvature_1pm: float) -> float:
    """Steering angle [rad] that brings the rear axle onto a line: curvature ahead plus feedback of distance and heading.

    The law is that of the rear wheel in Paden et al. 2016 (arXiv:1604.07446, section V-A2), as a second-order system critically damped
    over a length that grows with speed.
    """
    length_m = 2.5 + 0.45 * ego.speed_mps
    left_m = (ego.position_m - position_m) @ (-np.sin(yaw_rad), np.cos(yaw_rad))
    off_rad = (ego.yaw_rad - yaw_rad + np.pi) % (2 * np.pi) - np.pi
    wanted_1pm = curvature_1pm - left_m / length_m**2 - 2 * np.sin(off_rad) / length_m
    return float(np.clip(np.arctan(WHEELBASE_M * wanted_1pm), -STEERING_LIMIT_RAD, STEERING_LIMIT_RAD))


def follow(ego: EgoState, reference: Reference, tick: int, dt_s: float) -> EgoControl:
    """Control that takes an ego at the time of row `tick` of a reference to row `tick + 1`: its acceleration, and feedback of the rest."""
    later = min(tick + 1, len(reference.speed_mps) - 1)
    now = later - 1
    direction = np.array([np.cos(reference.yaw_rad[now]), np.sin(reference.yaw_rad[now])])
    behind_m = float((reference.position_m[now] - ego.position_m) @ direction)
    pull_mps2 = (reference.speed_mps[later] - reference.speed_mps[now]) / dt_s
    pull_mps2 += SPEED_GAIN_1PS * (reference.speed_mps[now] - ego.speed_mps) + PLACE_GAIN_1PS2 * behind_m
    steered_rad = steer(ego, reference.position_m[now], float(reference.yaw_rad[now]), float(reference.curvature_1pm[later]))
    return EgoControl(acceleration_mps2=float(pull_mps2), steering_rad=steered_rad)


def reference_of(plan: EgoPlan, ego: EgoState, dt_s: float) -> Reference:
    """The rear axle's way under a plan for the lidar.

    A cubic spline through the plan, begun at the present velocity, is the lidar's way. The rear axle does not slip sideways, so it is
    drawn behind the lidar as a load on a rope of fixed length is (a tractrix).
    """
    steps = len(plan.position_m)
    times_s = PLAN_STEP_S * np.arange(steps + 1)
    velocity_mps = np.array([-ego.yaw_rate_radps * LIDAR_AHEAD_M, ego.speed_mps])
    spline = CubicSpline(times_s, np.concatenate([np.zeros((1, 2)), plan.position_m]), bc_type=((1, velocity_mps), "not-a-knot"))
    ticks = round(PLAN_STEP_S * steps / dt_s)
    at_lidar_m = spline(dt_s * np.arange(ticks + 1))
    forward = np.array([np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)])
    right = np.array([forward[1], -forward[0]])
    lidar_m = ego.position_m + LIDAR_AHEAD_M * forward + at_lidar_m[:, :1] * right + at_lidar_m[:, 1:] * forward
    yaw_rad = np.empty(ticks + 1)
    yaw_rad[0] = ego.yaw_rad
    pull = np.diff(lidar_m, axis=0)
    for tick, (x, y) in enumerate(pull):
        direction_rad = np.arctan2(y, x)
        # Pulled straight, the rope turns into the direction of the pull as tan(angle / 2) falls exponentially with the way.
        tangent = np.tan((yaw_rad[tick] - direction_rad) / 2) * np.exp(-np.hypot(x, y) / LIDAR_AHEAD_M)
        yaw_rad[tick + 1] = direction_rad + 2 * np.arctan(tangent)
    yaw_rad = np.unwrap(yaw_rad)
    position_m = lidar_m - LIDAR_AHEAD_M * np.stack([np.cos(yaw_rad), np.sin(yaw_rad)], 1)
    way_m = (np.diff(position_m, axis=0) * np.stack([np.cos(yaw_rad[1:]), np.sin(yaw_rad[1:])], 1)).sum(1)
    speed_mps = np.maximum(np.gradient(np.concatenate([[0.0], np.cumsum(way_m)]), dt_s), 0.0)
    curvature_1pm = np.gradient(yaw_rad, dt_s) / np.maximum(speed_mps, 0.5)
    return Reference(position_m=position_m, yaw_rad=yaw_rad, speed_mps=speed_mps, curvature_1pm=curvature_1pm)
