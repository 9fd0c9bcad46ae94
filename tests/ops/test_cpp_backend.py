"""The C++ kernels: against the references at every edge, on every instruction set, the same bits on any number of threads."""

import importlib
import itertools
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kernel_checks as checks
import pytest
import torch

from sparsedrive.ops import backend_report, backends, deformable_aggregation, native_library, sigmoid_focal_loss
from sparsedrive.ops._define import define_op
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample

cpp, reference = (importlib.import_module(f"sparsedrive.ops.deformable_aggregation.{name}") for name in ("cpp", "reference"))
focal = importlib.import_module("sparsedrive.ops.sigmoid_focal_loss.cpp")
needs_library = pytest.mark.skipif(isinstance(native_library.library(), str), reason=str(native_library.library()))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
"""Largest error over largest value, beside the same numbers in float64: sums are rounded once."""
BANDED = (70, 90, 33, 40)
"""Level sizes of which the gradient of the features is made in more than one piece."""


def value_and_grads(sample: Sample, backend: str = "cpp", grad_dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """Output and the gradients of packed, points, weights; the output's gradient is first rounded to `grad_dtype`."""
    packed, points, weights = (tensor.detach().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights))
    output = deformable_aggregation(packed, sample.level_hw, points, weights, backend=backend)
    grad_output = torch.linspace(-1, 1, output.numel()).view_as(output).to(grad_dtype or output.dtype).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, (packed, points, weights), grad_output)]


def assert_agrees(sample: Sample, tolerance: float) -> None:
    exact = Sample(sample.packed.double(), sample.level_hw, sample.points.double(), sample.weights.double())
    want = value_and_grads(exact, "reference", grad_dtype=sample.packed.dtype)
    for got, expected in zip(value_and_grads(sample), want, strict=True):
        assert got.shape == expected.shape and got.is_contiguous()
        assert ((got.double() - expected).abs() <= tolerance * expected.abs().max()).all()


def raw_backward(sample: Sample, needs: list[bool]) -> list[torch.Tensor]:
    """The kernel itself, below autograd."""
    grad = torch.linspace(-1, 1, sample.points.shape[0] * sample.points.shape[1] * sample.packed.shape[3], dtype=sample.packed.dtype)
    shape = (sample.points.shape[0], sample.points.shape[1], sample.packed.shape[3])
    return cpp.backward(grad.view(shape), sample.packed, list(sample.level_hw), sample.points, sample.weights, needs)


def same_bits(got: list[torch.Tensor], want: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.fixture
def threads():
    """Sets the number of threads; put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ---- built or not


def test_is_built_where_there_is_a_compiler():
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    if not any(shutil.which(compiler) for compiler in compilers):
        pytest.skip("no C++ compiler on this machine")
    assert not isinstance(native_library.library(), str), f"{native_library.library()}: run `make install`, or pip install -e . again"


def test_missing_library_has_a_reason(tmp_path):
    assert str(native_library.load(tmp_path)).startswith(
        "not built: there was no working C++ compiler when the package was installed; to build"
    )
    broken = tmp_path / f"_library{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    broken.write_bytes(b"not a library")
    assert str(native_library.load(tmp_path)).startswith("built, but it does not load (")


@needs_library
def test_library_of_another_version_is_not_called(monkeypatch):
    monkeypatch.setattr(native_library, "INTERFACE", native_library.INTERFACE + 1)
    assert str(native_library.load(Path(native_library.__file__).parent / "native")).startswith("built from another version of the sources")


def test_reason_is_shown_and_raised():
    define_op(
        name="unbuilt_for_test",
        arguments="Tensor x",
        differentiable=(0,),
        fake=torch.empty_like,
        kernels=(),
        missing={"cpp": "not built: because"},
    )
    try:
        row = next(row for row in backend_report() if (row.op, row.backend) == ("unbuilt_for_test", "cpp"))
        assert not row.available and row.reason == "not built: because"
        with pytest.raises(ValueError, match="unbuilt_for_test: backend 'cpp' is not built: because; "):
            backends.choose("unbuilt_for_test", "cpp", "cpu")
    finally:
        del backends._tables["unbuilt_for_test"]
        del backends._missing["unbuilt_for_test", "cpp"]


@needs_library
def test_is_the_default_on_a_cpu_only():
    for op in ("deformable_aggregation", "sigmoid_focal_loss"):
        assert backends.find_kernel(op, "auto", "cpu").backend == "cpp"
        assert backends.find_kernel(op, "auto", "cuda").backend != "cpp"
        with pytest.raises(ValueError, match="backend 'cpp' does not run on 'cuda' tensors"):
            backends.choose(op, "cpp", "cuda")


# ---- the same numbers


@needs_library
@pytest.mark.parametrize("isa", [0, 1, 2])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": 96, "groups": 8},
        {"channels": 64, "groups": 2},
        {"channels": 32, "groups": 4},
        {"channels": 17, "groups": 17},
        {"channels": 7, "groups": 1, "cameras": 1},
        {"channels": 33, "groups": 3, "cameras": 8},
        {"level_hw": (1, 9, 7, 1, 3, 5, 1, 1), "groups": 1},
        {"level_hw": BANDED, "anchors": 30},
    ],
    ids=["12_a_group", "32_a_group", "8_a_group", "1_a_group", "one_camera", "8_cameras", "odd_levels", "bands"],
)
def test_agrees_with_the_reference(sizes, dtype, isa, monkeypatch):
    monkeypatch.setattr(native_library, "WIDEST_ISA", isa)
    sample = random_sample(dtype=dtype, **sizes)
    assert_agrees(sample, TOLERANCE[dtype])


@needs_library
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_borders_and_pixel_centres(dtype):
    """Exactly 0 and 1, the numbers next to them, and where the slope jumps: the centres of pixels and the outermost of them."""
    size, one = 4, torch.ones((), dtype=dtype)
    edges = [0.0, 1.0, torch.nextafter(0 * one, one).item(), torch.nextafter(one, 0 * one).item(), -1e-7, 1 + 1e-6, 0.5]
    values = torch.tensor([*edges, *((i + 0.5) / size for i in range(size))], dtype=dtype)
    grid = torch.cartesian_prod(values, values)
    features = torch.randn(1, 1, size * size + 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = torch.linspace(-1, 1, len(grid) * 2 * 2, dtype=dtype).view(1, len(grid), 1, 1, 2, 2)
    sample = Sample(features, (size, size, 2, 2), grid.view(1, -1, 1, 1, 2), weights)
    want = value_and_grads(sample, "reference")
    for got, expected in zip(value_and_grads(sample), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reads_nothing_beyond_its_arguments(dtype):
    """Features, weights and coordinates lie between NaNs; those of hidden points are NaN or inf themselves."""

    def fenced(tensor: torch.Tensor) -> torch.Tensor:
        memory = torch.full((tensor.numel() + 400,), torch.nan, dtype=tensor.dtype)
        memory[200:-200] = tensor.flatten()
        return memory[200:-200].view_as(tensor)

    sample = random_sample(dtype=dtype, channels=33, groups=3, anchors=40)
    want = value_and_grads(sample)
    hidden = ~reference.visible(sample.points)
    points = sample.points.masked_fill(hidden[..., None], torch.nan)
    weights = sample.weights.masked_fill(hidden[..., None, None], torch.inf)
    assert same_bits(value_and_grads(Sample(fenced(sample.packed), sample.level_hw, fenced(points), fenced(weights))), want)


@needs_library
def test_bfloat16_is_rounded_to_nearest_even_and_keeps_infinities():
    values = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, torch.inf, -torch.inf, torch.nan, 1e-40, -0.0])
    one_pixel = (1, 1, 1, len(values))
    packed, points = torch.ones(one_pixel, dtype=torch.bfloat16), torch.full((1, 1, 1, 1, 2), 0.5)
    output = deformable_aggregation(packed, (1, 1), points, values.view(1, 1, 1, 1, 1, -1), backend="cpp")
    torch.testing.assert_close(output.flatten(), values.bfloat16(), rtol=0, atol=0, equal_nan=True)


@needs_library
@pytest.mark.parametrize("needs", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_only_wanted_gradients(needs, dtype):
    sample = random_sample(dtype=dtype)
    want = [grad for grad, need in zip(raw_backward(sample, [True] * 3), needs, strict=True) if need]
    got = raw_backward(sample, list(needs))
    assert same_bits(got, want) and all(tensor.dtype == dtype for tensor in got)


# ---- threads


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_any_number_of_threads_and_every_time(dtype, threads):
    sample = random_sample(dtype=dtype, level_hw=BANDED, anchors=60, per_anchor=20, channels=48, groups=4, batch=1, cameras=2)
    threads(1)
    want = value_and_grads(sample)
    for number in (1, 2, 3, 16):
        threads(number)
        assert all(same_bits(value_and_grads(sample), want) for _ in range(5))


@needs_library
def test_calls_from_several_python_threads():
    samples = [random_sample(seed=seed, anchors=50) for seed in range(4)]
    want = [value_and_grads(sample) for sample in samples]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(map(same_bits, pool.map(value_and_grads, samples), want))


# ---- sigmoid focal loss


@needs_library
@pytest.mark.parametrize("isa", [0, 1, 2])
@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_focal_loss_agrees_with_the_reference(dtype, gamma, clamp_log, isa, monkeypatch):
    monkeypatch.setattr(native_library, "WIDEST_ISA", isa)
    checks.assert_focal_agrees(focal, dtype, gamma, clamp_log)


@needs_library
@pytest.mark.parametrize("isa", [0, 1, 2])
@pytest.mark.parametrize(("gamma", "relative"), [(2.0, 7e-7), (1.5, 3e-6)])
def test_focal_loss_keeps_its_digits(gamma, relative, isa, monkeypatch):
    """Polynomials of our own: from where everything underflows to where it would overflow, beside float64."""
    monkeypatch.setattr(native_library, "WIDEST_ISA", isa)
    logits = torch.cat([torch.linspace(-110, 110, 40_001), torch.tensor([1e-30, 0.0, -0.0, 1e30, -1e30])])[:, None]
    for target in (0, -1):
        labels = torch.full((len(logits),), target)
        got = focal.forward(logits, labels, 0.25, gamma, False)
        want = sigmoid_focal_loss(logits.double(), labels, gamma=gamma, backend="reference")
        assert ((got.double() - want).abs() <= relative * want + 1e-30).all()


@needs_library
@pytest.mark.parametrize("clamp_log", [False, True])
def test_focal_loss_of_inf_and_nan(clamp_log):
    """A NaN stays one, and alone; certainty costs nothing when right, and without the clamp everything when wrong."""
    logits = torch.tensor([[torch.nan, torch.inf, -torch.inf, 1.0]])
    loss = focal.forward(logits, torch.tensor([1]), 0.25, 2.0, clamp_log)
    assert loss[0, 0].isnan() and loss[0, 1] == 0 and loss[0, 2] == 0 and loss[0, 3].isfinite()
    wrong = focal.forward(logits, torch.tensor([2]), 0.25, 2.0, clamp_log)
    assert wrong[0, 1:3].isinf().all() or (clamp_log and (wrong[0, 1:3] > 20).all())
    (grad,) = focal.backward(torch.ones(1, 4), logits, torch.tensor([1]), 0.25, 2.0, clamp_log, [True])
    assert grad[0, 0].isnan() and grad[0, 3].isfinite()


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (9001, 10), (3, 0), (0, 3)])
def test_focal_loss_of_any_shape_has_the_same_bits_on_any_number_of_threads(shape, dtype, threads):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=generator)).to(dtype)
    target = torch.randint(-1, shape[1] + 1, shape[:1], generator=generator)
    grad = torch.randn(shape, generator=generator).to(dtype)
    threads(1)
    want = [focal.forward(logits, target, 0.25, 2.0, False), *focal.backward(grad, logits, target, 0.25, 2.0, False, [True])]
    reference_loss = sigmoid_focal_loss(logits.double(), target, backend="reference")
    torch.testing.assert_close(want[0].double(), reference_loss, rtol=TOLERANCE[dtype], atol=1e-6)
    for number in (1, 2, 3, 16):
        threads(number)
        again = [focal.forward(logits, target, 0.25, 2.0, False), *focal.backward(grad, logits, target, 0.25, 2.0, False, [True])]
        assert same_bits(again, want)


@needs_library
def test_focal_loss_takes_every_kind_of_target():
    logits = torch.linspace(-3, 3, 300 * 4).view(300, 4)
    target = torch.arange(300) % 5
    want = focal.forward(logits, target, 0.25, 2.0, False)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(focal.forward(logits, target.to(dtype), 0.25, 2.0, False), want)
    far = torch.full((300,), 2**40)  # background, not an address
    assert torch.equal(focal.forward(logits, far, 0.25, 2.0, False), focal.forward(logits, far * 0 - 1, 0.25, 2.0, False))
