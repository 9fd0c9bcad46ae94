"""The sensors of the ego vehicle, mounted as on the nuScenes car. Car frame: origin under the rear axle, x forward, y left, z up."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

REFERENCE_WH_PX = (1600, 900)
FOCAL_PX, BACK_FOCAL_PX = 1262.0, 806.0
CENTRE_PX = (808.0, 480.0)
LIDAR_AHEAD_M, LIDAR_ABOVE_M = 0.94, 1.84
"""Where the lidar, and with it the models' ego frame (x right, y forward), is mounted: seen from the car frame's origin."""
MOUNTS = {
    "CAM_FRONT": (0.0, (1.70, 0.00, 1.51), 0.035),
    "CAM_FRONT_RIGHT": (-55.0, (1.55, -0.49, 1.50), 0.027),
    "CAM_FRONT_LEFT": (55.0, (1.52, 0.49, 1.51), 0.043),
    "CAM_BACK": (180.0, (0.03, 0.00, 1.58), 0.010),
    "CAM_BACK_LEFT": (110.0, (1.04, 0.48, 1.59), 0.001),
    "CAM_BACK_RIGHT": (-110.0, (1.01, -0.48, 1.56), 0.019),
}
"""Heading [deg] and place [m] in the car frame, and how long before the sample's time the picture is taken [s]: rounded from the
calibration the nuScenes paper describes (arXiv:1903.11027, figure 2 and table 1)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraMount:
    """A pinhole camera: optical frame x right, y down, z forward."""

    name: str
    car_T_camera: Float[np.ndarray, "4 4"]
    intrinsic: Float[np.ndarray, "3 3"]
    wh_px: tuple[int, int]
    early_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LidarMount:
    """The spinning lidar; its frame (x right, y forward, z up) is the ego frame of the models."""

    name: str
    car_T_lidar: Float[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rig:
    """All sensors of one vehicle."""

    cameras: tuple[CameraMount, ...]
    lidar: LidarMount


def nuscenes_rig(wh_px: tuple[int, int] = (704, 396)) -> Rig:
    """Six cameras of one picture size and the lidar. The size may have another shape than 16:9: rows are then cut off at the top."""
    scale = wh_px[0] / REFERENCE_WH_PX[0]
    cut_px = REFERENCE_WH_PX[1] * scale - wh_px[1]
    cameras = []
    for name, (yaw_deg, place_m, early_s) in MOUNTS.items():
        focal_px = (BACK_FOCAL_PX if name == "CAM_BACK" else FOCAL_PX) * scale
        intrinsic = np.array([[focal_px, 0, CENTRE_PX[0] * scale], [0, focal_px, CENTRE_PX[1] * scale - cut_px], [0, 0, 1]])
        yaw_rad = np.radians(yaw_deg)
        forward, left = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0]), np.array([-np.sin(yaw_rad), np.cos(yaw_rad), 0])
        car_T_camera = np.eye(4)
        car_T_camera[:3, :3] = np.stack([-left, [0, 0, -1], forward], axis=1)
        car_T_camera[:3, 3] = place_m
        cameras.append(CameraMount(name=name, car_T_camera=car_T_camera, intrinsic=intrinsic, wh_px=wh_px, early_s=early_s))
    car_T_lidar = np.eye(4)
    car_T_lidar[:3, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    car_T_lidar[:3, 3] = (LIDAR_AHEAD_M, 0.0, LIDAR_ABOVE_M)
    return Rig(cameras=tuple(cameras), lidar=LidarMount(name="LIDAR_TOP", car_T_lidar=car_T_lidar))
