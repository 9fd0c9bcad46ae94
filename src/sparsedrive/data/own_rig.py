"""Pictures of one's own cameras -> the `Frame` a model takes: N cameras, any size, any lens that is a pinhole after undistortion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sparsedrive.data.calibration import CameraCalibration, check_rig
from sparsedrive.data.pictures import Pictures, assemble_frame, black_picture
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.geometry import se3
from sparsedrive.structures import EGO_STATUS_DIM, Command, Frame

Pose = Float[np.ndarray, "4 4"] | Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lens:
    """Takes the distortion out of a camera's pictures: two maps for `cv2.remap`, and the intrinsic of what comes out.

    Without distortion the maps are None and pictures stay as they are.
    """

    intrinsic: Float[np.ndarray, "3 3"]
    maps: tuple[np.ndarray, np.ndarray] | None

    @classmethod
    def of(cls, camera: CameraCalibration) -> "Lens":
        """Made once a camera: the maps take longer than a picture. Source: OpenCV's camera models (its calib3d documentation)."""
        intrinsic, wh_px, chosen = camera.intrinsic, camera.wh_px, camera.pinhole_intrinsic
        if not camera.distortion and chosen is None:
            return cls(intrinsic=intrinsic, maps=None)
        distortion = np.array(camera.distortion or (0.0,) * 4)
        if camera.fisheye:
            if chosen is None:
                chosen = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(intrinsic, distortion, wh_px, np.eye(3), balance=0.0)
            maps = cv2.fisheye.initUndistortRectifyMap(intrinsic, distortion, np.eye(3), chosen, wh_px, cv2.CV_16SC2)
        else:
            if chosen is None:
                chosen, _ = cv2.getOptimalNewCameraMatrix(intrinsic, distortion, wh_px, 0.0)
            maps = cv2.initUndistortRectifyMap(intrinsic, distortion, None, chosen, wh_px, cv2.CV_16SC2)
        if not (np.isfinite(chosen).all() and min(chosen[0, 0], chosen[1, 1]) > 0):
            raise ValueError(
                f"{camera.name}: distortion {camera.distortion} leaves no pinhole picture (OpenCV finds the intrinsic {chosen.tolist()}); "
                "check the coefficients and `fisheye`, or choose `pinhole_intrinsic` for the part of the view you want"
            )
        return cls(intrinsic=np.asarray(chosen, np.float64), maps=(maps[0], maps[1]))

    def undistort(self, rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture a pinhole camera with `intrinsic` would take."""
        return rgb if self.maps is None else cv2.remap(rgb, *self.maps, cv2.INTER_LINEAR)


class OwnRig:
    """Calibrated cameras of a vehicle, the one that looks forward first.

    `rig.pictures(...)` takes the lenses out, `rig.frame(...)` makes what the model takes. A model for them has their names:
    `replace(sparsedrive.preset("tiny"), camera_names=rig.names)`.

    Raises ValueError for a rig that cannot be right (see `CameraCalibration` and `calibration.check_rig`).
    """

    def __init__(self, cameras: Sequence[CameraCalibration]) -> None:
        self.cameras = tuple(cameras)
        check_rig(self.cameras)
        self.names = tuple(camera.name for camera in self.cameras)
        self.lenses = tuple(Lens.of(camera) for camera in self.cameras)

    def pictures(
        self,
        rgb: Mapping[str, UInt8[np.ndarray, "H W 3"] | None],
        *,
        global_T_ego: Pose | None = None,
        global_T_ego_then: Mapping[str, Pose] | None = None,
    ) -> Pictures:
        """Undistorted pictures with their projection. None stands for a camera that failed: black, not available.

        Where cameras do not take their pictures at the frame's own time, give the vehicle's pose at the frame's time (`global_T_ego`)
        and at each picture's (`global_T_ego_then`): at 10 m/s, 0.1 s is a metre. ValueError for unknown or missing names and other sizes.
        """
        if set(rgb) != set(self.names):
            raise ValueError(f"pictures: expected one (or None) for each of {self.names}, got {tuple(rgb)}")
        if global_T_ego_then is not None and (global_T_ego is None or set(global_T_ego_then) != set(self.names)):
            raise ValueError(
                f"pictures: expected global_T_ego and a pose in global_T_ego_then for each of {self.names}, got "
                f"{'no global_T_ego' if global_T_ego is None else tuple(global_T_ego_then)}"
            )
        taken, projections = [], []
        for camera, lens in zip(self.cameras, self.lenses, strict=True):
            taken.append(_picture(camera, lens, rgb[camera.name]))
            ego_T_camera = torch.from_numpy(camera.ego_T_camera)
            if global_T_ego is None or global_T_ego_then is None:
                camera_T_ego = se3.invert(ego_T_camera)
            else:
                then = _pose(f"global_T_ego_then of {camera.name}", global_T_ego_then[camera.name])
                camera_T_ego = se3.relative(then @ ego_T_camera, _pose("global_T_ego", global_T_ego))
            image_T_camera = torch.eye(4, dtype=torch.float64)
            image_T_camera[:3, :3] = torch.from_numpy(lens.intrinsic)
            projections.append(image_T_camera @ camera_T_ego)
        available = tuple(rgb[name] is not None for name in self.names)
        return Pictures(names=self.names, rgb=tuple(taken), image_T_ego=torch.stack(projections), available=available)

    def frame(
        self,
        pictures: Pictures,
        preprocess: ImagePreprocess,
        *,
        global_T_ego: Pose,
        time_s: float,
        sequence_id: int = 0,
        ego_status: Sequence[float] | None = None,
        command: Command = Command.STRAIGHT,
    ) -> Frame:
        """The `Frame` (batch of one, CPU) of pictures made by `pictures`. `ego_status` as `Frame.ego_status`; zeros if not known."""
        status = torch.zeros(EGO_STATUS_DIM) if ego_status is None else torch.tensor(ego_status, dtype=torch.float32)
        if status.shape != (EGO_STATUS_DIM,):
            raise ValueError(f"ego_status: expected {EGO_STATUS_DIM} numbers as Frame.ego_status, got {list(status.shape)}")
        return assemble_frame(
            pictures,
            torch.tensor([lens.intrinsic[0, 0] for lens in self.lenses]),
            preprocess,
            global_T_ego=_pose("global_T_ego", global_T_ego),
            time_s=time_s,
            sequence_id=sequence_id,
            ego_status=status,
            command=command,
        )


def _picture(camera: CameraCalibration, lens: Lens, rgb: np.ndarray | None) -> np.ndarray:
    if rgb is None:
        return black_picture(camera.wh_px)
    if rgb.dtype != np.uint8 or rgb.shape != (camera.wh_px[1], camera.wh_px[0], 3):
        raise ValueError(
            f"{camera.name}: expected an RGB picture uint8 of {camera.wh_px[0]} x {camera.wh_px[1]} as calibrated, got {rgb.dtype} "
            f"{list(rgb.shape)}; calibration holds for one size only"
        )
    return lens.undistort(rgb)


def _pose(name: str, value: Pose) -> Tensor:
    """A rigid pose as float64; the common slip is one with its translation in the last row."""
    pose = torch.as_tensor(value, dtype=torch.float64)
    if pose.shape != (4, 4) or not bool(pose.isfinite().all()) or pose[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"{name}: expected a finite 4x4 pose with last row 0 0 0 1, got {pose.tolist()}; transposed?")
    return pose
