"""Sparse convolution in Triton: implicit matrix products, no copy of gathered rows. Imported when it is first called.

A program owns a tile of the result and sums it in registers in a fixed order, so nothing is added by atomics and the same call gives the
same bits. A kernel offset at which no row of a tile has a pair costs the load of its part of the table. Pointers step from offset to
offset, so that only what is inside a row or a matrix is counted in 32 bits.

float32 is multiplied in full precision, or as TF32 where PyTorch is told so for its own products (`torch.backends.cuda.matmul`).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsedrive.ops.sparse_conv import rowwise
from sparsedrive.ops.sparse_conv.reference import compute_dtype

BLOCK_ROWS = 64
SMALLEST_BLOCK = 16
"""Of a tile's side: what tensor cores take."""
CHUNK = 4096
"""Rows that one program at least sums for the gradient of the weights; a multiple of BLOCK_ROWS."""
MAX_CHUNKS = 32
TRITON_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def forward(feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked. float64 goes `rowwise`.

    Raises:
        ValueError: dataflow "fetch_on_demand" was asked for.
    """
    if dataflow == "fetch_on_demand":
        remedy = "take 'auto', or backend 'cpp' on a CPU"
        raise ValueError(
            f"sparse_conv.dataflow: expected 'implicit_gemm' or 'gather_scatter' of backend 'triton', got {dataflow!r}; {remedy}"
        )
    if _is_rowwise(feats, dataflow):
        return rowwise.forward(feats, weight, in_of_out, out_of_in, "gather_scatter")
    return _apply(feats, weight, in_of_out, transposed=False)


def backward(
    grad: Tensor, feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str, needs: list[bool]
) -> list[Tensor]:
    """Gradients of those of (feats, weight) that `needs` names."""
    if _is_rowwise(feats, dataflow):
        return rowwise.backward(grad, feats, weight, in_of_out, out_of_in, "gather_scatter", needs)
    grads = []
    if needs[0]:
        grads.append(_apply(grad, weight, out_of_in, transposed=True))
    if needs[1]:
        grads.append(_weight_gradient(feats, grad, in_of_out, weight))
    return grads


def _is_rowwise(feats: Tensor, dataflow: str) -> bool:
    return dataflow == "gather_scatter" or feats.dtype == torch.float64


def _apply(rows: Tensor, weight: Tensor, table: Tensor, *, transposed: bool) -> Tensor:
    """Sum over offsets of rows[table[k]] @ weight[k], or the matrices transposed: [M, O], of the rows' dtype."""
    rows, weight, table = (tensor.detach().contiguous() for tensor in (rows, weight, table))
    offsets, count = table.shape
    in_channels, out_channels = reversed(weight.shape[1:]) if transposed else weight.shape[1:]
    output = rows.new_empty(count, out_channels)
    if 0 in (output.numel(), rows.numel(), offsets):
        return output.zero_()
    constants = {
        "OFFSETS": offsets,
        "IN": in_channels,
        "OUT": out_channels,
        "TRANSPOSED": transposed,
        "BLOCK_M": BLOCK_ROWS,
        "BLOCK_I": _block(in_channels, 32),
        "BLOCK_O": _block(out_channels, 64),
        **_arithmetic(rows.dtype, weight.dtype),
    }
    grid = (triton.cdiv(count, BLOCK_ROWS) * triton.cdiv(out_channels, constants["BLOCK_O"]),)
    with torch.cuda.device_of(rows):
        _convolve[grid](rows, weight, table, output, count, **constants, enable_fp_fusion=True)
    return output


def _weight_gradient(rows: Tensor, grad: Tensor, table: Tensor, weight: Tensor) -> Tensor:
    """For each offset the product of the joined rows: [K, I, O]. Long tables are summed in chunks, whose number goes by their length."""
    rows, grad, table = (tensor.detach().contiguous() for tensor in (rows, grad, table))
    offsets, count = table.shape
    in_channels, out_channels = weight.shape[1:]
    if 0 in (weight.numel(), rows.numel(), count):
        return weight.new_zeros(weight.shape)
    chunk = max(CHUNK, triton.cdiv(triton.cdiv(count, MAX_CHUNKS), BLOCK_ROWS) * BLOCK_ROWS)
    parts = rows.new_empty(triton.cdiv(count, chunk), *weight.shape, dtype=compute_dtype(weight.dtype))
    constants = {
        "OFFSETS": offsets,
        "IN": in_channels,
        "OUT": out_channels,
        "BLOCK_M": BLOCK_ROWS,
        "BLOCK_I": _block(in_channels, 64),
        "BLOCK_O": _block(out_channels, 64),
        **_arithmetic(rows.dtype, grad.dtype),
    }
    tiles = triton.cdiv(in_channels, constants["BLOCK_I"]) * triton.cdiv(out_channels, constants["BLOCK_O"])
    with torch.cuda.device_of(rows):
        _join[(len(parts) * offsets * tiles,)](rows, grad, table, parts, count, chunk, **constants, enable_fp_fusion=True)
    return parts.sum(0).to(weight.dtype)


def _block(channels: int, largest: int) -> int:
    return min(max(triton.next_power_of_2(channels), SMALLEST_BLOCK), largest)


def _arithmetic(*dtypes: torch.dtype) -> dict[str, object]:
    """What two dtypes are multiplied in: half precision if both are the same, else float32."""
    same = dtypes[0] == dtypes[1]
    return {"DTYPE": TRITON_DTYPES[dtypes[0]] if same else tl.float32, "PRECISION": "tf32" if _tf32_is_allowed() else "ieee"}


def _tf32_is_allowed() -> bool:
    settings = torch.backends.cuda.matmul
    # Newer PyTorch refuses to read the old setting once the new one was written; the new one follows the old.
    return settings.fp32_precision == "tf32" if hasattr(settings, "fp32_precision") else settings.allow_tf32


@triton.jit(do_not_specialize=["count"])
def _convolve(
    rows, weight, table, output, count,
    OFFSETS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program BLOCK_M rows and BLOCK_O channels of the output. Tiles of the same rows follow each other: they share what is read."""
    TILES: tl.constexpr = (OUT + BLOCK_O - 1) // BLOCK_O
    m = (tl.program_id(0) // TILES).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(0) % TILES * BLOCK_O + tl.arange(0, BLOCK_O)
    lane = tl.arange(0, BLOCK_I)
    total = tl.zeros([BLOCK_M, BLOCK_O], dtype=tl.float32)
    matrix, entry = weight, table + m
    for _ in range(OFFSETS):
        source = tl.load(entry, mask=m < count, other=-1)
        if tl.max(source, 0) >= 0:
            first = rows + source.to(tl.int64)[:, None] * IN
            for begin in range(0, IN, BLOCK_I):
                i = begin + lane
                tile = tl.load(first + i[None, :], mask=(source >= 0)[:, None] & (i < IN)[None, :], other=0.0)
                place = (o[None, :] * IN + i[:, None]) if TRANSPOSED else (i[:, None] * OUT + o[None, :])
                factor = tl.load(matrix + place, mask=(i < IN)[:, None] & (o < OUT)[None, :], other=0.0)
                total = tl.dot(tile.to(DTYPE), factor.to(DTYPE), total, input_precision=PRECISION)
        matrix += IN * OUT
        entry += count
    tl.store(output + m[:, None] * OUT + o[None, :], total.to(output.dtype.element_ty), mask=(m < count)[:, None] & (o < OUT)[None, :])


@triton.jit(do_not_specialize=["count", "chunk"])
def _join(
    rows, grad, table, parts, count, chunk,
    OFFSETS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program a tile of one offset's matrix, over one chunk of the output's rows."""
    TILES_O: tl.constexpr = (OUT + BLOCK_O - 1) // BLOCK_O
    TILES: tl.constexpr = TILES_O * ((IN + BLOCK_I - 1) // BLOCK_I)
    tile = tl.program_id(0) % TILES
    part = (tl.program_id(0) // TILES).to(tl.int64)  # offsets of one chunk follow each other
    first_row = part // OFFSETS * chunk
    entry = table + part % OFFSETS * count
    i = tile // TILES_O * BLOCK_I + tl.arange(0, BLOCK_I)
    o = tile % TILES_O * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros([BLOCK_I, BLOCK_O], dtype=tl.float32)
    for begin in range(0, chunk, BLOCK_M):
        m = first_row + begin + tl.arange(0, BLOCK_M)
        source = tl.load(entry + m, mask=m < count, other=-1)
        if tl.max(source, 0) >= 0:
            there = (source >= 0)[:, None]
            left = tl.load(rows + source.to(tl.int64)[:, None] * IN + i[None, :], mask=there & (i < IN)[None, :], other=0.0)
            right = tl.load(grad + m[:, None] * OUT + o[None, :], mask=there & (o < OUT)[None, :], other=0.0)
            total = tl.dot(tl.trans(left.to(DTYPE)), right.to(DTYPE), total, input_precision=PRECISION)
    place = i[:, None] * OUT + o[None, :]
    tl.store(parts + part * (IN * OUT) + place, total, mask=(i < IN)[:, None] & (o < OUT)[None, :])
