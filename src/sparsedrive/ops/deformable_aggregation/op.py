"""The op behind the public function, and its kernels."""

from torch import Tensor

from sparsedrive.ops import cuda_library, native_library, triton_backend
from sparsedrive.ops._define import define_op
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.deformable_aggregation import cpp, cuda, ordered, visible

NAME = "deformable_aggregation"


def _fake(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    return packed.new_empty(packed.shape[0], points.shape[1], packed.shape[3])


_TRITON = "sparsedrive.ops.deformable_aggregation.triton_kernels"
KERNELS = (
    Kernel(
        backend="cpp",
        devices=("cpu",),
        note="only the (point, camera) pairs that count, in C++",
        forward=cpp.forward,
        backward=cpp.backward,
    ),
    Kernel(
        backend="cuda",
        devices=("cuda",),
        note="only the (point, camera) pairs that count, in CUDA C++",
        forward=cuda.forward,
        backward=cuda.backward,
    ),
    Kernel(
        backend="triton",
        devices=("cuda",),
        note="only the (point, camera) pairs that count, in Triton",
        forward=triton_backend.deferred(_TRITON, "forward"),
        backward=triton_backend.deferred(_TRITON, "backward"),
    ),
    Kernel(
        backend="visible",
        devices=("cpu", "cuda"),
        note="only the (point, camera) pairs that count, in plain PyTorch",
        forward=visible.forward,
        backward=visible.backward,
    ),
    Kernel(
        backend="ordered",
        devices=("cpu", "cuda"),
        note="sums in the published kernel's order, for comparisons",
        forward=ordered.forward,
        backward=visible.backward,
    ),
)

run = define_op(
    name=NAME,
    arguments="Tensor packed, int[] level_hw, Tensor points, Tensor weights",
    differentiable=(0, 2, 3),
    fake=_fake,
    kernels=KERNELS,
    missing={"cpp": native_library.why_missing(), "cuda": cuda_library.why_missing(), "triton": triton_backend.why_missing()},
)
