"""Deformable aggregation in C++ on the CPU: `ops/native/deformable_aggregation.cpp` behind the op's kernel interface.

Visible pairs only, vectorised over channels. Every number is summed by one thread in a fixed order, so any number of threads
(`torch.set_num_threads`) gives the same bits.
"""

import ctypes

import torch
from torch import Tensor

from sparsedrive.ops import native_library
from sparsedrive.ops.cuda_library import integers, pointers
from sparsedrive.ops.deformable_aggregation.reference import compute_dtype


def forward(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked."""
    features = _features(packed)
    output = features.new_empty(packed.shape[0], points.shape[1], packed.shape[3])
    inputs = (features, _numbers(points, packed), _numbers(weights, packed))
    _call(level_hw, inputs, None, (output, None, None, None))
    return output.to(packed.dtype)


def backward(grad: Tensor, packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradients of those of (packed, points, weights) that `needs` names."""
    inputs = (_features(packed), _numbers(points, packed), _numbers(weights, packed))
    grads = [torch.empty_like(tensor) if need else None for tensor, need in zip(inputs, needs, strict=True)]
    _call(level_hw, inputs, _numbers(grad, packed), (None, *grads))
    dtypes = (packed.dtype, points.dtype, weights.dtype)
    return [value.to(dtype) for value, dtype in zip(grads, dtypes, strict=True) if value is not None]


def _features(packed: Tensor) -> Tensor:
    return (packed if packed.dtype in native_library.DTYPES else packed.float()).detach().contiguous()


def _numbers(tensor: Tensor, packed: Tensor) -> Tensor:
    return tensor.detach().to(compute_dtype(packed.dtype)).contiguous()


def _call(level_hw: list[int], inputs: tuple[Tensor, Tensor, Tensor], grad: Tensor | None, results: tuple[Tensor | None, ...]) -> None:
    """Run the C function on contiguous tensors; it fills those of `results` (output and the three gradients) that are there."""
    packed, points, weights = inputs
    if all(value is None or value.numel() == 0 for value in results):
        return
    dtype = ctypes.c_int32(native_library.DTYPES[packed.dtype])
    sizes = integers([*packed.shape, *points.shape[1:3], *weights.shape[4:]])
    data = pointers(*inputs, grad, *results)
    native_library.call("sparsedrive_deformable_aggregation", dtype, sizes, integers(level_hw), data)
