"""Open-loop planning: distance to the path that was driven, collisions, kerbs, steadiness from frame to frame.

Waypoints are 0.5 s apart. L2 at a step is the distance between the planned and the driven position. The vehicle collides at a step if
its rectangle on the ground touches that of an object as it really was then (nobody reacts to the plan). Numbers of different papers mean
different things; a `PlanProtocol` names each choice:

                    L2 at t s   collision at t s   truth too short   vehicle          objects               driven path hits too
    UNIAD           at t        at t               counts as 0       straight, grid   vehicles              not counted
    ST_P3 (VAD)     mean to t   mean to t          frame dropped     straight, grid   vehicles, people      not counted
    SPARSEDRIVE     mean to t   mean to t          frame dropped     turned           everything annotated  not counted
    PLAIN           at t        by t               step dropped      turned           everything annotated  counted

- "mean to t" averages all steps up to t: of an error that grows evenly, about half of "at t".
- "by t" is the share of plans that have collided at any step up to t.
- A truth that ends early: its missing steps count as no error and no collision, or drop the whole frame, or only themselves.
- "straight": the vehicle is not turned along its path. "grid": everything is painted on cells of 0.5 m first, which finds more
  collisions; `replace(UNIAD, vehicle="straight")` takes exact rectangles. (VAD rounds to cells the other way; up to a cell's difference.)
- "not counted": where the driven path itself touches an object, a collision of the plan is not, and the step stays in the denominator.

Kerbs (`boundary`) follow the same rules, always with exact rectangles. Averages are over 1, 2 and 3 s. A small L2 is no proof of driving
well: `sparsedrive.metrics.baselines` has plans that see nothing.

Sources: evaluation of OpenDriveLab/UniAD, OpenDriveLab/ST-P3, hustvl/VAD, swc-17/SparseDrive; "by t": Li et al., arXiv:2312.03031.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.metrics.footprint import crosses_lines, ego_rectangles, heading_rad, hits_objects, hits_objects_on_grid
from sparsedrive.metrics.mapping import MapLines
from sparsedrive.structures import DETECTION_CLASSES

STEP_S = 0.5
VEHICLES = tuple(map(DETECTION_CLASSES.index, ("car", "truck", "construction_vehicle", "bus", "trailer", "motorcycle", "bicycle")))
PEOPLE = (DETECTION_CLASSES.index("pedestrian"),)
CONSISTENCY_GAP_S = 0.1
TURN_RAD = float(np.radians(15))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanProtocol:
    """One way to count; see the table of the module. `labels` None: every object. Sizes are those of the nuScenes vehicle."""

    name: str
    l2: Literal["at", "mean"]
    collision: Literal["at", "mean", "by"]
    short_truth: Literal["zero", "drop frame", "drop step"]
    vehicle: Literal["grid", "straight", "turned"]
    labels: tuple[int, ...] | None
    count_where_truth_hits: bool
    ego_length_m: float = 4.084
    ego_width_m: float = 1.85
    ego_ahead_m: float = 0.5


UNIAD = PlanProtocol(
    name="uniad", l2="at", collision="at", short_truth="zero", vehicle="grid", labels=VEHICLES, count_where_truth_hits=False
)
ST_P3 = PlanProtocol(
    name="st-p3", l2="mean", collision="mean", short_truth="drop frame", vehicle="grid", labels=VEHICLES + PEOPLE,
    count_where_truth_hits=False,
)  # fmt: skip
SPARSEDRIVE = PlanProtocol(
    name="sparsedrive", l2="mean", collision="mean", short_truth="drop frame", vehicle="turned", labels=None, count_where_truth_hits=False
)
PLAIN = PlanProtocol(
    name="plain", l2="at", collision="by", short_truth="drop step", vehicle="turned", labels=None, count_where_truth_hits=True
)
PROTOCOLS = (UNIAD, ST_P3, SPARSEDRIVE, PLAIN)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FutureObjects:
    """K objects as they really were: rows x y length width yaw_rad at step `step` (from 0) of the plan in row `frame`, in its ego frame.

    `label` indexes `DETECTION_CLASSES`, -1 for anything else that is annotated. The published evaluations take objects with at least one
    lidar return.
    """

    box: Float[np.ndarray, "K 5"]
    label: Int[np.ndarray, "K"]
    frame: Int[np.ndarray, "K"]
    step: Int[np.ndarray, "K"]

    def __post_init__(self) -> None:
        objects = len(self.box)
        for name, value, shape in (
            ("box", self.box, (objects, 5)),
            *((n, getattr(self, n), (objects,)) for n in ("label", "frame", "step")),
        ):
            if value.shape != shape:
                raise ValueError(f"FutureObjects.{name}: expected {list(shape)} for {objects} objects, got {list(value.shape)}")
        if not np.isfinite(self.box).all():
            raise ValueError("FutureObjects.box: expected finite numbers, got NaN or infinity; drop those objects")

    def take(self, rows: np.ndarray) -> "FutureObjects":
        """Some of the objects."""
        return FutureObjects(box=self.box[rows], label=self.label[rows], frame=self.frame[rows], step=self.step[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanFrames:
    """Plans of N frames, T steps each, with what really happened, each in the ego frame of its own frame (x right, y forward).

    `truth_valid` says how far the recording goes on; `truth_m` repeats the last known position after that. `boundary` are the kerbs,
    `boundary.frame` the row of the plan; leave it out if there is no map.
    """

    plan_m: Float[np.ndarray, "N T 2"]
    truth_m: Float[np.ndarray, "N T 2"]
    truth_valid: Bool[np.ndarray, "N T"]
    objects: FutureObjects
    boundary: MapLines | None = None

    def __post_init__(self) -> None:
        if self.plan_m.ndim != 3 or self.plan_m.shape[2] != 2 or not self.plan_m.shape[1]:
            raise ValueError(f"PlanFrames.plan_m: expected [N, T, 2] with at least one step, got {list(self.plan_m.shape)}")
        if self.truth_m.shape != self.plan_m.shape or self.truth_valid.shape != self.plan_m.shape[:2]:
            raise ValueError(
                f"PlanFrames: expected truth_m and truth_valid to go with plans {list(self.plan_m.shape)}, got {list(self.truth_m.shape)} "
                f"and {list(self.truth_valid.shape)}; cut plan or truth to the same steps"
            )
        for name, positions_m in (("plan_m", self.plan_m), ("truth_m", self.truth_m)):
            bad = np.flatnonzero(~np.isfinite(positions_m).all((1, 2)))
            if len(bad):
                raise ValueError(f"PlanFrames.{name}: expected finite numbers, row {bad[0]} has NaN or infinity ({len(bad)} such rows)")
        rows = [("objects.frame", self.objects.frame, len(self.plan_m)), ("objects.step", self.objects.step, self.plan_m.shape[1])]
        rows += [("boundary.frame", self.boundary.frame, len(self.plan_m))] if self.boundary is not None else []
        for name, index, size in rows:
            if len(index) and not 0 <= index.min() <= index.max() < size:
                raise ValueError(f"PlanFrames.{name}: expected 0 to {size - 1}, got {index.min()} to {index.max()}")

    def take(self, rows: Int[np.ndarray, "M"]) -> "PlanFrames":
        """Some of the frames, such as `np.flatnonzero(turning(frames))`; a row at most once."""
        place = np.full(len(self.plan_m), -1)
        place[rows] = np.arange(len(rows))
        objects = self.objects.take(np.flatnonzero(place[self.objects.frame] >= 0))
        lines = None if self.boundary is None else self.boundary.take(np.flatnonzero(place[self.boundary.frame] >= 0))
        return PlanFrames(
            plan_m=self.plan_m[rows], truth_m=self.truth_m[rows], truth_valid=self.truth_valid[rows],
            objects=replace(objects, frame=place[objects.frame]),
            boundary=None if lines is None else replace(lines, frame=place[lines.frame]),
        )  # fmt: skip

    def until(self, horizon_s: float) -> "PlanFrames":
        """The first steps only. `ValueError` when there are not as many."""
        steps = round(horizon_s / STEP_S)
        if not 1 <= steps <= self.plan_m.shape[1]:
            raise ValueError(f"horizon_s: expected {STEP_S} to {self.plan_m.shape[1] * STEP_S} s, as far as the plans go, got {horizon_s}")
        objects = self.objects.take(np.flatnonzero(self.objects.step < steps))
        return PlanFrames(
            plan_m=self.plan_m[:, :steps], truth_m=self.truth_m[:, :steps], truth_valid=self.truth_valid[:, :steps],
            objects=objects, boundary=self.boundary,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PathHits:
    """At which steps a path of each of N frames touches an object, and crosses a boundary (never without a map)."""

    objects: Bool[np.ndarray, "N T"]
    boundary: Bool[np.ndarray, "N T"]

    def take(self, rows: Int[np.ndarray, "M"]) -> "PathHits":
        """Some of the frames."""
        return PathHits(objects=self.objects[rows], boundary=self.boundary[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanScores:
    """Result in one protocol, at each step [T]; rates are shares of the plans. NaN where no plan counts.

    `rows` [M] are the plans that count, the fields `frame_*` [M, T] their parts in the averages (NaN: step not counted).
    `truth_collision_rate` is how often the driven path itself hits, always counted. Boundary rates are None without a map.
    """

    protocol: PlanProtocol
    time_s: Float[np.ndarray, "T"]
    rows: Int[np.ndarray, "M"]
    frame_l2_m: Float[np.ndarray, "M T"]
    frame_collision: Float[np.ndarray, "M T"]
    frame_truth_collision: Float[np.ndarray, "M T"]
    frame_boundary: Float[np.ndarray, "M T"] | None
    frame_truth_boundary: Float[np.ndarray, "M T"] | None

    @property
    def l2_m(self) -> Float[np.ndarray, "T"]:
        """Mean distance to the driven path."""
        return _mean(self.frame_l2_m)

    @property
    def collision_rate(self) -> Float[np.ndarray, "T"]:
        """How often a plan hits an object."""
        return _mean(self.frame_collision)

    @property
    def truth_collision_rate(self) -> Float[np.ndarray, "T"]:
        """How often the driven path does."""
        return _mean(self.frame_truth_collision)

    @property
    def boundary_rate(self) -> Float[np.ndarray, "T"] | None:
        """How often a plan crosses a kerb."""
        return None if self.frame_boundary is None else _mean(self.frame_boundary)

    @property
    def truth_boundary_rate(self) -> Float[np.ndarray, "T"] | None:
        """How often the driven path does."""
        return None if self.frame_truth_boundary is None else _mean(self.frame_truth_boundary)

    def subset(self, chosen: Bool[np.ndarray, "N"]) -> "PlanScores":
        """The scores of the chosen of all N plans, as if only they had been evaluated."""
        kept = chosen[self.rows]
        names = [item.name for item in fields(self) if item.name.startswith("frame_") and getattr(self, item.name) is not None]
        parts: dict[str, Any] = {name: getattr(self, name)[kept] for name in names}
        return replace(self, rows=self.rows[kept], **parts)

    def average(self, values: Float[np.ndarray, "T"]) -> float:
        """Mean of values at all whole seconds of the horizon: with 3 s, the "avg" of the tables of papers."""
        return float(values[1::2].mean())


def evaluate_plans(frames: PlanFrames, protocol: PlanProtocol, horizon_s: float = 3.0, *, truth_hits: PathHits | None = None) -> PlanScores:
    """L2, collisions and boundary crossings of all plans up to `horizon_s` (whole seconds), as `protocol` counts.

    The horizon matters: protocols that drop frames drop those whose recording ends before it. `truth_hits` is what
    `driven_path_hits(frames, protocol, horizon_s)` said, so that many planners on the same frames need it once.
    """
    if horizon_s != round(horizon_s):
        raise ValueError(f"horizon_s: expected whole seconds, got {horizon_s}")
    frames = frames.until(horizon_s)
    if truth_hits is None:
        truth_hits = _hits(frames.truth_m, frames, protocol)
    elif truth_hits.objects.shape != frames.truth_valid.shape:
        raise ValueError(f"truth_hits: expected {list(frames.truth_valid.shape)}, got {list(truth_hits.objects.shape)}; of other frames?")
    rows = np.flatnonzero(frames.truth_valid.all(1)) if protocol.short_truth == "drop frame" else np.arange(len(frames.plan_m))
    frames, truth_hits = frames.take(rows), truth_hits.take(rows)
    valid = frames.truth_valid
    counted = np.ones_like(valid) if protocol.short_truth == "zero" else valid
    l2_m = np.linalg.norm(frames.plan_m - frames.truth_m, axis=2) * valid
    plan_hits = _hits(frames.plan_m, frames, protocol)
    if not protocol.count_where_truth_hits:
        plan_hits = PathHits(
            objects=plan_hits.objects & ~truth_hits.objects, boundary=plan_hits.boundary & ~truth_hits.boundary
        )  # fmt: skip

    def so_far(flags: np.ndarray) -> np.ndarray:
        return _so_far(flags & valid, counted, protocol.collision)

    mapped = frames.boundary is not None
    return PlanScores(
        protocol=protocol, time_s=STEP_S * np.arange(1, valid.shape[1] + 1), rows=rows,
        frame_l2_m=_so_far(l2_m, counted, protocol.l2),
        frame_collision=so_far(plan_hits.objects), frame_truth_collision=so_far(truth_hits.objects),
        frame_boundary=so_far(plan_hits.boundary) if mapped else None,
        frame_truth_boundary=so_far(truth_hits.boundary) if mapped else None,
    )  # fmt: skip


def driven_path_hits(frames: PlanFrames, protocol: PlanProtocol, horizon_s: float = 3.0) -> PathHits:
    """Where the driven path touches something up to `horizon_s`, as `protocol` sees it: the same for every planner."""
    frames = frames.until(horizon_s)
    return _hits(frames.truth_m, frames, protocol)


def turning(frames: PlanFrames, turn_rad: float = TURN_RAD) -> Bool[np.ndarray, "N"]:
    """Which driven paths, as far as known, end in a direction that differs from straight ahead by at least `turn_rad`.

    Lane changes are no turns, nor is standing. (Not the curated Turning-nuScenes of MomAD, arXiv:2503.03125.)
    """
    yaw_rad = heading_rad(frames.truth_m)
    last = np.maximum(frames.truth_valid.sum(1) - 1, 0)
    turn = yaw_rad[np.arange(len(last)), last] - np.pi / 2
    return frames.truth_valid.any(1) & (np.abs(np.arctan2(np.sin(turn), np.cos(turn))) >= turn_rad)


def plan_changes_m(
    plan_m: Float[np.ndarray, "N T 2"],
    global_T_ego: Float[np.ndarray, "N 4 4"],
    time_s: Float[np.ndarray, "N"],
    sequence: Int[np.ndarray, "N"],
) -> Float[np.ndarray, "N T-1"]:
    """How far each plan is from that of the frame before, at the T - 1 instants both speak of (the first is one step from now).

    NaN where the row before is of another sequence or not one step (0.5 +- 0.1 s) earlier. The mean of the rest is the inconsistency of a
    planner, after the idea of MomAD (arXiv:2503.03125), not its numbers; a plan that is simply carried out has 0. Rows in order of time.
    """
    frames, steps = plan_m.shape[:2]
    for name, value, shape in (
        ("global_T_ego", global_T_ego, (frames, 4, 4)),
        ("time_s", time_s, (frames,)),
        ("sequence", sequence, (frames,)),
    ):
        if value.shape != shape:
            raise ValueError(f"plan_changes_m: {name}: expected {list(shape)} to go with {frames} plans, got {list(value.shape)}")
    changes_m = np.full((frames, steps - 1), np.nan)
    follows = (sequence[1:] == sequence[:-1]) & (np.abs(np.diff(time_s) - STEP_S) <= CONSISTENCY_GAP_S)
    now = np.flatnonzero(follows) + 1
    now_T_before = np.linalg.inv(global_T_ego[now]) @ global_T_ego[now - 1]
    moved_m = plan_m[now - 1] @ now_T_before[:, :2, :2].transpose(0, 2, 1) + now_T_before[:, None, :2, 3]
    changes_m[now] = np.linalg.norm(plan_m[now, :-1] - moved_m[:, 1:], axis=2)
    return changes_m


def _hits(path_m: Float[np.ndarray, "N T 2"], frames: PlanFrames, protocol: PlanProtocol) -> PathHits:
    """Where paths touch an object, and a boundary."""
    yaw_rad = heading_rad(path_m) if protocol.vehicle == "turned" else np.full(path_m.shape[:2], np.pi / 2)
    size = (protocol.ego_length_m, protocol.ego_width_m, protocol.ego_ahead_m)
    ego = ego_rectangles(path_m, yaw_rad, *size)
    objects = frames.objects
    if protocol.labels is not None:
        objects = objects.take(np.flatnonzero(np.isin(objects.label, protocol.labels)))
    if protocol.vehicle == "grid":
        hits = hits_objects_on_grid(path_m, *size, objects.box, objects.frame, objects.step)
    else:
        hits = hits_objects(ego, objects.box, objects.frame, objects.step)
    return PathHits(
        objects=hits, boundary=np.zeros_like(hits) if frames.boundary is None else crosses_lines(ego, path_m, frames.boundary)
    )  # fmt: skip


def _so_far(values: np.ndarray, counted: Bool[np.ndarray, "M T"], how: Literal["at", "mean", "by"]) -> Float[np.ndarray, "M T"]:
    """Values at, on average up to, or at most by each step that counts; NaN at the others."""
    values = values.astype(np.float64)
    if how == "mean":
        values = np.cumsum(values * counted, 1) / np.maximum(np.cumsum(counted, 1), 1)
    elif how == "by":
        values = np.maximum.accumulate(values * counted, 1)
    return np.where(counted, values, np.nan)


def _mean(values: Float[np.ndarray, "M T"]) -> Float[np.ndarray, "T"]:
    """Over the plans that count; NaN if none."""
    count = (~np.isnan(values)).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)
