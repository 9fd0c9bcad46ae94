"""The nouns of the world that move: who is there (`Cast`, fixed for a drive) and where they are at one instant (`WorldState`)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

EGO_SIZE_LWH_M = (4.08, 1.73, 1.56)
EGO_CENTRE_AHEAD_M = 1.35
"""The ego vehicle's frame has its origin on the ground under the rear axle; the middle of the car is this far ahead of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cast:
    """The A actors of a drive: everything that gets a box. `categories` are nuScenes names such as vehicle.car."""

    categories: tuple[str, ...]
    size_lwh_m: Float[np.ndarray, "A 3"]
    colour_rgb: Float[np.ndarray, "A 3"]

    def __len__(self) -> int:
        return len(self.categories)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EgoState:
    """The ego vehicle: origin under the rear axle, heading counter-clockwise from east."""

    position_m: Float[np.ndarray, "2"]
    yaw_rad: float
    speed_mps: float
    acceleration_mps2: float
    steering_rad: float
    yaw_rate_radps: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldState:
    """One instant. Actors stand on the ground; `pose` is x_m, y_m of the middle of the box and yaw_rad.

    `minds` is what drivers and walkers remember (`traffic.Minds`); sensors and writers do not look at it.
    """

    time_s: float
    ego: EgoState
    pose: Float[np.ndarray, "A 3"]
    speed_mps: Float[np.ndarray, "A"]
    acceleration_mps2: Float[np.ndarray, "A"]
    minds: object


def interpolate(before: WorldState, after: WorldState, time_s: float) -> WorldState:
    """The state between two instants (poses linear, headings the short way round); `minds` are those of `before`."""
    part = (time_s - before.time_s) / (after.time_s - before.time_s) if after.time_s != before.time_s else 0.0

    def mix(a, b):
        return a + part * (b - a)

    def turn(a, b):
        return a + part * ((b - a + np.pi) % (2 * np.pi) - np.pi)

    ego0, ego1 = before.ego, after.ego
    ego = EgoState(
        position_m=mix(ego0.position_m, ego1.position_m),
        yaw_rad=float(turn(ego0.yaw_rad, ego1.yaw_rad)),
        speed_mps=mix(ego0.speed_mps, ego1.speed_mps),
        acceleration_mps2=mix(ego0.acceleration_mps2, ego1.acceleration_mps2),
        steering_rad=mix(ego0.steering_rad, ego1.steering_rad),
        yaw_rate_radps=mix(ego0.yaw_rate_radps, ego1.yaw_rate_radps),
    )
    pose = np.concatenate([mix(before.pose[:, :2], after.pose[:, :2]), turn(before.pose[:, 2:], after.pose[:, 2:])], 1)
    return WorldState(
        time_s=time_s,
        ego=ego,
        pose=pose,
        speed_mps=mix(before.speed_mps, after.speed_mps),
        acceleration_mps2=mix(before.acceleration_mps2, after.acceleration_mps2),
        minds=before.minds,
    )
