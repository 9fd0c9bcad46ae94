"""Sigmoid focal loss: by hand, by derivative, and the published kernel's saturation."""

import math

import pytest
import torch
import torch.nn.functional as F
from beartype import beartype
from jaxtyping import jaxtyped

from sparsedrive.ops import backend_report, sigmoid_focal_loss

FAST = tuple(
    row.backend for row in backend_report() if row.op == "sigmoid_focal_loss" and row.backend in ("cpp", "closed_form") and row.available
)
BACKENDS = ("reference", *FAST)
LOG_FLT_MIN = math.log(1.1754943508222875e-38)


def sample(rows: int = 9, classes: int = 4, scale: float = 3.0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(-1, classes + 1, (rows,), generator=generator)  # both kinds of background
    return logits.to(dtype), target


@pytest.mark.parametrize("clamp_log", [False, True])
def test_by_hand(clamp_log):
    loss = sigmoid_focal_loss(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1]), alpha=0.3, gamma=2.0, clamp_log=clamp_log)
    expected = torch.tensor([[0.7, 0.3]], dtype=torch.float64) * 0.25 * math.log(2)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("clamp_log", [False, True])
def test_without_focus_it_is_weighted_cross_entropy(clamp_log):
    logits, target = sample()
    one_hot = (target[:, None] == torch.arange(4)).double()
    expected = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none") * (one_hot * 0.3 + (1 - one_hot) * 0.7)
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, alpha=0.3, gamma=0.0, clamp_log=clamp_log), expected)


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("background", [4, -1, -3, 100])
def test_any_other_label_is_background(clamp_log, background):
    logits, _ = sample()
    loss = sigmoid_focal_loss(logits, torch.full((9,), background), clamp_log=clamp_log)
    torch.testing.assert_close(loss, 0.75 * logits.sigmoid() ** 2 * F.softplus(logits))


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend, clamp_log, gamma):
    logits, target = sample()
    function = lambda x: sigmoid_focal_loss(x, target, alpha=0.3, gamma=gamma, clamp_log=clamp_log, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(function, logits.requires_grad_())


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_saturated_logits_stay_finite(backend, clamp_log, gamma, dtype):
    logits = torch.tensor([[-1e4, 1e4, -200.0, 200.0, -90.0, 90.0]] * 2, dtype=dtype, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1]), gamma=gamma, clamp_log=clamp_log, backend=backend)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_and_saturated(backend):
    """A confident mistake: the exact form grows with the logit, the published kernel stops at the smallest float; both keep pulling."""
    logits = torch.tensor([[-100.0, 30.0]], requires_grad=True)
    target = torch.tensor([0])
    exact = sigmoid_focal_loss(logits, target, backend=backend)
    torch.testing.assert_close(exact, torch.tensor([[0.25 * 100, 0.75 * 30]]))
    clamped = sigmoid_focal_loss(logits, target, clamp_log=True, backend=backend)
    torch.testing.assert_close(clamped, torch.tensor([[-0.25 * LOG_FLT_MIN, -0.75 * LOG_FLT_MIN]]))
    for loss in (exact, clamped):
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        torch.testing.assert_close(grad, torch.tensor([[-0.25, 0.75]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_rounded_once(backend, dtype, clamp_log):
    logits, target = sample(dtype=dtype)
    loss = sigmoid_focal_loss(logits, target, clamp_log=clamp_log, backend=backend)
    assert loss.dtype == dtype
    whole = sigmoid_focal_loss(logits.float(), target, clamp_log=clamp_log, backend=backend)
    torch.testing.assert_close(loss, whole.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_and_non_contiguous(backend, clamp_log):
    empty = sigmoid_focal_loss(
        torch.zeros(0, 4, requires_grad=True), torch.zeros(0, dtype=torch.int64), clamp_log=clamp_log, backend=backend
    )
    assert empty.shape == (0, 4)
    empty.sum().backward()
    logits, target = sample()
    strided = logits.t().contiguous().t()
    assert not strided.is_contiguous()
    results = []
    for leaf in (strided.requires_grad_(), logits.requires_grad_()):
        loss = sigmoid_focal_loss(leaf, target, clamp_log=clamp_log, backend=backend)
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf, torch.ones((), dtype=torch.float64).expand_as(loss))))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_same_bits_every_time_and_nothing_uninitialised(backend, clamp_log):
    logits, target = sample(rows=700, dtype=torch.float32)

    def results():
        leaf = logits.clone().requires_grad_()
        loss = sigmoid_focal_loss(leaf, target, clamp_log=clamp_log, backend=backend)
        return loss.detach(), torch.autograd.grad(loss.square().sum(), leaf)[0]

    first = results()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()  # every torch.empty is now full of NaN
        again = [results() for _ in range(4)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for run in again for a, b in zip(run, first, strict=True))


@pytest.mark.parametrize("clamp_log", [False, True])
def test_compiles_and_exports(clamp_log):
    class Loss(torch.nn.Module):
        def forward(self, logits, target):
            return sigmoid_focal_loss(logits, target, clamp_log=clamp_log)

    logits, target = sample(dtype=torch.float32)
    logits.requires_grad_()
    want = Loss()(logits, target)
    (want_grad,) = torch.autograd.grad(want.sum(), logits)
    got = torch.compile(Loss(), fullgraph=True, backend="aot_eager")(logits, target)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), logits)[0], want_grad)
    program = torch.export.export(Loss(), (logits, target)).module()
    torch.testing.assert_close(program(logits, target), want)


def test_annotations_hold():
    logits, target = sample()
    assert jaxtyped(typechecker=beartype)(sigmoid_focal_loss)(logits, target).shape == (9, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64)), {}, r"logits: expected \[N, K\], got \[2, 3, 4\]"),
        ((torch.zeros(2, 3).int(), torch.zeros(2, dtype=torch.int64)), {}, r"logits: expected a floating-point tensor"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)), {}, r"target: expected \[2\] .* got \[2, 3\]"),
        ((torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)), {}, r"target: expected \[2\] .* got \[3\]"),
        ((torch.zeros(2, 3), torch.zeros(2)), {}, r"target: expected an integer tensor, got torch.float32"),
        ((torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64, device="meta")), {}, r"target: expected a tensor on cpu"),
        ((torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), {"alpha": 1.5}, r"alpha: expected 0 to 1, got 1.5"),
        ((torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), {"gamma": -1.0}, r"gamma: expected 0 or more, got -1.0"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(ValueError, match=f"sigmoid_focal_loss.{message}.*; "):
        sigmoid_focal_loss(*arguments, **options)


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("backend", FAST)
def test_fast_equals_the_reference(backend, clamp_log, gamma):
    logits, target = sample(rows=40, scale=8.0)
    grads, losses = [], []
    for name in (backend, "reference"):
        leaf = logits.clone().requires_grad_()
        loss = sigmoid_focal_loss(leaf, target, alpha=0.3, gamma=gamma, clamp_log=clamp_log, backend=name)
        losses.append(loss.detach())
        grads.append(torch.autograd.grad((loss * torch.arange(1, 5)).sum(), leaf)[0])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("backend", ["auto", *FAST])
def test_opcheck(backend, clamp_log):
    logits, target = sample(dtype=torch.float32)
    strided = logits.t().contiguous().t()
    for leaf in (logits.requires_grad_(), strided.requires_grad_()):
        torch.library.opcheck(torch.ops.sparsedrive.sigmoid_focal_loss.default, (leaf, target, 0.25, 2.0, clamp_log, backend))


def test_is_one_node_of_an_exported_program():
    logits, target = sample(dtype=torch.float32)

    class Loss(torch.nn.Module):
        def forward(self, logits, target):
            return sigmoid_focal_loss(logits, target).sum()

    expected = Loss()(logits, target)
    program = torch.export.export(Loss(), (logits, target))
    assert "sparsedrive.sigmoid_focal_loss" in str(program.graph)
    torch.testing.assert_close(program.module()(logits, target), expected)
