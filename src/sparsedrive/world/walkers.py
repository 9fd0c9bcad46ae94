"""People on foot: each walks a closed round along a pavement and back, some of them over a crossing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.world.network import across
from sparsedrive.world.town import Crossing

WALK_SPACING_M = 0.5
KERB_M = 0.6
LOOK_M = 0.9
REACTION_S, DARES_MPS2 = 1.0, 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Walkers:
    """Who walks, fixed for a drive: W walkers, their rounds as F points `WALK_SPACING_M` or so apart, one round after the other.

    Attributes:
        actor: [W] row in the cast.
        first, count, step_m: [W] first point, number of points and exact spacing of each round.
        gate, gate_in_m, gate_out_m: [W, 2] crossings on the round (-1 none), where they begin and end.
    """

    actor: Int[np.ndarray, "W"]
    pace_mps: Float[np.ndarray, "W"]
    first: Int[np.ndarray, "W"]
    count: Int[np.ndarray, "W"]
    step_m: Float[np.ndarray, "W"]
    points_m: Float[np.ndarray, "F 2"]
    gate: Int[np.ndarray, "W 2"]
    gate_in_m: Float[np.ndarray, "W 2"]
    gate_out_m: Float[np.ndarray, "W 2"]

    @property
    def length_m(self) -> Float[np.ndarray, "W"]:
        """Length of each round."""
        return self.step_m * self.count

    def at(self, s_m: Float[np.ndarray, "W"]) -> tuple[Float[np.ndarray, "W 2"], Float[np.ndarray, "W"]]:
        """Positions and headings at places of the rounds [m]."""
        place = (s_m / self.step_m) % self.count
        row = place.astype(int)
        part = (place - row)[:, None]
        here, there = self.points_m[self.first + row % self.count], self.points_m[self.first + (row + 1) % self.count]
        forward = there - here
        return here + part * forward, np.arctan2(forward[:, 1], forward[:, 0])


def round_of(outward_m: Float[np.ndarray, "P 2"], beside_m: float) -> Float[np.ndarray, "Q 2"]:
    """A closed round from a line: there on its right side, back on its left side, so that people who meet pass each other."""
    step = np.gradient(outward_m, axis=0)
    left = np.stack([-step[:, 1], step[:, 0]], 1) / np.hypot(*step.T)[:, None]
    ring_m = np.concatenate([outward_m - beside_m * left, (outward_m + beside_m * left)[::-1]])
    ring_m = np.concatenate([ring_m, ring_m[:1]])
    at_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring_m, axis=0).T))])
    count = max(8, round(at_m[-1] / WALK_SPACING_M))
    places_m = np.arange(count) * at_m[-1] / count
    return np.stack([np.interp(places_m, at_m, ring_m[:, axis]) for axis in (0, 1)], 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnCrossings:
    """The K people on crossings: which crossing, how far over it from its first end, and whether they walk to the second end (1) or
    back (-1). `waited_at` [C + 1] are crossings where somebody waits; its last entry, of "crossing -1", is False."""

    crossing: Int[np.ndarray, "K"]
    across_m: Float[np.ndarray, "K"]
    direction: Int[np.ndarray, "K"]
    waited_at: Bool[np.ndarray, "C+1"]


def on_crossings(walkers: Walkers, s_m: Float[np.ndarray, "W"], crossings: tuple[Crossing, ...]) -> OnCrossings:
    """Who is on a crossing and where people wait to walk over one."""
    inside = (walkers.gate >= 0) & (s_m[:, None] > walkers.gate_in_m) & (s_m[:, None] < walkers.gate_out_m)
    to_go_m = walkers.gate_in_m - s_m[:, None]
    waited_at = np.zeros(len(crossings) + 1, bool)
    waited_at[walkers.gate[(walkers.gate >= 0) & (to_go_m >= 0) & (to_go_m < KERB_M)]] = True
    number = walkers.gate[inside]
    here_m, _ = walkers.at(s_m)
    here_m = here_m[np.nonzero(inside)[0]]
    soon_m, _ = walkers.at(s_m + WALK_SPACING_M)
    soon_m = soon_m[np.nonzero(inside)[0]]
    now = np.array([across(crossings[k], place_m) for k, place_m in zip(number, here_m, strict=True)])
    soon = np.array([across(crossings[k], place_m) for k, place_m in zip(number, soon_m, strict=True)])
    return OnCrossings(crossing=number, across_m=now, direction=np.where(soon > now, 1, -1), waited_at=waited_at)


def step_walkers(
    walkers: Walkers, s_m: Float[np.ndarray, "W"], safe: Bool[np.ndarray, "C+1"], vehicles: Float[np.ndarray, "V 5"], dt_s: float
) -> tuple[Float[np.ndarray, "W"], Float[np.ndarray, "W"]]:
    """Places and speeds after a moment. Nobody steps on a crossing that is not `safe`, nor into a vehicle right ahead.

    Whom a vehicle touches already may walk away.
    """
    next_m = s_m + walkers.pace_mps * dt_s
    held = (walkers.gate >= 0) & ~safe[walkers.gate] & (s_m[:, None] <= walkers.gate_in_m) & (next_m[:, None] > walkers.gate_in_m)
    next_m = np.where(held.any(1), np.minimum(next_m, s_m), next_m)
    blocked = _in_boxes(walkers.at(s_m + LOOK_M)[0], vehicles) & ~_in_boxes(walkers.at(s_m)[0], vehicles)
    next_m = np.where(blocked.any(1), s_m, next_m)
    speed_mps = (next_m - s_m) / dt_s
    return next_m % walkers.length_m, speed_mps


def _in_boxes(position_m: np.ndarray, vehicles: np.ndarray) -> Bool[np.ndarray, "W V"]:
    """Who is in, or nearly in, which vehicle's box."""
    x, y = position_m[:, :1] - vehicles[:, 0], position_m[:, 1:] - vehicles[:, 1]
    cos, sin = np.cos(vehicles[:, 2]), np.sin(vehicles[:, 2])
    return (np.abs(x * cos + y * sin) < vehicles[:, 3] / 2 + 0.3) & (np.abs(y * cos - x * sin) < vehicles[:, 4] / 2 + 0.3)


def safe_crossings(
    crossings: int, ways: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], vehicle_m: np.ndarray, speed_mps: np.ndarray
) -> Bool[np.ndarray, "C+1"]:
    """Which crossings people dare to step on: no vehicle is on them, and all could still stop in comfort.

    Args:
        ways: `junctions.crossing_ways` of D vehicles; `vehicle_m` [D] their lengths, trailers included.
    """
    number, in_m, out_m, _ = ways
    speed = speed_mps[:, None]
    on_it = (in_m <= 0.2) & (out_m + vehicle_m[:, None] > 0)
    arrives = (in_m > 0.2) & (speed > 0.4) & (in_m < speed * REACTION_S + speed**2 / (2 * DARES_MPS2) + 1.0)
    safe = np.ones(crossings + 1, bool)
    safe[number[(number >= 0) & (on_it | arrives)]] = False
    safe[-1] = True
    return safe
