"""The calibration of one camera, checked: most wrong ones are refused with what is probably wrong with them."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

NUSCENES_EGO_ORIGIN_M = (0.94, 0.0, 1.84)
PINHOLE_COEFFICIENTS, FISHEYE_COEFFICIENTS = (0, 4, 5, 8), (4,)
FARTHEST_MOUNT_M = 30.0
UPRIGHT = 0.5
"""A camera may be pitched or rolled by up to 60 degrees: cos of that."""

_OPTICAL = "camera axes x right, y down, z forward (into the scene)"
_EGO = "ego axes x right, y forward, z up"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraCalibration:
    """One camera of a rig: any size, any lens OpenCV's two models describe.

    Attributes:
        intrinsic: [3, 3] focal lengths and principal point in pixels of the picture as it comes from the camera.
        ego_T_camera: [4, 4] pose of the camera in the ego frame, metres. Camera axes x right, y down, z forward; ego axes x right,
            y forward, z up. From a car frame (x forward, y left, z up): `ego_T_car() @ car_T_camera`.
        wh_px: width and height of that picture.
        distortion: OpenCV coefficients k1 k2 p1 p2 [k3 [k4 k5 k6]], or with `fisheye` k1 k2 k3 k4; empty for a rectified picture.
        pinhole_intrinsic: [3, 3] of the picture after undistortion; by default the one with the widest view without black pixels.

    Raises ValueError that names the camera, what was expected, what came and the likely mistake (transposed, inverted, millimetres,
    another picture size, another convention of axes).
    """

    name: str
    intrinsic: Float[np.ndarray, "3 3"]
    ego_T_camera: Float[np.ndarray, "4 4"]
    wh_px: tuple[int, int]
    distortion: tuple[float, ...] = ()
    fisheye: bool = False
    pinhole_intrinsic: Float[np.ndarray, "3 3"] | None = None

    def __post_init__(self) -> None:
        for name, size in (("intrinsic", 3), ("ego_T_camera", 4), ("pinhole_intrinsic", 3)):
            if getattr(self, name) is not None:
                value = np.asarray(getattr(self, name), np.float64).copy()
                if value.shape != (size, size) or not np.isfinite(value).all():
                    raise ValueError(f"{self.name}: {name}: expected a finite {size}x{size} matrix, got {value.tolist()}")
                object.__setattr__(self, name, value)
        if min(self.wh_px) < 1:
            raise ValueError(f"{self.name}: wh_px: expected a positive (width, height), got {self.wh_px}")
        _check_intrinsic(self.name, self.intrinsic, self.wh_px)
        allowed = FISHEYE_COEFFICIENTS if self.fisheye else PINHOLE_COEFFICIENTS
        if len(self.distortion) not in allowed or not np.isfinite(self.distortion).all():
            kind = "a fisheye lens" if self.fisheye else "a radial-tangential lens"
            raise ValueError(f"{self.name}: distortion: expected {allowed} finite coefficients for {kind}, got {self.distortion}")
        _check_extrinsic(self.name, self.ego_T_camera)
        _check_upright(self.name, self.ego_T_camera[:3, :3])

    @property
    def forward(self) -> Float[np.ndarray, "3"]:
        """Unit vector in the ego frame along which the camera looks."""
        return self.ego_T_camera[:3, 2]


def ego_T_car(ego_origin_m: tuple[float, float, float] = NUSCENES_EGO_ORIGIN_M) -> Float[np.ndarray, "4 4"]:  # noqa: N802
    """From a car frame (x forward, y left, z up, on the ground) to the ego frame of the models (x right, y forward, z up).

    `ego_origin_m` is where the ego frame's origin stands in the car frame. The default is the nuScenes lidar's place: the models have
    learned that the road is 1.84 m below the origin, so keep its height over ground whatever the vehicle.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    matrix[:3, 3] = -matrix[:3, :3] @ np.asarray(ego_origin_m, np.float64)
    return matrix


def check_rig(cameras: tuple[CameraCalibration, ...]) -> None:
    """What only several cameras together can say: names, the forward camera, where the ego frame's origin is. Raises ValueError."""
    names = [camera.name for camera in cameras]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rig: expected at least one camera and every name once, got {names}")
    first = cameras[0]
    right, ahead, _ = first.forward
    if ahead < UPRIGHT:
        towards = np.round(first.forward, 2).tolist()
        if right > UPRIGHT:
            remedy = "if it is the front camera, the transform is for a car frame with x forward: give ego_T_car() @ car_T_camera"
        else:
            remedy = "put the front camera first: the plan is made from its picture"
        raise ValueError(
            f"{first.name}: expected the first camera to look forward (+y; {_EGO}), got one that looks along {towards}; {remedy}"
        )
    height_m = float(np.median([camera.ego_T_camera[2, 3] for camera in cameras]))
    if height_m > 1.0:
        warnings.warn(
            f"rig: the cameras are {height_m:.1f} m above the ego frame's origin, so that seems to be on the ground; models trained on "
            "nuScenes expect the road 1.84 m below it: ego_T_car() puts it there",
            stacklevel=3,
        )


def _check_intrinsic(name: str, intrinsic: np.ndarray, wh_px: tuple[int, int]) -> None:
    rows = np.round(intrinsic, 3).tolist()
    if not np.allclose(intrinsic[2], (0, 0, 1)):
        remedy = "give its transpose" if np.allclose(intrinsic[:, 2], (0, 0, 1)) else "divide by its last element, leave extrinsics out"
        raise ValueError(f"{name}: intrinsic: expected [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], got {rows}; {remedy}")
    if min(intrinsic[0, 0], intrinsic[1, 1]) <= 0 or intrinsic[1, 0] != 0:
        raise ValueError(f"{name}: intrinsic: expected positive focal lengths fx, fy in pixels and 0 left of fy, got {rows}")
    focal_px, centre_px = intrinsic[[0, 1], [0, 1]], intrinsic[:2, 2]
    if (focal_px < 0.05 * np.array(wh_px)).any():
        raise ValueError(f"{name}: intrinsic: focal lengths {focal_px.tolist()} are no pixels of a picture {wh_px}; multiply by its size")
    made_for = tuple(np.round(2 * centre_px).astype(int).tolist())
    if (centre_px <= 0).any() or (centre_px >= wh_px).any():
        raise ValueError(
            f"{name}: intrinsic: expected the principal point inside the picture of {wh_px[0]} x {wh_px[1]}, got {centre_px.tolist()}; it "
            f"seems to be for a picture of about {made_for[0]} x {made_for[1]}: scale its first two rows, or give that picture"
        )
    share = 2 * centre_px / wh_px
    if abs(share[0] - share[1]) < 0.1 and not 0.8 < share.mean() < 1.25:
        warnings.warn(
            f"{name}: the principal point {centre_px.round().tolist()} would be the middle of a picture of {made_for[0]} x {made_for[1]}, "
            f"but the picture has {wh_px[0]} x {wh_px[1]}: is the intrinsic for another size?",
            stacklevel=5,
        )


def _check_extrinsic(name: str, ego_T_camera: np.ndarray) -> None:
    rotation, place_m = ego_T_camera[:3, :3], ego_T_camera[:3, 3]
    if not np.allclose(ego_T_camera[3], (0, 0, 0, 1)):
        remedy = "give its transpose" if np.allclose(ego_T_camera[:, 3], (0, 0, 0, 1)) else "give the rigid transform alone"
        raise ValueError(f"{name}: ego_T_camera: expected a last row of 0 0 0 1, got {ego_T_camera[3].tolist()}; {remedy}")
    lengths = np.linalg.norm(rotation, axis=1)
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        if lengths.max() > 10:
            remedy = "it seems to hold the intrinsic too (image_T_ego or its inverse): give the pose of the camera alone"
        else:
            remedy = "normalise the quaternion, or give more digits"
        raise ValueError(f"{name}: ego_T_camera: expected a rotation, got rows of length {lengths.round(4).tolist()}; {remedy}")
    if np.linalg.det(rotation) < 0:
        raise ValueError(
            f"{name}: ego_T_camera: expected a rotation of determinant +1, got a mirror image (-1); one axis has the wrong sign: "
            f"{_OPTICAL}, {_EGO}"
        )
    if np.abs(place_m).max() > FARTHEST_MOUNT_M:
        raise ValueError(
            f"{name}: ego_T_camera: expected the camera within {FARTHEST_MOUNT_M:.0f} m of the ego frame's origin, got "
            f"{place_m.round(2).tolist()} m; millimetres (divide by 1000), or a pose in the world instead of on the vehicle?"
        )


def _check_upright(name: str, rotation: np.ndarray) -> None:
    """The camera's y axis must point down. Inverted and axis-swapped extrinsics of most cameras of a rig show here."""
    if rotation[2, 1] < -UPRIGHT:
        return
    down = np.round(rotation[:, 1], 2).tolist()
    if rotation.T[2, 1] < -UPRIGHT:
        remedy = "its inverse would: camera_T_ego seems to have been given for ego_T_camera, invert it"
    elif abs(rotation[2, 2]) > 0.7:
        remedy = (
            "its z axis is vertical: for a camera frame with x forward, y left, z up multiply the rotation on the right by "
            "[[0, 0, 1], [-1, 0, 0], [0, -1, 0]]"
        )
    else:
        remedy = "for a camera mounted on its side or head turn the picture and the intrinsic first"
    raise ValueError(f"{name}: ego_T_camera: expected the camera's y axis to point down ({_OPTICAL}; {_EGO}), got {down}; {remedy}")
