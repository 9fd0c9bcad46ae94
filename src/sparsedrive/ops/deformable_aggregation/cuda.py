"""Deformable aggregation in CUDA C++: `ops/native/deformable_aggregation.cu` behind the op's kernel interface."""

import ctypes

import torch
from torch import Tensor

from sparsedrive.ops import cuda_library
from sparsedrive.ops.deformable_aggregation import visible
from sparsedrive.ops.deformable_aggregation.reference import compute_dtype

MAX_LEVELS = 16


def forward(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked."""
    inputs = (packed.detach().contiguous(), _numbers(points, packed), _numbers(weights, packed))
    output = packed.new_empty(packed.shape[0], points.shape[1], packed.shape[3])
    _call(level_hw, inputs, None, (output, None, None, None))
    return output


def backward(grad: Tensor, packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradients of those of (packed, points, weights) that `needs` names.

    The gradient of the features is summed by atomics in whatever order they come, or where PyTorch is told to be deterministic
    (`torch.use_deterministic_algorithms`) in a fixed order by sorting, as `visible` does it.
    """
    need_packed, need_points, need_weights = needs
    by_sorting = need_packed and torch.are_deterministic_algorithms_enabled()
    inputs = (packed.detach().contiguous(), _numbers(points, packed), _numbers(weights, packed))
    wanted = (need_packed and not by_sorting, need_points, need_weights)
    dtype = compute_dtype(packed.dtype)
    # zeros: atomics add to them, and of hidden pairs nothing is written
    found = [torch.zeros_like(tensor, dtype=dtype) if need else None for tensor, need in zip(inputs, wanted, strict=True)]
    if any(wanted):
        _call(level_hw, inputs, grad.contiguous(), (None, *found))
    if by_sorting:
        found[0] = visible.backward(grad, packed, level_hw, points, weights, [True, False, False])[0]
    dtypes = (packed.dtype, points.dtype, weights.dtype)
    return [value.to(dtype) for value, dtype in zip(found, dtypes, strict=True) if value is not None]


def _numbers(tensor: Tensor, packed: Tensor) -> Tensor:
    return tensor.detach().to(compute_dtype(packed.dtype)).contiguous()


def _call(level_hw: list[int], inputs: tuple[Tensor, ...], grad: Tensor | None, results: tuple[Tensor | None, ...]) -> None:
    """Run the C function on contiguous tensors; it fills those of `results` (output and the three gradients) that are there."""
    packed, points, weights = inputs
    if len(level_hw) > 2 * MAX_LEVELS:
        raise ValueError(
            f"deformable_aggregation.level_hw: backend 'cuda' takes at most {MAX_LEVELS} levels, got {len(level_hw) // 2}; "
            "take backend 'triton'"
        )
    if all(value is None or value.numel() == 0 for value in results):
        return
    sizes = cuda_library.integers([*packed.shape, *points.shape[1:3], *weights.shape[4:]])
    data = cuda_library.pointers(packed, points, weights, grad, *results)
    dtype = ctypes.c_int32(cuda_library.DTYPES[packed.dtype])
    cuda_library.call("sparsedrive_cuda_deformable_aggregation", dtype, sizes, cuda_library.integers(level_hw), data, like=packed)
