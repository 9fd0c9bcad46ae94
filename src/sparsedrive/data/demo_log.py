"""A short generated six-camera log in the nuScenes on-disk format, so that everything runs without a download.

Tables of all thirteen kinds, pictures and CAN bus of one scene; no sweeps, no lidar or radar files (rows of LIDAR_TOP name files that
are not there, as they carry the ego pose), no map. Results on it say nothing about real driving.
"""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

from sparsedrive.data.demo_scene import COLOUR_BGR, Actor, Painter, Road, make_actors, turn_about_z

VERSION, SCENE_NAME = "v1.0-demo", "scene-0001"
WH_PX, CENTRE_PX = (800, 450), (400.0, 240.0)
CAMERAS = {
    "CAM_FRONT": (0.0, (1.7, 0.0, 1.5), 630.0, 35),
    "CAM_FRONT_RIGHT": (-55.0, (1.55, -0.5, 1.5), 630.0, 27),
    "CAM_FRONT_LEFT": (55.0, (1.55, 0.5, 1.5), 630.0, 43),
    "CAM_BACK": (180.0, (0.0, 0.0, 1.55), 400.0, 10),
    "CAM_BACK_LEFT": (110.0, (1.05, 0.5, 1.55), 630.0, 1),
    "CAM_BACK_RIGHT": (-110.0, (1.05, -0.5, 1.55), 630.0, 19),
}
"""Yaw [deg] and place [m] in the car frame, focal length [px], how long before the sample's time the picture is taken [ms]."""
LIDAR_M = (0.95, 0.0, 1.84)
EGO_SIDE_M, EGO_SPEED_MPS, EGO_ACCELERATION_MPS2 = -2.0, 7.5, 0.5
WHEELBASE_M, STEERING_RATIO, ANNOTATED_M = 2.6, 15.0, 50.0
START_US, STEP_US, CAN_STEP_US = 1_600_000_000_000_000, 500_000, 20_000


def write_demo_log(root: Path | str, *, seconds: float = 4.0, seed: int = 0) -> Path:
    """Write the log to `root` (made if needed) and return it: one scene of `2 * seconds` key frames at 2 Hz, about 0.2 MB a key frame.

    The same seed gives the same log. `ValueError` when `root` already holds tables of another version, or for more than 10 s.
    """
    root, frames = Path(root), int(seconds * 1e6) // STEP_US
    if not 1 <= frames <= 20:
        raise ValueError(f"write_demo_log: expected 0.5 to 10 seconds, the length of the road, got {seconds}")
    others = sorted(path.name for path in root.glob("v1.0-*") if path.name != VERSION)
    if others:
        raise ValueError(f"write_demo_log: {root} already holds {others}; give an empty folder")
    rng = np.random.default_rng(seed)
    road = Road(straight_m=16.0, radius_m=25.0, turn=1 if rng.random() < 0.5 else -1)
    actors = make_actors(rng)
    times_us = [START_US + index * STEP_US for index in range(frames)]
    tables = {**_fixed_tables(), **_sample_tables(times_us, road), **_object_tables(times_us, road, actors)}
    for name, rows in tables.items():
        _write_json(root / VERSION / f"{name}.json", rows)
    _write_can_bus(root / "can_bus", times_us, road)
    for time_us in times_us:
        for camera in CAMERAS:
            _write_picture(root, camera, time_us, road, actors)
    return root


def _token(*parts: object) -> str:
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def _write_json(path: Path, content: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=0), encoding="utf-8", newline="\n")


def _yaw_quaternion(yaw_rad: float) -> list[float]:
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def _seconds(time_us: int) -> float:
    return (time_us - START_US) * 1e-6


def _ego_pose(time_us: int, road: Road) -> tuple[float, float, float]:
    time_s = _seconds(time_us)
    return road.pose((EGO_SPEED_MPS + 0.5 * EGO_ACCELERATION_MPS2 * time_s) * time_s, EGO_SIDE_M)


def _file(channel: str, time_us: int) -> tuple[int, str]:
    """Time stamp and name of a sensor's file at a key frame."""
    taken_us = time_us - 1000 * (CAMERAS[channel][-1] if channel in CAMERAS else 0)
    return taken_us, f"samples/{channel}/demo__{channel}__{taken_us}.{'jpg' if channel in CAMERAS else 'pcd.bin'}"


def _camera_matrix(focal_px: float) -> list[list[float]]:
    return [[focal_px, 0.0, CENTRE_PX[0]], [0.0, focal_px, CENTRE_PX[1]], [0.0, 0.0, 1.0]]


def _fixed_tables() -> dict[str, list]:
    # The lidar's x axis points to the right of the car.
    calibrated: dict[str, dict] = {"LIDAR_TOP": {"translation": LIDAR_M, "rotation": _yaw_quaternion(-np.pi / 2), "camera_intrinsic": []}}
    for channel, (yaw_deg, place_m, focal_px, _) in CAMERAS.items():
        cos, _, _, sin = _yaw_quaternion(np.radians(yaw_deg))
        rotation = [0.5 * (cos + sin), -0.5 * (cos + sin), 0.5 * (cos - sin), 0.5 * (sin - cos)]  # yaw times (x right, y down, z forward)
        calibrated[channel] = {"translation": place_m, "rotation": rotation, "camera_intrinsic": _camera_matrix(focal_px)}
    keys = {name: {"token": _token("calibrated_sensor", name), "sensor_token": _token("sensor", name)} for name in calibrated}
    modality = {name: "camera" if name in CAMERAS else "lidar" for name in calibrated}
    return {
        "log": [{"token": _token("log"), "logfile": "demo", "vehicle": "demo", "date_captured": "2020-09-13", "location": "demo-town"}],
        "map": [{"token": _token("map"), "category": "semantic_prior", "filename": "", "log_tokens": [_token("log")]}],
        "sensor": [{"token": _token("sensor", name), "channel": name, "modality": modality[name]} for name in calibrated],
        "calibrated_sensor": [{**keys[name], **row} for name, row in calibrated.items()],
        "category": [{"token": _token("category", name), "name": name, "description": ""} for name in COLOUR_BGR],
        "attribute": [],
        "visibility": [{"token": "4", "level": "v80-100", "description": ""}],
    }


def _sample_tables(times_us: list[int], road: Road) -> dict[str, list]:
    samples, data, poses = [], [], []
    for index, time_us in enumerate(times_us):
        chain = _chain("sample", times_us, index)
        samples.append({**chain, "timestamp": time_us, "scene_token": _token("scene")})
        for channel in ("LIDAR_TOP", *CAMERAS):
            taken_us, filename = _file(channel, time_us)
            links = _chain(f"data/{channel}", times_us, index)
            x, y, yaw_rad = _ego_pose(taken_us, road)
            width, height = WH_PX if channel in CAMERAS else (0, 0)
            poses.append({"token": links["token"], "timestamp": taken_us, "translation": [x, y, 0.0], "rotation": _yaw_quaternion(yaw_rad)})
            data.append({
                **links, "sample_token": chain["token"], "ego_pose_token": links["token"],
                "calibrated_sensor_token": _token("calibrated_sensor", channel), "timestamp": taken_us, "fileformat": filename[-3:],
                "is_key_frame": True, "width": width, "height": height, "filename": filename,
            })  # fmt: skip
    scene = {
        "token": _token("scene"), "log_token": _token("log"), "name": SCENE_NAME, "description": "Generated: a road that bends",
        "nbr_samples": len(samples), "first_sample_token": samples[0]["token"], "last_sample_token": samples[-1]["token"],
    }  # fmt: skip
    return {"scene": [scene], "sample": samples, "sample_data": data, "ego_pose": poses}


def _chain(kind: str, keys: list[int], index: int) -> dict[str, str]:
    """Own, previous and next token of the row `index` of a track."""
    own, before, after = (_token(kind, keys[i]) if 0 <= i < len(keys) else "" for i in (index, index - 1, index + 1))
    return {"token": own, "prev": before, "next": after}


def _object_tables(times_us: list[int], road: Road, actors: list[Actor]) -> dict[str, list]:
    instances, annotations = [], []
    for number, actor in enumerate(actors):
        poses = {time_us: actor.pose(road, _seconds(time_us)) for time_us in times_us}
        seen_us = [time_us for time_us in times_us if np.hypot(*np.subtract(poses[time_us], _ego_pose(time_us, road))[:2]) < ANNOTATED_M]
        if actor.category is None or not seen_us:
            continue
        (length, width, height), keys = actor.size_lwh_m, {"instance_token": _token("instance", number), "visibility_token": "4"}
        rows = [{
            **_chain(f"annotation/{number}", seen_us, index), **keys, "sample_token": _token("sample", time_us), "attribute_tokens": [],
            "translation": [*poses[time_us][:2], height / 2], "size": [width, length, height],
            "rotation": _yaw_quaternion(poses[time_us][2]), "num_lidar_pts": 1, "num_radar_pts": 0,
        } for index, time_us in enumerate(seen_us)]  # fmt: skip  # one point though there is no lidar: evaluators drop boxes without any
        annotations += rows
        instances.append({
            "token": _token("instance", number), "category_token": _token("category", actor.category), "nbr_annotations": len(rows),
            "first_annotation_token": rows[0]["token"], "last_annotation_token": rows[-1]["token"],
        })  # fmt: skip
    return {"instance": instances, "sample_annotation": annotations}


def _write_can_bus(folder: Path, times_us: list[int], road: Road) -> None:
    poses, steering = [], []
    for time_us in range(times_us[0] - 5 * CAN_STEP_US, times_us[-1] + 5 * CAN_STEP_US, CAN_STEP_US):
        x, y, yaw_rad = _ego_pose(time_us, road)
        (x0, y0, yaw0_rad), (x1, y1, yaw1_rad) = (_ego_pose(time_us + step_us, road) for step_us in (-1000, 1000))
        speed_mps, yaw_rate = float(np.hypot(x1 - x0, y1 - y0)) / 0.002, (yaw1_rad - yaw0_rad) / 0.002
        poses.append({
            "utime": time_us, "pos": [x, y, 0.0], "orientation": _yaw_quaternion(yaw_rad), "vel": [speed_mps, 0.0, 0.0],
            "rotation_rate": [0.0, 0.0, yaw_rate], "accel": [EGO_ACCELERATION_MPS2, speed_mps * yaw_rate, 9.81],
        })  # fmt: skip
        steering.append({"utime": time_us, "value": STEERING_RATIO * float(np.arctan(WHEELBASE_M * yaw_rate / speed_mps))})
    _write_json(folder / f"{SCENE_NAME}_pose.json", poses)
    _write_json(folder / f"{SCENE_NAME}_steeranglefeedback.json", steering)


def _write_picture(root: Path, camera: str, time_us: int, road: Road, actors: list[Actor]) -> None:
    taken_us, filename = _file(camera, time_us)
    x, y, car_yaw_rad = _ego_pose(taken_us, road)
    yaw_deg, place_m, focal_px, _ = CAMERAS[camera]
    eye_m = np.array([x, y, 0.0]) + turn_about_z(car_yaw_rad) @ place_m
    forward, left, up = turn_about_z(car_yaw_rad + np.radians(yaw_deg)).T
    rotation = np.array(_camera_matrix(focal_px)) @ np.stack([-left, -up, forward])
    image_T_global = np.block([[rotation, -rotation @ eye_m[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
    painter = Painter(image_T_global, WH_PX)
    painter.ground(road)
    painter.actors(actors, road, _seconds(taken_us))
    path = root / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), painter.bgr, [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise ValueError(f"write_demo_log: cannot write {path}; is the disk full or the folder read-only?")
