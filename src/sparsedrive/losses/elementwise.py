"""Losses of single numbers, and how they are averaged."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

AVERAGE_EPS = 1.1920929e-07
"""Added to the count of an average: float32's epsilon, as in open-mmlab/mmdetection."""


def averaged(loss: Tensor, weight: Tensor | None = None, count: Tensor | float | None = None) -> Float[Tensor, ""]:
    """Sum of `weight * loss` over `count`; without a count the mean over all elements, the unweighted ones too. 0 where there is none."""
    loss = loss if weight is None else loss * weight
    if count is not None:
        return loss.sum() / (count + AVERAGE_EPS)
    return loss.mean() if loss.numel() else loss.sum() * 0


def gaussian_focal(probability: Tensor, target: Tensor, alpha: float = 2.0, gamma: float = 4.0) -> Tensor:
    """Focal loss for soft targets in 0..1, element by element. Source: CornerNet (arXiv:1808.01244), equation 1."""
    positive = -(probability + 1e-12).log() * (1 - probability).pow(alpha) * target.eq(1)
    negative = -(1 - probability + 1e-12).log() * probability.pow(alpha) * (1 - target).pow(gamma)
    return positive + negative


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy with soft targets, element by element."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def smooth_line_distance(predicted: Float[Tensor, "N PC"], target: Float[Tensor, "N PC"], beta: float) -> Float[Tensor, "N PC"]:
    """Smooth L1 a coordinate, divided by the number of points."""
    return F.smooth_l1_loss(predicted, target, reduction="none", beta=beta) / (predicted.shape[-1] // 2)


def l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error, element by element."""
    return (predicted - target).abs()


def cosine(a: Float[Tensor, "N 2"], b: Float[Tensor, "N 2"]) -> Float[Tensor, "N"]:
    """Cosine of the angle between two directions."""
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)
