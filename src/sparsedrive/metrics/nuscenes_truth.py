"""Ground truth of detection and tracking as the nuScenes tables hold it: exact (float64) global boxes with attributes and track names.

A prepared log keeps boxes in the frame of the lidar and no attributes; the official numbers need the tables.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from sparsedrive.metrics.json_file import flat_table, no_cycle_search, read_json
from sparsedrive.metrics.records import ATTRIBUTES, BikeRacks, BoxRecords, GroundTruth, KeyFrames
from sparsedrive.structures import DETECTION_CLASSES

RACK = "static_object.bicycle_rack"
MAX_TRACK_GAP_S = 1.5

CLASS_OF_CATEGORY = {
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
}
"""nuScenes categories that are evaluated (nuscenes.org, detection task)."""

Rows = dict[str, dict[str, Any]]


@no_cycle_search()
def read_ground_truth(tables: Path, scenes: Collection[str] | None = None) -> GroundTruth:
    """Annotations of the named scenes (of all without `scenes`) from a table folder such as `<root>/v1.0-mini`.

    `ValueError`: a table is missing or malformed, a scene is not there, or a box has two attributes.
    """
    scene_rows = _read(tables, "scene")
    names = {row["name"]: token for token, row in scene_rows.items()}
    missing = sorted(set(scenes or ()) - names.keys())
    if missing:
        raise ValueError(
            f"{tables}: no scenes {missing[:5]} ({len(missing)} of {len(set(scenes or ()))} missing); is this the right version?"
        )
    number = {names[name]: index for index, name in enumerate(dict.fromkeys(scenes) if scenes is not None else names)}
    samples = _read(tables, "sample", lambda row: row["scene_token"] in number)
    frames = KeyFrames(
        tokens=tuple(samples),
        scene=np.array([number[row["scene_token"]] for row in samples.values()], int),
        timestamp_us=np.array([row["timestamp"] for row in samples.values()], np.int64),
        car_xy_m=_car_positions(tables, samples),
    )
    frame_of_token = {token: index for index, token in enumerate(samples)}
    annotations = _read(tables, "sample_annotation", lambda row: row["sample_token"] in frame_of_token)
    categories, instances = _read(tables, "category"), _read(tables, "instance")
    category = [categories[instances[row["instance_token"]]["category_token"]]["name"] for row in annotations.values()]
    rows = list(annotations.values())
    racks = [row for row, name in zip(rows, category, strict=True) if name == RACK]
    judged = [(row, CLASS_OF_CATEGORY[name]) for row, name in zip(rows, category, strict=True) if name in CLASS_OF_CATEGORY]
    attributes = {token: row["name"] for token, row in _read(tables, "attribute").items()}
    velocity = [_velocity_mps(row, annotations, samples) for row, _ in judged]
    boxes = BoxRecords(
        frame=np.array([frame_of_token[row["sample_token"]] for row, _ in judged], int),
        center_m=_column([row["translation"] for row, _ in judged], 3),
        size_wlh_m=_column([row["size"] for row, _ in judged], 3),
        yaw_rad=yaw_of(_column([row["rotation"] for row, _ in judged], 4)),
        velocity_mps=_column(velocity, 2),
        label=np.array([DETECTION_CLASSES.index(name) for _, name in judged], int),
        score=np.full(len(judged), -1.0),
        attribute=np.array([_attribute(row, attributes) for row, _ in judged], int),
        track_id=np.array([row["instance_token"] for row, _ in judged], np.str_),
        num_points=np.array([row["num_lidar_pts"] + row["num_radar_pts"] for row, _ in judged], int),
    )
    return GroundTruth(frames=frames, boxes=boxes, racks=_racks(racks, frame_of_token))


def yaw_of(rotation_wxyz: np.ndarray) -> np.ndarray:
    """Heading of the x axis about global z [N] of quaternions w x y z [N, 4], of any length."""
    w, x, y, z = rotation_wxyz.T
    return np.arctan2(2 * (x * y + w * z), w**2 + x**2 - y**2 - z**2)


def _read(tables: Path, name: str, keep: Callable[[dict], bool] | None = None) -> Rows:
    """Rows of one table by token; the others are dropped while the file is parsed."""
    path = tables / f"{name}.json"
    try:
        rows = read_json(path, None if keep is None else lambda row: row if keep(row) else None)
        return {row["token"]: row for row in rows if row is not None}
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error}); expected the folder of the nuScenes tables, such as v1.0-trainval") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the nuScenes table {name!r} ({type(error).__name__}: {error})") from error


def _car_positions(tables: Path, samples: Rows) -> np.ndarray:
    """[F, 2] origin of the vehicle frame at the time of each sample's lidar sweep."""
    lidars = {token for token, row in _read(tables, "sensor").items() if row["channel"] == "LIDAR_TOP"}
    mounts = _read(tables, "calibrated_sensor", lambda row: row["sensor_token"] in lidars) if lidars else {}
    files = _read(
        tables,
        "sample_data",
        lambda row: row["is_key_frame"] and row["calibrated_sensor_token"] in mounts and row["sample_token"] in samples,
    )
    pose_of = {row["sample_token"]: row["ego_pose_token"] for row in files.values()}
    lost = [token for token in samples if token not in pose_of]
    if lost:
        raise ValueError(f"{tables / 'sample_data.json'}: no key frame of LIDAR_TOP for sample {lost[0]!r} ({len(lost)} samples without)")
    wanted = set(pose_of.values())
    poses = _read(tables, "ego_pose", lambda row: row["token"] in wanted)
    return _column([poses[pose_of[token]]["translation"][:2] for token in samples], 2)


def _velocity_mps(row: dict, annotations: Rows, samples: Rows) -> tuple[float, float]:
    """Central difference along the track, one-sided at its ends; NaN without a neighbour or when they are too far apart in time.

    Seconds are made of the time stamps before they are subtracted, as the devkit does: that costs the seventh digit and gives its numbers.
    """
    first, last = annotations.get(row["prev"], row), annotations.get(row["next"], row)
    elapsed_s = 1e-6 * samples[last["sample_token"]]["timestamp"] - 1e-6 * samples[first["sample_token"]]["timestamp"]
    if not 0 < elapsed_s <= MAX_TRACK_GAP_S * (2 if row["prev"] and row["next"] else 1):
        return np.nan, np.nan
    x, y = ((last["translation"][axis] - first["translation"][axis]) / elapsed_s for axis in (0, 1))
    return x, y


def _attribute(row: dict, names: dict[str, str]) -> int:
    tokens = row["attribute_tokens"]
    if len(tokens) > 1:
        raise ValueError(f"sample_annotation.json: row {row['token']!r} has {len(tokens)} attributes; expected at most one")
    return ATTRIBUTES.index(names[tokens[0]]) if tokens else -1


def _racks(rows: list[dict], frame_of_token: dict[str, int]) -> BikeRacks:
    turns = _column([row["rotation"] for row in rows], 4)
    return BikeRacks(
        frame=np.array([frame_of_token[row["sample_token"]] for row in rows], int),
        center_m=_column([row["translation"] for row in rows], 3),
        size_wlh_m=_column([row["size"] for row in rows], 3),
        rotation=Rotation.from_quat(turns[:, [1, 2, 3, 0]]).as_matrix() if rows else np.zeros((0, 3, 3)),
    )


def _column(values: list, width: int) -> np.ndarray:
    return flat_table(values, width).astype(float)
