"""Sigmoid focal loss, element by element."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops import backends
from sparsedrive.ops.sigmoid_focal_loss import op, reference

__all__ = ["sigmoid_focal_loss"]


def sigmoid_focal_loss(
    logits: Float[Tensor, "N K"],
    target: Int[Tensor, "N"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    clamp_log: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "N K"]:
    """Focal loss of K independent classes, not reduced.

    With p the probability of the element's truth (sigmoid(x) in the target's column, 1 - sigmoid(x) elsewhere):
    -alpha * (1 - p)^gamma * log(p) in the target's column, -(1 - alpha) * (1 - p)^gamma * log(p) elsewhere.

    Args:
        logits: scores before the sigmoid; half precision is computed in float32 and rounded once.
        target: class of each row; any value outside 0..K-1 is background (every column a negative).
        alpha: weight of the positives, in 0..1.
        gamma: how strongly easy elements are played down, >= 0.
        clamp_log: take log(max(p, 1.18e-38)) of a sigmoid rounded to the dtype, and the gradient formula to go with it, as the CUDA
            kernel of mmcv does. Differs from the exact form only for elements that are wrong by a logit of more than about 16.
        backend: "reference", "closed_form", "cpp" (on a CPU), "triton" or "cuda" (on a GPU), or None for the `use_backend`
            context or else the best for the device.

    Raises:
        ValueError: an argument does not fit, or the backend cannot run.

    Source: Lin et al., Focal Loss for Dense Object Detection (arXiv:1708.02002), equation 5; open-mmlab/mmcv and mmdetection.
    """
    _check(logits, target, alpha, gamma)
    choice = backends.choose(op.NAME, backend, logits.device.type)
    if choice != backends.REFERENCE:
        return op.run(logits, target, alpha, gamma, clamp_log, choice)
    function = reference.clamped_focal_loss if clamp_log else reference.sigmoid_focal_loss
    return function(logits, target, alpha, gamma)


def _check(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> None:
    if logits.dim() != 2:
        raise _error("logits", "[N, K]", list(logits.shape), "flatten all dimensions before the classes")
    if not logits.is_floating_point():
        raise _error("logits", "a floating-point tensor", logits.dtype, "give scores before the sigmoid")
    if target.dim() != 1 or target.shape[0] != logits.shape[0]:
        raise _error("target", f"[{logits.shape[0]}] to go with logits", list(target.shape), "give one class index a row")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise _error("target", "an integer tensor", target.dtype, "give class indices, not one-hot rows")
    if target.device != logits.device:
        raise _error("target", f"a tensor on {logits.device} like logits", target.device, "move both to one device")
    if not 0 <= alpha <= 1:
        raise _error("alpha", "0 to 1", alpha, "0.25 is usual")
    if gamma < 0:
        raise _error("gamma", "0 or more", gamma, "2 is usual")


def _error(name: str, expected: str, got: object, remedy: str) -> ValueError:
    return ValueError(f"sigmoid_focal_loss.{name}: expected {expected}, got {got}; {remedy}")
