"""Anchors of boxes, map lines, forecasts and plans from the scenes of a prepared log.

What is clustered, and what the other columns of an anchor are, follows the public SparseDrive scripts (swc-17/SparseDrive,
`tools/kmeans/`): centres of boxes within 55 m; middles of map lines, each then a straight line of 8 m along the road; whole futures, seen
from the agent and turned to its heading; whole futures of the ego vehicle for each command. Different on purpose: everything works with
fewer samples than anchors (see `fit_anchors`), and the middle of a map line is that of its length, not of its vertices.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparsedrive.data.kmeans import kmeans
from sparsedrive.data.map_lines import clip_to_roi
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.geometry import box_state
from sparsedrive.structures import DETECTION_CLASSES, Command
from sparsedrive.structures.anchors import AnchorGroup, Anchors, AnchorSizes

RANGE_M = 55.0
ROI_M = (30.0, 60.0)
LINE_LENGTH_M = 8.0
BOX_HEIGHT_M = -1.0
"""Height of a detection anchor in the ego frame where no box says a better one."""
LOG_SIZE = 1.0
"""Published logarithm of all three sizes (2.7 m); the heading is the ego vehicle's, the speed 0."""
FASTEST_MPS = 15.0
STEP_S = 0.5

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the whole, 0 to 1, lies behind."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnchorSamples:
    """What is clustered, all in metres. `motion_m` has one array a detection class, `plan_m` one a command."""

    box_centre_m: Float[np.ndarray, "N 3"]
    line_centre_m: Float[np.ndarray, "L 2"]
    motion_m: tuple[Float[np.ndarray, "A 12 2"], ...]
    plan_m: tuple[Float[np.ndarray, "F 6 2"], ...]


def fit_anchors(
    data: PreparedData, split: str, sizes: AnchorSizes | None = None, *, seed: int = 0, progress: Progress | None = None
) -> Anchors:
    """Cluster the scenes of a split; the same split and seed give the same anchors.

    A group with fewer distinct samples than anchors keeps every sample as an anchor, and the rest is spread as far from them and from
    each other as it gets: boxes over the disc of 55 m, map lines over the region of 30 m x 60 m, forecasts among the modes of all
    classes, plans among the mirrored modes of the opposite command; where those run out too, straight on at constant speeds up to 15 m/s.
    `Anchors.groups` says how many anchors came from data. Raises ValueError for an unknown or empty split and for sizes that the
    futures of the log are too short for.
    """
    names = data.split(split)
    if not names:
        raise ValueError(f"split {split!r} of {data.folder}: expected at least one scene, got none; choose one of {list(data.splits)}")
    tell = progress or (lambda text, share: None)

    def scenes() -> Iterable[PreparedScene]:
        for index, name in enumerate(names):
            tell(f"reading {name}", index / len(names) / 2)
            yield data.scene(name)

    return cluster_anchors(
        collect_samples(scenes()), sizes or AnchorSizes(), seed=seed, data=data.version, split=split,
        progress=lambda text, share: tell(text, (1 + share) / 2),
    )  # fmt: skip


def collect_samples(scenes: Iterable[PreparedScene]) -> AnchorSamples:
    """Everything of all frames that is clustered: boxes in range, lines in the region, futures known to their end."""
    centres, lines = [np.zeros((0, 3))], [np.zeros((0, 2))]
    motion = [[np.zeros((0, 12, 2))] for _ in DETECTION_CLASSES]
    plan = [[np.zeros((0, 6, 2))] for _ in Command]
    for scene in scenes:
        near = np.hypot(scene.box[:, 0], scene.box[:, 1]) < RANGE_M
        centres.append(scene.box[near, :3])
        known = near & scene.agent_future_valid.all(1)
        futures_m = _in_agent_frame(scene.agent_future_m[known], scene.box[known])
        for label, paths in enumerate(motion):
            paths.append(futures_m[scene.box_label[known] == label])
        complete = scene.ego_future_valid.all(1)
        for command, paths in enumerate(plan):
            paths.append(scene.ego_future_m[complete & (scene.command == command)])
        for frame in range(scene.num_frames):
            lines.append(_line_centres(scene, frame))
    return AnchorSamples(
        box_centre_m=np.concatenate(centres).astype(np.float64),
        line_centre_m=np.concatenate(lines),
        motion_m=tuple(np.concatenate(paths).astype(np.float64) for paths in motion),
        plan_m=tuple(np.concatenate(paths).astype(np.float64) for paths in plan),
    )


def cluster_anchors(
    samples: AnchorSamples, sizes: AnchorSizes, *, seed: int = 0, data: str = "", split: str = "", progress: Progress | None = None
) -> Anchors:
    """Anchors from samples already collected; see `fit_anchors`."""
    motion_m = [_first_steps(paths, sizes.motion_steps, "motion_steps") for paths in samples.motion_m]
    plan_m = [_first_steps(paths, sizes.plan_steps, "plan_steps") for paths in samples.plan_m]
    fit = _Fit(seed=seed, num_groups=3 + len(motion_m) + 2 * len(plan_m), progress=progress or (lambda text, share: None))

    height_m = float(np.median(samples.box_centre_m[:, 2])) if len(samples.box_centre_m) else BOX_HEIGHT_M
    centre_m = fit("detection", samples.box_centre_m, sizes.detection, [_disc(sizes.detection, height_m)])
    middle_m = fit("map", samples.line_centre_m, sizes.map_lines, [_region(sizes.map_lines)])

    straight_m = _straight(sizes.motion_modes, sizes.motion_steps, axis=0)
    of_all_m = fit.modes("motion of all classes", np.concatenate(motion_m), sizes.motion_modes)
    motion = [
        fit(f"motion {name}", paths, sizes.motion_modes, [of_all_m, straight_m])
        for name, paths in zip(DETECTION_CLASSES, motion_m, strict=True)
    ]

    ahead_m = _straight(sizes.plan_modes, sizes.plan_steps, axis=1)
    mirrored_m = [_mirrored(fit.modes(f"plan {c.name.lower()}, mirrored", plan_m[_opposite(c)], sizes.plan_modes)) for c in Command]
    plan = [fit(f"plan {c.name.lower()}", plan_m[c], sizes.plan_modes, [mirrored_m[c], ahead_m]) for c in Command]
    return Anchors(
        detection=_box_states(centre_m),
        map_lines_m=_lines_along_road(middle_m, sizes.map_vertices),
        motion_m=np.stack(motion).reshape(-1, sizes.motion_modes, sizes.motion_steps, 2).astype(np.float32),
        plan_m=np.stack(plan).reshape(-1, sizes.plan_modes, sizes.plan_steps, 2).astype(np.float32),
        groups=tuple(fit.groups),
        data=data,
        split=split,
        seed=seed,
    )


class _Fit:
    """One clustering after the other, each with its own random numbers, and the report on them."""

    def __init__(self, *, seed: int, num_groups: int, progress: Progress) -> None:
        self.seed, self.num_groups, self.progress = seed, num_groups, progress
        self.groups: list[AnchorGroup] = []
        self._done = 0

    def modes(self, name: str, samples: np.ndarray, count: int) -> np.ndarray:
        """At most `count` centres, flattened to rows."""
        rng, done = np.random.default_rng([self.seed, self._done]), self._done / self.num_groups
        self._done += 1
        self.progress(name, done)
        flat = samples.reshape(len(samples), math.prod(samples.shape[1:]))
        return kmeans(flat, count, rng, on_round=lambda number: self.progress(f"{name}, round {number}", done))

    def __call__(self, name: str, samples: np.ndarray, count: int, fallbacks: list[np.ndarray]) -> np.ndarray:
        """Exactly `count` rows."""
        centres = self.modes(name, samples, count)
        self.groups.append(AnchorGroup(name=name, samples=len(samples), from_data=len(centres), count=count))
        for candidates in fallbacks:
            centres = spread_out(centres, candidates, count)
        assert len(centres) == count
        return centres


def spread_out(chosen: Float[np.ndarray, "N D"], candidates: Float[np.ndarray, "M D"], count: int) -> Float[np.ndarray, "K D"]:
    """`chosen` and after it, up to `count` rows, always the candidate farthest from all rows so far; never one that is there already."""
    rows = list(chosen)
    squared = np.full(len(candidates), np.inf)
    for row in rows:
        squared = np.minimum(squared, ((candidates - row) ** 2).sum(1))
    while len(rows) < count and len(candidates) and squared.max() > 0:
        rows.append(candidates[int(squared.argmax())])
        squared = np.minimum(squared, ((candidates - rows[-1]) ** 2).sum(1))
    return np.array(rows).reshape(-1, candidates.shape[1])


def _in_agent_frame(future_m: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Ego positions [A, T, 2] -> positions from the box's centre with x along its heading."""
    cos, sin = np.cos(box[:, box_state.YAW, None]), np.sin(box[:, box_state.YAW, None])
    x_m, y_m = np.moveaxis(future_m - box[:, None, :2], -1, 0)
    return np.stack([cos * x_m + sin * y_m, cos * y_m - sin * x_m], axis=-1)


def _line_centres(scene: PreparedScene, frame: int) -> np.ndarray:
    """Middles of the frame's map lines inside the region, every metre of a line with the same weight."""
    parts = [points_m for _, points_m in clip_to_roi(scene.lines_of(frame), ROI_M)]
    lengths_m = [np.linalg.norm(np.diff(part, axis=0), axis=1) for part in parts]
    middles_m = [np.average((part[1:] + part[:-1]) / 2, axis=0, weights=length_m) for part, length_m in zip(parts, lengths_m, strict=True)]
    return np.array(middles_m).reshape(-1, 2)


def _first_steps(paths: np.ndarray, steps: int, name: str) -> np.ndarray:
    if steps > paths.shape[1]:
        raise ValueError(f"AnchorSizes.{name}: expected at most the {paths.shape[1]} steps that are recorded, got {steps}")
    return paths[:, :steps]


def _disc(count: int, height_m: float) -> np.ndarray:
    """A sunflower spiral: an even cover of the detection disc."""
    index = np.arange(count) + 0.5
    radius_m, angle_rad = RANGE_M * np.sqrt(index / count), index * np.pi * (3 - np.sqrt(5))
    return np.stack([radius_m * np.cos(angle_rad), radius_m * np.sin(angle_rad), np.full(count, height_m)], axis=1)


def _region(count: int) -> np.ndarray:
    """At least `count` middles of the cells of a grid over the map region."""
    columns = int(np.ceil(np.sqrt(count * ROI_M[0] / ROI_M[1])))
    rows = -(-count // columns)
    x_m = ROI_M[0] * ((np.arange(columns) + 0.5) / columns - 0.5)
    y_m = ROI_M[1] * ((np.arange(rows) + 0.5) / rows - 0.5)
    return np.stack(np.meshgrid(x_m, y_m), axis=-1).reshape(-1, 2)


def _straight(modes: int, steps: int, *, axis: int) -> np.ndarray:
    """Constant speeds along x (axis 0) or y (axis 1), flattened [M, T * 2]."""
    paths = np.zeros((modes, steps, 2))
    paths[..., axis] = np.outer(FASTEST_MPS * (np.arange(modes) + 0.5) / modes, STEP_S * np.arange(1, steps + 1))
    return paths.reshape(modes, -1)


def _opposite(command: Command) -> Command:
    return {Command.LEFT: Command.RIGHT, Command.RIGHT: Command.LEFT}.get(command, command)


def _mirrored(flat: np.ndarray) -> np.ndarray:
    return flat * np.tile([-1.0, 1.0], flat.shape[1] // 2)


def _box_states(centre_m: np.ndarray) -> np.ndarray:
    states = np.zeros((len(centre_m), box_state.STATE_DIM), np.float32)
    states[:, :3] = centre_m
    states[:, [box_state.LOG_LENGTH, box_state.LOG_WIDTH, box_state.LOG_HEIGHT]] = LOG_SIZE
    states[:, box_state.SIN_YAW] = 1.0
    return states


def _lines_along_road(middle_m: np.ndarray, points: int) -> np.ndarray:
    along_m = np.zeros((points, 2))
    along_m[:, 1] = np.linspace(-LINE_LENGTH_M / 2, LINE_LENGTH_M / 2, points)
    return (middle_m[:, None] + along_m).astype(np.float32)
