"""Where people walk: lines in the middle of the pavements, and rounds over crossings, found in a town's polygons."""

import numpy as np
import shapely
from jaxtyping import Float
from scipy.spatial import cKDTree

from sparsedrive.world.cast import ADULT, CHILD, CastList
from sparsedrive.world.network import Network
from sparsedrive.world.town import Crossing, Town
from sparsedrive.world.walkers import Walkers, round_of

PROBE_M = np.arange(1.5, 14.0, 0.25)
SHORTEST_M = 8.0
STRETCH_M = (16.0, 45.0)


def footways(town: Town, network: Network, near: cKDTree) -> list[Float[np.ndarray, "P 2"]]:
    """Middle lines of the pavements to the right of the lanes near the route; points about 1 m apart."""
    ground = shapely.union_all([shapely.Polygon(ring) for ring in town.pavements])
    shapely.prepare(ground)
    lines = []
    for lane in np.flatnonzero((network.junction < 0) & (network.right < 0)).tolist():
        rows = network.of_lane(lane)
        points_m, yaw_rad = network.points_m[rows][::2], network.yaw_rad[rows][::2]
        if near.query(points_m)[0].min() > 40.0:
            continue
        right = np.stack([np.sin(yaw_rad), -np.cos(yaw_rad)], 1)
        probes_m = points_m[:, None] + PROBE_M[:, None] * right[:, None]
        on = shapely.contains_xy(ground, probes_m[..., 0], probes_m[..., 1])
        first = on.argmax(1)
        last = np.where(on | (np.arange(on.shape[1]) < first[:, None]), on.shape[1], np.arange(on.shape[1])).min(1) - 1
        middle_m = points_m + ((PROBE_M[first] + PROBE_M[np.maximum(last, 0)]) / 2)[:, None] * right
        lines += [middle_m[a:b] for a, b in _runs(on.any(1)) if b - a > SHORTEST_M]
    return lines


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def add_walkers(town: Town, network: Network, cast: CastList, near: cKDTree, count: int, crossing_share: float) -> Walkers:
    """People on rounds near the route, at places drawn at random, but on the pavement."""
    lines = footways(town, network, near)
    crossings = [k for k, item in enumerate(town.crossings) if near.query(item.walk_m.mean(0))[0] < 30.0] if lines else []
    weights = np.array([len(line) for line in lines], float)
    rings, gates = [], []
    for _ in range(count if lines else 0):
        number = int(crossings[cast.rng.integers(len(crossings))]) if crossings and cast.rng.random() < crossing_share else -1
        line = _over(town.crossings[number], lines, cast.rng) if number >= 0 else None
        if line is None:
            number = -1
            line = _stretch(lines[int(cast.rng.choice(len(lines), p=weights / weights.sum()))], cast.rng)
        ring = round_of(line, float(cast.rng.uniform(0.35, 0.75)))
        rings.append(ring)
        gates.append(_gates(town, ring, number))
    return _walkers(cast, rings, gates)


def _stretch(line: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length = min(len(line), int(rng.uniform(15.0, 60.0)))
    begin = int(rng.integers(len(line) - length + 1))
    return line[begin : begin + length]


def _over(crossing: Crossing, lines: list[np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    """A line along one pavement, over the crossing, and on along the other; None where no pavement leads to it."""
    ends = [_leading_to(end_m, lines, rng) for end_m in crossing.walk_m]
    if ends[0] is None or ends[1] is None:
        return None
    corners = np.concatenate([ends[0], crossing.walk_m, ends[1][::-1]])
    away_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    places_m = np.arange(0.0, away_m[-1], 0.5)
    return np.stack([np.interp(places_m, away_m, corners[:, axis]) for axis in (0, 1)], 1)


def _leading_to(end_m: np.ndarray, lines: list[np.ndarray], rng: np.random.Generator) -> np.ndarray | None:
    away_m = [np.hypot(*(line - end_m).T).min() for line in lines]
    line = lines[int(np.argmin(away_m))]
    if min(away_m) > 6.0:
        return None
    at = int(np.hypot(*(line - end_m).T).argmin())
    reach = int(rng.uniform(*STRETCH_M))
    to_there = [part for part in (line[max(at - reach, 0) : at], line[at + 1 : at + 1 + reach][::-1]) if len(part) > 4]
    return to_there[int(rng.integers(len(to_there)))] if to_there else None


def _gates(town: Town, ring: np.ndarray, number: int) -> tuple[list[int], list[float], list[float]]:
    """Both passages over a crossing as begin and end along the ring [m] (points times the mean spacing)."""
    found: tuple[list[int], list[float], list[float]] = ([-1, -1], [np.inf, np.inf], [np.inf, np.inf])
    if number < 0:
        return found
    spacing_m = _length_m(ring) / len(ring)
    area = shapely.Polygon(town.crossings[number].outline_m).buffer(0.3)
    inside = shapely.contains_xy(area, ring[:, 0], ring[:, 1])
    # The way along the pavement may touch the crossing, too: the two passages are the longest.
    for slot, (begin, end) in enumerate(sorted(_runs(inside), key=lambda run: run[0] - run[1])[:2]):
        found[0][slot], found[1][slot], found[2][slot] = number, begin * spacing_m, (end - 1) * spacing_m
    return found


def _length_m(ring: np.ndarray) -> float:
    return float(np.hypot(*np.diff(np.concatenate([ring, ring[:1]]), axis=0).T).sum())


def _walkers(cast: CastList, rings: list[np.ndarray], gates: list[tuple[list[int], list[float], list[float]]]) -> Walkers:
    kinds = [CHILD if cast.rng.random() < 0.15 else ADULT for _ in rings]
    actor = np.array([cast.add(kind, cast.size(kind)) for kind in kinds], int)
    count = np.array([len(ring) for ring in rings], int)
    return Walkers(
        actor=actor,
        pace_mps=np.clip(cast.rng.normal(1.3, 0.2, len(rings)), 0.7, 1.9),
        first=np.concatenate([[0], np.cumsum(count)[:-1]]).astype(int) if len(rings) else count,
        count=count,
        step_m=np.array([_length_m(ring) / len(ring) for ring in rings]),
        points_m=np.concatenate(rings) if rings else np.zeros((0, 2)),
        gate=np.array([gate for gate, _, _ in gates], int).reshape(-1, 2),
        gate_in_m=np.array([begin for _, begin, _ in gates], float).reshape(-1, 2),
        gate_out_m=np.array([end for _, _, end in gates], float).reshape(-1, 2),
    )


def start_places(walkers: Walkers, rng: np.random.Generator) -> Float[np.ndarray, "W"]:
    """Random places on the rounds, none on a crossing."""
    s_m = rng.random(len(walkers.actor)) * walkers.length_m
    for gate in (0, 1):
        on_it = (s_m > walkers.gate_in_m[:, gate] - 0.2) & (s_m < walkers.gate_out_m[:, gate] + 0.2)
        s_m = np.where(on_it, walkers.gate_out_m[:, gate] + 0.3, s_m)
    return s_m % walkers.length_m
