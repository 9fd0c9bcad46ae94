"""What was driven and seen -> rows of the thirteen nuScenes tables.

Source of the schema: nuscenes.org, "nuScenes schema". Rotations are quaternions w x y z, sizes w l h, times microseconds, and the time of
a sample is that of its LIDAR_TOP sweep. Tokens are hashes of what the row is, so that they never depend on order or processes.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from sparsedrive.world.rig import CameraMount, LidarMount, Rig
from sparsedrive.world.state import Cast, EgoState, WorldState, interpolate

Row = dict[str, Any]
Tables = dict[str, list[Row]]

TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
CATEGORIES = {
    "human.pedestrian.adult": "A grown-up on foot.",
    "human.pedestrian.child": "A child on foot.",
    "human.pedestrian.construction_worker": "A worker on foot.",
    "human.pedestrian.police_officer": "A police officer on foot.",
    "vehicle.bicycle": "A bicycle, with its rider if it has one.",
    "vehicle.bus.bendy": "A bus of two hinged parts.",
    "vehicle.bus.rigid": "A bus.",
    "vehicle.car": "A car.",
    "vehicle.construction": "A construction vehicle.",
    "vehicle.motorcycle": "A motorcycle, with its rider if it has one.",
    "vehicle.trailer": "A trailer.",
    "vehicle.truck": "A truck.",
    "movable_object.barrier": "A barrier that closes a part of the road.",
    "movable_object.trafficcone": "A traffic cone.",
}
"""The nuScenes categories an actor may have: those of the ten detection classes."""
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
)
VISIBILITY_LEVELS = {"1": (0, 40), "2": (40, 60), "3": (60, 80), "4": (80, 100)}
"""Visibility token -> how much of the object can be seen, from and to [%]."""
MOVING_MPS = 0.2
KEY_FRAME_US = 500_000
ANNOTATED_M = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneName:
    """Names of one scene. `start_us` is the time stamp of the drive's time 0."""

    scene: str
    location: str
    description: str
    start_us: int

    def time_us(self, time_s: float) -> int:
        """Time stamp of a time of the drive."""
        return self.start_us + round(time_s * 1e6)

    def file(self, channel: str, time_us: int) -> str:
        """Name of a sensor's file, relative to the root."""
        return f"samples/{channel}/{self.scene}__{channel}__{time_us}.{'pcd.bin' if channel.startswith('LIDAR') else 'jpg'}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyFrame:
    """One sample: the state at its time, and what was seen of each of the A actors.

    `lidar_points` counts returns from inside the box; `visible` is the part of the actor that is not hidden, 0 to 1.
    """

    state: WorldState
    lidar_points: Int[np.ndarray, "A"]
    visible: Float[np.ndarray, "A"]


def token(*parts: object) -> str:
    """32 hexadecimal digits that stand for `parts`."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def state_at(drive: Sequence[WorldState], time_s: float) -> WorldState:
    """The state of a drive (in the order of time) at one time within it; `ValueError` outside."""
    if not drive[0].time_s - 1e-6 <= time_s <= drive[-1].time_s + 1e-6:
        raise ValueError(f"state_at: expected a time from {drive[0].time_s} to {drive[-1].time_s} s, got {time_s}; drive longer")
    after = min(max(bisect_left(drive, time_s, key=lambda state: state.time_s), 1), len(drive) - 1)
    return interpolate(drive[after - 1], drive[after], time_s)


def fixed_tables(rig: Rig) -> Tables:
    """The tables that are the same for every world: sensor, category, attribute, visibility."""
    sensors: list[tuple[str, str]] = [(mount.name, "camera") for mount in rig.cameras] + [(rig.lidar.name, "lidar")]
    return {
        "sensor": [{"token": token("sensor", name), "channel": name, "modality": modality} for name, modality in sensors],
        "category": [{"token": token("category", name), "name": name, "description": text} for name, text in CATEGORIES.items()],
        "attribute": [{"token": token("attribute", name), "name": name, "description": name.replace(".", ": ")} for name in ATTRIBUTES],
        "visibility": [
            {"token": key, "level": f"v{low}-{high}", "description": f"between {low} and {high} % of the object can be seen"}
            for key, (low, high) in VISIBILITY_LEVELS.items()
        ],
    }  # fmt: skip


def location_tables(location: str, rig: Rig) -> Tables:
    """The rows of one town: one log, its map, and the calibration of its vehicle."""
    calibrated = []
    mounts: tuple[CameraMount | LidarMount, ...] = (*rig.cameras, rig.lidar)
    for mount in mounts:
        car_T_sensor = mount.car_T_camera if isinstance(mount, CameraMount) else mount.car_T_lidar
        calibrated.append({
            "token": token("calibrated_sensor", location, mount.name), "sensor_token": token("sensor", mount.name),
            "translation": car_T_sensor[:3, 3].tolist(), "rotation": _quaternion(car_T_sensor[:3, :3]),
            "camera_intrinsic": mount.intrinsic.tolist() if isinstance(mount, CameraMount) else [],
        })  # fmt: skip
    log = {"token": token("log", location), "logfile": location, "vehicle": "world", "date_captured": "2020-09-13", "location": location}
    picture = {"category": "semantic_prior", "filename": mask_file(location)}
    return {
        "log": [log],
        "map": [{"token": token("map", location), "log_tokens": [log["token"]], **picture}],
        "calibrated_sensor": calibrated,
    }


def mask_file(location: str) -> str:
    """Name of the semantic-prior picture of a town, relative to the root."""
    return f"maps/{token('map', location)}.png"


def sample_tables(name: SceneName, rig: Rig, drive: Sequence[WorldState], frames: Sequence[KeyFrame]) -> Tables:
    """The rows of scene, sample, sample_data and ego_pose: every camera's picture has its own time and pose."""
    times_us = [name.time_us(frame.state.time_s) for frame in frames]
    mounts: tuple[LidarMount | CameraMount, ...] = (rig.lidar, *rig.cameras)
    samples: list[Row] = []
    data: list[Row] = []
    poses: list[Row] = []
    for index, (frame, time_us) in enumerate(zip(frames, times_us, strict=True)):
        links = _links(["sample", name.scene], times_us, index)
        samples.append({**links, "timestamp": time_us, "scene_token": token("scene", name.scene)})
        for mount in mounts:
            early_s, (width, height) = (mount.early_s, mount.wh_px) if isinstance(mount, CameraMount) else (0.0, (0, 0))
            taken_us, key = name.time_us(frame.state.time_s - early_s), _links(["sample_data", name.scene, mount.name], times_us, index)
            poses.append({"token": key["token"], "timestamp": taken_us, **_pose(state_at(drive, frame.state.time_s - early_s).ego)})
            data.append({
                **key, "sample_token": links["token"], "ego_pose_token": key["token"],
                "calibrated_sensor_token": token("calibrated_sensor", name.location, mount.name), "timestamp": taken_us,
                "fileformat": "jpg" if isinstance(mount, CameraMount) else "pcd", "is_key_frame": True,
                "width": width, "height": height, "filename": name.file(mount.name, taken_us),
            })  # fmt: skip
    scene = {
        "token": token("scene", name.scene), "log_token": token("log", name.location), "name": name.scene, "description": name.description,
        "nbr_samples": len(samples), "first_sample_token": samples[0]["token"], "last_sample_token": samples[-1]["token"],
    }  # fmt: skip
    return {"scene": [scene], "sample": samples, "sample_data": data, "ego_pose": poses}


def object_tables(name: SceneName, cast: Cast, parked: Bool[np.ndarray, "A"], frames: Sequence[KeyFrame]) -> Tables:
    """The rows of instance and sample_annotation.

    An actor is annotated from the first to the last key frame at which it is less than 60 m from the ego vehicle and is seen or hit by
    the lidar. In between it keeps its box, without points where it is hidden, as annotators do: a track without gaps is what makes
    "12 steps along the track" mean 6 s.
    """
    seen = np.array([_near(frame.state) & ((frame.lidar_points > 0) | (frame.visible > 0)) for frame in frames])
    times_us = [name.time_us(frame.state.time_s) for frame in frames]
    instances, annotations = [], []
    for actor in np.flatnonzero(seen.any(0)):
        first, last = np.flatnonzero(seen[:, actor])[[0, -1]]
        category, instance = cast.categories[actor], token("instance", name.scene, actor)
        length_m, width_m, height_m = cast.size_lwh_m[actor].tolist()
        rows = []
        for index in range(int(first), int(last) + 1):
            frame, time_us = frames[index], times_us[index]
            x_m, y_m, yaw_rad = frame.state.pose[actor].tolist()
            attribute = attribute_of(category, float(frame.state.speed_mps[actor]), bool(parked[actor]))
            rows.append({
                **_links(["sample_annotation", name.scene, actor], times_us[first : last + 1], index - int(first)),
                "sample_token": token("sample", name.scene, time_us), "instance_token": instance,
                "visibility_token": visibility_of(float(frame.visible[actor])),
                "attribute_tokens": [token("attribute", attribute)] if attribute else [],
                "translation": [x_m, y_m, height_m / 2], "size": [width_m, length_m, height_m], "rotation": yaw_quaternion(yaw_rad),
                "num_lidar_pts": int(frame.lidar_points[actor]), "num_radar_pts": 0,
            })  # fmt: skip
        annotations += rows
        instances.append({
            "token": instance, "category_token": token("category", category), "nbr_annotations": len(rows),
            "first_annotation_token": rows[0]["token"], "last_annotation_token": rows[-1]["token"],
        })  # fmt: skip
    return {"instance": instances, "sample_annotation": annotations}


def attribute_of(category: str, speed_mps: float, parked: bool) -> str | None:
    """Attribute of a box; None for cones and barriers."""
    moving = abs(speed_mps) > MOVING_MPS
    if category.startswith("human."):
        return "pedestrian.moving" if moving else "pedestrian.standing"
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return "cycle.without_rider" if parked else "cycle.with_rider"
    if category.startswith("vehicle."):
        return "vehicle.parked" if parked else "vehicle.moving" if moving else "vehicle.stopped"
    return None


def visibility_of(visible: float) -> str:
    """Visibility token of a part 0 to 1; a border belongs to the level above it."""
    return max(key for key, (low, _) in VISIBILITY_LEVELS.items() if 100 * visible >= low)


def yaw_quaternion(yaw_rad: float) -> list[float]:
    """Rotation about z as w x y z."""
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def _near(state: WorldState) -> np.ndarray:
    return np.linalg.norm(state.pose[:, :2] - state.ego.position_m, axis=1) < ANNOTATED_M


def _pose(ego: EgoState) -> Row:
    return {"rotation": yaw_quaternion(ego.yaw_rad), "translation": [*map(float, ego.position_m), 0.0]}


def _quaternion(rotation: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return [w, x, y, z]


def _links(kind: Sequence[object], times_us: Sequence[int], index: int) -> Row:
    """Own, previous and next token of the row `index` of a chain."""
    own, before, after = (token(*kind, times_us[i]) if 0 <= i < len(times_us) else "" for i in (index, index - 1, index + 1))
    return {"token": own, "prev": before, "next": after}
