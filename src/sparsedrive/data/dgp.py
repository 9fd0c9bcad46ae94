"""Scenes in Toyota's DGP format (the format of DDAD) as an own rig: an example of an adapter, and a rig of another make to check with.

Format: github.com/TRI-ML/dgp, read from its JSON files. Its LIDAR frame is a car frame (x forward, y left, z up) on the ground; `pose`
takes a sensor to the world, `extrinsics` take it to the LIDAR frame; a box's x axis is its length.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int

from sparsedrive.data.calibration import CameraCalibration, ego_T_car
from sparsedrive.data.nuscenes.poses import pose_matrix
from sparsedrive.data.own_rig import OwnRig
from sparsedrive.geometry import box_state
from sparsedrive.structures import DETECTION_CLASSES

FRONT_CAMERA = "CAMERA_01"
CLASS_OF = {
    "Person": "pedestrian", "Truck": "truck", "Car": "car", "Bus/RV/Caravan": "bus", "Motorcycle": "motorcycle", "Bicycle": "bicycle",
    "Trailer": "trailer", "Towed Object": "trailer",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DgpFrame:
    """One instant; time and ego frame are those of the lidar. Boxes x y z l w h yaw_rad vx vy vz, velocity NaN (not annotated)."""

    time_s: float
    global_T_ego: Float[np.ndarray, "4 4"]
    global_T_ego_then: Mapping[str, Float[np.ndarray, "4 4"]]
    image_paths: Mapping[str, Path]
    lidar_path: Path
    box: Float[np.ndarray, "N 10"]
    box_label: Int[np.ndarray, "N"]
    box_instance: Int[np.ndarray, "N"]

    def read_pictures(self) -> dict[str, np.ndarray | None]:
        """RGB uint8 as taken, by camera; None where the file is not there."""
        pictures = {name: cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for name, path in self.image_paths.items()}
        return {name: None if picture is None else np.asarray(picture, np.uint8) for name, picture in pictures.items()}

    def read_lidar(self) -> Float[np.ndarray, "P 3"]:
        """Returns in the ego frame."""
        with np.load(self.lidar_path, allow_pickle=False) as file:
            points_m = file["data"][:, :3].astype(np.float64)
        return points_m @ ego_T_car()[:3, :3].T + ego_T_car()[:3, 3]


def read_dgp(folder: Path | str) -> tuple[OwnRig, tuple[DgpFrame, ...]]:
    """The rig of a scene folder and its frames in the order of time. `ValueError` names what is not as the format says."""
    folder = Path(folder)
    try:
        scene, calibration = _json_in(folder, "scene_*.json"), _json_in(folder, "calibration/*.json")
        ontology = {item["id"]: item["name"] for item in _json_in(folder, "ontology/*.json")["items"]}
        data = {row["key"]: row for row in scene["data"]}
        samples = [{data[key]["id"]["name"]: data[key] for key in sample["datum_keys"]} for sample in scene["samples"]]
        rig = OwnRig(_cameras(calibration, samples[0]))
        frames = [_frame(folder, sample, rig, ontology) for sample in samples]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{folder}: not a scene in the DGP format ({error!r}); give the folder that holds scene_*.json") from error
    return rig, tuple(sorted(frames, key=lambda frame: frame.time_s))


def _json_in(folder: Path, pattern: str) -> Any:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one file {pattern}, found {len(found)}; give the folder of one scene")
    return json.loads(found[0].read_text(encoding="utf-8"))


def _cameras(calibration: dict[str, Any], sample: dict[str, Any]) -> list[CameraCalibration]:
    rows = zip(calibration["names"], calibration["intrinsics"], calibration["extrinsics"], strict=True)
    cameras = []
    for name, lens, mount in rows:
        if name not in sample or "image" not in sample[name]["datum"]:
            continue
        image = sample[name]["datum"]["image"]
        cameras.append(
            CameraCalibration(
                name=name,
                intrinsic=np.array([[lens["fx"], lens["skew"], lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]]),
                ego_T_camera=ego_T_car() @ _pose(mount),
                wh_px=(image["width"], image["height"]),
            )
        )
    return sorted(cameras, key=lambda camera: (camera.name != FRONT_CAMERA, camera.name))


def _frame(folder: Path, sample: dict[str, Any], rig: OwnRig, ontology: dict[int, str]) -> DgpFrame:
    scan = sample["LIDAR"]["datum"]["point_cloud"]
    images = {name: sample[name]["datum"]["image"] for name in rig.names}
    then = {
        camera.name: _pose(images[camera.name]["pose"]) @ np.linalg.inv(camera.ego_T_camera)  # the ego frame moves with its cameras
        for camera in rig.cameras
    }
    rows = []
    for path in scan["annotations"].values():
        rows += json.loads((folder / path).read_text(encoding="utf-8"))["annotations"]
    rows = [row for row in rows if ontology[row["class_id"]] in CLASS_OF]
    return DgpFrame(
        time_s=datetime.fromisoformat(sample["LIDAR"]["id"]["timestamp"].replace("Z", "+00:00")).timestamp(),
        global_T_ego=_pose(scan["pose"]) @ np.linalg.inv(ego_T_car()),
        global_T_ego_then=then,
        image_paths={name: folder / image["filename"] for name, image in images.items()},
        lidar_path=folder / scan["filename"],
        box=np.array([_box(row["box"]) for row in rows]).reshape(-1, box_state.BOX_DIM),
        box_label=np.array([DETECTION_CLASSES.index(CLASS_OF[ontology[row["class_id"]]]) for row in rows], np.int64),
        box_instance=np.array([row["instance_id"] for row in rows], np.int64),
    )


def _box(box: dict[str, Any]) -> list[float]:
    ego_T_box = ego_T_car() @ _pose(box["pose"])
    yaw_rad = float(np.arctan2(ego_T_box[1, 0], ego_T_box[0, 0]))
    return [*ego_T_box[:3, 3], box["length"], box["width"], box["height"], yaw_rad, *[float("nan")] * 3]


def _pose(row: dict[str, Any]) -> np.ndarray:
    translation, rotation = row["translation"], row["rotation"]
    return pose_matrix([translation[axis] for axis in "xyz"], [rotation[f"q{axis}"] for axis in "wxyz"]).numpy()
