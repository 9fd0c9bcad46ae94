"""The kernel of published_style.cu, built when it is first asked for: what the project's kernels are measured against on a GPU."""

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sparsedrive.ops.deformable_aggregation.samples import Sample

SOURCE = Path(__file__).with_suffix(".cu")
FEWER_THAN = 2**31
"""Threads, which it counts in 32 bits."""


@cache
def why_missing() -> str | None:
    """Why it cannot run; None if it can."""
    if not torch.cuda.is_available():
        return "no GPU"
    return None if shutil.which("nvcc") else "no nvcc to build it"


def fits(sample: Sample) -> bool:
    """Whether it can take these inputs: float32, few enough for 32-bit indices."""
    per_group = sample.packed.shape[3] // sample.weights.shape[5]
    return sample.packed.dtype == torch.float32 and max(sample.weights.numel() * per_group, sample.packed.numel()) < FEWER_THAN


def build_command(capability: str, target: Path) -> list[str]:
    """The compiler's command line."""
    return ["nvcc", "-std=c++17", "-O3", "-shared", "-Xcompiler=-fPIC", f"-arch=sm_{capability}", "-o", str(target), str(SOURCE)]


@cache
def _library() -> ctypes.CDLL:
    target = Path(tempfile.mkdtemp()) / "published_style.so"
    capability = "".join(str(number) for number in torch.cuda.get_device_capability())
    subprocess.run(build_command(capability, target), check=True)
    return ctypes.CDLL(str(target))


def forward(sample: Sample) -> Tensor:
    """The output."""
    output = sample.packed.new_zeros(sample.packed.shape[0], sample.points.shape[1], sample.packed.shape[3])
    _call(sample, (None, output, None, None, None))
    return output


def backward(sample: Sample, grad: Tensor) -> list[Tensor]:
    """All gradients."""
    grads = [torch.zeros_like(tensor) for tensor in (sample.packed, sample.points, sample.weights)]
    _call(sample, (grad.contiguous(), None, *grads))
    return grads


def _call(sample: Sample, others: tuple[Tensor | None, ...]) -> None:
    packed, level_hw, points, weights = sample
    numbers = [*packed.shape, *points.shape[1:3], *weights.shape[4:], *level_hw]
    tensors = (packed, points, weights, *others)
    data = (ctypes.c_void_p * 8)(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    code = _library().published_style((ctypes.c_int * len(numbers))(*numbers), data, stream)
    if code:
        raise RuntimeError(f"the published-style kernel: CUDA error {code}")
