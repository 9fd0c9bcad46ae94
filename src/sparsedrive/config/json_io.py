"""Configurations as JSON: every dataclass with its class name, unknown names and keys refused."""

import json
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from sparsedrive.layers.grid_mask import GridMaskConfig
from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.coasting import CoastingConfig
from sparsedrive.models.completion.config import (
    CompletionConfig,
    GuidedConfig,
    PublishedQuirks,
    ReconstructionConfig,
    TemporalConfig,
)
from sparsedrive.models.decoder_layer import LayerConfig
from sparsedrive.models.depth_head import DepthHeadConfig
from sparsedrive.models.efficientnet import EfficientNetLite0Config
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig
from sparsedrive.models.image_history import HistoryConfig
from sparsedrive.models.instance_decoder import DecoderConfig
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.motion_planner import PlannerConfig
from sparsedrive.models.object_head import ObjectHeadConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.models.vovnet import VoVNetConfig
from sparsedrive.structures import DenoisingConfig, ParityOptions

CLASS_KEY = "class"
CLASSES = {
    cls.__name__: cls
    for cls in (
        BoxKind,
        CoastingConfig,
        CompletionConfig,
        DecoderConfig,
        DenoisingConfig,
        DepthHeadConfig,
        EfficientNetLite0Config,
        FPNConfig,
        GridMaskConfig,
        GuidedConfig,
        HistoryConfig,
        ImageEncoderConfig,
        LayerConfig,
        ObjectHeadConfig,
        ParityOptions,
        PlannerConfig,
        PolylineKind,
        PublishedQuirks,
        ReconstructionConfig,
        ResNetConfig,
        SparseDriveConfig,
        TemporalConfig,
        VoVNetConfig,
    )
}


def to_json(config: Any) -> str:
    """A configuration as readable JSON."""
    return json.dumps(_plain(config), indent=2)


def from_json(text: str) -> Any:
    """The configuration of a JSON text. Raises ValueError that names the unknown class or key."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"configuration: expected JSON, got {text[:40]!r}...; {error}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"configuration: expected a JSON object, got {text[:40]!r}; give what `to_json` wrote")
    return _build(tree, "configuration")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {CLASS_KEY: type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _build(tree: Any, where: str) -> Any:
    if isinstance(tree, list):
        return tuple(_build(item, f"{where}[{index}]") for index, item in enumerate(tree))
    if not isinstance(tree, dict):
        return tree
    name = tree.get(CLASS_KEY)
    if not isinstance(name, str) or name not in CLASSES:
        raise ValueError(f"{where}.{CLASS_KEY}: expected one of {', '.join(sorted(CLASSES))}; got {name!r}")
    cls = CLASSES[name]
    known = {f.name for f in fields(cls)}
    unknown = set(tree) - known - {CLASS_KEY}
    if unknown:
        raise ValueError(f"{where} ({name}): unknown keys {sorted(unknown)}; known are {sorted(known)}")
    missing = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING} - set(tree)
    if missing:
        raise ValueError(f"{where} ({name}): missing keys {sorted(missing)}; these have no default")
    return cls(**{key: _build(value, f"{where}.{key}") for key, value in tree.items() if key != CLASS_KEY})
