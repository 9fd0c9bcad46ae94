"""What really was there, from prepared scenes, in the form each metric wants; for detection and tracking from the nuScenes tables if there.

Prepared scenes hold boxes relative to the lidar, and neither attributes nor bicycle racks; so only the tables give the official numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.data.map_lines import clip_to_roi
from sparsedrive.data.nuscenes.futures import joined_frames
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.evaluation.results import FrameIndex
from sparsedrive.geometry.box_state import YAW
from sparsedrive.metrics.baselines import EgoMotion, motion_from_poses, motion_from_status
from sparsedrive.metrics.forecasting import TrueAgents
from sparsedrive.metrics.mapping import MapLines
from sparsedrive.metrics.nuscenes_truth import read_ground_truth
from sparsedrive.metrics.planning import FutureObjects
from sparsedrive.metrics.records import BoxRecords, GroundTruth, KeyFrames
from sparsedrive.structures import MAP_CLASSES

FROM_TABLES, FROM_PREPARED = "nuScenes tables", "prepared data (no attributes, no bicycle racks)"
TruthSource = Literal["auto", "tables", "prepared"]
ROI_WH_M = (30.0, 60.0)
BOUNDARY = MAP_CLASSES.index("boundary")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitTruth:
    """The prepared scenes of a split, and their frames one after the other: S scenes, F frames, N boxes."""

    data: PreparedData
    split: str
    scenes: tuple[PreparedScene, ...]
    frames: FrameIndex
    global_T_ego: Float[np.ndarray, "F 4 4"]
    car_xy_m: Float[np.ndarray, "F 2"]

    @property
    def first_frame(self) -> Int[np.ndarray, "S+1"]:
        """Row of every scene's first frame."""
        return np.concatenate([[0], np.cumsum([scene.num_frames for scene in self.scenes])])


def read_split(data: PreparedData, split: str) -> SplitTruth:
    """All scenes of a split. `ValueError`: no such split, or it is empty."""
    scenes = tuple(data.scene(name) for name in data.split(split))
    if not scenes:
        raise ValueError(
            f"{data.folder}: split {split!r} has no scenes; choose one of {[name for name, some in data.splits.items() if some]}"
        )
    counts = [scene.num_frames for scene in scenes]
    frames = FrameIndex(
        scene_names=tuple(scene.name for scene in scenes),
        tokens=tuple(token for scene in scenes for token in scene.sample_tokens),
        scene=np.repeat(np.arange(len(scenes)), counts),
        number=np.concatenate([np.arange(count) for count in counts]),
        time_s=np.concatenate([scene.timestamp_us for scene in scenes]) * 1e-6,
    )
    return SplitTruth(
        data=data,
        split=split,
        scenes=scenes,
        frames=frames,
        global_T_ego=np.concatenate([scene.global_T_ego for scene in scenes]).astype(np.float64),
        car_xy_m=np.concatenate([scene.global_T_car[:, :2, 3] for scene in scenes]).astype(np.float64),
    )


def box_truth(truth: SplitTruth, source: TruthSource = "auto") -> tuple[GroundTruth, str]:
    """Ground truth of detection and tracking, and where it is from. "auto" takes the log's nuScenes tables if they are there.

    `ValueError`: the tables were asked for and are not there, or they lack a frame of the split.
    """
    tables = truth.data.root / truth.data.version
    there = (tables / "sample_annotation.json").is_file()
    if source == "tables" and not there:
        raise ValueError(f"truth: expected the nuScenes tables in {tables}, found none; take --truth prepared, or give the log's folder")
    if source != "prepared" and there:
        return _from_tables(truth, tables), FROM_TABLES
    return GroundTruth(frames=key_frames(truth), boxes=_prepared_boxes(truth)), FROM_PREPARED


def map_truth(truth: SplitTruth) -> MapLines:
    """Map lines cut to the published region of 30 m x 60 m, where targets and predictions are."""
    frame, label, lines = [], [], []
    for first, scene in zip(truth.first_frame, truth.scenes, strict=False):
        for number in range(scene.num_frames):
            for kind, points_m in clip_to_roi(scene.lines_of(number), ROI_WH_M):
                frame.append(int(first) + number)
                label.append(kind)
                lines.append(points_m)
    return MapLines.from_lines(frame, label, lines)


def agent_truth(truth: SplitTruth) -> TrueAgents:
    """Boxes with their futures; centres in the global frame, futures in the ego frame of the box's frame."""
    boxes = _prepared_boxes(truth)
    valid = np.concatenate([scene.agent_future_valid for scene in truth.scenes])
    return TrueAgents(
        frame=boxes.frame,
        label=boxes.label,
        center_m=boxes.center_m[:, :2],
        distance_m=np.linalg.norm(boxes.center_m[:, :2] - truth.car_xy_m[boxes.frame], axis=1),
        returns=boxes.num_points,
        future_m=np.concatenate([scene.agent_future_m for scene in truth.scenes]).astype(np.float64),
        steps=np.cumprod(valid, axis=1).sum(1),
    )


def driven_path(truth: SplitTruth, steps: int) -> tuple[Float[np.ndarray, "F steps 2"], Bool[np.ndarray, "F steps"]]:
    """Where the ego frame's origin went, 0.5 s apart, in each frame's ego frame, and how far that is known; then the last known place."""
    path_m, valid = np.zeros((len(truth.frames.tokens), steps, 2)), np.zeros((len(truth.frames.tokens), steps), bool)
    for first, scene in zip(truth.first_frame, truth.scenes, strict=False):
        ego_T_global, frames = np.linalg.inv(scene.global_T_ego), np.arange(scene.num_frames)
        now, going, follows = frames, np.ones(scene.num_frames, bool), joined_frames(scene.name, scene.timestamp_us)
        for step in range(steps):
            going = going & follows[now]
            now = now + going
            path_m[first + frames, step] = (ego_T_global @ scene.global_T_ego[now][..., 3:])[:, :2, 0]
            valid[first + frames, step] = going
    return path_m, valid


def future_objects(truth: SplitTruth, valid: Bool[np.ndarray, "F steps"]) -> FutureObjects:
    """Boxes with a lidar return at the frames of the driven path (as far as `valid`), in the ego frame the path starts in."""
    rows, labels, frames, steps = [], [], [], []
    for first, scene in zip(truth.first_frame, truth.scenes, strict=False):
        box_frame = np.repeat(np.arange(scene.num_frames), np.diff(scene.box_splits))
        seen = np.flatnonzero(scene.lidar_returns > 0)
        ego_T_global = np.linalg.inv(scene.global_T_ego)
        for step in range(valid.shape[1]):
            start = box_frame[seen] - 1 - step
            some = seen[(start >= 0) & valid[first + np.maximum(start, 0), step]]
            start = box_frame[some] - 1 - step
            start_T_then = ego_T_global[start] @ scene.global_T_ego[box_frame[some]]
            box = scene.box[some]
            ahead = np.stack([np.cos(box[:, YAW]), np.sin(box[:, YAW]), np.zeros(len(box))], -1)
            centre_m = np.einsum("nij,nj->ni", start_T_then[:, :3, :3], box[:, :3]) + start_T_then[:, :3, 3]
            ahead = np.einsum("nij,nj->ni", start_T_then[:, :3, :3], ahead)
            rows.append(np.concatenate([centre_m[:, :2], box[:, 3:5], np.arctan2(ahead[:, 1], ahead[:, 0])[:, None]], 1))
            labels.append(scene.box_label[some])
            frames.append(first + start)
            steps.append(np.full(len(some), step))
    return FutureObjects(box=np.concatenate(rows), label=np.concatenate(labels), frame=np.concatenate(frames), step=np.concatenate(steps))


def kerbs(truth: SplitTruth) -> MapLines | None:
    """Road boundaries as far as prepared data hold them (34 m to each side); None if there is not one in the whole split."""
    found = [
        (int(first) + number, points_m)
        for first, scene in zip(truth.first_frame, truth.scenes, strict=False)
        for number in range(scene.num_frames)
        for label, points_m in scene.lines_of(number)
        if label == BOUNDARY
    ]
    return MapLines.from_lines([frame for frame, _ in found], [BOUNDARY] * len(found), [line for _, line in found]) if found else None


def ego_motion(truth: SplitTruth) -> EgoMotion:
    """Motion of every frame: from the ego status, where that is not known from the pose one frame before."""
    status, known = ego_status(truth)
    told = motion_from_status(status, known)
    seen = motion_from_poses(truth.global_T_ego, truth.frames.time_s, truth.frames.scene)
    return EgoMotion(
        velocity_mps=np.where(told.known[:, None], told.velocity_mps, seen.velocity_mps),
        yaw_rate_radps=np.where(told.known, told.yaw_rate_radps, seen.yaw_rate_radps),
        known=told.known | seen.known,
    )


def ego_status(truth: SplitTruth) -> tuple[Float[np.ndarray, "F 10"], Bool[np.ndarray, "F 10"]]:
    """`Frame.ego_status` of every frame, and which of it was recorded."""
    status, known = (np.concatenate([getattr(scene, name) for scene in truth.scenes]) for name in ("ego_status", "ego_status_known"))
    return status.astype(np.float64), known.astype(bool)


def key_frames(truth: SplitTruth) -> KeyFrames:
    """The frames as detection and tracking know them."""
    return KeyFrames(
        tokens=truth.frames.tokens,
        scene=truth.frames.scene,
        timestamp_us=np.concatenate([scene.timestamp_us for scene in truth.scenes]),
        car_xy_m=truth.car_xy_m,
    )


def _prepared_boxes(truth: SplitTruth) -> BoxRecords:
    """All boxes of the prepared scenes in the global frame; velocity and heading as seen from above."""
    frame = np.concatenate(
        [
            first + np.repeat(np.arange(s.num_frames), np.diff(s.box_splits))
            for first, s in zip(truth.first_frame, truth.scenes, strict=False)
        ]
    )
    box = np.concatenate([scene.box for scene in truth.scenes]).astype(np.float64)
    turn = truth.global_T_ego[frame, :3, :3]
    ahead = np.stack([np.cos(box[:, YAW]), np.sin(box[:, YAW]), np.zeros(len(box))], -1)
    heading, velocity = (np.einsum("nij,nj->ni", turn, vector) for vector in (ahead, box[:, YAW + 1 :]))
    names = [f"{scene.name} {scene.instance_tokens[row]}" for scene in truth.scenes for row in scene.box_instance]
    return BoxRecords(
        frame=frame,
        center_m=np.einsum("nij,nj->ni", turn, box[:, :3]) + truth.global_T_ego[frame, :3, 3],
        size_wlh_m=box[:, [4, 3, 5]],
        yaw_rad=np.arctan2(heading[:, 1], heading[:, 0]),
        velocity_mps=velocity[:, :2],
        label=np.concatenate([scene.box_label for scene in truth.scenes]).astype(np.int64),
        score=np.full(len(box), -1.0),
        attribute=np.full(len(box), -1),
        track_id=np.array(names, np.str_),
        num_points=np.concatenate([scene.lidar_returns + scene.radar_returns for scene in truth.scenes]).astype(np.int64),
    )


def _from_tables(truth: SplitTruth, tables: Path) -> GroundTruth:
    """The tables' ground truth with frames in the order of the split."""
    found = read_ground_truth(tables, truth.frames.scene_names)
    row = {token: index for index, token in enumerate(found.frames.tokens)}
    lost = [token for token in truth.frames.tokens if token not in row]
    if lost or len(row) != len(truth.frames.tokens):
        raise ValueError(
            f"{tables}: the scenes of split {truth.split!r} have {len(row)} samples, {len(truth.frames.tokens)} were prepared "
            f"({len(lost)} of them not in the tables); the tables have changed, so run `sparsedrive prepare` again"
        )
    order = np.array([row[token] for token in truth.frames.tokens])
    place = np.argsort(order)
    frames = replace(
        found.frames,
        tokens=truth.frames.tokens,
        scene=truth.frames.scene,
        timestamp_us=found.frames.timestamp_us[order],
        car_xy_m=found.frames.car_xy_m[order],
    )
    boxes = replace(found.boxes, frame=place[found.boxes.frame])
    return GroundTruth(frames=frames, boxes=boxes, racks=replace(found.racks, frame=place[found.racks.frame]))


def scene_rows(frame: Int[np.ndarray, "N"], truth: SplitTruth) -> Sequence[Int[np.ndarray, "M"]]:
    """Rows that lie in frames of each scene."""
    scene = truth.frames.scene[frame]
    order = np.argsort(scene, kind="stable")
    return np.split(order, np.searchsorted(scene[order], np.arange(1, len(truth.scenes))))
