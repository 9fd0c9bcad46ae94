"""nuScenes tables as typed rows: only the rows of key frames (and, if asked for, of lidar sweeps), foreign keys checked."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sparsedrive.data.nuscenes.rows import (
    AnnotationRow,
    CalibratedSensorRow,
    CategoryRow,
    EgoPoseRow,
    InstanceRow,
    LogRow,
    SampleDataRow,
    SampleRow,
    SceneRow,
    SensorRow,
    annotation_row,
    calibrated_sensor_row,
    category_row,
    ego_pose_row,
    instance_row,
    log_row,
    sample_data_row,
    sample_row,
    scene_row,
    sensor_row,
)

EGO_CHANNEL = "LIDAR_TOP"
"""The sensor whose frame is the ego frame of the models: x right, y forward, z up."""


class _Row(Protocol):
    @property
    def token(self) -> str: ...


R = TypeVar("R", bound=_Row)


@dataclass(frozen=True, slots=True)
class ObjectTables:
    """What is annotated: rows by token."""

    categories: dict[str, CategoryRow]
    instances: dict[str, InstanceRow]
    annotations: dict[str, AnnotationRow]


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows by token, in file order. `objects` is None when the annotations were not read.

    `sample_data` are key frames, `sweeps` the lidar's files between them (empty when not read). `broken` says by scene name what is wrong
    with it and `orphans` what is wrong with rows of no scene: both empty unless the tables were read with `skip_broken`.
    """

    folder: Path
    logs: dict[str, LogRow]
    scenes: dict[str, SceneRow]
    samples: dict[str, SampleRow]
    sensors: dict[str, SensorRow]
    calibrated_sensors: dict[str, CalibratedSensorRow]
    ego_poses: dict[str, EgoPoseRow]
    sample_data: dict[str, SampleDataRow]
    sweeps: dict[str, SampleDataRow]
    objects: ObjectTables | None
    broken: dict[str, str]
    orphans: tuple[str, ...]

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


def load_tables(
    root: Path, version: str | None = None, *, annotations: bool = True, sweeps: bool = False, skip_broken: bool = False
) -> Tables:
    """Read the tables of `<root>/<version>`; without `version` the only one there.

    Rows become lean typed rows while the JSON is parsed, and rows of radars, of other lidars and of sweeps are dropped on the way: of the
    2.6 million `sample_data` and `ego_pose` rows of v1.0-trainval one in eleven is kept; with `sweeps` those of LIDAR_TOP are kept too.
    `ValueError`: missing folder or table, malformed JSON or row, broken foreign key (table, token and field are named). With `skip_broken`
    a malformed row or a broken key only takes out its scene.
    """
    reader = _Reader(root / find_version(root, version), skip_broken)
    logs = reader.read("log", log_row)
    scenes = reader.read("scene", scene_row)
    samples = reader.read("sample", sample_row)
    sensors = reader.read("sensor", sensor_row)
    calibrated_sensors = reader.read("calibrated_sensor", calibrated_sensor_row)
    reader.check_keys("scene", scenes, "log_token", "log", logs)
    reader.check_keys("sample", samples, "scene_token", "scene", scenes)
    reader.check_keys("calibrated_sensor", calibrated_sensors, "sensor_token", "sensor", sensors)
    reader.check_lengths(scenes, samples)

    known = [(row.token, sensors[row.sensor_token]) for row in calibrated_sensors.values() if row.sensor_token in sensors]
    lidars = {token for token, sensor in known if sensor.channel == EGO_CHANNEL}
    others = {token for token, sensor in known if sensor.modality != "camera"} - lidars

    def wanted(r: dict) -> bool:
        sensor = r["calibrated_sensor_token"]
        return sensor not in others if r["is_key_frame"] else sweeps and sensor in lidars

    data = reader.read("sample_data", lambda r: sample_data_row(r) if wanted(r) else None)
    reader.check_keys("sample_data", data, "sample_token", "sample", samples)
    reader.check_keys("sample_data", data, "calibrated_sensor_token", "calibrated_sensor", calibrated_sensors)
    if sweeps:
        chain = {token: row for token, row in data.items() if row.calibrated_sensor_token in lidars}
        reader.check_keys("sample_data", chain, "prev", "sample_data", {**chain, "": None})
    used = {row.ego_pose_token for row in data.values()}
    ego_poses = reader.read("ego_pose", lambda r: ego_pose_row(r) if r["token"] in used else None)
    reader.check_keys("sample_data", data, "ego_pose_token", "ego_pose", ego_poses)
    objects = _load_objects(reader, samples) if annotations else None

    broken, orphans = reader.findings(scenes, samples)
    if broken or orphans:
        scenes = {token: row for token, row in scenes.items() if row.name not in broken}
        samples = {token: row for token, row in samples.items() if row.scene_token in scenes}
        data = {token: row for token, row in data.items() if row.sample_token in samples}
        objects = _of_samples(objects, samples) if objects is not None else None
    key_frames = {token: row for token, row in data.items() if row.is_key_frame}
    between = {token: row for token, row in data.items() if not row.is_key_frame}
    fixed = (reader.folder, logs, scenes, samples, sensors, calibrated_sensors, ego_poses)
    return Tables(*fixed, key_frames, between, objects, broken, orphans)


def _load_objects(reader: "_Reader", samples: Mapping[str, SampleRow]) -> ObjectTables:
    categories = reader.read("category", category_row)
    instances = reader.read("instance", instance_row)
    rows = reader.read("sample_annotation", annotation_row)
    reader.check_keys("instance", instances, "category_token", "category", categories)
    reader.check_keys("sample_annotation", rows, "sample_token", "sample", samples)
    reader.check_keys("sample_annotation", rows, "instance_token", "instance", instances)
    ends = {**rows, "": None}
    reader.check_keys("sample_annotation", rows, "prev", "sample_annotation", ends)
    reader.check_keys("sample_annotation", rows, "next", "sample_annotation", ends)
    return ObjectTables(categories, instances, rows)


def _of_samples(objects: ObjectTables, samples: Mapping[str, SampleRow]) -> ObjectTables:
    rows = {token: row for token, row in objects.annotations.items() if row.sample_token in samples}
    return ObjectTables(objects.categories, objects.instances, rows)


class _Reader:
    """Reads and checks tables. The first fault is an error, or with `skip_broken` is kept with the scene it belongs to."""

    def __init__(self, folder: Path, skip_broken: bool) -> None:
        self.folder = folder
        self._skip_broken = skip_broken
        self._rows: dict[tuple[str, str], str] = {}
        self._samples: dict[str, str] = {}
        self._scenes: dict[str, str] = {}

    def read(self, table: str, make: Callable[[dict], R | None]) -> dict[str, R]:
        """Rows of one table by token; `make` turns a JSON record into a row or drops it (None)."""
        path = self.folder / f"{table}.json"

        def row_of(record: dict) -> R | None:
            try:
                return make(record)
            except KeyError as error:
                reason = f"{path}: row {record.get('token')!r} has no field {error}; is this the nuScenes table {table!r}?"
            except (TypeError, ValueError) as error:
                reason = f"{path}: row {record.get('token')!r} does not follow the nuScenes schema: {error}"
            self._fault(table, str(record.get("token")), record.get("sample_token"), record.get("scene_token"), reason)
            return None

        content = read_json(path, row_of)
        rows = [row for row in content if row is not None] if isinstance(content, list) else None
        if rows is None or not all(hasattr(row, "token") for row in rows):
            raise ValueError(f"{path}: expected a JSON list of rows; is this the nuScenes table {table!r}?")
        by_token = {row.token: row for row in rows}
        if len(by_token) != len(rows):
            raise ValueError(f"{path}: {len(rows) - len(by_token)} tokens occur twice; unpack the metadata again")
        return by_token

    def check_keys(self, table: str, rows: Mapping[str, _Row], field: str, parent: str, parent_rows: Mapping[str, object]) -> None:
        """That `field` of every row is the token of a sound row of `parent`."""
        for row in rows.values():
            key = getattr(row, field)
            cause = self._rows.get((parent, key)) if self._rows else None
            if key in parent_rows and cause is None:
                continue
            reason = cause or (
                f"{table}.json, row {row.token!r}: {field} = {key!r} is in no row of {parent}.json; "
                "the tables are incomplete or of different versions, unpack the metadata again"
            )
            self._fault(table, row.token, getattr(row, "sample_token", None), getattr(row, "scene_token", None), reason)

    def check_lengths(self, scenes: Mapping[str, SceneRow], samples: Mapping[str, SampleRow]) -> None:
        """That scenes which say how many samples they have, have them: a table cut short loses the end of a scene without a broken key."""
        counts = Counter(row.scene_token for row in samples.values())
        for row in scenes.values():
            if row.num_samples is not None and row.num_samples != counts[row.token]:
                reason = (
                    f"scene.json, row {row.token!r} ({row.name}): nbr_samples = {row.num_samples}, but sample.json has "
                    f"{counts[row.token]}; the tables are incomplete, unpack the metadata again"
                )
                self._fault("scene", row.token, None, None, reason)

    def findings(self, scenes: Mapping[str, SceneRow], samples: Mapping[str, SampleRow]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Reason by broken scene (its name, or its token where the row has none), and the faults of rows that belong to no scene."""
        orphans = []
        for token, reason in self._samples.items():
            if token in samples:
                self._scenes.setdefault(samples[token].scene_token, reason)
            else:
                orphans.append(reason)
        broken = {}
        for token, reason in self._scenes.items():
            if token in scenes or ("scene", token) in self._rows:
                broken[scenes[token].name if token in scenes else token] = reason
            else:
                orphans.append(reason)
        return broken, tuple(dict.fromkeys(orphans))

    def _fault(self, table: str, token: str, sample_token: str | None, scene_token: str | None, reason: str) -> None:
        if not self._skip_broken:
            raise ValueError(reason)
        self._rows.setdefault((table, token), reason)
        if sample_token is not None:
            self._samples.setdefault(sample_token, reason)
        if table == "scene" or scene_token is not None:
            self._scenes.setdefault(token if table == "scene" else str(scene_token), reason)
