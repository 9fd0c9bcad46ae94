"""A prepared split as frames for a network: what a worker does. NumPy and OpenCV, and one torch filter where nothing is augmented."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float
from torch.utils.data import Dataset

from sparsedrive.data import pixels
from sparsedrive.data.augment import Augmentation, AugmentConfig, draw_augmentation, draw_colour
from sparsedrive.data.failure_pictures import damaged, filled
from sparsedrive.data.failures import CameraFault, FailureSchedule
from sparsedrive.data.keyed_random import Purpose, check_seed, keyed_rng
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.sampler import FrameRequest, FrameRun
from sparsedrive.data.targets import LoadedTargets, TargetConfig, frame_depth, frame_targets, turn_status, without_targets
from sparsedrive.structures import NUSCENES_CAMERAS

SCENES_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """How a prepared frame becomes network input.

    Attributes:
        camera_names: which cameras, in this order.
        preprocess: size and normalisation of the network's pictures; without `augment` its exact pixels.
        augment: ranges of the training augmentation; None for evaluation.
        targets: what counts as a target.
        missing_images: frames with a camera whose picture was not there when preparing are an "error", or "skip" leaves them out, or
            "black" loads them with that camera black and not `available`.
        reduced_decode: let the JPEG decoder shrink; only where `augment` is set.
    """

    camera_names: tuple[str, ...] = NUSCENES_CAMERAS
    preprocess: ImagePreprocess = field(default_factory=ImagePreprocess)
    augment: AugmentConfig | None = None
    targets: TargetConfig = field(default_factory=TargetConfig)
    missing_images: Literal["error", "skip", "black"] = "error"
    reduced_decode: bool = True

    def __post_init__(self) -> None:
        if self.missing_images not in ("error", "skip", "black"):
            raise ValueError(f"LoadConfig.missing_images: expected 'error', 'skip' or 'black', got {self.missing_images!r}")
        if not self.camera_names or len(set(self.camera_names)) < len(self.camera_names):
            raise ValueError(f"LoadConfig.camera_names: expected different names, at least one, got {self.camera_names}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedFrame:
    """One frame of one slot, unbatched; fields as in `Frame` and `CameraRig`."""

    camera_names: tuple[str, ...]
    images: Float[np.ndarray, "C 3 H W"]
    image_T_ego: Float[np.ndarray, "C 4 4"]
    image_wh_px: Float[np.ndarray, "C 2"]
    focal_px: Float[np.ndarray, "C"]
    available: Bool[np.ndarray, "C"]
    global_T_ego: Float[np.ndarray, "4 4"]
    time_s: float
    sequence_id: int
    ego_status: Float[np.ndarray, "10"]
    ego_status_known: Bool[np.ndarray, "10"]
    command: int
    targets: LoadedTargets


class DrivingDataset(Dataset[LoadedFrame]):
    """Frames of a split by `FrameRequest`. What comes back is a function of the request alone, whichever worker answers it.

    Args:
        data, split: the prepared folder and which of its scenes.
        config: how to load.
        seed: of the augmentation.
        failures: cameras that fail; None for none.

    Raises:
        ValueError: an unknown split or camera, no frame at all, pictures missing where `config` says that is an error.
    """

    def __init__(
        self, data: PreparedData, split: str, config: LoadConfig, *, seed: int = 0, failures: FailureSchedule | None = None
    ) -> None:
        self.config = config
        self._data, self._seed, self._failures = data, check_seed(seed), failures
        self._scenes: OrderedDict[str, PreparedScene] = OrderedDict()
        self.runs = tuple(run for name in data.split(split) for run in usable_runs(self._scene(name), config))
        if not self.runs:
            raise ValueError(f"{data.folder}, split {split!r}: no frame to load (missing_images={config.missing_images!r}); prepare more")

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def __getitem__(self, request: FrameRequest) -> LoadedFrame:
        scene, frame, config = self._scene(request.scene), request.frame, self.config
        cameras = _camera_columns(scene, config.camera_names)
        augmentation = Augmentation()
        if config.augment is not None:
            augmentation = draw_augmentation(config.augment, self._seed, request.sequence_id, frame)
        ego_T_turned = augmentation.turned_T_ego().T
        network_T_image = np.stack([self._network_T_image(_wh_px(scene, frame, camera), augmentation) for camera in cameras])
        intrinsic = scene.intrinsic[frame, cameras]
        image_T_camera = np.tile(np.eye(4), (len(cameras), 1, 1))
        image_T_camera[:, :3, :3] = intrinsic
        image_T_ego = network_T_image @ (image_T_camera @ scene.camera_T_ego[frame, cameras])
        wh_px = config.preprocess.final_wh_px
        faults = self._faults(request)
        available = np.array([not request.padding and (fault is None or not fault.announced) for fault in faults])
        available &= scene.image_present[frame, cameras]
        depth_m = frame_depth(scene, frame, self._data.root, config.targets, image_T_ego, wh_px)
        seen_depth_m = tuple(np.where(available[:, None, None], level, 0) for level in depth_m)  # nothing to see in a black picture
        targets = frame_targets(scene, frame, config.targets, augmentation.turn_rad, seen_depth_m)
        return LoadedFrame(
            camera_names=config.camera_names,
            images=self._images(request, scene, cameras, faults, augmentation, network_T_image),
            image_T_ego=(image_T_ego @ ego_T_turned).astype(np.float32),
            image_wh_px=np.tile(np.array(wh_px, np.float32), (len(cameras), 1)),
            focal_px=(np.hypot(network_T_image[:, 0, 0], network_T_image[:, 1, 0]) * intrinsic[:, 0, 0]).astype(np.float32),
            available=available,
            global_T_ego=scene.global_T_ego[frame] @ ego_T_turned,
            time_s=float(scene.timestamp_us[frame]) * 1e-6,
            sequence_id=request.sequence_id,
            ego_status=turn_status(scene.ego_status[frame], augmentation.turn_rad).astype(np.float32),
            ego_status_known=scene.ego_status_known[frame].astype(bool),
            command=int(scene.command[frame]),
            targets=without_targets(targets) if request.padding else targets,
        )

    def _scene(self, name: str) -> PreparedScene:
        """A scene, read again only when many others were asked for since."""
        if name not in self._scenes:
            self._scenes[name] = self._data.scene(name)
            if len(self._scenes) > SCENES_KEPT:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(name)
        return self._scenes[name]

    def _network_T_image(self, wh_px: tuple[int, int], augmentation: Augmentation) -> np.ndarray:  # noqa: N802
        preprocess = self.config.preprocess
        if self.config.augment is None:
            return preprocess.network_T_image(wh_px).numpy()
        return augmentation.network_T_image(wh_px, preprocess.final_wh_px)

    def _faults(self, request: FrameRequest) -> tuple[CameraFault | None, ...]:
        names = self.config.camera_names
        if self._failures is None:
            return (None,) * len(names)
        faults = self._failures.faults(request, names)
        if len(faults) != len(names):
            raise ValueError(f"failures: expected an entry for each of {len(names)} cameras {list(names)}, got {len(faults)}")
        return faults

    def _images(
        self,
        request: FrameRequest,
        scene: PreparedScene,
        cameras: list[int],
        faults: Sequence[CameraFault | None],
        augmentation: Augmentation,
        network_T_image: np.ndarray,
    ) -> np.ndarray:
        """Network input of all cameras; pictures that are not shown are not read."""
        frame, preprocess, augment = request.frame, self.config.preprocess, self.config.augment
        (width, height), mean, std = preprocess.final_wh_px, preprocess.mean_rgb, preprocess.std_rgb
        images = np.empty((len(cameras), 3, height, width), np.float32)
        for index, camera in enumerate(cameras):
            fault = faults[index]
            shown = None if request.padding else _shown_frame(frame, fault)
            if shown is None or not scene.image_present[shown, camera]:
                rng = keyed_rng(self._seed, Purpose.FAILURE, request.sequence_id, frame, index)
                images[index] = filled(fault, rng, mean, std, (width, height))
                continue
            path, wh_px = self._data.root / scene.image_paths[shown][camera], _wh_px(scene, shown, camera)
            if augment is None:
                bgr = pixels.read_picture(path, wh_px)
                bgr = bgr if fault is None else damaged(bgr, fault)
                images[index] = preprocess(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).numpy()
            else:
                factor = pixels.reduction(augmentation.scale(wh_px, (width, height)))
                decoded = pixels.read_picture(path, wh_px, factor, reduced=self.config.reduced_decode)
                decoded = decoded if fault is None else damaged(decoded, fault)
                warped = pixels.warp(decoded, factor, network_T_image[index], (width, height))
                colour = draw_colour(augment.colour, self._seed, request.sequence_id, shown, index) if augment.colour else None
                pixels.colour_and_normalise(warped, colour, mean, std, out=images[index])
        return images


def _shown_frame(frame: int, fault: CameraFault | None) -> int | None:
    """Whose picture a camera delivers at a frame; None if it delivers none."""
    if fault is None or fault.kind in ("intact", "occlude", "blur", "expose"):
        return frame
    return fault.stale_frame if fault.kind == "freeze" else None


def usable_runs(scene: PreparedScene, config: LoadConfig) -> list[FrameRun]:
    """Frames of a scene that `config` can load, as runs without holes. `ValueError`: a camera or a picture is missing."""
    cameras = _camera_columns(scene, config.camera_names)
    complete = np.asarray(scene.image_present[:, cameras].all(-1))
    if config.missing_images == "error" and not complete.all():
        frame = int(np.argmin(complete))
        camera = cameras[int(np.argmin(scene.image_present[frame, cameras]))]
        raise ValueError(
            f"scene {scene.name}: {int((~complete).sum())} of {len(complete)} frames lack pictures, the first one is "
            f"{scene.image_paths[frame][camera]}; unpack them and prepare again, or load with missing_images='skip' or 'black'"
        )
    usable = complete | (config.missing_images == "black")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]])))
    return [FrameRun(scene=scene.name, start=int(start), stop=int(stop)) for start, stop in edges.reshape(-1, 2)]


def _camera_columns(scene: PreparedScene, names: Sequence[str]) -> list[int]:
    missing = [name for name in names if name not in scene.camera_names]
    if missing:
        raise ValueError(
            f"scene {scene.name}: no camera {missing}, there is {list(scene.camera_names)}; name the cameras to load in "
            "LoadConfig.camera_names"
        )
    return [scene.camera_names.index(name) for name in names]


def _wh_px(scene: PreparedScene, frame: int, camera: int) -> tuple[int, int]:
    width, height = scene.image_wh_px[frame, camera]
    return int(width), int(height)
