"""Rows of the nuScenes tables: only the fields the library reads, and how a JSON record becomes one.

Source of the schema: nuscenes.org, "nuScenes schema". Rotations are quaternions w x y z, translations metres, time stamps microseconds.
"""

from dataclasses import dataclass
from math import isfinite
from sys import intern


@dataclass(frozen=True, slots=True)
class LogRow:
    """One drive; `location` names the map."""

    token: str
    location: str


@dataclass(frozen=True, slots=True)
class SceneRow:
    """About 20 s of a log. `num_samples` is what the table says, None where it does not."""

    token: str
    name: str
    log_token: str
    num_samples: int | None


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One key frame; its time stamp is that of the LIDAR_TOP sweep."""

    token: str
    scene_token: str
    timestamp_us: int


@dataclass(frozen=True, slots=True)
class SensorRow:
    """A kind of sensor: channel such as CAM_FRONT, modality camera, lidar or radar."""

    token: str
    channel: str
    modality: str


@dataclass(frozen=True, slots=True)
class CalibratedSensorRow:
    """Pose of a sensor in the vehicle frame; the camera matrix (3x3, pixels) is empty for other sensors."""

    token: str
    sensor_token: str
    translation_m: tuple[float, ...]
    rotation_wxyz: tuple[float, ...]
    camera_intrinsic: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class EgoPoseRow:
    """Pose of the vehicle frame (x forward, y left, z up) in the global frame."""

    token: str
    translation_m: tuple[float, ...]
    rotation_wxyz: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SampleDataRow:
    """One file of one sensor. `prev` is the file of the same sensor before it, '' for the first of a scene."""

    token: str
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp_us: int
    filename: str
    wh_px: tuple[int, int]
    prev: str
    is_key_frame: bool


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One object through a scene."""

    token: str
    category_token: str


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """Category name such as vehicle.car."""

    token: str
    name: str


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One box of one instance at one key frame, in the global frame; `prev`/`next` are '' at the ends of the track."""

    token: str
    sample_token: str
    instance_token: str
    translation_m: tuple[float, ...]
    size_wlh_m: tuple[float, ...]
    rotation_wxyz: tuple[float, ...]
    num_lidar_pts: int
    num_radar_pts: int
    prev: str
    next: str


def log_row(r: dict) -> LogRow:
    """Each `*_row` makes one row; KeyError, TypeError or ValueError when the record does not follow the schema."""
    return LogRow(r["token"], r["location"])


def scene_row(r: dict) -> SceneRow:
    """See `log_row`."""
    return SceneRow(r["token"], r["name"], r["log_token"], r.get("nbr_samples"))


def sample_row(r: dict) -> SampleRow:
    """See `log_row`."""
    return SampleRow(r["token"], r["scene_token"], r["timestamp"])


def sensor_row(r: dict) -> SensorRow:
    """See `log_row`."""
    return SensorRow(r["token"], r["channel"], r["modality"])


def calibrated_sensor_row(r: dict) -> CalibratedSensorRow:
    """See `log_row`."""
    intrinsic = tuple(_numbers(row, 3) for row in r["camera_intrinsic"])
    if not all(isfinite(value) for row in intrinsic for value in row):
        raise ValueError(f"expected finite numbers in camera_intrinsic, got {r['camera_intrinsic']}")
    return CalibratedSensorRow(r["token"], r["sensor_token"], _numbers(r["translation"], 3), _numbers(r["rotation"], 4), intrinsic)


def ego_pose_row(r: dict) -> EgoPoseRow:
    """See `log_row`."""
    return EgoPoseRow(r["token"], _numbers(r["translation"], 3), _numbers(r["rotation"], 4))


def sample_data_row(r: dict) -> SampleDataRow:
    """See `log_row`. Tokens are interned: most stand in several rows."""
    return SampleDataRow(
        token=intern(r["token"]),
        sample_token=intern(r["sample_token"]),
        ego_pose_token=intern(r["ego_pose_token"]),
        calibrated_sensor_token=intern(r["calibrated_sensor_token"]),
        timestamp_us=r["timestamp"],
        filename=_inside(r["filename"]),
        wh_px=(r["width"], r["height"]),
        prev=intern(r["prev"]),
        is_key_frame=bool(r["is_key_frame"]),
    )


def instance_row(r: dict) -> InstanceRow:
    """See `log_row`."""
    return InstanceRow(r["token"], r["category_token"])


def category_row(r: dict) -> CategoryRow:
    """See `log_row`."""
    return CategoryRow(r["token"], r["name"])


def annotation_row(r: dict) -> AnnotationRow:
    """See `log_row`. Tokens are interned: v1.0-trainval has 1.2 million of these rows."""
    return AnnotationRow(
        token=intern(r["token"]),
        sample_token=intern(r["sample_token"]),
        instance_token=intern(r["instance_token"]),
        translation_m=_numbers(r["translation"], 3),
        size_wlh_m=_numbers(r["size"], 3),
        rotation_wxyz=_numbers(r["rotation"], 4),
        num_lidar_pts=int(r["num_lidar_pts"]),
        num_radar_pts=int(r["num_radar_pts"]),
        prev=intern(r["prev"]),
        next=intern(r["next"]),
    )


def _inside(name: str) -> str:
    if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"expected a filename inside the log's folder, such as samples/CAM_FRONT/1.jpg, got {name!r}")
    return name


def _numbers(values: list, count: int) -> tuple[float, ...]:
    if len(values) != count:
        raise ValueError(f"expected {count} numbers, got {values}")
    return tuple(float(value) for value in values)
