"""When drivers change lanes: to get on better (MOBIL), or, some of them, to squeeze in ahead of the ego vehicle."""

import numpy as np
from jaxtyping import Bool, Float

from sparsedrive.world.drivers import HARDEST_BRAKE_MPS2, DriverMinds, Drivers, Sight, acceleration, pressure_of, wanted_gap
from sparsedrive.world.network import Network

CONSIDERS_EVERY_S = 1.0
GAIN_MPS2, POLITENESS = 0.25, 0.3
SAFE_BRAKE_MPS2, CUT_IN_BRAKE_MPS2 = 2.0, 3.0
SLOWEST_MPS = 3.0
ROOM_TO_LANE_END_M, ROOM_S = 3.0, 2.8
CUT_IN_GAP_M = (4.0, 20.0)
STRAIGHT_1PM = 0.01
SETTLED_BEFORE_S = 1.0
"""Nobody changes lanes while traffic settles, but for the last moment of that."""
BESIDE_M, LENGTHWISE_MARGIN_M = 2.4, 2.0


def change_lanes(
    network: Network, drivers: Drivers, minds: DriverMinds, sight: Sight, speed_mps: Float[np.ndarray, "D"],
    boxes: Float[np.ndarray, "A 5"], tick: int, tick_s: float,
) -> Bool[np.ndarray, "D"]:  # fmt: skip
    """Let drivers begin lane changes, in place, in `minds`; return who did. Every driver thinks of it once a second, each at its own tick.

    Source of the incentive and the safety rule: Kesting, Treiber, Helbing 2007, "General lane-changing model MOBIL for car-following
    models".
    """
    period = max(1, round(CONSIDERS_EVERY_S / tick_s))
    everyone = np.arange(len(minds.lane))
    room_m = network.length_m[minds.lane] - minds.s_m
    able = drivers.changes_lanes & (everyone * 7 % period == tick % period) & (network.junction[minds.lane] < 0) & (minds.grant < 0)
    able &= (speed_mps > SLOWEST_MPS) & (minds.shift_part >= 1.0) & (room_m > ROOM_TO_LANE_END_M + ROOM_S * speed_mps) & (minds.s_m > 6.0)
    row = network.first[minds.lane] + np.clip(minds.s_m / network.step_m[minds.lane], 0, network.count[minds.lane] - 1).astype(int)
    able &= (np.abs(network.curvature_1pm[row]) < STRAIGHT_1PM) & (tick * tick_s > -SETTLED_BEFORE_S)
    changed = np.zeros(len(minds.lane), bool)
    for driver in np.flatnonzero(able).tolist():
        for target in (int(network.left[minds.lane[driver]]), int(network.right[minds.lane[driver]])):
            if target >= 0 and _worth_it(network, drivers, minds, sight, speed_mps, boxes, driver, target):
                _begin(network, drivers, minds, boxes, driver, target)
                changed[driver] = True
                break
    return changed


def _worth_it(
    network: Network,
    drivers: Drivers,
    minds: DriverMinds,
    sight: Sight,
    speed_mps: np.ndarray,
    boxes: np.ndarray,
    driver: int,
    target: int,
) -> bool:
    """The incentive outweighs what the new follower loses, and that one need not brake hard."""
    own = boxes[drivers.actor[driver]]
    if _beside(network, drivers, own, boxes, driver, target):
        return False
    place_m = network.project(target, own[:2])
    ahead_m = minds.s_m - place_m
    in_lane = (minds.lane == target) & (np.arange(len(ahead_m)) != driver)
    leader = _nearest(in_lane & (ahead_m > 0), ahead_m)
    follower = _nearest(in_lane & (ahead_m <= 0), -ahead_m)
    after = _pressure(drivers, speed_mps, driver, leader, ahead_m)
    gain = _acceleration(drivers, sight, speed_mps, driver, after) - _acceleration(
        drivers, sight, speed_mps, driver, sight.pressure[driver]
    )
    if follower < 0:
        return gain > GAIN_MPS2
    pressed = _pressure(drivers, speed_mps, follower, driver, -ahead_m[follower] + np.zeros_like(ahead_m))
    follows = _acceleration(drivers, sight, speed_mps, follower, pressed)
    is_ego = follower == len(minds.lane) - 1
    gap_m = -ahead_m[follower] - (drivers.length_m[follower] / 2 + drivers.tail_m[driver])
    if is_ego and drivers.cuts_in[driver] and CUT_IN_GAP_M[0] < gap_m < CUT_IN_GAP_M[1]:
        return follows > -CUT_IN_BRAKE_MPS2
    loses = _acceleration(drivers, sight, speed_mps, follower, sight.pressure[follower]) - follows
    return follows > -SAFE_BRAKE_MPS2 and gain - POLITENESS * max(loses, 0.0) > GAIN_MPS2


def _beside(network: Network, drivers: Drivers, own: np.ndarray, boxes: np.ndarray, driver: int, target: int) -> bool:
    """Whether anything is where the vehicle wants to go, or lengthwise too near to it: whatever lane it counts itself to."""
    place_m = network.project(target, own[:2])
    row = network.first[target] + np.clip(round(place_m / network.step_m[target]), 0, network.count[target] - 1)
    x, y = (boxes[:, :2] - network.points_m[row]).T
    cos, sin = np.cos(network.yaw_rad[row]), np.sin(network.yaw_rad[row])
    lengthwise_m = np.abs(x * cos + y * sin) - boxes[:, 3] / 2 - max(drivers.tail_m[driver], own[3] / 2)
    there = (np.abs(y * cos - x * sin) < BESIDE_M) & (lengthwise_m < LENGTHWISE_MARGIN_M)
    there[drivers.actor[driver]] = False
    return bool(there.any())


def _nearest(mask: np.ndarray, away_m: np.ndarray) -> int:
    return int(np.where(mask, away_m, np.inf).argmin()) if mask.any() else -1


def _pressure(drivers: Drivers, speed_mps: np.ndarray, driver: int, leader: int, ahead_m: np.ndarray) -> float:
    """Pressure on a driver behind a leader whose middle is `ahead_m[leader]` ahead."""
    if leader < 0:
        return 0.0
    gap_m = ahead_m[leader] - drivers.length_m[driver] / 2 - drivers.tail_m[leader]
    wanted_m = wanted_gap(
        speed_mps[driver], speed_mps[leader], drivers.headway_s[driver], drivers.accelerates_mps2[driver], drivers.brakes_mps2[driver]
    )
    closing_mps = speed_mps[driver] - speed_mps[leader]
    return float(pressure_of(wanted_m, gap_m, closing_mps, drivers.accelerates_mps2[driver]))


def _acceleration(drivers: Drivers, sight: Sight, speed_mps: np.ndarray, driver: int, pressure: float) -> float:
    value = acceleration(
        speed_mps[driver], sight.speed_mps[driver], pressure, drivers.accelerates_mps2[driver], drivers.brakes_mps2[driver]
    )
    return max(float(value), -HARDEST_BRAKE_MPS2)


def _begin(network: Network, drivers: Drivers, minds: DriverMinds, boxes: np.ndarray, driver: int, target: int) -> None:
    """Count the driver to the target lane from now on, at its distance from the middle."""
    position_m = boxes[drivers.actor[driver], :2]
    place_m = network.project(target, position_m)
    row = network.first[target] + int(np.clip(round(place_m / network.step_m[target]), 0, network.count[target] - 1))
    x, y = position_m - network.points_m[row]
    yaw_rad = network.yaw_rad[row]
    minds.shift_m[driver] = y * np.cos(yaw_rad) - x * np.sin(yaw_rad) + drivers.right_m[driver] - minds.nudge_m[driver]
    minds.lane[driver], minds.s_m[driver], minds.shift_part[driver] = target, place_m, 0.0
    minds.past[driver] = -1
