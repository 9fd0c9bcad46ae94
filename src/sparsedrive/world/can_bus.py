"""A drive -> the messages of the nuScenes CAN bus expansion: `pose` and `steeranglefeedback`, 50 times a second.

Vectors are in the car frame (x forward, y left, z up). As an accelerometer at rest does, `accel` shows 9.81 m/s2 upwards.
"""

from collections.abc import Sequence

from sparsedrive.world.state import WorldState
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
        poses.append({
            "utime": name.start_us + time_us,
            "pos": [*map(float, ego.position_m), 0.0],
            "orientation": yaw_quaternion(ego.yaw_rad),
            "vel": [float(ego.speed_mps), 0.0, 0.0],
            "rotation_rate": [0.0, 0.0, float(ego.yaw_rate_radps)],
            "accel": [float(ego.acceleration_mps2), float(ego.speed_mps * ego.yaw_rate_radps), GRAVITY_MPS2],
        })  # fmt: skip
        steering.append({"utime": name.start_us + time_us, "value": STEERING_RATIO * float(ego.steering_rad)})
    return {"pose": poses, "steeranglefeedback": steering}
