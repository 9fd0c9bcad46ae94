"""Everything that moves, one tick further: `advance` takes a state to the next and remembers nothing of its own."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from sparsedrive.world.drivers import (
    NUDGE_M,
    NUDGE_MPS,
    DriverMinds,
    Drivers,
    Sight,
    acceleration,
    look_ahead,
    poses,
    shift_per_m,
    still_to_shift,
    wanted_gap,
)
from sparsedrive.world.ego import PREVIEW_S, EgoControl, move, steer
from sparsedrive.world.junctions import approaches, crossing_gap_m, crossing_ways, grant, line_gap_m
from sparsedrive.world.lane_changes import change_lanes
from sparsedrive.world.network import BEHIND, Network, Path, along, paths
from sparsedrive.world.state import EGO_CENTRE_AHEAD_M, EGO_SIZE_LWH_M, Cast, EgoState, WorldState
from sparsedrive.world.town import Crossing
from sparsedrive.world.walkers import Walkers, on_crossings, safe_crossings, step_walkers

HARD_BRAKE_MPS2 = 4.0
JERK_MPS3, EGO_JERK_MPS3, EMERGENCY_JERK_MPS3 = 8.0, 4.0, 20.0
SLOW_MPS, AT_LINE_M = 1.5, 6.0
LOST_M = 2.6
TOW_GAP_M = 0.6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What stays the same for a drive. `narrow` actors at the edge of the road are passed (the ego, last, is not narrow)."""

    network: Network
    cast: Cast
    drivers: Drivers
    walkers: Walkers
    crossings: tuple[Crossing, ...]
    narrow: Bool[np.ndarray, "A+1"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Minds:
    """What everybody remembers: the drivers, and how far along its round each walker is [W]."""

    drivers: DriverMinds
    walked_m: Float[np.ndarray, "W"]


def ego_box(ego: EgoState) -> Float[np.ndarray, "5"]:
    """x_m, y_m, yaw_rad, length_m, width_m of the ego vehicle."""
    middle_m = ego.position_m + EGO_CENTRE_AHEAD_M * np.array([np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)])
    return np.array([*middle_m, ego.yaw_rad, *EGO_SIZE_LWH_M[:2]])


def all_boxes(cast: Cast, state: WorldState) -> Float[np.ndarray, "A+1 5"]:
    """Rectangles of all actors, the ego vehicle last."""
    return np.concatenate([np.concatenate([state.pose, cast.size_lwh_m[:, :2]], 1), ego_box(state.ego)[None]])


def advance(setting: Setting, state: WorldState, ego_control: EgoControl | None, dt_s: float) -> WorldState:
    """The state `dt_s` later. With `ego_control` None the expert drives the ego vehicle."""
    network, drivers, cast = setting.network, setting.drivers, setting.cast
    assert isinstance(state.minds, Minds)
    minds = _copy(state.minds.drivers)
    speed_mps = np.append(state.speed_mps, state.ego.speed_mps)[drivers.actor]
    before_mps2 = np.append(state.acceleration_mps2, state.ego.acceleration_mps2)[drivers.actor]
    boxes = all_boxes(cast, state)
    velocity_mps = np.append(state.speed_mps, state.ego.speed_mps)[:, None] * np.stack([np.cos(boxes[:, 2]), np.sin(boxes[:, 2])], 1)
    path = paths(network, minds.lane, minds.past, drivers.choice)
    others = look_ahead(network, path, drivers, minds, speed_mps, boxes, velocity_mps, setting.narrow)
    ways = crossing_ways(network, path, drivers, minds)
    stop_m = crossing_gap_m(ways, drivers, speed_mps, on_crossings(setting.walkers, state.minds.walked_m, setting.crossings))
    sight = _with_stop(drivers, others, speed_mps, np.minimum(stop_m, path.end_m - minds.s_m - drivers.length_m / 2))

    approach = approaches(network, path, drivers, minds)
    forced = np.zeros(len(minds.lane), bool)
    forced[-1] = ego_control is not None and approach.line_m[-1] < 2.0 + speed_mps[-1]
    granted = grant(network, path, drivers, minds, approach, sight, speed_mps, forced)
    waits = (approach.lane >= 0) & (granted < 0) & (speed_mps < SLOW_MPS) & (approach.line_m < AT_LINE_M)
    minds = replace(minds, grant=granted, waited_s=np.where(waits, minds.waited_s + dt_s, 0.0))
    sight = _with_stop(drivers, sight, speed_mps, line_gap_m(approach, granted))

    # Stopping for a line or a crossing is no reason to change lanes: only others are.
    changed = change_lanes(network, drivers, minds, others, speed_mps, boxes, round(state.time_s / dt_s), dt_s)
    if changed.any():
        path = paths(network, minds.lane, minds.past, drivers.choice)
    wanted_mps2 = acceleration(speed_mps, sight.speed_mps, sight.pressure, drivers.accelerates_mps2, drivers.brakes_mps2)
    next_mps2 = _with_jerk(wanted_mps2, before_mps2, dt_s)
    next_mps = np.maximum(speed_mps + next_mps2 * dt_s, 0.0)
    control = ego_control or _expert(network, drivers, minds, state.ego, float(next_mps2[-1]))
    ego = move(state.ego, control, dt_s)
    next_mps[-1] = ego.speed_mps

    minds = _move_on(network, path, minds, sight, speed_mps, next_mps, dt_s)
    minds = _locate_ego(network, drivers, minds, ego)
    vehicles = np.concatenate([drivers.actor, drivers.towed[drivers.towed >= 0]])
    safe = safe_crossings(len(setting.crossings), ways, drivers.length_m / 2 + drivers.tail_m, speed_mps)
    walked_m, pace_mps = step_walkers(setting.walkers, state.minds.walked_m, safe, boxes[vehicles], dt_s)
    return settle(setting, state, ego, Minds(drivers=minds, walked_m=walked_m), next_mps, pace_mps, dt_s)


def settle(
    setting: Setting, state: WorldState, ego: EgoState, minds: Minds, driver_mps: np.ndarray, walker_mps: np.ndarray, dt_s: float
) -> WorldState:
    """The state that belongs to new minds: everybody's pose, speed and acceleration."""
    drivers, walkers = setting.drivers, setting.walkers
    path = paths(setting.network, minds.drivers.lane, minds.drivers.past, drivers.choice)
    pose, speed_mps = state.pose.copy(), state.speed_mps.copy()
    at = drivers.actor[:-1]
    pose[at], speed_mps[at] = poses(setting.network, path, drivers, minds.drivers, driver_mps)[:-1], driver_mps[:-1]
    for driver in np.flatnonzero(drivers.towed >= 0).tolist():
        trailer = drivers.towed[driver]
        pose[trailer] = _trailer_pose(setting, path, minds.drivers, driver)
        speed_mps[trailer] = driver_mps[driver]
    position_m, yaw_rad = walkers.at(minds.walked_m)
    pose[walkers.actor] = np.concatenate([position_m, yaw_rad[:, None]], 1)
    speed_mps[walkers.actor] = walker_mps
    acceleration_mps2 = (speed_mps - state.speed_mps) / dt_s if dt_s else np.zeros_like(speed_mps)
    return WorldState(time_s=state.time_s + dt_s, ego=ego, pose=pose, speed_mps=speed_mps, acceleration_mps2=acceleration_mps2, minds=minds)


def _trailer_pose(setting: Setting, path: Path, minds: DriverMinds, driver: int) -> np.ndarray:
    """A trailer's two ends follow the lane behind its truck."""
    length_m = setting.cast.size_lwh_m[setting.drivers.towed[driver], 0]
    behind_m = setting.drivers.length_m[driver] / 2 + TOW_GAP_M
    at_m = minds.s_m[driver] - behind_m - length_m * np.array([[0.15, 0.85]])
    one = Path(lanes=path.lanes[driver : driver + 1], start_m=path.start_m[driver : driver + 1])
    (front_m, rear_m), _, _ = (part[0] for part in along(setting.network, one, at_m))
    return np.array([*(front_m + rear_m) / 2, np.arctan2(*(front_m - rear_m)[::-1])])


def _copy(minds: DriverMinds) -> DriverMinds:
    """Minds of one's own to write to: a state never changes."""
    return DriverMinds(
        lane=minds.lane.copy(), past=minds.past.copy(), s_m=minds.s_m.copy(), shift_m=minds.shift_m.copy(),
        shift_part=minds.shift_part.copy(), nudge_m=minds.nudge_m.copy(), waited_s=minds.waited_s.copy(), grant=minds.grant.copy(),
    )  # fmt: skip


def _with_stop(drivers: Drivers, sight: Sight, speed_mps: np.ndarray, stop_m: np.ndarray) -> Sight:
    """The same sight with something that stands `stop_m` ahead [D]."""
    wanted_m = wanted_gap(speed_mps, 0.0, drivers.headway_s, drivers.accelerates_mps2, drivers.brakes_mps2)
    pressure = np.maximum(sight.pressure, (wanted_m / np.maximum(stop_m, 0.2)) ** 2)
    nearer = stop_m < sight.gap_m
    return replace(
        sight, pressure=pressure, gap_m=np.where(nearer, stop_m, sight.gap_m), leader_mps=np.where(nearer, 0.0, sight.leader_mps)
    )


def _with_jerk(wanted_mps2: np.ndarray, before_mps2: np.ndarray, dt_s: float) -> np.ndarray:
    """Accelerations change gently, the ego's most gently, unless braking is urgent."""
    jerk_mps3 = np.full(len(wanted_mps2), JERK_MPS3)
    jerk_mps3[-1] = EGO_JERK_MPS3
    falling_mps3 = np.where(wanted_mps2 < -HARD_BRAKE_MPS2 + 1.0, EMERGENCY_JERK_MPS3, jerk_mps3)
    return np.clip(wanted_mps2, before_mps2 - falling_mps3 * dt_s, before_mps2 + jerk_mps3 * dt_s)


def _move_on(
    network: Network, path: Path, minds: DriverMinds, sight: Sight, speed_mps: np.ndarray, next_mps: np.ndarray, dt_s: float
) -> DriverMinds:
    """Drivers further along their paths, on the next lane where one ends."""
    way_m = (speed_mps + next_mps) / 2 * dt_s
    s_m, lane, past = minds.s_m + way_m, minds.lane, minds.past
    over = (s_m > network.length_m[lane]) & (path.lanes[:, BEHIND + 1] >= 0)
    s_m = np.where(over, s_m - network.length_m[lane], s_m)
    past = np.where(over[:, None], np.concatenate([lane[:, None], past[:, :-1]], 1), past)
    lane = np.where(over, path.lanes[:, BEHIND + 1], lane)
    part = np.minimum(minds.shift_part + way_m * shift_per_m(speed_mps), 1.0)
    most_m = NUDGE_MPS * dt_s * np.minimum(speed_mps / 2.0, 1.0)
    towards_m = np.where(sight.wants_nudge, NUDGE_M, 0.0) - minds.nudge_m
    nudge_m = minds.nudge_m + np.clip(towards_m, -most_m, most_m)
    return replace(minds, s_m=s_m, lane=lane, past=past, shift_part=part, nudge_m=nudge_m)


def _expert(network: Network, drivers: Drivers, minds: DriverMinds, ego: EgoState, acceleration_mps2: float) -> EgoControl:
    """How the expert drives: the rear axle on its path, and the acceleration a driver would choose."""
    line = ego_line(network, drivers, minds, ego.speed_mps, np.array([-1.0, 0.0, 1.0]))
    ahead = ego_line(network, drivers, minds, ego.speed_mps, PREVIEW_S * ego.speed_mps + np.array([-1.5, 0.0, 1.5]))
    yaw_rad = np.arctan2(*(line[2] - line[0])[::-1])
    turn_rad = np.arctan2(*(ahead[2] - ahead[1])[::-1]) - np.arctan2(*(ahead[1] - ahead[0])[::-1])
    curvature_1pm = ((turn_rad + np.pi) % (2 * np.pi) - np.pi) / 1.5
    return EgoControl(acceleration_mps2=acceleration_mps2, steering_rad=steer(ego, line[1], float(yaw_rad), float(curvature_1pm)))


def ego_line(
    network: Network, drivers: Drivers, minds: DriverMinds, speed_mps: float, ahead_m: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "K 2"]:
    """Positions on the line of the ego's rear axle, `ahead_m` further along it."""
    path = paths(network, minds.lane[-1:], minds.past[-1:], drivers.choice[-1:])
    points_m, yaw_rad, _ = along(network, path, minds.s_m[-1:, None] + ahead_m - EGO_CENTRE_AHEAD_M)
    part = np.clip(minds.shift_part[-1] + (ahead_m - EGO_CENTRE_AHEAD_M) * shift_per_m(np.array(speed_mps)), 0.0, 1.0)
    left_m = minds.shift_m[-1] * still_to_shift(part) + minds.nudge_m[-1]
    return points_m[0] + left_m[:, None] * np.stack([-np.sin(yaw_rad[0]), np.cos(yaw_rad[0])], 1)


def _locate_ego(network: Network, drivers: Drivers, minds: DriverMinds, ego: EgoState) -> DriverMinds:
    """Where on its path the ego vehicle really is; on the nearest lane, and without a grant, should it have left the path."""
    middle_m = ego_box(ego)[:2]
    path = paths(network, minds.lane[-1:], minds.past[-1:], drivers.choice[-1:])
    (point_m,), (yaw_rad,), _ = (part[0] for part in along(network, path, minds.s_m[-1:, None]))
    ahead_m, left_m = (middle_m - point_m) @ np.array([[np.cos(yaw_rad), -np.sin(yaw_rad)], [np.sin(yaw_rad), np.cos(yaw_rad)]])
    shift_m = abs(minds.shift_m[-1]) if minds.shift_part[-1] < 1 else 0.0
    if abs(left_m) < LOST_M + shift_m and np.cos(ego.yaw_rad - yaw_rad) > 0.5:
        minds.s_m[-1] += ahead_m
        return minds
    lane, s_m = network.nearest(middle_m, ego.yaw_rad)
    minds.lane[-1], minds.s_m[-1], minds.past[-1], minds.shift_part[-1] = lane, s_m, -1, 1.0
    minds.grant[-1] = lane if network.junction[lane] >= 0 else -1
    return minds
