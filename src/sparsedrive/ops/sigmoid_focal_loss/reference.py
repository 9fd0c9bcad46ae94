"""The specification of the sigmoid focal loss, in its exact and its published form."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

LOG_FLOOR = torch.finfo(torch.float32).tiny  # in every dtype, as in the published kernel


def sigmoid_focal_loss(logits: Float[Tensor, "N K"], target: Int[Tensor, "N"], alpha: float, gamma: float) -> Float[Tensor, "N K"]:
    """The exact form. Everything from log-sigmoids: no overflow, and a finite gradient for every gamma >= 0."""
    positive = is_positive(logits, target)
    truth = torch.where(positive, logits, -logits).to(compute_dtype(logits))  # the logit of being right
    log_right, log_wrong = F.logsigmoid(truth), F.logsigmoid(-truth)
    loss = -balance(truth, positive, alpha) * torch.exp(gamma * log_wrong) * log_right
    return loss.to(logits.dtype)


def clamped_focal_loss(logits: Float[Tensor, "N K"], target: Int[Tensor, "N"], alpha: float, gamma: float) -> Float[Tensor, "N K"]:
    """The published CUDA kernel's form: a rounded sigmoid, its logarithm clamped, and a gradient that ignores the clamp."""
    positive = is_positive(logits, target)
    logit = logits.detach().to(compute_dtype(logits))
    probability = 1 / (1 + torch.exp(-logit))
    right = torch.where(positive, probability, 1 - probability)
    wrong = torch.where(positive, 1 - probability, probability)
    log_right = right.clamp(min=LOG_FLOOR).log()
    scale = balance(logit, positive, alpha) * wrong**gamma
    loss = -scale * log_right
    slope = scale * (wrong - gamma * right * log_right)
    slope = torch.where(positive, -slope, slope)
    # The value is `loss`, the gradient `slope`: autograd would differentiate the clamp and find 0 where the kernel does not.
    return loss.to(logits.dtype) + (logits - logits.detach()) * slope.to(logits.dtype)


def is_positive(logits: Tensor, target: Tensor) -> Bool[Tensor, "N K"]:
    """The target's column of every row."""
    return target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def balance(like: Tensor, positive: Bool[Tensor, "N K"], alpha: float) -> Float[Tensor, "N K"]:
    """alpha for positives, 1 - alpha for the others."""
    return torch.full_like(like, 1 - alpha).masked_fill(positive, alpha)


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Half precision is computed in float32."""
    return torch.float32 if logits.dtype in (torch.float16, torch.bfloat16) else logits.dtype
