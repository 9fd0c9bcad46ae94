"""Who may drive into a junction, and who stops before a pedestrian crossing.

A driver asks for the junction lane it needs. It is granted when nobody is, or still will be, in the way on a lane that excludes it,
nobody with priority arrives soon and there is room behind the junction; it is given back when the rear of the vehicle has left. So
people do not wait inside for each other, and whoever waited long is let in first: no deadlock.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.world.drivers import DriverMinds, Drivers, Sight
from sparsedrive.world.network import BEHIND, Network, Path
from sparsedrive.world.walkers import OnCrossings

IMPATIENT_S, STARVING_S = 3.0, 10.0
"""Whoever waited this long no longer gives way to those who come; and then, nobody gets a grant in its way any more."""
MOVING_MPS, CLEARANCE_S = 2.0, 1.0
SLACK_S = 0.6
LONG_M = 6.5
FIRM_BRAKE_MPS2 = 3.0
CLEAR_M, TOWARDS_M = 2.2, 6.0
"""Drivers let people be who are this far past the middle of their lane, or have this far to go to it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Approach:
    """The next junction of D drivers: its lane (-1 none in sight), way from the front of the vehicle to the line and to behind it."""

    lane: Int[np.ndarray, "D"]
    line_m: Float[np.ndarray, "D"]
    exit_m: Float[np.ndarray, "D"]


def approaches(network: Network, path: Path, drivers: Drivers, minds: DriverMinds) -> Approach:
    """The next junction lane each driver has no grant for."""
    ahead = path.lanes[:, BEHIND:]
    in_junction = (ahead >= 0) & (network.junction[ahead] >= 0) & (ahead != minds.grant[:, None])
    in_junction[:, 0] = False
    column = in_junction.argmax(1)
    rows = np.arange(len(ahead))
    found = in_junction[rows, column]
    lane, before = ahead[rows, column], ahead[rows, column - 1]
    front_m = minds.s_m + drivers.length_m / 2
    begin_m = np.where(found, path.start_m[rows, BEHIND + column], np.inf)
    line_m = begin_m - network.length_m[before] + network.line_m[before] - front_m
    return Approach(lane=np.where(found, lane, -1), line_m=line_m, exit_m=begin_m + network.length_m[lane] - front_m)


def release(network: Network, path: Path, drivers: Drivers, minds: DriverMinds) -> Int[np.ndarray, "D"]:
    """Grants without those whose vehicle, trailer included, has left the junction lane."""
    on_path = path.lanes == minds.grant[:, None]
    column = on_path.argmax(1)
    rows = np.arange(len(column))
    left_m = path.start_m[rows, column] + network.length_m[minds.grant]
    keep = (minds.grant >= 0) & on_path[rows, column] & (minds.s_m - drivers.tail_m < left_m)
    return np.where(keep, minds.grant, -1)


def grant(
    network: Network, path: Path, drivers: Drivers, minds: DriverMinds, approach: Approach, sight: Sight, speed_mps: np.ndarray,
    forced: Bool[np.ndarray, "D"],
) -> Int[np.ndarray, "D"]:  # fmt: skip
    """Grants after this instant's requests. `forced` drivers (an ego that follows a foreign plan) take theirs without asking."""
    granted = release(network, path, drivers, minds)
    gives_way = np.array([bool(network.yields_to[lane]) for lane in approach.lane])
    soon_m = np.where(gives_way, 5.0 + 1.5 * speed_mps, 6.0 + 2.0 * speed_mps)
    asking = np.flatnonzero((approach.lane >= 0) & (granted < 0) & ((approach.line_m < soon_m) | forced))
    if not len(asking):
        return granted
    waited_s = np.where(minds.waited_s > IMPATIENT_S, minds.waited_s, 0.0)
    order = np.lexsort((asking, approach.line_m[asking], gives_way[asking], -waited_s[asking], ~forced[asking]))
    holders = [
        Holder(driver, int(granted[driver]), _passed_m(network, path, drivers, minds, driver, granted), float(speed_mps[driver]))
        for driver in np.flatnonzero(granted >= 0).tolist()
    ]
    for driver in asking[order].tolist():
        lane = int(approach.lane[driver])
        taken = any(_excludes(network, drivers, approach, holder, driver, speed_mps) for holder in holders)
        free = not taken and _has_room(drivers, approach, sight, driver)
        if free and not waited_s[driver]:
            free = not _somebody_comes(network, drivers, approach, granted, speed_mps, driver)
        if free or forced[driver]:
            granted[driver] = lane
        if free or forced[driver] or (taken and waited_s[driver] > STARVING_S):  # nobody else gets in before one that starves
            holders.append(Holder(driver, lane, -np.inf, 0.0))
    return granted


class Holder(NamedTuple):
    """Somebody with a grant (or before whom nobody else may get one): how far its rear is along the lane, and its speed."""

    driver: int
    lane: int
    passed_m: float
    speed_mps: float


def _excludes(network: Network, drivers: Drivers, approach: Approach, holder: Holder, driver: int, speed_mps: np.ndarray) -> bool:
    """Whether a holder will still be in the way when the driver gets there."""
    is_long = max(drivers.length_m[holder.driver], drivers.length_m[driver]) > LONG_M
    conflicts, lane = network.long_conflicts if is_long else network.conflicts, int(approach.lane[driver])
    if lane not in conflicts[holder.lane]:
        return False
    clears_m = conflicts[holder.lane][lane][1] - holder.passed_m
    if clears_m < 0:
        return False
    begin_m = approach.exit_m[driver] - network.length_m[lane] + conflicts[lane][holder.lane][0]
    arrives_s = _time_for(max(begin_m, 0.0), speed_mps[driver], drivers.accelerates_mps2[driver])
    return bool(holder.speed_mps < MOVING_MPS or clears_m / holder.speed_mps + CLEARANCE_S > arrives_s)


def _time_for(way_m: float, speed_mps: float, pull_mps2: float) -> float:
    """How long a way takes when one accelerates all the time."""
    return float((np.sqrt(speed_mps**2 + 2 * pull_mps2 * way_m) - speed_mps) / pull_mps2)


def _passed_m(network: Network, path: Path, drivers: Drivers, minds: DriverMinds, driver: int, granted: np.ndarray) -> float:
    """How far along its granted lane the rear of a vehicle is."""
    column = int((path.lanes[driver] == granted[driver]).argmax())
    return float(minds.s_m[driver] - drivers.tail_m[driver] - path.start_m[driver, column])


def _has_room(drivers: Drivers, approach: Approach, sight: Sight, driver: int) -> bool:
    """Whether the vehicle would not have to stop with its rear in the junction."""
    needed_m = approach.exit_m[driver] + drivers.length_m[driver] / 2 + drivers.tail_m[driver] + 2.0
    moves_on_m = 2.0 * sight.leader_mps[driver]
    return bool(sight.gap_m[driver] + moves_on_m > needed_m)


def _somebody_comes(
    network: Network, drivers: Drivers, approach: Approach, granted: np.ndarray, speed_mps: np.ndarray, driver: int
) -> bool:
    """Whether somebody with priority, not yet in the junction, would get there before this driver has left their way."""
    lane = int(approach.lane[driver])
    coming = np.isin(approach.lane, list(network.yields_to[lane])) & (granted < 0) & (speed_mps > 0.5)
    for rival in np.flatnonzero(coming):
        on_lane = network.conflicts[lane].get(int(approach.lane[rival]))
        if on_lane is None:
            continue
        way_m = approach.exit_m[driver] - network.length_m[lane] + on_lane[1] + drivers.length_m[driver] / 2 + drivers.tail_m[driver]
        needs_s = _time_for(max(way_m, 0.0), speed_mps[driver], drivers.accelerates_mps2[driver])
        if approach.line_m[rival] / speed_mps[rival] < needs_s + SLACK_S:
            return True
    return False


def line_gap_m(approach: Approach, granted: np.ndarray) -> Float[np.ndarray, "D"]:
    """Way to the line a driver must not cross; inf with a grant or without a junction in sight."""
    return np.where((approach.lane >= 0) & (granted < 0), approach.line_m, np.inf)


def crossing_ways(
    network: Network, path: Path, drivers: Drivers, minds: DriverMinds
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Crossings on the paths of drivers [D, N]: number or -1, way from the front to its begin and to its end, the lane's place across."""
    lanes = path.lanes[:, BEHIND - 1 :]
    number = np.where(lanes[..., None] >= 0, network.crossing[lanes], -1)
    start_m = np.where(np.isfinite(path.start_m[:, BEHIND - 1 :]), path.start_m[:, BEHIND - 1 :], 0.0)
    offset_m = (start_m - (minds.s_m + drivers.length_m / 2)[:, None])[..., None]
    shape = (len(lanes), -1)
    return (
        number.reshape(shape),
        (network.crossing_in_m[lanes] + offset_m).reshape(shape),
        (network.crossing_out_m[lanes] + offset_m).reshape(shape),
        network.crossing_across_m[lanes].reshape(shape),
    )


def crossing_gap_m(
    ways: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], drivers: Drivers, speed_mps: Float[np.ndarray, "D"], people: OnCrossings
) -> Float[np.ndarray, "D"]:
    """Way to the nearest crossing to stop at; inf where there is none, or where it is too late.

    Drivers stop for people on their lane or walking towards it, and the polite ones for those who wait.
    """
    number, in_m, _, across_m = ways
    blocked = people.waited_at[number] & drivers.polite[:, None]
    for crossing, at_m, direction in zip(people.crossing, people.across_m, people.direction, strict=True):
        to_go_m = (across_m - at_m) * direction
        blocked |= (number == crossing) & (to_go_m > -CLEAR_M) & (to_go_m < TOWARDS_M)
    in_time = (in_m > 0.2) & (speed_mps[:, None] ** 2 < 2 * FIRM_BRAKE_MPS2 * np.maximum(in_m - 0.5, 0.05))
    return np.where((number >= 0) & blocked & in_time, in_m + 1.2, np.inf).min(1)
