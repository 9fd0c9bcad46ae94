"""A nuScenes-format folder as scenes of frame records: files, calibration, poses, ego status, command, annotations.

Ego frame: LIDAR_TOP at the sample's time, x right, y forward, z up. Car frame: the vehicle frame of nuScenes, x forward, y left, z up.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.data.nuscenes.annotations import Annotations, boxes_in_ego
from sparsedrive.data.nuscenes.can_bus import CanBus, read_can_bus
from sparsedrive.data.nuscenes.poses import check_pose, pose_matrix
from sparsedrive.data.nuscenes.rows import AnnotationRow, SampleDataRow, SampleRow
from sparsedrive.data.nuscenes.tables import EGO_CHANNEL, load_tables
from sparsedrive.geometry import se3
from sparsedrive.structures import NUSCENES_CAMERAS, Command

COMMAND_STEPS = 6
COMMAND_OFFSET_M = 2.0
NO_CAN_BUS = "no can_bus folder: ego status unknown"


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

    `ego_status` [10] as in `Frame.ego_status`; zero in the columns where `ego_status_known` is False (not on the CAN bus recording).
    Cameras are in the order of `NUSCENES_CAMERAS`, then any others by name.
    """

    scene: str
    location: str
    sample_token: str
    timestamp_us: int
    cameras: tuple[CameraRecord, ...]
    car_T_ego: Float[Tensor, "4 4"]
    global_T_car: Float[Tensor, "4 4"]
    ego_status: Float[Tensor, "10"]
    ego_status_known: Bool[Tensor, "10"]
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
        sweeps: read the rows of the lidar's files between the key frames too.
        skip_broken: leave out scenes with malformed rows or broken keys (`tables.broken` says why) instead of an error.

    Raises:
        ValueError: the folder, a table, a row or a foreign key is missing or malformed (see `tables.load_tables`).
    """

    def __init__(
        self, root: Path | str, version: str | None = None, *, annotations: bool = True, sweeps: bool = False, skip_broken: bool = False
    ) -> None:
        self.root = Path(root)
        self.tables = load_tables(self.root, version, annotations=annotations, sweeps=sweeps, skip_broken=skip_broken)
        self._has_can_bus = (self.root / "can_bus").is_dir()
        if not self._has_can_bus:
            warnings.warn(f"{self.root}: {NO_CAN_BUS}; unpack the CAN bus expansion there", stacklevel=2)
        self._scene_tokens = {scene.name: scene.token for scene in self.tables.scenes.values()}
        self._samples: dict[str, list[SampleRow]] = {token: [] for token in self.tables.scenes}
        for sample in sorted(self.tables.samples.values(), key=lambda row: row.timestamp_us):
            self._samples[sample.scene_token].append(sample)
        self._data: dict[str, dict[str, SampleDataRow]] = {token: {} for token in self.tables.samples}
        for data in self.tables.sample_data.values():
            self._data[data.sample_token][self.tables.channel(data)] = data
        self._annotations: dict[str, list[AnnotationRow]] = {token: [] for token in self.tables.samples}
        if self.tables.objects is not None:
            for row in self.tables.objects.annotations.values():
                self._annotations[row.sample_token].append(row)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes, in the order of the tables."""
        return tuple(self._scene_tokens)

    def scene(self, name: str) -> tuple[FrameRecord, ...]:
        """Key frames of one scene in the order of time. `ValueError` for an unknown name suggests close ones.

        Warns once for each kind of CAN bus message the recording lacks.
        """
        records, problems = self.read(name)
        for problem in problems if self._has_can_bus else ():
            warnings.warn(f"{name}: {problem}", stacklevel=2)
        return records

    def read(self, name: str) -> tuple[tuple[FrameRecord, ...], tuple[str, ...]]:
        """Key frames of one scene as `scene`, and what its recording lacks in words instead of warnings."""
        samples = self.samples(name)
        can_bus = read_can_bus(self.root, name)
        global_T_car, car_T_ego = self.sensor_poses([self.files(sample)[EGO_CHANNEL] for sample in samples])
        commands = route_commands(list(global_T_car @ car_T_ego))
        rows = zip(samples, zip(global_T_car, car_T_ego, strict=True), commands, strict=True)
        records = tuple(self._record(name, sample, pose, command, can_bus) for sample, pose, command in rows)
        return records, can_bus.problems() if self._has_can_bus else (NO_CAN_BUS,)

    def samples(self, name: str) -> tuple[SampleRow, ...]:
        """Rows of the key frames of a scene in the order of time. `ValueError` for an unknown or empty scene."""
        if name not in self._scene_tokens:
            close = get_close_matches(name, self.scenes) or list(self.scenes[:10])
            raise ValueError(f"no scene {name!r} in {self.tables.folder}; perhaps you meant one of {close} (of {len(self.scenes)} scenes)")
        samples = self._samples[self._scene_tokens[name]]
        if not samples:
            raise ValueError(f"{name}: no sample of this scene in {self.tables.folder / 'sample.json'}; unpack the metadata again")
        return tuple(samples)

    def annotations(self, sample: SampleRow) -> tuple[AnnotationRow, ...]:
        """Rows of a key frame's boxes in the order of the table, of all categories."""
        return tuple(self._annotations[sample.token])

    def files(self, sample: SampleRow) -> Mapping[str, SampleDataRow]:
        """Rows of a key frame's files by channel; the lidar's is always there. `ValueError` names scene and sample without it."""
        files = self._data[sample.token]
        if EGO_CHANNEL not in files:
            scene = self.tables.scenes[sample.scene_token].name
            raise ValueError(
                f"{scene}, sample {sample.token}: no key frame of {EGO_CHANNEL} in sample_data.json, whose pose is the ego frame "
                "(its row is needed, its file is not); unpack the metadata again"
            )
        return files

    def sensor_poses(self, rows: Sequence[SampleDataRow]) -> tuple[Float[Tensor, "N 4 4"], Float[Tensor, "N 4 4"]]:
        """`global_T_car` and `car_T_sensor` at the times of files. `ValueError` names scene, sample and row of a pose that is none."""
        poses = [self.tables.ego_poses[row.ego_pose_token] for row in rows]
        sensors = [self.tables.calibrated_sensors[row.calibrated_sensor_token] for row in rows]
        for row, pose, sensor in zip(rows, poses, sensors, strict=True):
            sample = self.tables.samples[row.sample_token]
            place = f"{self.tables.scenes[sample.scene_token].name}, sample {sample.token}"
            check_pose(pose.translation_m, pose.rotation_wxyz, f"{place}: ego_pose.json, row {pose.token!r}")
            check_pose(sensor.translation_m, sensor.rotation_wxyz, f"{place}: calibrated_sensor.json, row {sensor.token!r}")
        return (
            pose_matrix([pose.translation_m for pose in poses], [pose.rotation_wxyz for pose in poses]),
            pose_matrix([sensor.translation_m for sensor in sensors], [sensor.rotation_wxyz for sensor in sensors]),
        )

    def _record(self, scene: str, sample: SampleRow, pose: tuple[Tensor, Tensor], command: Command, can_bus: CanBus) -> FrameRecord:
        global_T_car, car_T_ego = pose
        global_T_ego = global_T_car @ car_T_ego
        status, known = can_bus.ego_status(sample.timestamp_us)
        objects, rows = self.tables.objects, self._annotations[sample.token]
        log_token = self.tables.scenes[sample.scene_token].log_token
        return FrameRecord(
            scene=scene,
            location=self.tables.logs[log_token].location,
            sample_token=sample.token,
            timestamp_us=sample.timestamp_us,
            cameras=self._cameras(sample, global_T_ego),
            car_T_ego=car_T_ego,
            global_T_car=global_T_car,
            ego_status=torch.tensor(status, dtype=torch.float64),
            ego_status_known=torch.tensor(known),
            command=command,
            annotations=boxes_in_ego(rows, objects, self.tables.samples, se3.invert(global_T_ego)) if objects is not None else None,
        )

    def _cameras(self, sample: SampleRow, global_T_ego: Tensor) -> tuple[CameraRecord, ...]:
        files = self.files(sample)
        names = sorted(files.keys() - {EGO_CHANNEL}, key=_rank)
        if not names:
            return ()
        # The car moves between the lidar sweep and the picture, so the chain goes through the global frame.
        global_T_car, car_T_camera = self.sensor_poses([files[name] for name in names])
        camera_T_ego = se3.relative(global_T_car @ car_T_camera, global_T_ego)
        return tuple(
            CameraRecord(
                name=name,
                path=self.root / files[name].filename,
                timestamp_us=files[name].timestamp_us,
                wh_px=files[name].wh_px,
                intrinsic=self._intrinsic(name, files[name]),
                camera_T_ego=own_T_ego,
            )
            for name, own_T_ego in zip(names, camera_T_ego, strict=True)
        )

    def _intrinsic(self, name: str, data: SampleDataRow) -> Tensor:
        intrinsic = self.tables.calibrated_sensors[data.calibrated_sensor_token].camera_intrinsic
        if len(intrinsic) != 3:
            raise ValueError(
                f"calibrated_sensor.json, row {data.calibrated_sensor_token!r}: camera_intrinsic of {name} is not a 3x3 matrix; "
                "unpack the metadata again"
            )
        return torch.tensor(intrinsic, dtype=torch.float64)


def _rank(camera: str) -> tuple[int, str]:
    """Order of the cameras in a record."""
    return NUSCENES_CAMERAS.index(camera) if camera in NUSCENES_CAMERAS else len(NUSCENES_CAMERAS), camera


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
