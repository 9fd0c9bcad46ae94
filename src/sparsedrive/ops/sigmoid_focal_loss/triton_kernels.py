"""Sigmoid focal loss in Triton: one pass over the logits each way, nothing in between. Imported when it is first called."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsedrive.ops.sigmoid_focal_loss import reference

BLOCK = 1024
INT32_MAX = 2**31 - 1


def forward(logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool) -> Tensor:
    """See `sigmoid_focal_loss`."""
    loss = torch.empty_like(logits, memory_format=torch.contiguous_format)
    _launch(_forward, logits, target, (loss,), alpha, gamma, clamp_log)
    return loss


def backward(grad: Tensor, logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool, needs: list[bool]) -> list[Tensor]:
    """Gradient of the logits."""
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    _launch(_backward, logits, target, (grad.contiguous(), grad_logits), alpha, gamma, clamp_log)
    return [grad_logits]


def _launch(kernel, logits: Tensor, target: Tensor, others: tuple[Tensor, ...], alpha: float, gamma: float, clamp_log: bool) -> None:
    if logits.numel() == 0:
        return
    logits, target = logits.detach().contiguous(), target.contiguous()
    # floats given as constants, so that float64 is not computed with factors rounded to float32
    constants = {"ALPHA": alpha, "GAMMA": gamma, "CLAMP_LOG": clamp_log, "LOG_FLOOR": reference.LOG_FLOOR, "BLOCK": BLOCK}
    constants["WIDE"] = logits.numel() > INT32_MAX - BLOCK  # division of 64-bit indices would take longer than all else
    dtype = tl.float64 if logits.dtype == torch.float64 else tl.float32
    with torch.cuda.device_of(logits):
        kernel[(triton.cdiv(logits.numel(), BLOCK),)](
            logits, target, *others, logits.numel(), logits.shape[1], **constants, DTYPE=dtype, enable_fp_fusion=False
        )


@triton.jit
def _terms(logits, target, index, mask, classes, CLAMP_LOG: tl.constexpr, LOG_FLOOR: tl.constexpr, DTYPE: tl.constexpr):
    """Which elements are positive, probability of being right and of being wrong, and the logarithms of both."""
    logit = tl.load(logits + index, mask=mask, other=0.0).to(DTYPE)
    row = index // classes
    positive = tl.load(target + row, mask=mask, other=-1) == index - row * classes
    if CLAMP_LOG:
        probability = 1 / (1 + tl.exp(-logit))
        right = tl.where(positive, probability, 1 - probability)
        wrong = tl.where(positive, 1 - probability, probability)
        log_right = tl.log(tl.maximum(right, LOG_FLOOR))
        log_wrong = tl.log(wrong)  # -inf at 0
    else:
        truth = tl.where(positive, logit, -logit)
        small = tl.exp(-tl.abs(truth))
        log1p = _log1p(small)
        log_right, log_wrong = tl.minimum(truth, 0.0) - log1p, tl.minimum(-truth, 0.0) - log1p
        likely, unlikely = 1 / (1 + small), small / (1 + small)
        right, wrong = tl.where(truth > 0, likely, unlikely), tl.where(truth > 0, unlikely, likely)
    return positive, right, wrong, log_right, log_wrong


@triton.jit
def _log1p(x):
    """log(1 + x) to the last digits also where 1 + x rounds: the quotient has the same rounding error as the logarithm."""
    above = 1 + x
    exact = above == 1
    return tl.where(exact, x, tl.log(above) * x / tl.where(exact, 1.0, above - 1))


@triton.jit
def _scale(positive, log_wrong, ALPHA: tl.constexpr, GAMMA: tl.constexpr):
    """balance * wrong^gamma."""
    balance = tl.where(positive, tl.full(positive.shape, ALPHA, log_wrong.dtype), tl.full(positive.shape, 1 - ALPHA, log_wrong.dtype))
    if GAMMA == 0:
        return balance
    return balance * tl.exp(GAMMA * log_wrong)


@triton.jit
def _forward(
    logits, target, loss, count, classes,
    ALPHA: tl.constexpr, GAMMA: tl.constexpr, CLAMP_LOG: tl.constexpr, LOG_FLOOR: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64 if WIDE else tl.int32) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    positive, _, _, log_right, log_wrong = _terms(logits, target, index, mask, classes, CLAMP_LOG, LOG_FLOOR, DTYPE)
    value = -_scale(positive, log_wrong, ALPHA, GAMMA) * log_right
    tl.store(loss + index, value.to(loss.dtype.element_ty), mask=mask)


@triton.jit
def _backward(
    logits, target, grad, grad_logits, count, classes,
    ALPHA: tl.constexpr, GAMMA: tl.constexpr, CLAMP_LOG: tl.constexpr, LOG_FLOOR: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64 if WIDE else tl.int32) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    positive, right, wrong, log_right, log_wrong = _terms(logits, target, index, mask, classes, CLAMP_LOG, LOG_FLOOR, DTYPE)
    slope = _scale(positive, log_wrong, ALPHA, GAMMA) * (wrong - GAMMA * right * log_right)
    value = tl.load(grad + index, mask=mask, other=0.0).to(DTYPE) * tl.where(positive, -slope, slope)
    tl.store(grad_logits + index, value.to(grad_logits.dtype.element_ty), mask=mask)
