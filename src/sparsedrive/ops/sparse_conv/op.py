"""The op behind `sparse_conv`, and its kernels."""

from torch import Tensor

from sparsedrive.ops import triton_backend
from sparsedrive.ops._define import define_op
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.sparse_conv import cpp, rowwise

NAME = "sparse_conv"


def _fake(feats: Tensor, weight: Tensor, in_of_out: Tensor, out_of_in: Tensor, dataflow: str) -> Tensor:
    return feats.new_empty(in_of_out.shape[1], weight.shape[2])


DATAFLOWS = {
    "cpp": ("implicit_gemm", "gather_scatter", "fetch_on_demand"),
    "triton": ("implicit_gemm", "gather_scatter"),
    "rowwise": ("gather_scatter",),
}
"""What each backend can be told beside "auto"."""
_TRITON = "sparsedrive.ops.sparse_conv.triton_kernels"
KERNELS = (
    Kernel(
        backend="cpp",
        devices=("cpu",),
        note="rows read where they lie, sums in registers, in C++",
        forward=cpp.forward,
        backward=cpp.backward,
    ),
    Kernel(
        backend="triton",
        devices=("cuda",),
        note="rows read where they lie, sums in registers, in Triton",
        forward=triton_backend.deferred(_TRITON, "forward"),
        backward=triton_backend.deferred(_TRITON, "backward"),
    ),
    Kernel(
        backend="rowwise",
        devices=("cpu", "cuda"),
        note="gather, BLAS product and scatter of each kernel offset, in plain PyTorch",
        forward=rowwise.forward,
        backward=rowwise.backward,
    ),
)

run = define_op(
    name=NAME,
    arguments="Tensor feats, Tensor weight, Tensor in_of_out, Tensor out_of_in, str dataflow",
    differentiable=(0, 1),
    fake=_fake,
    kernels=KERNELS,
    missing={"cpp": cpp.why_missing(), "triton": triton_backend.why_missing()},
)
