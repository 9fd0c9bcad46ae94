"""Sigmoid focal loss in CUDA C++: `ops/native/sigmoid_focal_loss.cu` behind the op's kernel interface."""

import ctypes

import torch
from torch import Tensor

from sparsedrive.ops import cuda_library
from sparsedrive.ops.sigmoid_focal_loss import reference


def forward(logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool) -> Tensor:
    """See `sigmoid_focal_loss`."""
    loss = torch.empty_like(logits, memory_format=torch.contiguous_format)
    _call(logits, target, None, (loss, None), (alpha, gamma), clamp_log)
    return loss


def backward(grad: Tensor, logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool, needs: list[bool]) -> list[Tensor]:
    """Gradient of the logits."""
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    _call(logits, target, grad.contiguous(), (None, grad_logits), (alpha, gamma), clamp_log)
    return [grad_logits]


def _call(
    logits: Tensor, target: Tensor, grad: Tensor | None, results: tuple[Tensor | None, ...], factors: tuple[float, float], clamp_log: bool
) -> None:
    if logits.numel() == 0:
        return
    logits, target = logits.detach().contiguous(), target.long().contiguous()
    options = (ctypes.c_double * 3)(*factors, reference.LOG_FLOOR)
    data = cuda_library.pointers(logits, target, grad, *results)
    dtype = ctypes.c_int32(cuda_library.DTYPES[logits.dtype])
    function = "sparsedrive_cuda_sigmoid_focal_loss"
    cuda_library.call(function, dtype, cuda_library.integers(logits.shape), options, ctypes.c_int32(clamp_log), data, like=logits)
