"""The nouns of the library. Read this package first."""

from sparsedrive.structures._rows import take_rows
from sparsedrive.structures.completion_memory import CompletionMemory, CompletionPredictions, FailedCameras
from sparsedrive.structures.denoising import DenoisingConfig, DenoisingMemory, DenoisingQueries, DenoisingTargets
from sparsedrive.structures.features import ImageFeatures
from sparsedrive.structures.frame import (
    EGO_FORWARD_SPEED,
    EGO_STATUS_DIM,
    NUSCENES_CAMERAS,
    CameraRig,
    Command,
    Frame,
    cat_frames,
    check_shapes,
    with_available,
)
from sparsedrive.structures.instances import (
    DecoderStep,
    DenoisingPredictions,
    InstancePredictions,
    MotionPredictions,
    ObjectMap,
    PlanPredictions,
    Predictions,
)
from sparsedrive.structures.memory import ImageHistory, InstanceMemory, MotionMemory, StreamClock, StreamState, cat_states
from sparsedrive.structures.outputs import DETECTION_CLASSES, MAP_CLASSES, Detections, Forecasts, MapElements, Plan, Scene
from sparsedrive.structures.parity import ParityOptions
from sparsedrive.structures.targets import BoxTargets, FrameTargets, FutureTargets, MapTargets

__all__ = [
    "DETECTION_CLASSES", "EGO_FORWARD_SPEED", "EGO_STATUS_DIM", "MAP_CLASSES", "NUSCENES_CAMERAS",
    "BoxTargets", "CameraRig", "Command", "CompletionMemory", "CompletionPredictions", "DecoderStep", "DenoisingConfig",
    "DenoisingMemory", "DenoisingPredictions", "DenoisingQueries", "DenoisingTargets", "Detections", "FailedCameras", "Forecasts",
    "Frame", "FrameTargets", "FutureTargets", "ImageFeatures", "ImageHistory", "InstanceMemory", "InstancePredictions", "MapElements",
    "MapTargets", "MotionMemory", "MotionPredictions", "ObjectMap", "ParityOptions", "Plan", "PlanPredictions", "Predictions", "Scene",
    "StreamClock", "StreamState", "cat_frames", "cat_states", "check_shapes", "take_rows", "with_available",
]  # fmt: skip
