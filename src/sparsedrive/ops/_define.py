"""One op = one node for torch.compile and torch.export, with a table of kernels behind it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sparsedrive.ops import backends
from sparsedrive.ops.backends import Kernel

NAMESPACE = "sparsedrive"


def define_op(
    *,
    name: str,
    arguments: str,
    differentiable: tuple[int, ...],
    fake: Callable[..., Tensor],
    kernels: tuple[Kernel, ...],
    missing: Mapping[str, str | None] | None = None,
) -> Callable[..., Tensor]:
    """Register `sparsedrive::<name>(<arguments>, str backend) -> Tensor` with its backward, and enter its kernels in the table.

    The backend is an argument of the op, resolved when the op runs, so a compiled or exported program holds one node for it.
    The backward is an op too; it computes only the gradients that are asked for. Results are contiguous whatever the inputs are:
    compiled code relies on the strides it was told.

    Args:
        name: op name inside the namespace.
        arguments: PyTorch schema of the arguments before `backend`, like "Tensor packed, int[] level_hw".
        differentiable: positions of the tensor arguments that have a gradient.
        fake: shape and dtype of the output from the arguments (without backend), as an empty tensor.
        kernels: implementations, best first.
        missing: backend -> why it could not be built or loaded here, which takes it out of `kernels`; None if it could.
    """
    reasons = {backend: reason for backend, reason in (missing or {}).items() if reason is not None}
    backends.declare(name, tuple(kernel for kernel in kernels if kernel.backend not in reasons), reasons)

    def forward(*args) -> Tensor:
        *inputs, backend = args
        return backends.find_kernel(name, backend, inputs[0].device.type).forward(*inputs).contiguous()

    def backward(grad: Tensor, *args) -> list[Tensor]:
        *inputs, needs, backend = args
        grads = backends.find_kernel(name, backend, grad.device.type).backward(grad, *inputs, needs)
        return [value.contiguous() for value in grads]

    def backward_fake(grad: Tensor, *args) -> list[Tensor]:
        *inputs, needs, _ = args
        wanted = [inputs[position] for position, need in zip(differentiable, needs, strict=True) if need]
        return [tensor.new_empty(tensor.shape) for tensor in wanted]

    forward_op = torch.library.custom_op(f"{NAMESPACE}::{name}", forward, mutates_args=(), schema=f"({arguments}, str backend) -> Tensor")
    forward_op.register_fake(lambda *args: fake(*args[:-1]).contiguous())
    backward_op = torch.library.custom_op(
        f"{NAMESPACE}::{name}_backward",
        backward,
        mutates_args=(),
        schema=f"(Tensor grad, {arguments}, bool[] needs, str backend) -> Tensor[]",
    )
    backward_op.register_fake(backward_fake)
    _register_autograd(forward_op, backward_op, differentiable)
    return forward_op


def _register_autograd(forward_op: Any, backward_op: Callable[..., list[Tensor]], differentiable: tuple[int, ...]) -> None:
    def save(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
        ctx.constants = [None if isinstance(value, Tensor) else value for value in inputs]

    def differentiate(ctx, grad: Tensor) -> tuple:
        saved = iter(ctx.saved_tensors)
        *inputs, backend = [next(saved) if constant is None else constant for constant in ctx.constants]
        needs = [ctx.needs_input_grad[position] for position in differentiable]
        found = iter(backward_op(grad, *inputs, needs, backend))
        grads: list[Tensor | None] = [None] * len(ctx.constants)
        for position, need in zip(differentiable, needs, strict=True):
            if need:
                grads[position] = next(found)
        return tuple(grads)

    forward_op.register_autograd(differentiate, setup_context=save)
