"""Where frames come from: nuScenes-format folders, own rigs, prepared data, and the loader of training."""

from sparsedrive.data.augment import AugmentConfig
from sparsedrive.data.calibration import CameraCalibration
from sparsedrive.data.dataset import LoadConfig
from sparsedrive.data.failure_script import FailureScript, FaultSpan
from sparsedrive.data.failures import CameraFault, Curriculum, FailureSchedule, MarkovFailures, RandomFailures, SequenceFailures
from sparsedrive.data.loader import FrameLoader, make_loader
from sparsedrive.data.nuscenes import (
    Annotations,
    CameraRecord,
    FrameRecord,
    NuScenesLog,
    make_frame,
    read_pictures,
    to_frame,
)
from sparsedrive.data.own_rig import OwnRig
from sparsedrive.data.pictures import Pictures
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.records import to_record
from sparsedrive.data.targets import TargetConfig

__all__ = [
    "Annotations",
    "AugmentConfig",
    "CameraCalibration",
    "CameraFault",
    "CameraRecord",
    "Curriculum",
    "FailureSchedule",
    "FailureScript",
    "FaultSpan",
    "FrameLoader",
    "FrameRecord",
    "ImagePreprocess",
    "LoadConfig",
    "MarkovFailures",
    "NuScenesLog",
    "OwnRig",
    "Pictures",
    "PreparedData",
    "PreparedScene",
    "RandomFailures",
    "SequenceFailures",
    "TargetConfig",
    "make_frame",
    "make_loader",
    "read_pictures",
    "to_frame",
    "to_record",
]
