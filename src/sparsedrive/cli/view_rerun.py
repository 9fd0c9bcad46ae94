"""A scene as a Rerun recording: cameras, boxes, map, forecasts and plan in 3D over time. The package is an extra."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from sparsedrive.data import FrameRecord
from sparsedrive.geometry import box_state
from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES, Scene
from sparsedrive.viz.camera_view import GROUND_Z_M
from sparsedrive.viz.shown import Shown, ShownBox, select
from sparsedrive.viz.style import PLAN, WHITE, class_colour, map_colour

INSTALL = "pip install 'sparsedrive[view]'"
WIDTH_M = 0.06


def find_rerun() -> ModuleType | None:
    """The package, if it is installed."""
    try:
        return import_module("rerun")
    except ImportError:
        return None


class SceneRecording:
    """Writes one .rrd file, frame by frame; positions are relative to the first frame's ego pose. Use as a context manager.

    `ValueError` when the installed package is older than the calls made here.
    """

    def __init__(self, rerun: ModuleType, path: Path, name: str) -> None:
        self._rerun, self._first_T_global, self._start_s = rerun, np.eye(4), float("nan")
        try:
            self._stream = rerun.RecordingStream("sparsedrive", recording_id=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream.save(path)
        except (AttributeError, TypeError) as error:
            version = getattr(rerun, "__version__", "of unknown version")
            raise ValueError(f"rerun-sdk {version} is too old ({error}); {INSTALL} --upgrade") from error

    def __enter__(self) -> "SceneRecording":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.disconnect()

    def write(self, record: FrameRecord, scene: Scene | None, score_threshold: float) -> None:
        """Adds a frame: its cameras and annotated boxes, and what was predicted, if anything."""
        rerun, global_T_ego = self._rerun, (record.global_T_car @ record.car_T_ego).numpy()
        if np.isnan(self._start_s):
            self._start_s, self._first_T_global = record.time_s, np.linalg.inv(global_T_ego)
        self._stream.set_time("time", duration=record.time_s - self._start_s)
        first_T_ego = self._first_T_global @ global_T_ego
        self._log("world/ego", rerun.Transform3D(translation=first_T_ego[:3, 3], mat3x3=first_T_ego[:3, :3]))
        for camera in record.cameras:
            ego_T_camera = np.linalg.inv(camera.camera_T_ego.numpy())
            entity = f"world/ego/{camera.name}"
            self._log(entity, rerun.Transform3D(translation=ego_T_camera[:3, 3], mat3x3=ego_T_camera[:3, :3]))
            self._log(entity, rerun.Pinhole(image_from_camera=camera.intrinsic.numpy(), resolution=camera.wh_px, image_plane_distance=2.0))
            if camera.path.is_file():
                self._log(entity, rerun.EncodedImage(path=camera.path))
        if record.annotations is not None:
            boxes = record.annotations.box.numpy()
            labels = [DETECTION_CLASSES[label] for label in record.annotations.label.tolist()]
            self._log("world/ego/annotated", self._boxes(boxes, [WHITE] * len(boxes), labels))
        if scene is not None:
            self._write_shown(select(scene, score_threshold=score_threshold))

    def _write_shown(self, shown: Shown) -> None:
        boxes = np.array([item.box for item in shown.boxes]).reshape(-1, box_state.BOX_DIM)
        labels = [f"{DETECTION_CLASSES[item.label]} {item.track_id} ({item.score:.2f})" for item in shown.boxes]
        self._log("world/ego/boxes", self._boxes(boxes, [class_colour(item.label) for item in shown.boxes], labels))
        futures = [(_future(item), class_colour(item.label)) for item in shown.boxes if len(item.futures_m)]
        self._log("world/ego/forecasts", self._lines(futures))
        lines = [(_on_ground(line.points_m), map_colour(line.label)) for line in shown.lines]
        self._log("world/ego/map", self._lines(lines, [MAP_CLASSES[line.label] for line in shown.lines]))
        if shown.plan is not None:
            path_m = np.concatenate([np.zeros((1, 2)), shown.plan.path_m])
            self._log("world/ego/plan", self._lines([(_on_ground(path_m), PLAN)], width_m=4 * WIDTH_M))

    def _boxes(self, boxes: np.ndarray, colours: list, labels: list[str]):
        half_yaw = boxes[:, box_state.YAW] / 2
        zero = np.zeros_like(half_yaw)
        return self._rerun.Boxes3D(
            centers=boxes[:, :3],
            sizes=boxes[:, 3:6],
            quaternions=np.stack([zero, zero, np.sin(half_yaw), np.cos(half_yaw)], 1),
            colors=colours,
            labels=labels,
        )

    def _lines(self, lines: list, labels: list[str] | None = None, width_m: float = WIDTH_M):
        return self._rerun.LineStrips3D(
            [points_m for points_m, _ in lines], colors=[colour for _, colour in lines], labels=labels, radii=width_m / 2
        )

    def _log(self, entity: str, value: object) -> None:
        self._stream.log(entity, value)


def _future(item: ShownBox) -> np.ndarray:
    """The likeliest future, at the height of the box's foot."""
    path_m = np.concatenate([item.box[None, :2], item.futures_m[0]])
    return _on_ground(path_m, float(item.box[2] - item.box[5] / 2))


def _on_ground(points_m: np.ndarray, z_m: float = GROUND_Z_M) -> np.ndarray:
    return np.concatenate([points_m, np.full((len(points_m), 1), z_m)], 1)
