"""A drive -> the messages of the nuScenes CAN bus expansion: `pose` and `steeranglefeedback`, 50 times a second.

Vectors are in the car frame (x forward, y left, z up). As an accelerometer at rest does, `accel` shows 9.81 m/s2 upwards.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sparsedrive.world.state import EgoState, WorldState
from sparsedrive.world.tables import Row, SceneName, state_at, yaw_quaternion

STEP_US = 20_000
GRAVITY_MPS2 = 9.81
STEERING_RATIO = 15.0
"""Turns of the steering wheel for one of the front wheels; nuScenes records the angle of the steering wheel."""


def can_bus_messages(name: SceneName, drive: Sequence[WorldState]) -> dict[str, list[Row]]:
    """Messages by kind, over the whole drive."""
    poses, steering = [], []
    first_us, last_us = (round(state.time_s * 1e6) for state in (drive[0], drive[-1]))
    for time_us in range(first_us, last_us + 1, STEP_US):
        ego = state_at(drive, time_us * 1e-6).ego
        status = ego_status(ego).tolist()
        poses.append({
            "utime": name.start_us + time_us,
            "pos": [*map(float, ego.position_m), 0.0],
            "orientation": yaw_quaternion(ego.yaw_rad),
            "accel": status[0:3],
            "rotation_rate": status[3:6],
            "vel": status[6:9],
        })  # fmt: skip
        steering.append({"utime": name.start_us + time_us, "value": status[9]})
    return {"pose": poses, "steeranglefeedback": steering}


def ego_status(ego: EgoState) -> Float[np.ndarray, "10"]:
    """What the sensors of the ego vehicle say, in the order of `structures.Frame.ego_status`: acceleration, rotation rate, velocity (xyz
    each, m/s2, rad/s, m/s) and the angle of the steering wheel (rad)."""
    acceleration_mps2 = (ego.acceleration_mps2, ego.speed_mps * ego.yaw_rate_radps, GRAVITY_MPS2)
    return np.array([*acceleration_mps2, 0, 0, ego.yaw_rate_radps, ego.speed_mps, 0, 0, STEERING_RATIO * ego.steering_rad], np.float64)
