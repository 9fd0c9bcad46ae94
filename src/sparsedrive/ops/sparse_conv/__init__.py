"""Sparse convolution: sums over the active neighbours of cells, and the maps that say who is whose. See README.md in this folder."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops import backends
from sparsedrive.ops.sparse_conv import maps_op, op, reference
from sparsedrive.ops.sparse_conv.reference import Triple, kernel_places

__all__ = ["available_dataflows", "kernel_places", "kernel_tables", "reached_coords", "sparse_conv"]

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
DATAFLOWS = ("auto", *op.DATAFLOWS["cpp"])


def sparse_conv(
    feats: Float[Tensor, "N I"],
    weight: Float[Tensor, "K I O"],
    in_of_out: Int[Tensor, "K M"],
    out_of_in: Int[Tensor, "K N"],
    *,
    dataflow: str = "auto",
    backend: str | None = None,
) -> Float[Tensor, "M O"]:
    """output[m] = sum over kernel offsets k of feats[in_of_out[k, m]] @ weight[k], offsets without an input (-1) left out.

    Swap the tables to go the other way (inverse convolution): they hold the same pairs.

    Args:
        feats: features of the input cells.
        weight: a matrix a kernel offset, of the features' dtype or float32.
        in_of_out: int32, for each kernel offset and output row the input row, or -1.
        out_of_in: int32, for each kernel offset and input row the output row, or -1; the gradient of the features follows it.
        dataflow: order of the sums, see `sparse.ConvConfig`; "auto" for the backend's best.
        backend: "reference", "cpp" (on a CPU), "triton" (on a GPU), "rowwise", or None for the `use_backend` context or else the best for
            the device.

    Half precision is summed in float32 and rounded once. Double backward is not there.

    Raises:
        ValueError: an argument does not fit, or the backend cannot run (that way).

    Source: Graham et al., Submanifold Sparse Convolutional Networks (arXiv:1706.01307); dataflows of TorchSparse++ (MICRO 2023).
    """
    _check(feats, weight, in_of_out, out_of_in)
    if dataflow not in DATAFLOWS:
        raise _error("dataflow", f"one of {', '.join(DATAFLOWS)}", dataflow, "choose one of these")
    choice = backends.choose(op.NAME, backend, feats.device.type)
    if choice == backends.REFERENCE:
        return reference.sparse_conv(feats, weight, in_of_out, out_of_in)
    return op.run(feats, weight, in_of_out, out_of_in, dataflow, choice)


def available_dataflows(device: str) -> tuple[str, ...]:
    """What `dataflow` can be, beside "auto", for tensors on "cpu" or "cuda" with what is installed here."""
    return op.DATAFLOWS[backends.find_kernel(op.NAME, backends.AUTO, device).backend]


def kernel_tables(
    in_coords: Int[Tensor, "N 4"],
    out_coords: Int[Tensor, "M 4"],
    *,
    kernel: Triple,
    stride: Triple = (1, 1, 1),
    start: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    backend: str | None = None,
) -> tuple[Int[Tensor, "K M"], Int[Tensor, "K N"]]:
    """Who meets whom: at place j of the kernel output cell q meets input cell q * stride + start + j * dilation of the same batch index.

    Args:
        in_coords, out_coords: int32 cells (batch, x, y, z), each once, in any order.
        kernel, stride, start, dilation: along x, y, z. `start` is -padding; -((k - 1) // 2) for a centred kernel.
        backend: "reference", "cpp" (on a CPU), or None for the context or the best.

    Returns:
        for each kernel offset (`kernel_places` order) the input row of each output, and the output row of each input; -1 for none.

    Raises:
        ValueError: shapes do not fit; a cell of the input is there twice; cells lie too far apart for 62-bit keys.
    """
    _check_coords("in_coords", in_coords)
    _check_coords("out_coords", out_coords)
    _check_geometry(kernel, stride, dilation)
    choice = backends.choose(maps_op.NAME, backend, in_coords.device.type)
    return maps_op.kernel_tables(in_coords, out_coords, list(kernel), list(stride), list(start), list(dilation), choice)


def reached_coords(
    coords: Int[Tensor, "N 4"],
    *,
    kernel: Triple,
    stride: Triple,
    start: Triple,
    dilation: Triple,
    bounds: Int[Tensor, "2 3"],
    transposed: bool = False,
    backend: str | None = None,
) -> Int[Tensor, "M 4"]:
    """All cells q with q * stride + start + j * dilation = an input cell for some j; with `transposed` the cells that inputs q give so.

    Args:
        coords: int32 cells (batch, x, y, z).
        kernel, stride, start, dilation: as in `kernel_tables`.
        bounds: smallest and largest x, y, z of the result; what lies outside is left out.
        transposed: the other direction.
        backend: as in `kernel_tables`.

    Returns:
        cells, each once, sorted by (b, x, y, z).

    Raises:
        ValueError: shapes do not fit, or cells lie too far apart for 62-bit keys.
    """
    _check_coords("coords", coords)
    _check_geometry(kernel, stride, dilation)
    choice = backends.choose(maps_op.NAME, backend, coords.device.type)
    return maps_op.reached_coords(coords, list(kernel), list(stride), list(start), list(dilation), bounds, transposed, choice)


def _check(feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor) -> None:
    if feats.dim() != 2 or feats.dtype not in FLOATS:
        raise _error("feats", "[N, I] floating point", f"{list(feats.shape)} {feats.dtype}", "give one row a cell")
    if weight.dim() != 3 or weight.shape[1] != feats.shape[1]:
        raise _error("weight", f"[K, {feats.shape[1]}, O] to go with feats", list(weight.shape), "give a matrix for each kernel offset")
    if weight.dtype not in (feats.dtype, reference.compute_dtype(feats.dtype)):
        raise _error("weight", f"{feats.dtype} like feats", weight.dtype, "convert one of them")
    for name, table, rows in (("in_of_out", in_of_out, None), ("out_of_in", out_of_in, feats.shape[0])):
        if table.dim() != 2 or table.shape[0] != weight.shape[0] or table.dtype != torch.int32 or rows not in (None, table.shape[1]):
            expected = f"int32 [{weight.shape[0]}, {'M' if rows is None else rows}]"
            raise _error(name, expected, f"{table.dtype} {list(table.shape)}", "take both from kernel_tables, in_of_out first")
    for name, tensor in (("weight", weight), ("in_of_out", in_of_out), ("out_of_in", out_of_in)):
        if tensor.device != feats.device:
            raise _error(name, f"a tensor on {feats.device} like feats", tensor.device, "move all to one device")


def _check_coords(name: str, coords: Tensor) -> None:
    if coords.dim() != 2 or coords.shape[1] != 4 or coords.dtype != torch.int32:
        raise _error(name, "int32 [N, 4]", f"{coords.dtype} {list(coords.shape)}", "rows are (batch, x, y, z)")


def _check_geometry(kernel: Triple, stride: Triple, dilation: Triple) -> None:
    for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if len(value) != 3 or min(value) < 1:
            raise _error(name, "three positive numbers", value, "one each for x, y, z")


def _error(name: str, expected: str, got: object, remedy: str) -> ValueError:
    return ValueError(f"sparse_conv.{name}: expected {expected}, got {got}; {remedy}")
