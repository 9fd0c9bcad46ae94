"""What a prepared frame is trained on: which boxes and lines count, turned with the ego frame, and depth from the lidar."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.data import map_lines
from sparsedrive.data.depth_targets import depth_maps
from sparsedrive.data.lidar import gather_sweeps
from sparsedrive.data.map_lines import turn_points
from sparsedrive.data.prepared import MAP_HALF_SIZE_M, PreparedScene
from sparsedrive.geometry.box_state import YAW
from sparsedrive.structures import DETECTION_CLASSES


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What counts as a target; the defaults are SparseDrive's.

    Attributes:
        returns: boxes need at least one return of the "lidar", of "lidar or radar" (nuScenes' valid flag), or "none" (a rig without lidar).
        max_range_m: boxes with their centre farther from the ego frame's origin, in x and y, do not count.
        map_roi_wh_m: map region, x to the right and y forward.
        map_points: of a map element.
        depth_strides: of the depth maps, one each; () makes none and reads no lidar file.
        depth_sweeps: scans before the frame's own that add to the depth maps; what moves smears.
    """

    returns: Literal["lidar", "lidar or radar", "none"] = "lidar"
    max_range_m: float = 55.0
    map_roi_wh_m: tuple[float, float] = (30.0, 60.0)
    map_points: int = 20
    depth_strides: tuple[int, ...] = (4, 8, 16)
    depth_sweeps: int = 0

    def __post_init__(self) -> None:
        if self.returns not in ("lidar", "lidar or radar", "none"):
            raise ValueError(f"TargetConfig.returns: expected 'lidar', 'lidar or radar' or 'none', got {self.returns!r}")
        if not self.max_range_m > 0 or not min(self.map_roi_wh_m) > 0:
            raise ValueError(f"TargetConfig: expected max_range_m and map_roi_wh_m > 0, got {self.max_range_m} and {self.map_roi_wh_m}")
        if np.hypot(*self.map_roi_wh_m) / 2 > MAP_HALF_SIZE_M:
            raise ValueError(
                f"TargetConfig.map_roi_wh_m: expected a region within {MAP_HALF_SIZE_M} m of the ego frame's origin, as prepared data hold "
                f"no more of the map; got {self.map_roi_wh_m}"
            )
        if self.map_points < 2 or self.depth_sweeps < 0 or min(self.depth_strides, default=1) < 1:
            raise ValueError(
                f"TargetConfig: expected map_points >= 2, depth_sweeps >= 0 and depth_strides >= 1, got {self.map_points}, "
                f"{self.depth_sweeps} and {self.depth_strides}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedTargets:
    """The targets of one frame, unpadded: N boxes, L map elements with V orders each; the rest as `FrameTargets`."""

    box: Float[np.ndarray, "N 10"]
    label: Int[np.ndarray, "N"]
    instance: Int[np.ndarray, "N"]
    lidar_returns: Int[np.ndarray, "N"]
    agent_m: Float[np.ndarray, "N T 2"]
    agent_valid: Bool[np.ndarray, "N T"]
    ego_m: Float[np.ndarray, "E 2"]
    ego_valid: Bool[np.ndarray, "E"]
    map_label: Int[np.ndarray, "L"]
    map_orders_m: tuple[Float[np.ndarray, "V P 2"], ...]
    depth_m: tuple[Float[np.ndarray, "C h w"], ...]


def frame_targets(
    scene: PreparedScene, frame: int, config: TargetConfig, turn_rad: float, depth_m: tuple[np.ndarray, ...]
) -> LoadedTargets:
    """Targets in the ego frame turned by `turn_rad` about z; `depth_m` of `frame_depth`."""
    rows = counting_boxes(scene, frame, config)
    lines = map_lines.clip_to_roi(map_lines.turn(scene.lines_of(frame), turn_rad), config.map_roi_wh_m)
    return LoadedTargets(
        box=turn_boxes(scene.box[rows], turn_rad).astype(np.float32),
        label=scene.box_label[rows].astype(np.int64),
        instance=scene.box_instance[rows].astype(np.int64),
        lidar_returns=(scene.lidar_returns[rows] + scene.radar_returns[rows]).astype(np.int64),
        agent_m=turn_points(scene.agent_future_m[rows], turn_rad).astype(np.float32),
        agent_valid=scene.agent_future_valid[rows].astype(bool),
        ego_m=turn_points(scene.ego_future_m[frame], turn_rad).astype(np.float32),
        ego_valid=scene.ego_future_valid[frame].astype(bool),
        map_label=np.array([label for label, _ in lines], np.int64),
        map_orders_m=tuple(map_lines.orders(map_lines.resample(points, config.map_points)).astype(np.float32) for _, points in lines),
        depth_m=depth_m,
    )


def without_targets(targets: LoadedTargets) -> LoadedTargets:
    """The same with nothing to learn from, in the same shapes but for the number of boxes and lines: for rows that pad a batch."""
    per_box = ("box", "label", "instance", "lidar_returns", "agent_m", "agent_valid")
    return replace(
        targets,
        **{name: getattr(targets, name)[:0] for name in per_box},
        ego_valid=np.zeros_like(targets.ego_valid),
        map_label=targets.map_label[:0],
        map_orders_m=(),
        depth_m=tuple(np.zeros_like(level) for level in targets.depth_m),
    )


def counting_boxes(scene: PreparedScene, frame: int, config: TargetConfig) -> Int[np.ndarray, "N"]:
    """Rows of the scene's boxes that are targets of a frame."""
    rows = np.arange(len(scene.box))[scene.boxes_of(frame)]
    known = (scene.box_label[rows] >= 0) & (scene.box_label[rows] < len(DETECTION_CLASSES))
    near = np.linalg.norm(scene.box[rows, :2], axis=-1) <= config.max_range_m
    returns = scene.lidar_returns[rows] + (scene.radar_returns[rows] if config.returns == "lidar or radar" else 0)
    return rows[known & near & ((returns > 0) | (config.returns == "none"))]


def turn_boxes(box: Float[np.ndarray, "N 10"], turn_rad: float) -> Float[np.ndarray, "N 10"]:
    """Boxes with place, heading (kept within -pi .. pi) and velocity turned; an unknown velocity stays unknown."""
    turned = box.copy()
    turned[:, :2] = turn_points(box[:, :2], turn_rad)
    turned[:, YAW] = (box[:, YAW] + turn_rad + np.pi) % (2 * np.pi) - np.pi
    turned[:, YAW + 1 : YAW + 3] = turn_points(box[:, YAW + 1 : YAW + 3], turn_rad)
    return turned


def turn_status(status: Float[np.ndarray, "10"], turn_rad: float) -> Float[np.ndarray, "10"]:
    """`Frame.ego_status` of a vehicle that points elsewhere in its ego frame: acceleration, rotation rate and velocity turned."""
    turned = status.copy()
    for first in (0, 3, 6):  # x of the three vectors
        turned[first : first + 2] = turn_points(status[first : first + 2], turn_rad)
    return turned


def frame_depth(
    scene: PreparedScene,
    frame: int,
    root: Path,
    config: TargetConfig,
    image_T_ego: Float[np.ndarray, "C 4 4"],
    wh_px: tuple[int, int],
) -> tuple[Float[np.ndarray, "C h w"], ...]:
    """Depth maps of the network's pictures, 0 where nothing is known, as where a scan is missing.

    `image_T_ego` takes points of the ego frame as prepared, not turned, to the network's picture.
    """
    if not config.depth_strides:
        return ()
    scans = [(root / scene.lidar_paths[frame], np.eye(4))] if scene.lidar_present[frame] else []
    if config.depth_sweeps:
        sweeps = range(int(scene.sweep_splits[frame]), int(scene.sweep_splits[frame + 1]))
        latest_first = sorted(sweeps, key=lambda sweep: -int(scene.sweep_time_us[sweep]))
        scans += [(root / scene.sweep_paths[sweep], scene.ego_T_sweep[sweep]) for sweep in latest_first[: config.depth_sweeps]]
    returns, _ = gather_sweeps(scans)
    points_m = np.zeros((0, 3), np.float32) if returns is None else returns[:, :3]
    return tuple(depth_maps(points_m, image_T_ego, wh_px, config.depth_strides))
