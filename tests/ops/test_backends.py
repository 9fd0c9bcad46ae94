"""Choice of backends: argument, context, best; names that cannot run raise."""

import pytest
import torch

from sparsedrive.ops import BackendRow, backend_report, backends, deformable_aggregation, sigmoid_focal_loss, use_backend
from sparsedrive.ops._define import define_op
from sparsedrive.ops.backends import Kernel
from sparsedrive.ops.deformable_aggregation.samples import random_sample

DAF, FOCAL = "deformable_aggregation", "sigmoid_focal_loss"


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


@pytest.mark.parametrize("name", ["cuda", "triton", "cpp"])
def test_backend_not_built_raises_with_the_reason(name):
    sample = random_sample()
    with pytest.raises(ValueError, match=f"{DAF}: backend '{name}' is not built in this version; .*'reference'"):
        deformable_aggregation(*sample, backend=name)
    with pytest.raises(ValueError, match=f"{FOCAL}: backend '{name}' is not built in this version"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), backend=name)
    with pytest.raises(ValueError, match="not built in this version"), use_backend(name):
        pass


def test_unknown_names_raise():
    with pytest.raises(ValueError, match=f"{DAF}: expected a backend of visible, ordered, reference, got 'vizible'"):
        deformable_aggregation(*random_sample(), backend="vizible")
    with pytest.raises(ValueError, match="expected a backend of visible, ordered, reference, got 'vizible'"), use_backend("vizible"):
        pass
    with (
        pytest.raises(ValueError, match=f"use_backend.op: expected one of {DAF}, {FOCAL}, got 'focal'"),
        use_backend("reference", op="focal"),
    ):
        pass


def test_context_does_not_fall_back():
    """A backend that one op has and another has not: the other raises instead of quietly running something else."""
    with use_backend("visible"):
        deformable_aggregation(*random_sample())
        with pytest.raises(ValueError, match=f"{FOCAL}: expected a backend of closed_form, reference, got 'visible'; .*op="):
            sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))
    with use_backend("visible", op=DAF):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))


def test_other_devices():
    assert backends.choose(DAF, None, "cpu") == "auto"  # resolved when the op runs, on the device it then runs on
    assert backends.find_kernel(DAF, "auto", "cpu").backend == "visible"
    assert backends.find_kernel(DAF, "auto", "cuda").backend == "visible"
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
    for op, best in ((DAF, "visible"), (FOCAL, "closed_form")):
        assert [row.backend for row in rows if row.op == op and row.active_for_cpu] == [best]
        assert [row.backend for row in rows if row.op == op and row.active_for_cuda] == [best]
    for name in ("cuda", "triton", "cpp"):
        assert not table[DAF, name].available and table[DAF, name].reason == "not built in this version"


def test_report_follows_the_context():
    with use_backend("visible"):
        active = {(row.op, row.backend) for row in backend_report() if row.active_for_cpu}
    assert active == {(DAF, "visible")}  # the focal loss would raise
