"""Sigmoid focal loss in C++ on the CPU: `ops/native/sigmoid_focal_loss.cpp` behind the op's kernel interface.

Every element is computed by itself: the same bits on any number of threads (`torch.set_num_threads`).
"""

import ctypes

import torch
from torch import Tensor

from sparsedrive.ops import native_library
from sparsedrive.ops.cuda_library import integers, pointers
from sparsedrive.ops.sigmoid_focal_loss import reference


def forward(logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool) -> Tensor:
    """See `sigmoid_focal_loss`."""
    scores = _numbers(logits, logits)
    loss = torch.empty_like(scores)
    _call(scores, target, None, (loss, None), (alpha, gamma), clamp_log)
    return loss.to(logits.dtype)


def backward(grad: Tensor, logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool, needs: list[bool]) -> list[Tensor]:
    """Gradient of the logits."""
    scores = _numbers(logits, logits)
    grad_logits = torch.empty_like(scores)
    _call(scores, target, _numbers(grad, logits), (None, grad_logits), (alpha, gamma), clamp_log)
    return [grad_logits.to(logits.dtype)]


def _numbers(tensor: Tensor, logits: Tensor) -> Tensor:
    """In the logits' dtype, or float32 where the library does not know that."""
    dtype = logits.dtype if logits.dtype in native_library.DTYPES else torch.float32
    return tensor.detach().to(dtype).contiguous()


def _call(
    logits: Tensor, target: Tensor, grad: Tensor | None, results: tuple[Tensor | None, ...], factors: tuple[float, float], clamp_log: bool
) -> None:
    if logits.numel() == 0:
        return
    target = target.long().contiguous()
    dtype = ctypes.c_int32(native_library.DTYPES[logits.dtype])
    options = (ctypes.c_double * 3)(*factors, reference.LOG_FLOOR)
    data = pointers(logits, target, grad, *results)
    native_library.call("sparsedrive_sigmoid_focal_loss", dtype, integers(logits.shape), options, ctypes.c_int32(clamp_log), data)
