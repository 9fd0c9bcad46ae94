"""nuScenes tables as typed rows: only the fields the library reads, only the rows of key frames, foreign keys checked.

Source of the schema: nuscenes.org, "nuScenes schema". Rotations are quaternions w x y z, translations metres, time stamps microseconds.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

EGO_CHANNEL = "LIDAR_TOP"
"""The sensor whose frame is the ego frame of the models: x right, y forward, z up."""


class _Row(Protocol):
    @property
    def token(self) -> str: ...


R = TypeVar("R", bound=_Row)


@dataclass(frozen=True, slots=True)
class LogRow:
    """One drive; `location` names the map."""

    token: str
    location: str


@dataclass(frozen=True, slots=True)
class SceneRow:
    """About 20 s of a log."""

    token: str
    name: str
    log_token: str


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
    """One file of one sensor at a key frame."""

    token: str
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp_us: int
    filename: str
    wh_px: tuple[int, int]


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
    prev: str
    next: str


@dataclass(frozen=True, slots=True)
class ObjectTables:
    """What is annotated: rows by token."""

    categories: dict[str, CategoryRow]
    instances: dict[str, InstanceRow]
    annotations: dict[str, AnnotationRow]


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows by token, in file order. `objects` is None when the annotations were not read."""

    folder: Path
    logs: dict[str, LogRow]
    scenes: dict[str, SceneRow]
    samples: dict[str, SampleRow]
    sensors: dict[str, SensorRow]
    calibrated_sensors: dict[str, CalibratedSensorRow]
    ego_poses: dict[str, EgoPoseRow]
    sample_data: dict[str, SampleDataRow]
    objects: ObjectTables | None

    def channel(self, data: SampleDataRow) -> str:
        """Name of the sensor that made the file."""
        return self.sensors[self.calibrated_sensors[data.calibrated_sensor_token].sensor_token].channel


def find_version(root: Path, version: str | None = None) -> str:
    """Name of the table folder: `version`, or the only `v1.0-*` folder in `root`. `ValueError` lists the choices."""
    if not root.is_dir():
        raise ValueError(f"nuScenes root: expected a folder, {root} is none; give the folder that holds v1.0-*/, samples/ and can_bus/")
    found = sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())
    if version is not None:
        if not (root / version).is_dir():
            raise ValueError(f"nuScenes version: no folder {version!r} in {root}; there is {found or 'no v1.0-* folder'}")
        return version
    if not found:
        content = sorted(path.name for path in root.iterdir())[:12]
        raise ValueError(f"nuScenes root: no v1.0-* folder in {root}, which holds {content}; give the folder above the tables")
    if len(found) > 1:
        raise ValueError(f"nuScenes version: {root} holds {found}; say which one with version=...")
    return found[0]


def read_json(path: Path, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Content of one JSON file; `ValueError` names the file when it is missing or malformed."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the nuScenes folder is incomplete, unpack the metadata again")
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=object_hook)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: malformed JSON ({error}); the file may be truncated, unpack it again") from error


def load_tables(root: Path, version: str | None = None, *, annotations: bool = True) -> Tables:
    """Read the tables of `<root>/<version>`; without `version` the only one there.

    Rows become lean typed rows while the JSON is parsed, and rows of sweeps, of radars and of other lidars are dropped on the way:
    of the 2.6 million `sample_data` and `ego_pose` rows of v1.0-trainval one in eleven is kept.
    `ValueError`: missing folder or table, malformed JSON or row, broken foreign key (table, token and field are named).
    """
    folder = root / find_version(root, version)
    logs = _read_table(folder, "log", lambda r: LogRow(r["token"], r["location"]))
    scenes = _read_table(folder, "scene", lambda r: SceneRow(r["token"], r["name"], r["log_token"]))
    samples = _read_table(folder, "sample", lambda r: SampleRow(r["token"], r["scene_token"], r["timestamp"]))
    sensors = _read_table(folder, "sensor", lambda r: SensorRow(r["token"], r["channel"], r["modality"]))
    calibrated_sensors = _read_table(folder, "calibrated_sensor", _calibrated_sensor)
    _check_keys("scene", scenes, "log_token", "log", logs)
    _check_keys("sample", samples, "scene_token", "scene", scenes)
    _check_keys("calibrated_sensor", calibrated_sensors, "sensor_token", "sensor", sensors)

    dropped = {
        row.token
        for row in calibrated_sensors.values()
        if (sensor := sensors[row.sensor_token]).modality != "camera" and sensor.channel != EGO_CHANNEL
    }
    sample_data = _read_table(folder, "sample_data", lambda r: _sample_data(r, dropped))
    _check_keys("sample_data", sample_data, "sample_token", "sample", samples)
    _check_keys("sample_data", sample_data, "calibrated_sensor_token", "calibrated_sensor", calibrated_sensors)
    wanted = {row.ego_pose_token for row in sample_data.values()}
    ego_poses = _read_table(folder, "ego_pose", lambda r: _ego_pose(r) if r["token"] in wanted else None)
    _check_keys("sample_data", sample_data, "ego_pose_token", "ego_pose", ego_poses)
    objects = _load_objects(folder, samples) if annotations else None
    return Tables(folder, logs, scenes, samples, sensors, calibrated_sensors, ego_poses, sample_data, objects)


def _load_objects(folder: Path, samples: Mapping[str, SampleRow]) -> ObjectTables:
    categories = _read_table(folder, "category", lambda r: CategoryRow(r["token"], r["name"]))
    instances = _read_table(folder, "instance", lambda r: InstanceRow(r["token"], r["category_token"]))
    rows = _read_table(folder, "sample_annotation", _annotation)
    _check_keys("instance", instances, "category_token", "category", categories)
    _check_keys("sample_annotation", rows, "sample_token", "sample", samples)
    _check_keys("sample_annotation", rows, "instance_token", "instance", instances)
    ends = {**rows, "": None}
    _check_keys("sample_annotation", rows, "prev", "sample_annotation", ends)
    _check_keys("sample_annotation", rows, "next", "sample_annotation", ends)
    return ObjectTables(categories, instances, rows)


def _read_table(folder: Path, table: str, make: Callable[[dict], R | None]) -> dict[str, R]:
    """Rows of one table by token; `make` turns a JSON record into a row or drops it (None)."""
    path = folder / f"{table}.json"

    def row_of(record: dict) -> R | None:
        try:
            return make(record)
        except KeyError as error:
            raise ValueError(f"{path}: row {record.get('token')!r} has no field {error}; is this the nuScenes table {table!r}?") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: row {record.get('token')!r} does not follow the nuScenes schema: {error}") from error

    content = read_json(path, row_of)
    rows = [row for row in content if row is not None] if isinstance(content, list) else None
    if rows is None or not all(hasattr(row, "token") for row in rows):
        raise ValueError(f"{path}: expected a JSON list of rows; is this the nuScenes table {table!r}?")
    by_token = {row.token: row for row in rows}
    if len(by_token) != len(rows):
        raise ValueError(f"{path}: {len(rows) - len(by_token)} tokens occur twice; unpack the metadata again")
    return by_token


def _check_keys(table: str, rows: Mapping[str, _Row], field: str, parent: str, parent_rows: Mapping[str, object]) -> None:
    for row in rows.values():
        if getattr(row, field) not in parent_rows:
            raise ValueError(
                f"{table}.json, row {row.token!r}: {field} = {getattr(row, field)!r} is in no row of {parent}.json; "
                "the tables are incomplete or of different versions, unpack the metadata again"
            )


def _numbers(values: list, count: int) -> tuple[float, ...]:
    if len(values) != count:
        raise ValueError(f"expected {count} numbers, got {values}")
    return tuple(float(value) for value in values)


def _calibrated_sensor(r: dict) -> CalibratedSensorRow:
    intrinsic = tuple(_numbers(row, 3) for row in r["camera_intrinsic"])
    return CalibratedSensorRow(r["token"], r["sensor_token"], _numbers(r["translation"], 3), _numbers(r["rotation"], 4), intrinsic)


def _ego_pose(r: dict) -> EgoPoseRow:
    return EgoPoseRow(r["token"], _numbers(r["translation"], 3), _numbers(r["rotation"], 4))


def _sample_data(r: dict, dropped: set[str]) -> SampleDataRow | None:
    if not r["is_key_frame"] or r["calibrated_sensor_token"] in dropped:
        return None
    keys = (r["token"], r["sample_token"], r["ego_pose_token"], r["calibrated_sensor_token"])
    return SampleDataRow(*keys, r["timestamp"], r["filename"], (r["width"], r["height"]))


def _annotation(r: dict) -> AnnotationRow:
    place = (_numbers(r["translation"], 3), _numbers(r["size"], 3), _numbers(r["rotation"], 4))
    return AnnotationRow(r["token"], r["sample_token"], r["instance_token"], *place, r["prev"], r["next"])
