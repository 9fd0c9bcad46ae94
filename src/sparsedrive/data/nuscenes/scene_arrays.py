"""One scene of a nuScenes-format log -> `PreparedScene`."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import torch

from sparsedrive.data.nuscenes.annotations import detection_rows, heading_turns_rad
from sparsedrive.data.nuscenes.files import SceneFiles
from sparsedrive.data.nuscenes.futures import agent_futures, ego_futures, joined_frames
from sparsedrive.data.nuscenes.log import FrameRecord, NuScenesLog
from sparsedrive.data.nuscenes.map_expansion import CityMap
from sparsedrive.data.nuscenes.rows import SampleDataRow, SampleRow
from sparsedrive.data.nuscenes.tables import EGO_CHANNEL
from sparsedrive.data.prepared import PreparedScene
from sparsedrive.geometry import se3

MAX_SWEEPS = 10
"""Lidar sweeps before a key frame, as in the published converter."""

Arrays = dict[str, np.ndarray]


def prepare_scene(log: NuScenesLog, name: str, city: CityMap | None, files: SceneFiles, fingerprint: str) -> PreparedScene:
    """Arrays of one scene; `log` must hold annotations and sweeps. Without a `city` there are no map lines, and a note says so.

    Files that are not among `files.whole` count as missing. `ValueError` names what is wrong with the scene.
    """
    samples = log.samples(name)
    records, problems = log.read(name)
    timestamp_us = np.array([record.timestamp_us for record in records])
    joined = joined_frames(name, timestamp_us)
    global_T_ego = torch.stack([record.global_T_ego for record in records])
    ego_future_m, ego_future_valid = ego_futures(global_T_ego.numpy(), joined)
    camera_names = _camera_names(records)
    image_paths = tuple(tuple(log.files(sample)[camera].filename for camera in camera_names) for sample in samples)
    lidar_paths = tuple(log.files(sample)[EGO_CHANNEL].filename for sample in samples)
    sweep_paths, sweeps = _sweeps(log, samples, global_T_ego)
    instance_tokens, boxes = _boxes(log, samples, records, global_T_ego, joined)
    return PreparedScene(
        name=name,
        location=records[0].location,
        sample_tokens=tuple(record.sample_token for record in records),
        instance_tokens=instance_tokens,
        camera_names=camera_names,
        image_paths=image_paths,
        lidar_paths=lidar_paths,
        sweep_paths=sweep_paths,
        timestamp_us=timestamp_us,
        global_T_car=torch.stack([record.global_T_car for record in records]).numpy(),
        car_T_ego=torch.stack([record.car_T_ego for record in records]).numpy(),
        ego_status=torch.stack([record.ego_status for record in records]).numpy(),
        ego_status_known=torch.stack([record.ego_status_known for record in records]).numpy(),
        command=np.array([int(record.command) for record in records]),
        ego_future_m=ego_future_m,
        ego_future_valid=ego_future_valid,
        image_present=np.array([[path in files.whole for path in row] for row in image_paths]).reshape(len(records), -1),
        lidar_present=np.array([path in files.whole for path in lidar_paths]),
        notes=(*problems, *_map_problems(city, records[0].location), *_file_problems(files)),
        fingerprint=fingerprint,
        **_cameras(records),
        **sweeps,
        **boxes,
        **_map_lines(city, global_T_ego.numpy()),
    )


def _camera_names(records: Sequence[FrameRecord]) -> tuple[str, ...]:
    names = tuple(camera.name for camera in records[0].cameras)
    for record in records:
        found = tuple(camera.name for camera in record.cameras)
        if found != names:
            odd = sorted(set(found) ^ set(names))
            raise ValueError(
                f"{record.scene}, sample {record.sample_token}: expected the cameras of the scene's first sample, {list(names)}, but "
                f"{odd} differ; a camera without a picture still needs its row in sample_data.json"
            )
    return names


def _cameras(records: Sequence[FrameRecord]) -> Arrays:
    frames, cameras = len(records), [camera for record in records for camera in record.cameras]
    return {
        "image_wh_px": np.array([camera.wh_px for camera in cameras], np.int64).reshape(frames, -1, 2),
        "image_time_us": np.array([camera.timestamp_us for camera in cameras], np.int64).reshape(frames, -1),
        "intrinsic": np.array([camera.intrinsic.numpy() for camera in cameras]).reshape(frames, -1, 3, 3),
        "camera_T_ego": np.array([camera.camera_T_ego.numpy() for camera in cameras]).reshape(frames, -1, 4, 4),
    }


def _sweeps(log: NuScenesLog, samples: Sequence[SampleRow], global_T_ego: torch.Tensor) -> tuple[tuple[str, ...], Arrays]:
    """Up to `MAX_SWEEPS` files before each key frame's own, latest first."""
    rows_by_frame = [_rows_before(log, log.files(sample)[EGO_CHANNEL]) for sample in samples]
    rows = [row for frame_rows in rows_by_frame for row in frame_rows]
    frame = torch.tensor([frame for frame, frame_rows in enumerate(rows_by_frame) for _ in frame_rows], dtype=torch.long)
    if rows:
        global_T_car, car_T_sweep = log.sensor_poses(rows)
        ego_T_sweep = se3.relative(global_T_ego[frame], global_T_car @ car_T_sweep).numpy()
    else:
        ego_T_sweep = np.zeros((0, 4, 4))
    return tuple(row.filename for row in rows), {
        "sweep_splits": _splits(map(len, rows_by_frame)),
        "sweep_time_us": np.array([row.timestamp_us for row in rows], np.int64),
        "ego_T_sweep": ego_T_sweep,
    }


def _rows_before(log: NuScenesLog, row: SampleDataRow) -> list[SampleDataRow]:
    found: list[SampleDataRow] = []
    while row.prev and len(found) < MAX_SWEEPS:
        row = log.tables.sweeps.get(row.prev) or log.tables.sample_data[row.prev]
        found.append(row)
    return found


def _boxes(
    log: NuScenesLog, samples: Sequence[SampleRow], records: Sequence[FrameRecord], global_T_ego: torch.Tensor, joined: np.ndarray
) -> tuple[tuple[str, ...], Arrays]:
    objects, annotations = log.tables.objects, [record.annotations for record in records if record.annotations is not None]
    assert objects is not None and len(annotations) == len(records), "the log was opened without annotations"
    numbers: dict[str, int] = {}
    for record, of_frame in zip(records, annotations, strict=True):
        if len(set(of_frame.instance_tokens)) != len(of_frame.instance_tokens):
            raise ValueError(f"{record.scene}, sample {record.sample_token}: sample_annotation.json has two boxes of one instance")
        for token in of_frame.instance_tokens:
            numbers.setdefault(token, len(numbers))
    box = torch.cat([of_frame.box for of_frame in annotations]).numpy()
    instance = np.array([numbers[token] for of_frame in annotations for token in of_frame.instance_tokens], np.int64)
    counts = [len(of_frame.label) for of_frame in annotations]
    rows = [detection_rows(log.annotations(sample), objects) for sample in samples]
    turn_rad = torch.cat([heading_turns_rad(found, pose) for found, pose in zip(rows, se3.invert(global_T_ego), strict=True)])
    global_m = np.array([row.translation_m[:2] for found in rows for row in found]).reshape(-1, 2)
    frame = np.repeat(np.arange(len(counts)), counts)
    moved_m, valid = agent_futures(global_m, turn_rad.numpy(), frame, instance, joined)
    return tuple(numbers), {
        "box_splits": _splits(counts),
        "box": box,
        "box_label": torch.cat([of_frame.label for of_frame in annotations]).numpy(),
        "box_instance": instance,
        "lidar_returns": torch.cat([of_frame.lidar_returns for of_frame in annotations]).numpy(),
        "radar_returns": torch.cat([of_frame.radar_returns for of_frame in annotations]).numpy(),
        "agent_future_m": box[:, None, :2] + moved_m,
        "agent_future_valid": valid,
    }


def _map_problems(city: CityMap | None, location: str) -> tuple[str, ...]:
    if city is None:
        return (f"no map expansion of {location}: no map lines",)
    return (f"map of {location}: {city.invalid_polygons} polygons cross themselves and were left out",) if city.invalid_polygons else ()


def _file_problems(files: SceneFiles) -> tuple[str, ...]:
    damaged = files.damaged
    return (f"{len(damaged)} damaged file{'s' * (len(damaged) > 1)} counted as missing, the first: {damaged[0]}",) if damaged else ()


def _map_lines(city: CityMap | None, global_T_ego: np.ndarray) -> Arrays:
    by_frame = [city.lines(pose) if city is not None else [] for pose in global_T_ego]
    lines = [line for of_frame in by_frame for line in of_frame]
    points = [np.asarray(points_m, np.float64) for _, points_m in lines]
    return {
        "map_splits": _splits(map(len, by_frame)),
        "map_label": np.array([label for label, _ in lines], np.int64),
        "point_splits": _splits(map(len, points)),
        "map_points_m": np.concatenate([np.zeros((0, 2)), *points]),
    }


def _splits(counts: Iterable[int]) -> np.ndarray:
    return np.array(list(accumulate(counts, initial=0)), np.int64)
