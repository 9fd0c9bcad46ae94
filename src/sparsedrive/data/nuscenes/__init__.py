"""nuScenes-format folders: tables, CAN bus, calibration, annotations, frames."""

from sparsedrive.data.nuscenes.annotations import Annotations
from sparsedrive.data.nuscenes.frames import make_frame, read_pictures, to_frame
from sparsedrive.data.nuscenes.log import CameraRecord, FrameRecord, NuScenesLog

__all__ = ["Annotations", "CameraRecord", "FrameRecord", "NuScenesLog", "make_frame", "read_pictures", "to_frame"]
