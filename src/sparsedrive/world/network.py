"""The lanes of a town as arrays: places along them, where they cross each other and the pedestrian crossings, paths of many drivers."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.world.overlap import inside_polygon
from sparsedrive.world.town import Crossing, Lane, Town

SPACING_M = 0.5
CONFLICT_M, LONG_CONFLICT_M = 2.9, 5.0
"""Two lanes of a junction exclude each other where their centre lines come nearer than this: the width of a bus; and of a bus that
turns, for the front of a long vehicle swings out."""
BEHIND, AHEAD = 3, 6
"""Lanes of a path behind and ahead of the current one; 6 cover the sight of a driver unless many are shorter than 10 m."""
MAX_CROSSINGS_PER_LANE = 3
LINE_BEFORE_JUNCTION_M = 1.0
Conflicts = dict[int, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """L lanes with their F points of about `SPACING_M` one after the other; -1 stands for None.

    Attributes:
        first, count, length_m, step_m: [L] first point, number of points, length and exact spacing of each lane.
        points_m, yaw_rad, curvature_1pm: [F, ...] headings continuous within a lane, curvature positive to the left.
        line_m: [L] where a driver waits who must not enter the junction that follows.
        crossing, crossing_in_m, crossing_out_m: [L, 3] pedestrian crossings on a lane and where they begin and end.
        crossing_across_m: [L, 3] where on the way across, from the first of its ends, the lane is met.
        conflicts: for every junction lane the lanes that exclude it, and where on it the way of each begins and ends [m].
        long_conflicts: the same where one of the two vehicles is long.
    """

    lanes: tuple[Lane, ...]
    first: Int[np.ndarray, "L"]
    count: Int[np.ndarray, "L"]
    length_m: Float[np.ndarray, "L"]
    step_m: Float[np.ndarray, "L"]
    points_m: Float[np.ndarray, "F 2"]
    yaw_rad: Float[np.ndarray, "F"]
    curvature_1pm: Float[np.ndarray, "F"]
    limit_mps: Float[np.ndarray, "L"]
    width_m: Float[np.ndarray, "L"]
    junction: Int[np.ndarray, "L"]
    left: Int[np.ndarray, "L"]
    right: Int[np.ndarray, "L"]
    endless: Bool[np.ndarray, "L"]
    turns_right: Bool[np.ndarray, "L"]
    line_m: Float[np.ndarray, "L"]
    crossing: Int[np.ndarray, "L 3"]
    crossing_in_m: Float[np.ndarray, "L 3"]
    crossing_out_m: Float[np.ndarray, "L 3"]
    crossing_across_m: Float[np.ndarray, "L 3"]
    conflicts: tuple[Conflicts, ...]
    long_conflicts: tuple[Conflicts, ...]
    yields_to: tuple[frozenset[int], ...]

    def of_lane(self, lane: int) -> slice:
        """Rows of the points of one lane."""
        return slice(int(self.first[lane]), int(self.first[lane] + self.count[lane]))

    def nearest(self, position_m: Float[np.ndarray, "2"], yaw_rad: float) -> tuple[int, float]:
        """Lane and place on it [m] nearest to a position; a heading that differs by 90 degrees counts as 7 m away."""
        away_m = np.hypot(*(self.points_m - position_m).T) + 7.0 * (1 - np.cos(self.yaw_rad - yaw_rad))
        row = int(np.argmin(away_m))
        lane = int(np.searchsorted(self.first, row, side="right") - 1)
        return lane, self.project(lane, position_m)

    def project(self, lane: int, position_m: Float[np.ndarray, "2"]) -> float:
        """Place on a lane [m] nearest to a position; before its begin or behind its end on the tangent."""
        points_m = self.points_m[self.of_lane(lane)]
        row = int(np.argmin(((points_m - position_m) ** 2).sum(1)))
        yaw_rad = self.yaw_rad[self.first[lane] + row]
        ahead_m = (position_m - points_m[row]) @ (np.cos(yaw_rad), np.sin(yaw_rad))
        return float(row * self.step_m[lane] + ahead_m)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """The lanes D drivers come from and will take; `start_m` is where each begins, counted from the begin of the current lane.

    Column `BEHIND` is the current lane. Missing lanes are -1, starting at -inf or inf.
    """

    lanes: Int[np.ndarray, "D H"]
    start_m: Float[np.ndarray, "D H"]

    @property
    def end_m(self) -> Float[np.ndarray, "D"]:
        """Where a dead end is; inf when there is none in sight."""
        return np.where(self.lanes[:, -1] < 0, np.where(np.isinf(self.start_m), -np.inf, self.start_m).max(1), np.inf)


def build_network(town: Town) -> Network:
    """Prepare the lanes of a town. `ValueError` for a lane without length or numbers that are not their places."""
    resampled = [_resample(lane, place) for place, lane in enumerate(town.lanes)]
    count = np.array([len(points) for points, _ in resampled])
    points_m, step_m = np.concatenate([points for points, _ in resampled]), np.array([step for _, step in resampled])
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    lanes = [slice(a, a + n) for a, n in zip(first, count, strict=True)]
    yaw_rad = np.concatenate([_heading(points_m[rows]) for rows in lanes])
    curvature = np.concatenate([_smooth(np.gradient(yaw_rad[rows], step)) for rows, step in zip(lanes, step_m, strict=True)])
    junction = np.array([-1 if lane.junction is None else lane.junction for lane in town.lanes])
    crossing, crossing_in_m, crossing_out_m, crossing_across_m = _crossings(town, [points_m[rows] for rows in lanes], step_m)
    length_m = step_m * (count - 1)
    # A crossing close before the junction: wait before it, not on it.
    close = (crossing >= 0) & (crossing_out_m > length_m[:, None] - 8.0)
    line_m = np.minimum(length_m - LINE_BEFORE_JUNCTION_M, np.where(close, crossing_in_m - 0.5, np.inf).min(1))
    return Network(
        lanes=town.lanes,
        first=first,
        count=count,
        length_m=length_m,
        step_m=step_m,
        points_m=points_m,
        yaw_rad=yaw_rad,
        curvature_1pm=curvature,
        limit_mps=np.array([lane.speed_limit_mps for lane in town.lanes]),
        width_m=np.array([lane.width_m for lane in town.lanes]),
        junction=junction,
        left=np.array([-1 if lane.left is None else lane.left for lane in town.lanes]),
        right=np.array([-1 if lane.right is None else lane.right for lane in town.lanes]),
        endless=_endless(town),
        turns_right=np.array([lane.turn == "right" for lane in town.lanes]),
        line_m=np.maximum(line_m, 0.0),
        crossing=crossing,
        crossing_in_m=crossing_in_m,
        crossing_out_m=crossing_out_m,
        crossing_across_m=crossing_across_m,
        conflicts=_conflicts(town, [points_m[rows] for rows in lanes], step_m, CONFLICT_M),
        long_conflicts=_conflicts(town, [points_m[rows] for rows in lanes], step_m, LONG_CONFLICT_M),
        yields_to=tuple(frozenset(lane.yields_to) for lane in town.lanes),
    )


def _resample(lane: Lane, place: int) -> tuple[np.ndarray, float]:
    steps_m = np.hypot(*np.diff(lane.centre_m, axis=0).T)
    if lane.lane_id != place or len(lane.centre_m) < 2 or not steps_m.min() > 0:
        raise ValueError(
            f"Town.lanes[{place}]: expected lane_id {place} and two or more distinct points, got lane_id {lane.lane_id} with "
            f"{len(lane.centre_m)} points; number lanes by their place and drop repeated points"
        )
    at_m = np.concatenate([[0.0], np.cumsum(steps_m)])
    count = max(2, round(at_m[-1] / SPACING_M) + 1)
    places_m = np.linspace(0.0, at_m[-1], count)
    return np.stack([np.interp(places_m, at_m, lane.centre_m[:, axis]) for axis in (0, 1)], 1), float(places_m[1])


def _heading(points_m: np.ndarray) -> np.ndarray:
    return np.unwrap(np.arctan2(*np.gradient(points_m, axis=0).T[::-1]))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over 5 points: interpolated polylines turn in jumps."""
    padded = np.pad(values, 2, mode="edge")
    return np.mean([padded[k : k + len(values)] for k in range(5)], axis=0)


def _crossings(town: Town, lane_points_m: list[np.ndarray], step_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    shape = (len(town.lanes), MAX_CROSSINGS_PER_LANE)
    number, begin_m, end_m, across_m = np.full(shape, -1), np.full(shape, np.inf), np.full(shape, np.inf), np.zeros(shape)
    for place, crossing in enumerate(town.crossings):
        for lane in crossing.lane_ids:
            rows = np.flatnonzero(inside_polygon(lane_points_m[lane], crossing.outline_m))
            free = np.flatnonzero(number[lane] < 0)
            if len(rows) and len(free):
                column = free[0]
                number[lane, column] = place
                begin_m[lane, column], end_m[lane, column] = rows[0] * step_m[lane], rows[-1] * step_m[lane]
                across_m[lane, column] = across(crossing, lane_points_m[lane][rows].mean(0))
    return number, begin_m, end_m, across_m


def across(crossing: Crossing, position_m: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "..."]:
    """How far over a crossing positions are, from the first of its ends [m]."""
    way = crossing.walk_m[1] - crossing.walk_m[0]
    return (position_m - crossing.walk_m[0]) @ (way / np.hypot(*way))


def _endless(town: Town) -> np.ndarray:
    """Lanes from which one can drive on for ever."""
    endless = np.ones(len(town.lanes), bool)
    for _ in town.lanes:
        after = np.array([any(endless[successor] for successor in lane.successors) for lane in town.lanes], bool)
        if (after & endless == endless).all():
            break
        endless &= after
    return endless


def _conflicts(town: Town, lane_points_m: list[np.ndarray], step_m: np.ndarray, within_m: float) -> tuple[Conflicts, ...]:
    """Lanes that split from one lane do not exclude each other: whoever is behind sees the other one ahead."""
    conflicts: tuple[Conflicts, ...] = tuple({} for _ in town.lanes)
    predecessors: list[set[int]] = [set() for _ in town.lanes]
    members: dict[int, list[int]] = {}
    for lane in town.lanes:
        for successor in lane.successors:
            predecessors[successor].add(lane.lane_id)
        if lane.junction is not None:
            members.setdefault(lane.junction, []).append(lane.lane_id)
    for lanes in members.values():
        for place, a in enumerate(lanes):
            for b in lanes[place + 1 :]:
                if predecessors[a] & predecessors[b]:
                    continue
                away_m = np.hypot(*(lane_points_m[a][:, None] - lane_points_m[b][None]).transpose(2, 0, 1))
                near = away_m < within_m
                if near.any():
                    on_a, on_b = np.flatnonzero(near.any(1)) * step_m[a], np.flatnonzero(near.any(0)) * step_m[b]
                    conflicts[a][b], conflicts[b][a] = (float(on_a[0]), float(on_a[-1])), (float(on_b[0]), float(on_b[-1]))
    return conflicts


def paths(network: Network, lane: Int[np.ndarray, "D"], past: Int[np.ndarray, "D B"], choice: Int[np.ndarray, "D L"]) -> Path:
    """Where D drivers come from and go to. `past` are the lanes before, nearest first; `choice` the successor each takes after a lane."""
    drivers = np.arange(len(lane))
    lanes = np.full((len(lane), BEHIND + 1 + AHEAD), -1)
    start_m = np.full(lanes.shape, np.inf)
    start_m[:, :BEHIND] = -np.inf
    lanes[:, BEHIND], start_m[:, BEHIND] = lane, 0.0
    for column in range(BEHIND + 1, lanes.shape[1]):
        before = lanes[:, column - 1]
        lanes[:, column] = np.where(before >= 0, choice[drivers, before], -1)
        start_m[:, column] = np.where(lanes[:, column] >= 0, start_m[:, column - 1] + network.length_m[before], np.inf)
    for back in range(past.shape[1]):
        column = BEHIND - 1 - back
        lanes[:, column] = past[:, back]
        start_m[:, column] = np.where(past[:, back] >= 0, start_m[:, column + 1] - network.length_m[past[:, back]], -np.inf)
    return Path(lanes=lanes, start_m=start_m)


def along(
    network: Network, path: Path, distance_m: Float[np.ndarray, "D K"]
) -> tuple[Float[np.ndarray, "D K 2"], Float[np.ndarray, "D K"], Float[np.ndarray, "D K"]]:
    """Positions, headings and curvatures at distances from the begin of the current lane; beyond known lanes on the tangent."""
    column = (path.start_m[:, None, 1:] <= distance_m[:, :, None]).sum(2)
    column = np.maximum(column, (path.lanes >= 0).argmax(1)[:, None])
    lane = np.take_along_axis(path.lanes, column, 1)
    place = (distance_m - np.take_along_axis(path.start_m, column, 1)) / network.step_m[lane]
    row = np.clip(place.astype(int), 0, network.count[lane] - 2)
    part = place - row
    row = row + network.first[lane]
    points_m = network.points_m[row] + part[..., None] * (network.points_m[row + 1] - network.points_m[row])
    bounded = np.clip(part, 0.0, 1.0)
    yaw_rad = network.yaw_rad[row] + bounded * (network.yaw_rad[row + 1] - network.yaw_rad[row])
    return points_m, yaw_rad, network.curvature_1pm[row] + bounded * (network.curvature_1pm[row + 1] - network.curvature_1pm[row])
