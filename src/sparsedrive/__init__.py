"""Sparse, instance-centric driving in plain PyTorch: detection, tracking, online map, forecasts and plan from cameras."""

from sparsedrive.config import preset, presets
from sparsedrive.convert import convert_file, load, save
from sparsedrive.runtime import StreamingSession
from sparsedrive.structures import CameraRig, Command, Frame, ParityOptions, Scene

__version__ = "0.1.0"
__all__ = [
    "CameraRig",
    "Command",
    "Frame",
    "ParityOptions",
    "Scene",
    "StreamingSession",
    "__version__",
    "convert_file",
    "load",
    "preset",
    "presets",
    "save",
]
