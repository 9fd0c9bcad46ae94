"""Losses of depth: of the dense depth head, and of the depth a feature is believed to be at."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def dense_depth_loss(
    depth_m: list[Float[Tensor, "BC 1 H W"]],
    target_m: list[Float[Tensor, "B C H W"]],
    *,
    max_depth_m: float = 60.0,
    weight: float = 1.0,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda value: value,
) -> Float[Tensor, ""]:
    """Mean absolute error in metres where a target is known (> 0), summed over levels and divided by their number.

    Predictions are clipped to [0, max_depth_m] (no gradient outside); NaN predictions are left out. `mean_over_processes` as in
    `criterion.compute_losses`.
    Errors: ValueError if the two lists differ in length or sizes.
    Source: the dense depth branch of Sparse4D v2 (arXiv:2305.14018).
    """
    if [depth.numel() for depth in depth_m] != [target.numel() for target in target_m]:
        raise ValueError(
            f"dense_depth_loss: expected one target [B, C, H, W] for every prediction [B * C, 1, H, W], got predictions "
            f"{[tuple(depth.shape) for depth in depth_m]} and targets {[tuple(target.shape) for target in target_m]}; "
            "make the targets at the strides of the depth head's levels"
        )
    total = depth_m[0].new_zeros((), dtype=torch.float32)
    for depth, target in zip(depth_m, target_m, strict=True):
        predicted, wanted = depth.float().flatten(), target.float().flatten()
        known = (wanted > 0) & ~predicted.isnan()
        error = torch.where(known, predicted.clamp(0.0, max_depth_m) - wanted, 0.0).abs().sum()
        total = total + error / (mean_over_processes(known.sum().float()) * len(depth_m)).clamp(min=1)
    return total * weight


def depth_fit_loss(confidence: Float[Tensor, "B M P"], valid: Bool[Tensor, "B M"], count: Tensor) -> Float[Tensor, ""]:
    """Mean -log of how well depth fits at the points of true boxes, over `count` boxes.

    Source: Sparse4D (arXiv:2211.10581), section 3.5.
    """
    surprise = -confidence.float().clamp(min=torch.finfo(torch.float32).tiny).log().mean(-1)
    return torch.where(valid, surprise, 0.0).sum() / count
