"""Sparse convolution and its kernel maps in C++ on the CPU: `ops/native/sparse_conv.cpp` and `sparse_maps.cpp`.

Every number is summed by one thread in a fixed order, so any number of threads (`torch.set_num_threads`) gives the same bits.
"""

import ctypes

import torch
from torch import Tensor

from sparsedrive.ops import native_library
from sparsedrive.ops.sparse_conv import rowwise
from sparsedrive.ops.sparse_conv.reference import compute_dtype

DTYPES = {torch.float32: 0, torch.float64: 1}
WIDEST_ISA = 2
"""Widest instruction set to use: 0 any machine's, 1 AVX2, 2 AVX-512. What the machine has not is never used."""
FAILURES = {
    2: "expected cells in a box of at most 4e18, got a larger one; remove far outliers",
    3: "expected each cell once, got some twice; sparse_quantize keeps one of each",
}


def why_missing() -> str | None:
    """Why the library cannot be used; None if it can."""
    found = native_library.library()
    return found if isinstance(found, str) else None


def forward(feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked."""
    if dataflow == "gather_scatter":
        return rowwise.forward(feats, weight, in_of_out, out_of_in, dataflow)
    dtype = compute_dtype(feats.dtype)
    output = feats.new_empty(in_of_out.shape[1], weight.shape[2], dtype=dtype)
    return _run(_as(feats, dtype), _as(weight, dtype), None, in_of_out, output, dataflow).to(feats.dtype)


def backward(
    grad: Tensor, feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str, needs: list[bool]
) -> list[Tensor]:
    """Gradients of those of (feats, weight) that `needs` names."""
    if dataflow == "gather_scatter":
        return rowwise.backward(grad, feats, weight, in_of_out, out_of_in, dataflow, needs)
    dtype = compute_dtype(feats.dtype)
    wide, grads = _as(grad, dtype), []
    if needs[0]:
        result = torch.empty(feats.shape, dtype=dtype)
        grads.append(_run(wide, _as(weight.transpose(1, 2), dtype), None, out_of_in, result, dataflow).to(feats.dtype))
    if needs[1]:
        result = torch.empty(weight.shape, dtype=dtype)
        grads.append(_run(_as(feats, dtype), None, wide, in_of_out, result, dataflow).to(weight.dtype))
    return grads


def kernel_tables(
    in_coords: Tensor, out_coords: Tensor, kernel: list[int], stride: list[int], start: list[int], dilation: list[int]
) -> tuple[Tensor, Tensor]:
    """Both tables of a geometry, see the public function."""
    offsets = kernel[0] * kernel[1] * kernel[2]
    tables = in_coords.new_empty(offsets, len(out_coords)), in_coords.new_empty(offsets, len(in_coords))
    ins, outs = in_coords.contiguous(), out_coords.contiguous()
    sizes = [ctypes.c_int64(len(coords)) for coords in (ins, outs)]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (ins, outs, *tables)]
    threads = ctypes.c_int64(torch.get_num_threads())
    numbers = _int64s([*kernel, *stride, *start, *dilation])
    failed = _library().sparsedrive_kernel_table(pointers[0], sizes[0], pointers[1], sizes[1], numbers, *pointers[2:], threads)
    _raise(failed)
    return tables


def reached_coords(
    coords: Tensor, kernel: list[int], stride: list[int], start: list[int], dilation: list[int], bounds: Tensor, transposed: bool
) -> Tensor:
    """All cells that are reached, see the public function."""
    cells, limits = coords.contiguous(), bounds.to(torch.int64).contiguous()
    count, handle = ctypes.c_int64(), ctypes.c_void_p()
    numbers = _int64s([*kernel, *stride, *start, *dilation])
    inputs = (ctypes.c_void_p(cells.data_ptr()), ctypes.c_int64(len(cells)), numbers, ctypes.c_void_p(limits.data_ptr()))
    _raise(_library().sparsedrive_reached_cells(*inputs, ctypes.c_int32(transposed), ctypes.byref(count), ctypes.byref(handle)))
    out = coords.new_empty(count.value, 4)
    if count.value:
        _library().sparsedrive_take_cells(handle, ctypes.c_void_p(out.data_ptr()))
    return out


def _run(feats: Tensor, weight: Tensor | None, grad: Tensor | None, table: Tensor, result: Tensor, dataflow: str) -> Tensor:
    """Fill `result`: output rows if there are weights, else the gradient of the weights."""
    if 0 in (result.numel(), table.numel(), feats.numel()):
        return result.zero_()
    in_channels, out_channels = result.shape[1:] if weight is None else weight.shape[1:]
    sizes = _int64s([len(table), len(feats), table.shape[1], in_channels, out_channels, dataflow == "fetch_on_demand"])
    tensors = (feats, weight, grad, table.contiguous(), result)
    data = (ctypes.c_void_p * 5)(*(None if value is None else value.data_ptr() for value in tensors))
    threads = ctypes.c_int64(torch.get_num_threads())
    _raise(_library().sparsedrive_sparse_conv(DTYPES[feats.dtype], sizes, data, threads, WIDEST_ISA))
    return result


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous()


def _int64s(numbers: list[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _library() -> ctypes.CDLL:
    found = native_library.library()
    assert not isinstance(found, str), found
    return found


def _raise(failed: int) -> None:
    if failed in FAILURES:
        raise ValueError(f"sparse_conv.coords: {FAILURES[failed]}")
    if failed:
        raise MemoryError("sparse_conv: the C++ kernel ran out of memory; use fewer cells or a smaller batch")
