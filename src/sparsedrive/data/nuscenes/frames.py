"""Frame records -> pictures -> the `Frame` a model takes."""

from collections.abc import Sequence

import cv2
import torch

from sparsedrive.data.nuscenes.log import FrameRecord
from sparsedrive.data.pictures import Pictures, assemble_frame, black_picture
from sparsedrive.data.pixels import read_picture
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.structures import NUSCENES_CAMERAS, Frame


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
    rgb = tuple(
        cv2.cvtColor(read_picture(camera.path, camera.wh_px), cv2.COLOR_BGR2RGB) if there else black_picture(camera.wh_px)
        for camera, there in zip(cameras, available, strict=True)
    )
    image_T_ego = torch.stack([camera.image_T_ego for camera in cameras])
    return Pictures(names=tuple(camera_names), rgb=rgb, image_T_ego=image_T_ego, available=tuple(available))


def to_frame(record: FrameRecord, pictures: Pictures, preprocess: ImagePreprocess, sequence_id: int) -> Frame:
    """The `Frame` (batch of one, CPU) of pictures already read. `sequence_id` tells streams apart: a new one starts cold."""
    return assemble_frame(
        pictures,
        torch.stack([record.camera(name).intrinsic[0, 0] for name in pictures.names]),
        preprocess,
        global_T_ego=record.global_T_ego,
        time_s=record.time_s,
        sequence_id=sequence_id,
        ego_status=record.ego_status,
        command=record.command,
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
