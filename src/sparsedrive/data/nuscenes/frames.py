"""Frame records -> pictures -> the `Frame` a model takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sparsedrive.data.nuscenes.log import CameraRecord, FrameRecord
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.structures import NUSCENES_CAMERAS, CameraRig, Frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """The original pictures of C cameras, for drawing and as the source of a `Frame`.

    `image_T_ego` (float64) takes ego metres to (pixel_x * depth, pixel_y * depth, depth, 1) of these pictures. A picture that is not
    `available` is black.
    """

    names: tuple[str, ...]
    rgb: tuple[UInt8[np.ndarray, "H W 3"], ...]
    image_T_ego: Float[Tensor, "C 4 4"]
    available: tuple[bool, ...]


def read_pictures(record: FrameRecord, camera_names: Sequence[str] = NUSCENES_CAMERAS, *, allow_missing: bool = False) -> Pictures:
    """Read the cameras' pictures in the given order.

    A picture that is not on disk is an error, or with `allow_missing` black and not available. A camera without calibration in the
    tables, a picture that cannot be decoded or one of another size than the tables say is always a `ValueError`.
    """
    cameras = [record.camera(name) for name in camera_names]
    available = [camera.path.is_file() for camera in cameras]
    if not allow_missing and not all(available):
        missing = cameras[available.index(False)]
        raise ValueError(
            f"{record.scene}, sample {record.sample_token}: no picture {missing.path} ({available.count(False)} of {len(cameras)} cameras "
            "missing); unpack the samples of this scene, choose another scene, or pass allow_missing=True for black pictures"
        )
    return Pictures(
        names=tuple(camera_names),
        rgb=tuple(_read_rgb(camera) if there else _black(camera.wh_px) for camera, there in zip(cameras, available, strict=True)),
        image_T_ego=torch.stack([camera.image_T_ego for camera in cameras]),
        available=tuple(available),
    )


def to_frame(record: FrameRecord, pictures: Pictures, preprocess: ImagePreprocess, sequence_id: int) -> Frame:
    """The `Frame` (batch of one, CPU) of pictures already read. `sequence_id` tells streams apart: a new one starts cold."""
    sizes = [(rgb.shape[1], rgb.shape[0]) for rgb in pictures.rgb]
    network_T_image = torch.stack([preprocess.network_T_image(wh_px) for wh_px in sizes])
    intrinsics = torch.stack([record.camera(name).intrinsic for name in pictures.names])
    rig = CameraRig(
        image_T_ego=(network_T_image @ pictures.image_T_ego).float()[None],
        image_wh_px=torch.tensor(preprocess.final_wh_px, dtype=torch.float32).repeat(1, len(sizes), 1),
        focal_px=(network_T_image[:, 0, 0] * intrinsics[:, 0, 0]).float()[None],
        available=torch.tensor(pictures.available)[None],
        names=pictures.names,
    )
    return Frame(
        images=torch.stack([preprocess(rgb) for rgb in pictures.rgb])[None],
        rig=rig,
        global_T_ego=record.global_T_ego[None],
        time_s=torch.tensor([record.time_s], dtype=torch.float64),
        sequence_id=torch.tensor([sequence_id]),
        ego_status=record.ego_status.float()[None],
        command=torch.tensor([int(record.command)]),
    )


def make_frame(
    record: FrameRecord,
    preprocess: ImagePreprocess,
    sequence_id: int,
    camera_names: Sequence[str] = NUSCENES_CAMERAS,
    *,
    allow_missing: bool = False,
) -> Frame:
    """Read the pictures of a record and make its `Frame` (batch of one, CPU). Errors as `read_pictures`."""
    return to_frame(record, read_pictures(record, camera_names, allow_missing=allow_missing), preprocess, sequence_id)


def _read_rgb(camera: CameraRecord) -> np.ndarray:
    content = np.fromfile(camera.path, np.uint8)
    # Not imread: it returns the upper part of a truncated JPEG without a word.
    bgr = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if bgr is None:
        raise ValueError(f"{camera.path}: not a picture OpenCV can decode ({len(content)} bytes); the file is damaged, unpack it again")
    wh_px = (bgr.shape[1], bgr.shape[0])
    if wh_px != camera.wh_px:
        raise ValueError(
            f"{camera.path}: expected {camera.wh_px[0]} x {camera.wh_px[1]} pixels as in sample_data.json, got {wh_px[0]} x {wh_px[1]}; "
            "the calibration holds for the original size only, restore the original picture"
        )
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _black(wh_px: tuple[int, int]) -> np.ndarray:
    return np.zeros((wh_px[1], wh_px[0], 3), np.uint8)
