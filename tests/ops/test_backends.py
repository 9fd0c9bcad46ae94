"""Choice of backends: argument, context, best; names that cannot run raise."""

import importlib
import re

import pytest
import torch

from sparsedrive.ops import (
    BackendRow,
    backend_report,
    backends,
    cuda_library,
    deformable_aggregation,
    native_library,
    sigmoid_focal_loss,
    triton_backend,
    use_backend,
)
from sparsedrive.ops._define import define_op
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.deformable_aggregation.samples import random_sample

DAF, FOCAL = "deformable_aggregation", "sigmoid_focal_loss"
BUILT = native_library.why_missing() is None
ABSENT = {name: why for name, why in (("cuda", cuda_library.why_missing()), ("triton", triton_backend.why_missing())) if why is not None}
ON_CUDA = [name for name in ("cuda", "triton") if name not in ABSENT]


@pytest.fixture
def scaled():
    """An op with two CPU kernels, x * factor and the same slower but to be told apart: it adds 100. Gone after the test."""

    def kernel(backend: str, extra: float) -> Kernel:
        return Kernel(
            backend=backend,
            devices=("cpu",),
            note="for the test",
            forward=lambda x, factor: x * factor + extra,
            backward=lambda grad, x, factor, needs: [grad * factor],
        )

    library_op = define_op(
        name="scaled_for_test",
        arguments="Tensor x, float factor",
        differentiable=(0,),
        fake=lambda x, factor: torch.empty_like(x),
        kernels=(kernel("fast", 0.0), kernel("slow", 100.0)),
    )

    def scaled(x, factor, backend=None):
        choice = backends.choose("scaled_for_test", backend, x.device.type)
        return x * factor - 1 if choice == "reference" else library_op(x, factor, choice)

    yield scaled
    del backends._tables["scaled_for_test"]


def test_argument_beats_context_beats_best(scaled):
    x = torch.ones(2)
    assert scaled(x, 3.0)[0] == 3
    with use_backend("slow", op="scaled_for_test"):
        assert scaled(x, 3.0)[0] == 103
        assert scaled(x, 3.0, backend="fast")[0] == 3
        assert scaled(x, 3.0, backend="auto")[0] == 3
        with use_backend("reference"):
            assert scaled(x, 3.0)[0] == 2
            with use_backend("auto"):
                assert scaled(x, 3.0)[0] == 3
        assert scaled(x, 3.0)[0] == 103
        with use_backend("reference", op=FOCAL):  # says nothing about this op
            assert scaled(x, 3.0)[0] == 103
    assert scaled(x, 3.0)[0] == 3


def test_defined_op_is_one_differentiable_node(scaled):
    x = torch.ones(2, requires_grad=True)
    (grad,) = torch.autograd.grad(scaled(x, 3.0).sum(), x)
    assert (grad == 3).all()
    torch.library.opcheck(torch.ops.sparsedrive.scaled_for_test.default, (x, 3.0, "slow"))


def test_context_ends_with_an_error():
    with pytest.raises(RuntimeError, match="inside"), use_backend("reference"):
        raise RuntimeError("inside")
    assert backends._contexts == ()


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_backend_not_there_raises_with_the_reason(name):
    """On a CPU these always raise: for want of the backend, or of the device."""
    reason = f"backend '{name}' is {ABSENT[name]}" if name in ABSENT else f"backend '{name}' does not run on 'cpu' tensors"
    with pytest.raises(ValueError, match=f"{DAF}: {re.escape(reason)}; .*'reference'"):
        deformable_aggregation(*random_sample(), backend=name)
    with pytest.raises(ValueError, match=f"{FOCAL}: {re.escape(reason)}; "):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), backend=name)
    if name in ABSENT:
        with pytest.raises(ValueError, match=re.escape(ABSENT[name])), use_backend(name):
            pass


@pytest.mark.parametrize(("op", "order"), [(DAF, ["cuda", "triton", "visible", "ordered"]), (FOCAL, ["cuda", "triton", "closed_form"])])
def test_the_order_on_a_gpu(op, order):
    """Best first, whatever of it is here."""
    kernels = importlib.import_module(f"sparsedrive.ops.{op}.op").KERNELS
    assert [kernel.backend for kernel in kernels if "cuda" in kernel.devices] == order


def test_unknown_names_raise():
    with pytest.raises(ValueError, match=f"{DAF}: expected a backend of .*visible, ordered, reference, got 'vizible'"):
        deformable_aggregation(*random_sample(), backend="vizible")
    with pytest.raises(ValueError, match=r"expected a backend of .*visible, ordered, reference, got 'vizible'"), use_backend("vizible"):
        pass
    with (
        pytest.raises(ValueError, match=f"use_backend.op: expected one of .*{DAF}, .*{FOCAL}.*, got 'focal'"),
        use_backend("reference", op="focal"),
    ):
        pass


def test_context_does_not_fall_back():
    """A backend that one op has and another has not: the other raises instead of quietly running something else."""
    with use_backend("visible"):
        deformable_aggregation(*random_sample())
        with pytest.raises(ValueError, match=f"{FOCAL}: expected a backend of .*closed_form, reference, got 'visible'; .*op="):
            sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))
    with use_backend("visible", op=DAF):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))


def test_other_devices():
    assert backends.choose(DAF, None, "cpu") == "auto"  # resolved when the op runs, on the device it then runs on
    assert backends.find_kernel(DAF, "auto", "cpu").backend == ("cpp" if BUILT else "visible")
    assert backends.find_kernel(DAF, "auto", "cuda").backend == [*ON_CUDA, "visible"][0]
    assert backends.choose(DAF, None, "mps") == "reference"
    with pytest.raises(ValueError, match="backend 'visible' does not run on 'mps' tensors"):
        backends.choose(DAF, "visible", "mps")


def test_report():
    rows = backend_report()
    assert all(isinstance(row, BackendRow) and row.reason for row in rows)
    table = {(row.op, row.backend): row for row in rows}
    assert len(table) == len(rows)
    assert {name for op, name in table if op == DAF} == {"visible", "ordered", "reference", "cuda", "triton", "cpp"}
    assert {name for op, name in table if op == FOCAL} == {"closed_form", "reference", "cuda", "triton", "cpp"}
    for op, best_on_cpu, best_on_cuda in (
        (DAF, "cpp" if BUILT else "visible", [*ON_CUDA, "visible"][0]),
        (FOCAL, "cpp" if BUILT else "closed_form", [*ON_CUDA, "closed_form"][0]),
    ):
        assert [row.backend for row in rows if row.op == op and row.active_for_cpu] == [best_on_cpu]
        assert [row.backend for row in rows if row.op == op and row.active_for_cuda] == [best_on_cuda]
    for name, why in ABSENT.items():
        assert not table[DAF, name].available and table[DAF, name].reason == why


def test_report_follows_the_context():
    with use_backend("visible"):
        active = {(row.op, row.backend) for row in backend_report() if row.active_for_cpu}
    assert active == {(DAF, "visible")}  # the focal loss would raise
