"""The ops behind `kernel_tables` and `reached_coords`. They have no gradients: maps hold whole numbers."""

import torch
from torch import Tensor

from sparsedrive.ops import backends
from sparsedrive.ops._define import NAMESPACE
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.sparse_conv import cpp, reference

NAME = "sparse_conv_maps"
GEOMETRY = "int[] kernel, int[] stride, int[] start, int[] dilation"
Ints = list[int]


def _no_gradient(*_: object) -> list[Tensor]:
    raise AssertionError("kernel maps hold whole numbers")


_missing = cpp.why_missing()
_CPP = Kernel(
    backend="cpp",
    devices=("cpu",),
    note="radix sort and one walk a kernel offset, in C++",
    forward=cpp.reached_coords,
    backward=_no_gradient,
)
backends.declare(NAME, () if _missing else (_CPP,), {"cpp": _missing} if _missing else None)


def _in_cpp(backend: str, coords: Tensor) -> bool:
    # Chosen again where the op runs: a program may be exported with the library and run without.
    return backends.choose(NAME, backend, coords.device.type) != backends.REFERENCE


def _tables(
    in_coords: Tensor, out_coords: Tensor, kernel: Ints, stride: Ints, start: Ints, dilation: Ints, backend: str
) -> tuple[Tensor, Tensor]:
    chosen = cpp if _in_cpp(backend, in_coords) else reference
    return chosen.kernel_tables(in_coords, out_coords, kernel, stride, start, dilation)


kernel_tables = torch.library.custom_op(
    f"{NAMESPACE}::sparse_kernel_tables",
    _tables,
    mutates_args=(),
    schema=f"(Tensor in_coords, Tensor out_coords, {GEOMETRY}, str backend) -> (Tensor, Tensor)",
)


@kernel_tables.register_fake
def _(in_coords: Tensor, out_coords: Tensor, kernel: Ints, stride: Ints, start: Ints, dilation: Ints, backend: str):
    offsets = kernel[0] * kernel[1] * kernel[2]
    return in_coords.new_empty(offsets, out_coords.shape[0]), in_coords.new_empty(offsets, in_coords.shape[0])


def _reached(
    coords: Tensor, kernel: Ints, stride: Ints, start: Ints, dilation: Ints, bounds: Tensor, transposed: bool, backend: str
) -> Tensor:
    chosen = cpp if _in_cpp(backend, coords) else reference
    return chosen.reached_coords(coords, kernel, stride, start, dilation, bounds, transposed)


reached_coords = torch.library.custom_op(
    f"{NAMESPACE}::sparse_reached_coords",
    _reached,
    mutates_args=(),
    schema=f"(Tensor coords, {GEOMETRY}, Tensor bounds, bool transposed, str backend) -> Tensor",
)


@reached_coords.register_fake
def _(coords: Tensor, kernel: Ints, stride: Ints, start: Ints, dilation: Ints, bounds: Tensor, transposed: bool, backend: str):
    return coords.new_empty(torch.library.get_ctx().new_dynamic_size(), 4)
