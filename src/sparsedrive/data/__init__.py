"""Where frames come from: nuScenes-format folders, the preprocessing of pictures, and a small generated log."""

from sparsedrive.data.demo_log import write_demo_log
from sparsedrive.data.nuscenes import (
    Annotations,
    CameraRecord,
    FrameRecord,
    NuScenesLog,
    Pictures,
    make_frame,
    read_pictures,
    to_frame,
)
from sparsedrive.data.preprocess import ImagePreprocess

__all__ = [
    "Annotations",
    "CameraRecord",
    "FrameRecord",
    "ImagePreprocess",
    "NuScenesLog",
    "Pictures",
    "make_frame",
    "read_pictures",
    "to_frame",
    "write_demo_log",
]
