"""A nuScenes-format folder as scenes of frame records: files, calibration, poses, ego status, command, annotations.

Ego frame: LIDAR_TOP at the sample's time, x right, y forward, z up. Car frame: the vehicle frame of nuScenes, x forward, y left, z up.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sparsedrive.data.nuscenes.annotations import Annotations, boxes_in_ego
from sparsedrive.data.nuscenes.can_bus import CanBus, read_can_bus
from sparsedrive.data.nuscenes.poses import pose_matrix
from sparsedrive.data.nuscenes.tables import EGO_CHANNEL, AnnotationRow, SampleDataRow, SampleRow, load_tables
from sparsedrive.geometry import se3
from sparsedrive.structures import EGO_STATUS_DIM, Command

COMMAND_STEPS = 6
COMMAND_OFFSET_M = 2.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraRecord:
    """One camera at one key frame. `camera_T_ego` takes ego points at the *sample's* time to the camera at the *camera's* time."""

    name: str
    path: Path
    timestamp_us: int
    wh_px: tuple[int, int]
    intrinsic: Float[Tensor, "3 3"]
    camera_T_ego: Float[Tensor, "4 4"]

    @property
    def image_T_ego(self) -> Float[Tensor, "4 4"]:  # noqa: N802
        """Ego metres -> (pixel_x * depth, pixel_y * depth, depth, 1) of the original picture; float64."""
        image_T_camera = torch.eye(4, dtype=torch.float64)
        image_T_camera[:3, :3] = self.intrinsic
        return image_T_camera @ self.camera_T_ego


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameRecord:
    """One key frame. Transforms are float64. `annotations` is None when the log was opened without them.

    `ego_status` [10] as in `Frame.ego_status`; zeros where `ego_status_known` is False (no CAN bus recording).
    """

    scene: str
    location: str
    sample_token: str
    timestamp_us: int
    cameras: tuple[CameraRecord, ...]
    car_T_ego: Float[Tensor, "4 4"]
    global_T_car: Float[Tensor, "4 4"]
    ego_status: Float[Tensor, "10"]
    ego_status_known: bool
    command: Command
    annotations: Annotations | None

    @property
    def global_T_ego(self) -> Float[Tensor, "4 4"]:  # noqa: N802
        """Pose of the ego frame; float64."""
        return self.global_T_car @ self.car_T_ego

    @property
    def time_s(self) -> float:
        """Time of the sample in seconds."""
        return self.timestamp_us * 1e-6

    def camera(self, name: str) -> CameraRecord:
        """The camera of that name; `ValueError` names scene, sample and the cameras there are."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ValueError(
            f"{self.scene}, sample {self.sample_token}: no key frame of camera {name!r} in sample_data.json, there is "
            f"{[camera.name for camera in self.cameras]}; unpack the metadata again or ask for these cameras"
        )


class NuScenesLog:
    """The scenes of a nuScenes-format folder.

    Args:
        root: folder with `v1.0-*/`, `samples/` and, for the ego status, `can_bus/`.
        version: name of the table folder; found when there is only one.
        annotations: read the annotated boxes too; v1.0-trainval has 1.2 million.

    Raises:
        ValueError: the folder, a table, a row or a foreign key is missing or malformed (see `tables.load_tables`).
    """

    def __init__(self, root: Path | str, version: str | None = None, *, annotations: bool = True) -> None:
        self.root = Path(root)
        self._tables = load_tables(self.root, version, annotations=annotations)
        self._has_can_bus = (self.root / "can_bus").is_dir()
        if not self._has_can_bus:
            warnings.warn(f"{self.root}: no can_bus folder, ego status is zero; unpack the CAN bus expansion there", stacklevel=2)
        self._scene_tokens = {scene.name: scene.token for scene in self._tables.scenes.values()}
        self._samples: dict[str, list[SampleRow]] = {token: [] for token in self._tables.scenes}
        for sample in sorted(self._tables.samples.values(), key=lambda row: row.timestamp_us):
            self._samples[sample.scene_token].append(sample)
        self._data: dict[str, dict[str, SampleDataRow]] = {token: {} for token in self._tables.samples}
        for data in self._tables.sample_data.values():
            self._data[data.sample_token][self._tables.channel(data)] = data
        self._annotations: dict[str, list[AnnotationRow]] = {token: [] for token in self._tables.samples}
        if self._tables.objects is not None:
            for row in self._tables.objects.annotations.values():
                self._annotations[row.sample_token].append(row)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes, in the order of the tables."""
        return tuple(self._scene_tokens)

    def scene(self, name: str) -> tuple[FrameRecord, ...]:
        """Key frames of one scene in the order of time. `ValueError` for an unknown name suggests close ones."""
        if name not in self._scene_tokens:
            close = get_close_matches(name, self.scenes) or list(self.scenes[:10])
            raise ValueError(f"no scene {name!r} in {self._tables.folder}; perhaps you meant one of {close} (of {len(self.scenes)} scenes)")
        samples = self._samples[self._scene_tokens[name]]
        can_bus = read_can_bus(self.root, name) if self._has_can_bus else None
        if can_bus is None and self._has_can_bus:
            warnings.warn(f"{self.root / 'can_bus'}: no messages for {name}, its ego status is zero", stacklevel=2)
        poses = [self._ego_poses(sample) for sample in samples]
        commands = route_commands([global_T_car @ car_T_ego for global_T_car, car_T_ego in poses])
        return tuple(
            self._record(name, sample, pose, command, can_bus) for sample, pose, command in zip(samples, poses, commands, strict=True)
        )

    def _ego_poses(self, sample: SampleRow) -> tuple[Tensor, Tensor]:
        """`global_T_car` and `car_T_ego` at the time of the sample."""
        data = self._data[sample.token].get(EGO_CHANNEL)
        if data is None:
            scene = self._tables.scenes[sample.scene_token].name
            raise ValueError(
                f"{scene}, sample {sample.token}: no key frame of {EGO_CHANNEL} in sample_data.json, whose pose is the ego frame "
                "(its row is needed, its file is not); unpack the metadata again"
            )
        return self._sensor_poses(data)

    def _sensor_poses(self, data: SampleDataRow) -> tuple[Tensor, Tensor]:
        """`global_T_car` and `car_T_sensor` at the time of the file."""
        pose, sensor = self._tables.ego_poses[data.ego_pose_token], self._tables.calibrated_sensors[data.calibrated_sensor_token]
        return pose_matrix(pose.translation_m, pose.rotation_wxyz), pose_matrix(sensor.translation_m, sensor.rotation_wxyz)

    def _record(self, scene: str, sample: SampleRow, pose: tuple[Tensor, Tensor], command: Command, can_bus: CanBus | None) -> FrameRecord:
        global_T_car, car_T_ego = pose
        global_T_ego = global_T_car @ car_T_ego
        status = can_bus.ego_status(sample.timestamp_us) if can_bus is not None else (0.0,) * EGO_STATUS_DIM
        objects, rows = self._tables.objects, self._annotations[sample.token]
        log_token = self._tables.scenes[sample.scene_token].log_token
        return FrameRecord(
            scene=scene,
            location=self._tables.logs[log_token].location,
            sample_token=sample.token,
            timestamp_us=sample.timestamp_us,
            cameras=tuple(self._camera(name, data, global_T_ego) for name, data in self._data[sample.token].items() if name != EGO_CHANNEL),
            car_T_ego=car_T_ego,
            global_T_car=global_T_car,
            ego_status=torch.tensor(status, dtype=torch.float64),
            ego_status_known=can_bus is not None,
            command=command,
            annotations=boxes_in_ego(rows, objects, self._tables.samples, se3.invert(global_T_ego)) if objects is not None else None,
        )

    def _camera(self, name: str, data: SampleDataRow, global_T_ego: Tensor) -> CameraRecord:
        intrinsic = self._tables.calibrated_sensors[data.calibrated_sensor_token].camera_intrinsic
        if len(intrinsic) != 3:
            raise ValueError(
                f"calibrated_sensor.json, row {data.calibrated_sensor_token!r}: camera_intrinsic of {name} is not a 3x3 matrix; "
                "unpack the metadata again"
            )
        # The car moves between the lidar sweep and the picture, so the chain goes through the global frame.
        global_T_car, car_T_camera = self._sensor_poses(data)
        return CameraRecord(
            name=name,
            path=self.root / data.filename,
            timestamp_us=data.timestamp_us,
            wh_px=data.wh_px,
            intrinsic=torch.tensor(intrinsic, dtype=torch.float64),
            camera_T_ego=se3.relative(global_T_car @ car_T_camera, global_T_ego),
        )


def route_commands(global_T_ego: Sequence[Float[Tensor, "4 4"]]) -> list[Command]:
    """Navigation command of every key frame (2 Hz) of one scene, read off the path the car went on to drive.

    Where the ego frame's origin is 6 key frames (3 s) later, seen from now: 2 m or more to the right, to the left, or neither. Near
    the end of a scene the last key frame stands in, and the last frame of all is STRAIGHT. Source: SparseDrive, its nuScenes converter,
    which repeats the last known position too.
    """
    commands = []
    for index, now in enumerate(global_T_ego):
        later = global_T_ego[min(index + COMMAND_STEPS, len(global_T_ego) - 1)]
        right_m = float(se3.relative(now, later)[0, 3])
        turn = Command.RIGHT if right_m >= COMMAND_OFFSET_M else Command.LEFT if right_m <= -COMMAND_OFFSET_M else Command.STRAIGHT
        commands.append(turn)
    return commands
