"""Where streets meet: how far a junction reaches, the lanes through it, who goes first, and its ground.

Every junction has one main street. Its traffic goes before that of the others, and a turn to the left goes after those straight on
and to the right; so the rule "yields to" has no circle and nobody waits for ever for somebody who waits for him.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from sparsedrive.world.curves import Points, Vector, angle_between, join, left_of, unit
from sparsedrive.world.layout import PATH_STEP_M, Street
from sparsedrive.world.roads import NARROW_LIMIT_MPS, PAVEMENT_M, STEP_M, Road, half_width_m, speed_limit_mps, strip, thinned
from sparsedrive.world.town import Lane, Turn

KERB_RADIUS_M = (8.0, 10.5)
FLAT_ANGLE_RAD = np.radians(150)
TURN_ANGLE_RAD = np.radians(45)
LEAST_TRIM_M, MOUTH_ABOUT_M = 8.0, 20.0
CONFLICT_M = 2.4
"""Two paths nearer than this cannot be driven at once: the width of a car and some air."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """The mouth of a road at a junction. Left and right as seen from the junction outwards; lanes from the driver's left."""

    mouth_m: Vector
    outward: Vector
    half_width_m: float
    lane_width_m: float
    incoming: tuple[int, ...]
    outgoing: tuple[int, ...]

    @property
    def left_kerb_m(self) -> Vector:
        return self.mouth_m + self.half_width_m * left_of(self.outward)

    @property
    def right_kerb_m(self) -> Vector:
        return self.mouth_m - self.half_width_m * left_of(self.outward)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """From a lane into a lane, by the places of their arms."""

    from_arm: int
    to_arm: int
    from_lane: int
    to_lane: int
    turn: Turn


def counter_clockwise(directions: list[Vector]) -> list[int]:
    """Order of directions by their angle."""
    return sorted(range(len(directions)), key=lambda i: float(np.arctan2(directions[i][1], directions[i][0])))


def trim_streets(rng: np.random.Generator, streets: list[Street]) -> list[tuple[float, float]]:
    """How far from either end each street is cut, so that kerbs can be rounded between neighbours [m]."""
    trims_m = np.full((len(streets), 2), LEAST_TRIM_M)
    for junction in range(1 + max(end for street in streets for end in street.ends)):
        arms = [(s, end) for s, street in enumerate(streets) for end in (0, 1) if street.ends[end] == junction]
        paths_m = [streets[s].path_m[:: 1 - 2 * end] for s, end in arms]
        outward = [unit(path_m[round(MOUTH_ABOUT_M / PATH_STEP_M)] - path_m[0]) for path_m in paths_m]
        radius_m = rng.uniform(*KERB_RADIUS_M)
        order = counter_clockwise(outward)
        for a, b in zip(order, order[1:] + order[:1], strict=True):
            angle_rad = angle_between(outward[a], outward[b]) % (2 * np.pi)
            if angle_rad < FLAT_ANGLE_RAD:
                rounding_m = radius_m / np.tan(angle_rad / 2)
                for this, other in ((a, b), (b, a)):
                    half_m, other_half_m = half_width_m(streets[arms[this][0]]), half_width_m(streets[arms[other][0]])
                    kerbs_meet_m = (other_half_m + half_m * np.cos(angle_rad)) / np.sin(angle_rad)
                    trims_m[arms[this]] = max(trims_m[arms[this]], kerbs_meet_m + rounding_m)
    return [(float(a), float(b)) for a, b in trims_m]


def junction_arms(roads: list[Road], junction: int) -> list[Arm]:
    """The arms of a junction, counter-clockwise."""
    arms = [
        Arm(
            mouth_m=road.centre_m[-end],
            outward=(2 * end - 1) * left_of(road.normal[-end]),
            half_width_m=float(road.left_m[-end]),
            lane_width_m=road.lane_width_m,
            incoming=(road.backward, road.forward)[end],
            outgoing=(road.forward, road.backward)[end],
        )
        for road in roads
        for end in (0, 1)
        if road.ends[end] == junction
    ]
    return [arms[i] for i in counter_clockwise([arm.outward for arm in arms])]


def movements(arms: list[Arm]) -> Iterator[Movement]:
    """Left turns from the left lane, right turns from the right lane, straight on lane by lane; no lane is left without a way out."""
    for a, arm in enumerate(arms):
        turns = {b: turn_between(arm, other) for b, other in enumerate(arms) if b != a}
        used = set()
        for b, turn in turns.items():
            last, last_into = len(arm.incoming) - 1, len(arms[b].outgoing) - 1
            lanes = [(last - k, last_into - k) for k in range(1 + min(last, last_into))]
            lanes = [(0, 0)] if turn == "left" else lanes[:1] if turn == "right" else lanes
            used |= {lane for lane, _ in lanes}
            yield from (Movement(from_arm=a, to_arm=b, from_lane=i, to_lane=j, turn=turn) for i, j in lanes)
        for lane in sorted(set(range(len(arm.incoming))) - used):
            straight = next(b for b, turn in turns.items() if turn == "straight")
            yield Movement(from_arm=a, to_arm=straight, from_lane=lane, to_lane=0, turn="straight")


def turn_between(arm: Arm, other: Arm) -> Turn:
    """What a driver does who comes from one arm and leaves by the other."""
    angle_rad = angle_between(-arm.outward, other.outward)
    return "straight" if abs(angle_rad) < TURN_ANGLE_RAD else "left" if angle_rad > 0 else "right"


def main_arms(arms: list[Arm]) -> tuple[int, int]:
    """The two arms of the main street: opposite each other, and the widest of those."""
    pairs = [(a, b) for a in range(len(arms)) for b in range(a) if turn_between(arms[a], arms[b]) == "straight"]
    return max(pairs, key=lambda pair: (len(arms[pair[0]].incoming) + len(arms[pair[1]].incoming), pair))


def junction_lanes(arms: list[Arm], lanes: list[Lane], junction: int) -> tuple[list[Lane], list[int]]:
    """The lanes through a junction, numbered on from `lanes`, and the lane each begins at."""
    moves = list(movements(arms))
    main = main_arms(arms)

    def rank(move: Movement) -> tuple[bool, bool, int, int]:
        return move.from_arm not in main, move.turn == "left", move.from_arm, -move.from_lane

    paths_m = [connect(arms, lanes, move) for move in moves]
    lines = [shapely.LineString(path_m) for path_m in paths_m]
    built = []
    for i, move in enumerate(moves):
        arm, other = arms[move.from_arm], arms[move.to_arm]
        first = [k for k, before in enumerate(moves) if rank(before) < rank(move) and in_conflict(moves, lines, i, k)]
        built.append(
            Lane(
                lane_id=len(lanes) + i,
                centre_m=paths_m[i],
                width_m=min(arm.lane_width_m, other.lane_width_m),
                speed_limit_mps=speed_limit_mps(paths_m[i], NARROW_LIMIT_MPS),
                successors=(other.outgoing[move.to_lane],),
                junction=junction,
                turn=move.turn,
                yields_to=tuple(len(lanes) + k for k in first),
            )
        )
    return built, [arms[move.from_arm].incoming[move.from_lane] for move in moves]


def connect(arms: list[Arm], lanes: list[Lane], move: Movement) -> Points:
    """The path of a movement, from the end of a lane to the beginning of another."""
    arm, other = arms[move.from_arm], arms[move.to_arm]
    from_m = lanes[arm.incoming[move.from_lane]].centre_m[-1]
    to_m = lanes[other.outgoing[move.to_lane]].centre_m[0]
    return join(from_m, -arm.outward, to_m, other.outward, STEP_M)


def in_conflict(moves: list[Movement], lines: list[shapely.LineString], i: int, k: int) -> bool:
    """Whether two movements need the same ground. Those of one arm part without harm, unless they end in the same lane."""
    a, b = moves[i], moves[k]
    if a.from_arm == b.from_arm:
        return a.from_lane != b.from_lane and (a.to_arm, a.to_lane) == (b.to_arm, b.to_lane)
    return bool(shapely.dwithin(lines[i], lines[k], CONFLICT_M))


def junction_ground(arms: list[Arm]) -> tuple[Points, list[Points]]:
    """Outline of the junction (mouths and rounded kerbs between them) and the pavements around its corners."""
    ring, pavements = [], []
    for arm, other in zip(arms, arms[1:] + arms[:1], strict=True):
        kerb_m = join(arm.left_kerb_m, -arm.outward, other.right_kerb_m, other.outward, STEP_M / 2)
        steps_m = np.gradient(kerb_m, axis=0)
        steps_m[0], steps_m[-1] = -arm.outward, other.outward
        pavements.append(strip(thinned(kerb_m), thinned(kerb_m - PAVEMENT_M * left_of(unit(steps_m)))))
        ring += [arm.right_kerb_m[None], thinned(kerb_m)]
    return np.concatenate(ring), pavements
