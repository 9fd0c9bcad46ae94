"""The op behind the public function: loss and gradient in closed form, nothing kept for the backward but the inputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsedrive.ops import cuda_library, native_library, triton_backend
from sparsedrive.ops._define import define_op
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.sigmoid_focal_loss import cpp, cuda, reference

NAME = "sigmoid_focal_loss"
_TRITON = "sparsedrive.ops.sigmoid_focal_loss.triton_kernels"


def _terms(logits: Tensor, target: Tensor, clamp_log: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which elements are positive, probability of being right and of being wrong, and the logarithm of the first."""
    positive = reference.is_positive(logits, target)
    logit = logits.detach().to(reference.compute_dtype(logits))
    if clamp_log:
        probability = 1 / (1 + torch.exp(-logit))
        right, wrong = torch.where(positive, probability, 1 - probability), torch.where(positive, 1 - probability, probability)
        return positive, right, wrong, right.clamp(min=reference.LOG_FLOOR).log()
    truth = torch.where(positive, logit, -logit)
    return positive, truth.sigmoid(), (-truth).sigmoid(), F.logsigmoid(truth)


def forward(logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool) -> Tensor:
    """See `sigmoid_focal_loss`."""
    positive, _, wrong, log_right = _terms(logits, target, clamp_log)
    return (-reference.balance(wrong, positive, alpha) * wrong**gamma * log_right).to(logits.dtype)


def backward(grad: Tensor, logits: Tensor, target: Tensor, alpha: float, gamma: float, clamp_log: bool, needs: list[bool]) -> list[Tensor]:
    """Gradient of the logits: -balance * wrong^gamma * (wrong - gamma * right * log right) towards being right."""
    positive, right, wrong, log_right = _terms(logits, target, clamp_log)
    slope = reference.balance(wrong, positive, alpha) * wrong**gamma * (wrong - gamma * right * log_right)
    return [grad * torch.where(positive, -slope, slope).to(grad.dtype)]


KERNELS = (
    Kernel(
        backend="cpp",
        devices=("cpu",),
        note="one pass each way, in C++",
        forward=cpp.forward,
        backward=cpp.backward,
    ),
    Kernel(
        backend="cuda",
        devices=("cuda",),
        note="one kernel each way, in CUDA C++",
        forward=cuda.forward,
        backward=cuda.backward,
    ),
    Kernel(
        backend="triton",
        devices=("cuda",),
        note="one kernel each way, in Triton",
        forward=triton_backend.deferred(_TRITON, "forward"),
        backward=triton_backend.deferred(_TRITON, "backward"),
    ),
    Kernel(
        backend="closed_form",
        devices=("cpu", "cuda"),
        note="loss and gradient by formula, in plain PyTorch",
        forward=forward,
        backward=backward,
    ),
)

run = define_op(
    name=NAME,
    arguments="Tensor logits, Tensor target, float alpha, float gamma, bool clamp_log",
    differentiable=(0,),
    fake=lambda logits, target, alpha, gamma, clamp_log: torch.empty_like(logits),
    kernels=KERNELS,
    missing={"cpp": native_library.why_missing(), "cuda": cuda_library.why_missing(), "triton": triton_backend.why_missing()},
)
