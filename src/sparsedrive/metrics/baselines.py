"""Plans made without looking: what any planner has to beat before its open-loop numbers mean something.

With the velocity v and the rate of turn w that the vehicle has now, the position after t seconds is

    constant velocity: v t        constant turn rate: v t sinc(w t / 2) exp(i w t / 2), with the plane as complex numbers

which is a straight line and a circle. `ground_truth` is the path that was driven: its L2 is 0, its collisions show what a protocol
calls a collision. On nuScenes such baselines come close to published planners: Li et al., arXiv:2312.03031; Zhai et al., arXiv:2305.10430.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.structures import EGO_FORWARD_SPEED, EGO_STATUS_DIM

STEP_S = 0.5
MAX_GAP_S = 1.0
"""Poses further apart than this say nothing about the velocity now."""
EGO_LEFT_SPEED, EGO_YAW_RATE = EGO_FORWARD_SPEED + 1, 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EgoMotion:
    """Motion of N frames' vehicles at their own instant, in their own ego frame (x right, y forward); all zero where not `known`."""

    velocity_mps: Float[np.ndarray, "N 2"]
    yaw_rate_radps: Float[np.ndarray, "N"]
    known: Bool[np.ndarray, "N"]


def motion_from_poses(
    global_T_ego: Float[np.ndarray, "N 4 4"], time_s: Float[np.ndarray, "N"], sequence: Int[np.ndarray, "N"]
) -> EgoMotion:
    """Motion from where the vehicle was one frame before, as if it had moved on a circle; unknown at the start of a sequence.

    Rows in order of time. Nothing of the future is used.
    """
    frames = len(global_T_ego)
    if global_T_ego.shape != (frames, 4, 4) or time_s.shape != (frames,) or sequence.shape != (frames,):
        raise ValueError(
            f"motion_from_poses: expected global_T_ego [N, 4, 4], time_s [N] and sequence [N], got {list(global_T_ego.shape)}, "
            f"{list(time_s.shape)} and {list(sequence.shape)}"
        )
    gap_s = np.diff(time_s)
    now = np.flatnonzero((sequence[1:] == sequence[:-1]) & (gap_s > 0) & (gap_s <= MAX_GAP_S)) + 1
    gap_s = gap_s[now - 1]
    now_T_before = np.linalg.inv(global_T_ego[now]) @ global_T_ego[now - 1]
    turned_rad = -np.arctan2(now_T_before[:, 1, 0], now_T_before[:, 0, 0])
    before_m = now_T_before[:, 0, 3] + 1j * now_T_before[:, 1, 3]
    velocity_mps = before_m / (-gap_s * _bend(-turned_rad))
    motion = EgoMotion(velocity_mps=np.zeros((frames, 2)), yaw_rate_radps=np.zeros(frames), known=np.zeros(frames, bool))
    motion.velocity_mps[now] = np.stack([velocity_mps.real, velocity_mps.imag], 1)
    motion.yaw_rate_radps[now], motion.known[now] = turned_rad / gap_s, True
    return motion


def motion_from_status(ego_status: Float[np.ndarray, "N 10"], known: Bool[np.ndarray, "N 10"]) -> EgoMotion:
    """Motion from `Frame.ego_status`, whose vehicle frame looks along the ego frame's y. Frames that lack a value are unknown.

    The velocity is that of the vehicle's own origin; that the ego frame's lies elsewhere on it is neglected.
    """
    if ego_status.ndim != 2 or ego_status.shape[1] != EGO_STATUS_DIM or known.shape != ego_status.shape:
        raise ValueError(
            f"motion_from_status: expected ego_status and known [N, {EGO_STATUS_DIM}], got {list(ego_status.shape)} and {list(known.shape)}"
        )
    complete = np.logical_and.reduce(known[:, [EGO_FORWARD_SPEED, EGO_LEFT_SPEED, EGO_YAW_RATE]], axis=1)
    velocity_mps = np.stack([-ego_status[:, EGO_LEFT_SPEED], ego_status[:, EGO_FORWARD_SPEED]], 1)
    return EgoMotion(
        velocity_mps=np.where(complete[:, None], velocity_mps, 0.0),
        yaw_rate_radps=np.where(complete, ego_status[:, EGO_YAW_RATE], 0.0),
        known=complete,
    )


def constant_velocity(motion: EgoMotion, steps: int) -> Float[np.ndarray, "N steps 2"]:
    """Straight on, waypoints 0.5 s apart; standing where the motion is unknown."""
    return motion.velocity_mps[:, None] * (STEP_S * np.arange(1, steps + 1))[:, None]


def constant_turn_rate(motion: EgoMotion, steps: int) -> Float[np.ndarray, "N steps 2"]:
    """On along the circle, waypoints 0.5 s apart; standing where the motion is unknown."""
    time_s = STEP_S * np.arange(1, steps + 1)
    velocity_mps = motion.velocity_mps[:, 0] + 1j * motion.velocity_mps[:, 1]
    position_m = velocity_mps[:, None] * time_s * _bend(motion.yaw_rate_radps[:, None] * time_s)
    return np.stack([position_m.real, position_m.imag], 2)


def baseline_plans(motion: EgoMotion, truth_m: Float[np.ndarray, "N T 2"]) -> dict[str, Float[np.ndarray, "N T 2"]]:
    """All baselines by name, as far as the driven path `truth_m`, which is one of them."""
    if truth_m.ndim != 3 or truth_m.shape[::2] != (len(motion.known), 2):
        raise ValueError(f"baseline_plans: truth_m: expected [{len(motion.known)}, T, 2] to go with the motion, got {list(truth_m.shape)}")
    steps = truth_m.shape[1]
    return {
        "constant_velocity": constant_velocity(motion, steps),
        "constant_turn_rate": constant_turn_rate(motion, steps),
        "ground_truth": truth_m,
    }


def _bend(turn_rad: np.ndarray) -> np.ndarray:
    """Chord over arc of a circle's part that turns by an angle, and its direction, as a complex number; 1 without a turn."""
    return np.asarray(np.sinc(turn_rad / (2 * np.pi)) * np.exp(0.5j * turn_rad))
