"""Vehicles under way: the ego's route, and other drivers placed around it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.spatial import cKDTree

from sparsedrive.world.cast import (
    BICYCLE,
    BUS,
    CAR,
    DIGGER,
    MOTORCYCLE,
    NARROW,
    TRAILER,
    TRUCK,
    CastConfig,
    CastList,
    Kind,
    add_parked,
    add_sites,
)
from sparsedrive.world.drivers import DriverMinds, Drivers
from sparsedrive.world.ego import WHEELBASE_M
from sparsedrive.world.footways import add_walkers, start_places
from sparsedrive.world.network import BEHIND, Network, build_network
from sparsedrive.world.state import EGO_SIZE_LWH_M, Cast, EgoState, WorldState
from sparsedrive.world.town import Town
from sparsedrive.world.traffic import TOW_GAP_M, Minds, Setting, ego_line, settle

ALWAYS = (BUS, TRUCK, TRUCK, MOTORCYCLE, MOTORCYCLE, BICYCLE, BICYCLE, BICYCLE, DIGGER)
ALSO = ((CAR, 0.84), (TRUCK, 0.07), (BUS, 0.02), (MOTORCYCLE, 0.04), (BICYCLE, 0.03))
TURN_WEIGHT = {"straight": 0.5, "left": 0.25, "right": 0.25}
CYCLIST_TURN_WEIGHT = {"straight": 0.7, "left": 1e-6, "right": 0.3}
"""From the right edge of the lane nobody turns left across those who pass: cyclists do it only where there is no other way."""
START_SPACE_M = 4.0
ROUTE_TRIALS = 40


class Placed(NamedTuple):
    """A vehicle under way: rows of it and its trailer (-1) in the cast, where its middle is, and how far behind that its rear."""

    kind: Kind
    actor: int
    trailer: int
    lane: int
    s_m: float
    tail_m: float


def populate(town: Town, seed: int, config: CastConfig) -> tuple[Cast, WorldState, Setting]:
    """Fill a town: who is there, where at time 0, and what a drive needs to go on from that. The same seed gives the same drive.

    Raises:
        ValueError: the town has no lane outside junctions long enough to start on.
    """
    rng = np.random.default_rng([seed, 1])
    network = build_network(town)
    cast = CastList(rng)
    choice = _choices(network, rng, config.drivers + 1)
    lane, s_m, ego_choice = _start(network, rng)
    choice[-1] = ego_choice
    near = cKDTree(_route_points(network, lane, s_m, ego_choice, config.route_m))
    drivers, minds, speed_mps = _drivers(network, cast, near, choice, (lane, s_m), config.drivers)
    add_sites(network, cast, near, config.sites)
    add_parked(town, network, cast, near, config.parked_share)
    walkers = add_walkers(town, network, cast, near, config.walkers, config.crossing_share)
    everybody = cast.cast()
    drivers = replace(drivers, actor=np.append(drivers.actor[:-1], len(everybody)))
    setting = Setting(
        network=network, cast=everybody, drivers=drivers, walkers=walkers,
        crossings=town.crossings,
        narrow=np.array([*(kind.category in NARROW for kind in cast.kinds), False]),
    )  # fmt: skip
    rear_m, front_m = ego_line(network, drivers, minds, 0.0, np.array([0.0, 0.5]))
    ego = EgoState(
        position_m=rear_m, yaw_rad=float(np.arctan2(*(front_m - rear_m)[::-1])), speed_mps=float(speed_mps[-1]), acceleration_mps2=0.0,
        steering_rad=0.0, yaw_rate_radps=0.0,
    )  # fmt: skip
    still = np.zeros(len(everybody))
    state = WorldState(time_s=0.0, ego=ego, pose=np.array(cast.pose).reshape(-1, 3), speed_mps=still, acceleration_mps2=still, minds=None)
    all_minds = Minds(drivers=minds, walked_m=start_places(walkers, rng))
    return everybody, settle(setting, state, ego, all_minds, speed_mps, walkers.pace_mps, 0.0), setting


def _choices(
    network: Network, rng: np.random.Generator, drivers: int, turn_weight: dict[str, float] = TURN_WEIGHT
) -> Int[np.ndarray, "D L"]:
    """The lane every driver takes after every lane; never into a dead end where it can be helped."""
    choice = np.full((drivers, len(network.lanes)), -1)
    for lane in network.lanes:
        options = [k for k in lane.successors if network.endless[k]] or list(lane.successors)
        if options:
            weights = np.array([turn_weight[network.lanes[k].turn] for k in options])
            choice[:, lane.lane_id] = rng.choice(options, drivers, p=weights / weights.sum())
    return choice


def _start(network: Network, rng: np.random.Generator) -> tuple[int, float, np.ndarray]:
    """Lane, place and choices of the ego: of some random routes one with turns near its begin, more often than not."""
    lanes = np.flatnonzero((network.junction < 0) & (network.length_m > 30.0) & network.endless)
    if not len(lanes):
        raise ValueError(
            f"Town.lanes: expected a lane outside junctions longer than 30 m from which one can drive on, got none among "
            f"{len(network.lanes)}; make roads longer or connect them by `successors`"
        )
    weights = np.where((network.left[lanes] >= 0) | (network.right[lanes] >= 0), 2.0, 1.0)
    turns_wanted = int(rng.choice([0, 1, 2, 3], p=[0.15, 0.35, 0.3, 0.2]))
    best: tuple[int, int, float, np.ndarray] | None = None
    for choice in _choices(network, rng, ROUTE_TRIALS):
        lane = int(rng.choice(lanes, p=weights / weights.sum()))
        alone = network.left[lane] < 0 and network.right[lane] < 0
        s_m = float(max(network.length_m[lane] - (rng.uniform(28.0, 70.0) if alone else rng.uniform(60.0, 120.0)), 8.0))
        way_m, turns, here = -s_m, 0, lane
        while way_m < 180.0 and here >= 0:
            way_m += network.length_m[here]
            turns += network.lanes[here].turn != "straight"
            here = int(choice[here])
        miss = abs(turns - turns_wanted)
        if best is None or miss < best[0]:
            best = (miss, lane, s_m, choice)
    assert best is not None
    return best[1:]


def _route_points(network: Network, lane: int, s_m: float, choice: np.ndarray, route_m: float) -> np.ndarray:
    """Points of the route, about 2 m apart."""
    points, way_m = [], -s_m
    while way_m < route_m and lane >= 0:
        points.append(network.points_m[network.of_lane(lane)][::4])
        way_m += network.length_m[lane]
        lane = int(choice[lane])
    return np.concatenate(points)


def _drivers(
    network: Network, cast: CastList, near: cKDTree, choice: np.ndarray, ego: tuple[int, float], count: int
) -> tuple[Drivers, DriverMinds, np.ndarray]:
    """Drivers at random free places on lanes near the route; the ego last."""
    rng = cast.rng
    slots = _beside_ego(network, ego, rng) + _slots(network, near, rng)
    taken: dict[int, list[tuple[float, float]]] = {ego[0]: [(ego[1] - 8.0, ego[1] + 24.0)]}
    rows: list[Placed] = []
    kinds = [*ALWAYS, *(ALSO[k][0] for k in rng.choice(len(ALSO), max(count, 1), p=[weight for _, weight in ALSO]))][:count]
    kinds.sort(key=lambda kind: kind is not CAR)  # the places beside the ego are for cars
    towing = False
    for kind in kinds:
        size_m = cast.size(kind)
        trailer_m = cast.size(TRAILER) if kind is TRUCK and not towing else None
        tail_m = size_m[0] / 2 + (TOW_GAP_M + trailer_m[0] if trailer_m is not None else 0.0)
        place = next((slot for slot in slots if _fits(network, taken, slot, size_m[0] / 2, tail_m, kind)), None)
        if place is None:
            continue
        slots.remove(place)
        towing |= trailer_m is not None
        taken.setdefault(place[0], []).append((place[1] - tail_m, place[1] + size_m[0] / 2))
        trailer = cast.add(TRAILER, trailer_m) if trailer_m is not None else -1
        rows.append(Placed(kind, cast.add(kind, size_m), trailer, *place, tail_m))
    lane = np.array([row.lane for row in rows] + [ego[0]])
    s_m = np.array([row.s_m for row in rows] + [ego[1]])
    cyclists = [number for number, row in enumerate(rows) if row.kind is BICYCLE]
    choice[cyclists] = _choices(network, rng, len(cyclists), CYCLIST_TURN_WEIGHT)
    drivers = _temperaments(cast, rows, np.concatenate([choice[: len(rows)], choice[-1:]]))
    zero, still = np.zeros(len(lane)), np.full((len(lane), BEHIND), -1)
    minds = DriverMinds(
        lane=lane, past=still, s_m=s_m, shift_m=zero, shift_part=zero + 1.0, nudge_m=zero, waited_s=zero, grant=np.full(len(lane), -1)
    )
    return drivers, minds, _start_speeds(network, drivers, minds)


def _beside_ego(network: Network, ego: tuple[int, float], rng: np.random.Generator) -> list[tuple[int, float]]:
    """Places a little ahead on the lanes beside the ego's: from there one may cut in."""
    beside = [int(lane) for lane in (network.left[ego[0]], network.right[ego[0]]) if lane >= 0]
    return [(lane, ego[1] + float(rng.uniform(8.0, 12.0))) for lane in beside]


def _slots(network: Network, near: cKDTree, rng: np.random.Generator) -> list[tuple[int, float]]:
    """Places on lanes within sight of the route, 12 m or more apart, in random order."""
    slots = []
    for lane in np.flatnonzero((network.junction < 0) & network.endless):
        for s_m in np.arange(rng.uniform(4.0, 12.0), network.length_m[lane], 12.0):
            row = network.first[lane] + int(s_m / network.step_m[lane])
            if near.query(network.points_m[row])[0] < 55.0:
                slots.append((int(lane), float(s_m)))
    return [slots[k] for k in rng.permutation(len(slots))]


def _fits(
    network: Network, taken: dict[int, list[tuple[float, float]]], slot: tuple[int, float], front_m: float, tail_m: float, kind: Kind
) -> bool:
    lane, s_m = slot
    if kind is BICYCLE and network.right[lane] >= 0:
        return False
    if s_m - tail_m < 1.0 or s_m + front_m > network.line_m[lane] - 2.0:
        return False
    begin_m, end_m = s_m - tail_m - START_SPACE_M, s_m + front_m + START_SPACE_M
    return all(end_m < rear or begin_m > front for rear, front in taken.get(lane, []))


def _temperaments(cast: CastList, rows: list[Placed], choice: np.ndarray) -> Drivers:
    """Who drives how; the ego calmly."""
    rng, count = cast.rng, len(rows)
    kinds = [row.kind for row in rows]
    heavy, bicycle = np.array([kind in (TRUCK, BUS, DIGGER) for kind in kinds], bool), np.array([kind is BICYCLE for kind in kinds], bool)
    size_m = np.array([cast.size_lwh_m[row.actor] for row in rows]).reshape(-1, 3)
    top_mps = np.where(bicycle, rng.uniform(3.8, 5.5, count), np.where(heavy, 12.0, 25.0))
    top_mps = np.where([kind is DIGGER for kind in kinds], 6.0, top_mps)
    with_ego = lambda values, ego: np.append(values, ego)  # noqa: E731
    return Drivers(
        actor=with_ego([row.actor for row in rows], -1).astype(int),
        towed=with_ego([row.trailer for row in rows], -1).astype(int),
        choice=choice,
        length_m=with_ego(size_m[:, 0], EGO_SIZE_LWH_M[0]),
        width_m=with_ego(size_m[:, 1], EGO_SIZE_LWH_M[1]),
        tail_m=with_ego([row.tail_m for row in rows], EGO_SIZE_LWH_M[0] / 2),
        wheelbase_m=with_ego(0.6 * size_m[:, 0], WHEELBASE_M),
        speed_factor=with_ego(np.clip(rng.normal(0.92, 0.1, count), 0.7, 1.15), 0.95),
        top_speed_mps=with_ego(top_mps, 20.0),
        headway_s=with_ego(np.clip(rng.normal(1.3, 0.2, count), 0.9, 1.9), 1.4),
        accelerates_mps2=with_ego(np.where(heavy | bicycle, 1.2, np.clip(rng.normal(1.9, 0.25, count), 1.4, 2.6)), 1.8),
        brakes_mps2=with_ego(np.where(heavy, 1.6, np.clip(rng.normal(2.0, 0.25, count), 1.5, 2.6)), 1.9),
        right_m=with_ego(np.where(bicycle, 1.35, 0.0), 0.0),
        nudges=with_ego(~heavy & ~bicycle, True).astype(bool),
        changes_lanes=with_ego(~heavy & ~bicycle, True).astype(bool),
        cuts_in=with_ego(rng.random(count) < 0.85, False).astype(bool),
        polite=with_ego(rng.random(count) < 0.7, True).astype(bool),
    )


def _start_speeds(network: Network, drivers: Drivers, minds: DriverMinds) -> np.ndarray:
    """Speeds everybody could keep behind whoever is ahead on the same lane."""
    speed_mps = np.minimum(network.limit_mps[minds.lane] * drivers.speed_factor, drivers.top_speed_mps) * 0.8
    for driver in range(len(minds.lane)):
        ahead = (minds.lane == minds.lane[driver]) & (minds.s_m > minds.s_m[driver])
        free_m = network.line_m[minds.lane[driver]] - minds.s_m[driver] - drivers.length_m[driver] / 2
        if ahead.any():
            leader = int(np.where(ahead, minds.s_m, np.inf).argmin())
            free_m = minds.s_m[leader] - minds.s_m[driver] - drivers.tail_m[leader] - drivers.length_m[driver] / 2
        # Slow enough to brake comfortably should the leader, or the junction, mean to stop.
        speed_mps[driver] = min(speed_mps[driver], np.sqrt(2 * 1.5 * max(free_m - 2.0, 0.0)))
    return speed_mps
