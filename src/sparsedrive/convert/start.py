"""Weights to start a training from: another stage's, or an image backbone trained elsewhere."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsedrive.convert.checkpoint import read_config, read_state, read_weights
from sparsedrive.models.sparsedrive import SparseDrive

CLASSIFIER = ("fc.", "classifier.", "head.")


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
    """Copy a ResNet trained on images, with torchvision's or timm's names (.pth or .safetensors), without its classifier.

    `ValueError` lists what is missing or does not fit: another depth, another family.
    """
    own = model.image_encoder.backbone.state_dict()
    state = {name: value for name, value in read_state(path).items() if not name.startswith(CLASSIFIER)}
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unused = [name for name in state if name not in own]
    wrong = [name for name in state if name in own and own[name].shape != state[name].shape]
    if missing or unused or wrong:
        depth = model.config.encoder.backbone.depth
        raise ValueError(
            f"{path}: expected the tensors of a ResNet-{depth}; {len(missing)} are missing {missing[:3]}, {len(unused)} have no place "
            f"{unused[:3]}, {len(wrong)} have another shape {wrong[:3]}; give a ResNet-{depth} with torchvision's names"
        )
    return _take(model, {f"image_encoder.backbone.{name}": value for name, value in state.items()}, path)


@torch.no_grad()
def _take(model: SparseDrive, state: dict[str, Tensor], path: Path) -> StartReport:
    own = model.state_dict()
    for name, value in state.items():
        own[name].copy_(value)
    fresh = sorted({name.split(".")[0] for name in own if name not in state and not name.endswith("num_batches_tracked")})
    return StartReport(source=path, taken=len(state), fresh_parts=tuple(fresh))
