"""The op behind the public function, and its kernels."""

from torch import Tensor

from sparsedrive.ops._define import define_op
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.deformable_aggregation import ordered, visible

NAME = "deformable_aggregation"


def _fake(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    return packed.new_empty(packed.shape[0], points.shape[1], packed.shape[3])


run = define_op(
    name=NAME,
    arguments="Tensor packed, int[] level_hw, Tensor points, Tensor weights",
    differentiable=(0, 2, 3),
    fake=_fake,
    kernels=(
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
    ),
)
