"""Where frames come from: nuScenes-format folders, the preprocessing of pictures, and a small generated log."""

from sparsedrive.data.augment import AugmentConfig
from sparsedrive.data.dataset import LoadConfig
from sparsedrive.data.demo_log import write_demo_log
from sparsedrive.data.loader import FrameLoader, make_loader
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
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.records import to_record
from sparsedrive.data.targets import TargetConfig

__all__ = [
    "Annotations",
    "AugmentConfig",
    "CameraRecord",
    "FrameLoader",
    "FrameRecord",
    "ImagePreprocess",
    "LoadConfig",
    "NuScenesLog",
    "Pictures",
    "PreparedData",
    "PreparedScene",
    "TargetConfig",
    "make_frame",
    "make_loader",
    "read_pictures",
    "to_frame",
    "to_record",
    "write_demo_log",
]
