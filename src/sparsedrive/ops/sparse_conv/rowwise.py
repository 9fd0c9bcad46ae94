"""Gather, multiply, scatter in plain PyTorch: for each kernel offset the rows are copied out, multiplied by BLAS and added back.

The dataflow "gather_scatter", on any device. Backward by hand: no copy of gathered rows is kept for it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsedrive.ops.sparse_conv.reference import compute_dtype


def forward(feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked.

    Raises:
        ValueError: another dataflow was asked for.
    """
    if dataflow not in ("auto", "gather_scatter"):
        remedy = "install the C++ kernels (CPU) or Triton (GPU), or take 'auto'"
        raise ValueError(f"sparse_conv.dataflow: expected 'auto' or 'gather_scatter' of backend 'rowwise', got {dataflow!r}; {remedy}")
    dtype = compute_dtype(feats.dtype)
    return _apply(feats.to(dtype), weight.to(dtype), in_of_out).to(feats.dtype)


def backward(
    grad: Tensor, feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str, needs: list[bool]
) -> list[Tensor]:
    """Gradients of those of (feats, weight) that `needs` names."""
    dtype = compute_dtype(feats.dtype)
    wide, grads = grad.to(dtype), []
    if needs[0]:
        grads.append(_apply(wide, weight.to(dtype).transpose(1, 2), out_of_in).to(feats.dtype))
    if needs[1]:
        rows, grad_weight = feats.to(dtype), weight.new_empty(weight.shape, dtype=dtype)
        for offset, outs, ins in _pairs(in_of_out):
            torch.mm(rows[ins].T, wide[outs], out=grad_weight[offset])
        grads.append(grad_weight.to(weight.dtype))
    return grads


def _apply(rows: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    output = rows.new_zeros(table.shape[1], weight.shape[2])
    for offset, outs, ins in _pairs(table):
        output.index_add_(0, outs, rows[ins] @ weight[offset])
    return output


def _pairs(table: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Kernel offset, output rows, input rows."""
    for offset, ins_of_outs in enumerate(table):
        (outs,) = torch.nonzero(ins_of_outs >= 0, as_tuple=True)
        yield offset, outs, ins_of_outs[outs].long()
