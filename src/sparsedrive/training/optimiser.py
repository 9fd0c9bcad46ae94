"""Parameter groups and the learning rate as a function of the step."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from sparsedrive.training.config import OptimiserConfig

BACKBONE_PREFIX = "image_encoder.backbone."


def make_optimiser(model: nn.Module, config: OptimiserConfig, freeze: Sequence[str] = ()) -> torch.optim.AdamW:
    """AdamW over all parameters that learn, in two groups: the image backbone and the rest.

    `ValueError` when a prefix in `freeze` names nothing, or nothing is left to learn.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in freeze:
        if not any(name.startswith(prefix) for name in names):
            roots = sorted({name.split(".")[0] for name in names})
            raise ValueError(f"TrainConfig.freeze: no parameter begins with {prefix!r}; the model's parts are {roots}")
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and not name.startswith(tuple(freeze)))
        if parameter.requires_grad:
            groups[name.startswith(BACKBONE_PREFIX)].append(parameter)
    if not groups[True] and not groups[False]:
        raise ValueError("TrainConfig.freeze: expected at least one parameter that learns, got none; freeze less")
    return torch.optim.AdamW(
        [
            {"params": groups[False], "share": 1.0},
            {"params": groups[True], "share": config.backbone_rate_share},
        ],
        lr=config.rate,
        weight_decay=config.weight_decay,
    )


def rate_share(step: int, steps: int, config: OptimiserConfig) -> float:
    """Share of the full rate at an optimiser step (0-based): linear from `warmup_share` while warming up, times half a cosine.

    Source: cosine annealing (arXiv:1608.03983) with the linear warm-up of open-mmlab/mmcv.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    share = config.min_rate_share + (1 - config.min_rate_share) * cosine
    if step >= config.warmup_steps:
        return share
    return share * (config.warmup_share + (1 - config.warmup_share) * step / config.warmup_steps)


def set_rate(optimiser: torch.optim.Optimizer, step: int, steps: int, config: OptimiserConfig) -> float:
    """Give every group its rate for this step; returns the rate of all but the backbone."""
    rate = config.rate * rate_share(step, steps, config)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
    return rate
