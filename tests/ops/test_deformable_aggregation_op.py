"""Deformable aggregation: the reference by hand and by derivative, the fast kernel against the reference, and as one graph node."""

import importlib

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from sparsedrive.ops import backend_report, backends, deformable_aggregation, use_backend
from sparsedrive.ops.deformable_aggregation.op import run
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample, sparsedrive_small

# `sparsedrive.ops.deformable_aggregation` as an attribute is the function; the modules behind it are reached by name
ordered, visible = (importlib.import_module(f"sparsedrive.ops.deformable_aggregation.{name}") for name in ("ordered", "visible"))
FAST = tuple(
    row.backend for row in backend_report() if row.op == "deformable_aggregation" and row.backend in ("visible", "cpp") and row.available
)
BACKENDS = ("reference", *FAST)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Largest error over largest value."""


def value_and_grads(sample: Sample, backend: str | None, grad_output: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Output and the gradients of packed, points, weights."""
    packed, points, weights = (tensor.detach().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights))
    output = deformable_aggregation(packed, sample.level_hw, points, weights, backend=backend)
    if grad_output is None:
        grad_output = torch.linspace(-1, 1, output.numel()).view_as(output).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, (packed, points, weights), grad_output)]


def assert_close(got: list[torch.Tensor], want: list[torch.Tensor], tolerance: float) -> None:
    for ours, theirs in zip(got, want, strict=True):
        assert ours.shape == theirs.shape
        scale = theirs.abs().max().double().clamp(min=1e-30) if theirs.numel() else 1.0
        error = ours.double().sub(theirs.double()).abs()
        assert not error.isnan().any()
        assert (error / scale <= tolerance).all()


def both(sample: Sample, tolerance: float) -> list[torch.Tensor]:
    """Check that the fast kernels agree with the reference; the reference's results."""
    want = value_and_grads(sample, "reference")
    for backend in FAST:
        assert_close(value_and_grads(sample, backend), want, tolerance)
    return want


def one_point(x: float, y: float, *, level_hw=(2, 3)) -> Sample:
    """One stream, camera, anchor and point; the feature of pixel i is (10 ** i), and twice that in the second group."""
    pixels = 10.0 ** torch.arange(level_hw[0] * level_hw[1], dtype=torch.float64)
    packed = torch.stack([pixels, 2 * pixels], -1)[None, None]
    return Sample(packed, level_hw, torch.tensor([x, y], dtype=torch.float64).view(1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1, 2).double())


def transposed(sample: Sample) -> Sample:
    """The same numbers, none of the tensors contiguous."""
    return Sample(*(value.mT.contiguous().mT if isinstance(value, torch.Tensor) else value for value in sample))


# ---- the rule, by hand


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.5, 0.25, 10.0),  # the centre of pixel (0, 1)
        (0.5, 0.5, (10.0 + 10_000.0) / 2),  # half way between rows 0 and 1
        (1 / 3, 0.25, (1.0 + 10.0) / 2),  # half way between columns 0 and 1
        (1e-9, 0.25, 0.5),  # the left edge: half of the tap is outside and counts zero
        (1 - 1e-9, 0.75, 50_000.0),
        (1e-9, 1e-9, 0.25),
    ],
)
def test_bilinear_by_hand(backend, x, y, expected):
    output = deformable_aggregation(*one_point(x, y), backend=backend)
    torch.testing.assert_close(output.flatten(), torch.tensor([expected, 2 * expected], dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coordinate", [0.0, 1.0, -1e-9, 1 + 1e-9, -3.0, 1e30, -1e30, float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("axis", [0, 1])
def test_hidden_point_adds_nothing_and_gets_no_gradient(backend, coordinate, axis):
    x, y = (coordinate, 0.5) if axis == 0 else (0.5, coordinate)
    for tensor in value_and_grads(one_point(x, y), backend, torch.ones(1, 1, 2, dtype=torch.float64)):
        assert (tensor == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_channels_use_the_weights_of_their_group(backend):
    sample = one_point(0.5, 0.25)
    weights = torch.tensor([3.0, 5.0], dtype=torch.float64).view(1, 1, 1, 1, 1, 2)
    output = deformable_aggregation(sample.packed, sample.level_hw, sample.points, weights, backend=backend)
    torch.testing.assert_close(output.flatten(), torch.tensor([30.0, 100.0], dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_over_points_cameras_and_levels(backend):
    sample = random_sample(dtype=torch.float64)
    packed, level_hw, points, weights = sample
    total = torch.zeros(2, 7, 12, dtype=torch.float64)
    start = 0
    for level, (height, width) in enumerate(zip(level_hw[::2], level_hw[1::2], strict=True)):
        for camera in range(3):
            for point in range(5):
                part = packed[:, camera : camera + 1, start : start + height * width]
                here = points[:, :, point : point + 1, camera : camera + 1]
                there = weights[:, :, point : point + 1, camera : camera + 1, level : level + 1]
                total += deformable_aggregation(part, (height, width), here, there, backend=backend)
        start += height * width
    torch.testing.assert_close(deformable_aggregation(*sample, backend=backend), total)


# ---- derivatives and agreement


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    packed, level_hw, points, weights = random_sample(
        anchors=3, per_anchor=2, channels=4, groups=2, level_hw=(2, 3, 1, 2), dtype=torch.float64
    )
    leaves = [tensor.requires_grad_() for tensor in (packed, points, weights)]
    # the default step of 1e-6 stays on one side of every pixel boundary of this sample
    assert torch.autograd.gradcheck(lambda p, q, w: deformable_aggregation(p, level_hw, q, w, backend=backend), leaves)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"batch": 1, "cameras": 1, "anchors": 1, "per_anchor": 1},
        {"level_hw": (1, 1)},
        {"level_hw": (1, 9, 7, 1, 3, 5, 2, 2), "groups": 1},
        {"groups": 12},
        {"channels": 5, "groups": 5, "anchors": 33},
        {"channels": 33, "groups": 3, "cameras": 8},
    ],
    ids=["plain", "single", "one_pixel", "odd_levels", "group_a_channel", "odd_channels", "odd_8_cameras"],
)
def test_agrees_with_reference(sizes, dtype):
    output = both(random_sample(dtype=dtype, **sizes), TOLERANCE[dtype])[0]
    assert output.shape == (sizes.get("batch", 2), sizes.get("anchors", 7), sizes.get("channels", 12))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("float_points", [True, False])
def test_half_precision(dtype, float_points):
    half = random_sample(dtype=dtype, channels=32)
    if float_points:
        half = half._replace(points=half.points.float(), weights=half.weights.float())
    exact = value_and_grads(Sample(half.packed.double(), half.level_hw, half.points.double(), half.weights.double()), "reference")
    for backend in BACKENDS:
        got = value_and_grads(half, backend)
        assert [tensor.dtype for tensor in got] == [dtype, dtype, half.points.dtype, half.weights.dtype]
        assert_close(got, exact, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_visible(backend):
    sample = random_sample()
    for tensor in value_and_grads(sample._replace(points=sample.points - 5), backend):
        assert (tensor == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", [{"anchors": 0}, {"per_anchor": 0}, {"batch": 0}], ids=["anchors", "points", "batch"])
def test_empty(backend, sizes):
    sample = random_sample(**sizes)
    results = value_and_grads(sample, backend)
    assert results[0].shape == (sample.packed.shape[0], sample.points.shape[1], 12)
    assert all((tensor == 0).all() for tensor in results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unused_numbers_may_be_nan(backend):
    """Features no point touches, and weights and coordinates of hidden points, are never part of a sum."""
    clean = random_sample(anchors=2, per_anchor=2, level_hw=(9, 11, 5, 6), dtype=torch.float64)
    want = value_and_grads(clean, "reference")
    hidden = ~((clean.points > 0) & (clean.points < 1)).all(-1)
    untouched = (want[1] == 0).all(-1)
    assert hidden.any() and not hidden.all() and untouched.any() and not untouched.all()
    nan = float("nan")
    poisoned = Sample(
        clean.packed.masked_fill(untouched[..., None], nan),
        clean.level_hw,
        clean.points.masked_fill(hidden[..., None], nan),
        clean.weights.masked_fill(hidden[..., None, None], nan),
    )
    assert_close(value_and_grads(poisoned, backend), want, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kernels_do_not_read_uninitialised_memory(backend):
    """With `torch.empty` filled with NaN the results are the same."""
    sample = random_sample()
    want = value_and_grads(sample, backend)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
        assert_close(value_and_grads(sample, backend), want, 0.0)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous(backend):
    sample = random_sample()
    strided = transposed(sample)
    assert not any(value.is_contiguous() for value in (strided.packed, strided.points, strided.weights))
    expanded_grad = torch.ones(()).expand(2, 7, 12)
    want = value_and_grads(sample, backend, expanded_grad.contiguous())
    assert_close(value_and_grads(strided, backend, expanded_grad), want, 1e-6)


def test_chunks_and_wide_indices_change_nothing(monkeypatch):
    sample = random_sample(anchors=20, dtype=torch.float64)
    whole = value_and_grads(sample, "visible")
    monkeypatch.setattr(visible, "CHUNK_CPU", 1)  # every anchor and every pair on its own
    monkeypatch.setattr(visible, "INT32_MAX", 10)  # so that indices must be 64-bit
    assert_close(value_and_grads(sample, "visible"), whole, 1e-14)


@pytest.mark.parametrize(("rows", "integer"), [(2**31 - 1, torch.int32), (2**31, torch.int64)])
def test_indices_are_wide_enough(rows, integer):
    taps = visible.bilinear_taps(torch.tensor([[0.9, 0.9]]), [4, 4], first_row=torch.tensor([rows - 17]), rows=rows)
    assert taps.row.dtype == integer
    assert taps.row.max().item() == rows - 17 + 15


@pytest.mark.parametrize("backend", FAST)
def test_same_result_every_time(backend):
    sample = random_sample(anchors=50, per_anchor=20)
    first = value_and_grads(sample, backend)
    for _ in range(4):
        assert all(torch.equal(a, b) for a, b in zip(value_and_grads(sample, backend), first, strict=True))


@pytest.mark.parametrize("backend", FAST)
def test_only_the_wanted_gradients_are_computed(backend, monkeypatch):
    sample = random_sample()
    asked = []
    kernel = backends.find_kernel("deformable_aggregation", backend, "cpu")
    real = kernel.backward
    want = value_and_grads(sample, backend)
    monkeypatch.setitem(kernel.__dict__, "backward", lambda *args: asked.append(args[-1]) or real(*args))
    for wanted in ("packed", "points", "weights"):
        leaf = getattr(sample, wanted).clone().requires_grad_()
        output = deformable_aggregation(*sample._replace(**{wanted: leaf}), backend=backend)
        grad_output = torch.linspace(-1, 1, output.numel()).view_as(output)
        (grad,) = torch.autograd.grad(output, leaf, grad_output)
        torch.testing.assert_close(grad, want[1 + ("packed", "points", "weights").index(wanted)])
    assert asked == [[True, False, False], [False, True, False], [False, False, True]]


# ---- sums in the published order


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pairs_at_once", [1 << 14, 3])
def test_ordered_agrees_with_reference(dtype, pairs_at_once, monkeypatch):
    monkeypatch.setattr(ordered, "PAIRS_AT_ONCE", pairs_at_once)
    sample = random_sample(dtype=dtype, level_hw=(1, 9, 7, 1, 3, 5, 2, 2))
    assert_close(
        [deformable_aggregation(*sample, backend="ordered")], [deformable_aggregation(*sample, backend="reference")], TOLERANCE[dtype]
    )
    hidden = sample._replace(points=sample.points - 5)
    assert (deformable_aggregation(*hidden, backend="ordered") == 0).all()


def test_ordered_adds_camera_by_camera():
    """1 + 2^60 - 2^60 loses the 1, the same from the other end keeps it."""
    features = torch.tensor([1.0, 2.0**60, -(2.0**60)]).view(1, 3, 1, 1)  # three cameras of one pixel
    points, weights = torch.full((1, 1, 1, 3, 2), 0.5), torch.ones(1, 1, 1, 3, 1, 1)
    assert deformable_aggregation(features, (1, 1), points, weights, backend="ordered").item() == 0
    assert deformable_aggregation(features.flip(1), (1, 1), points, weights, backend="ordered").item() == 1


def test_ordered_has_the_gradients_of_visible():
    sample = random_sample()
    found = []
    for backend in ("ordered", "visible"):
        inputs = [tensor.clone().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights)]
        output = deformable_aggregation(inputs[0], sample.level_hw, *inputs[1:], backend=backend)
        found.append(torch.autograd.grad(output.square().sum(), inputs))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


# ---- one node in every graph


@pytest.mark.parametrize("backend", FAST)
def test_opcheck(backend):
    for sample in (random_sample(), random_sample(anchors=0), random_sample(dtype=torch.bfloat16), transposed(random_sample())):
        packed, level_hw, points, weights = sample
        leaves = [tensor.requires_grad_() for tensor in (packed, points, weights)]
        torch.library.opcheck(run, (leaves[0], list(level_hw), leaves[1], leaves[2], backend))


@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_compiles_without_a_break(backend):
    sample = random_sample()
    want = value_and_grads(sample, backend)
    compiled = torch.compile(deformable_aggregation, fullgraph=True, backend="aot_eager")
    packed, points, weights = (tensor.requires_grad_() for tensor in (sample.packed, sample.points, sample.weights))
    output = compiled(packed, sample.level_hw, points, weights, backend=backend)
    grads = torch.autograd.grad(output, (packed, points, weights), torch.linspace(-1, 1, output.numel()).view_as(output))
    assert_close([output.detach(), *grads], want, 1e-6)


def test_compiled_code_follows_the_context():
    """The choice is guarded: a compiled function runs the reference inside the context and the op outside, before and after."""
    nodes: list[list[str]] = []

    def spy(graph, _):
        nodes.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(deformable_aggregation, fullgraph=True, backend=spy)
    sample = random_sample()
    compiled(*sample)
    with use_backend("reference"):
        compiled(*sample)
    compiled(*sample)
    assert len(nodes) == 2
    assert [any("sparsedrive" in target for target in graph) for graph in nodes] == [True, False]


def test_exports_as_one_node_for_any_number_of_anchors():
    class Sampler(torch.nn.Module):
        def forward(self, packed, points, weights):
            return deformable_aggregation(packed, (5, 7, 2, 3), points, weights)

    sample, other = random_sample(), random_sample(anchors=11, seed=1)
    anchors = torch.export.Dim("anchors", min=2)
    dynamic = {"packed": None, "points": {1: anchors}, "weights": {1: anchors}}
    program = torch.export.export(Sampler(), (sample.packed, sample.points, sample.weights), dynamic_shapes=dynamic)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("sparsedrive.deformable_aggregation.default") == 1
    assert not any("grid_sampler" in target for target in targets)
    got = program.module()(other.packed, other.points, other.weights)
    torch.testing.assert_close(got, deformable_aggregation(*other, backend="reference"), rtol=1e-4, atol=1e-5)


# ---- arguments


def test_annotations_hold():
    checked = jaxtyped(typechecker=beartype)(deformable_aggregation)
    assert checked(*random_sample()).shape == (2, 7, 12)
    assert checked(*random_sample(dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s._replace(packed=s.packed[0]), r"packed: expected \[B, C, S, D\], got \[3, 41, 12\]"),
        (lambda s: s._replace(points=s.points[..., 0]), r"points: expected \[B, A, P, C, 2\]"),
        (lambda s: s._replace(weights=s.weights[..., 0]), r"weights: expected \[B, A, P, C, L, G\]"),
        (lambda s: s._replace(level_hw=(5, 7, 2)), r"level_hw: expected positive"),
        (lambda s: s._replace(level_hw=()), r"level_hw: expected positive"),
        (lambda s: s._replace(level_hw=(5, 7, 0, 3)), r"level_hw: expected positive"),
        (lambda s: s._replace(level_hw=(5, 7, 3, 3)), r"packed: expected S = 44 pixels .* got 41"),
        (lambda s: s._replace(points=s.points[:1]), r"points: expected \[2, A, P, 3, 2\]"),
        (lambda s: s._replace(points=s.points[:, :, :, :2]), r"points: expected \[2, A, P, 3, 2\]"),
        (lambda s: s._replace(points=s.points[..., [0, 1, 1]]), r"points: expected \[2, A, P, 3, 2\]"),
        (lambda s: s._replace(weights=s.weights[:, 1:]), r"weights: expected \[2, 7, 5, 3, 2, G\]"),
        (lambda s: s._replace(weights=s.weights[:, :, :, :, :1]), r"weights: expected \[2, 7, 5, 3, 2, G\]"),
        (lambda s: s._replace(weights=s.weights[..., [0, 1, 2, 3, 0]]), r"weights: expected G that divides D = 12, got 5"),
        (lambda s: s._replace(weights=s.weights[..., :0]), r"weights: expected G that divides D = 12, got 0"),
        (lambda s: s._replace(packed=s.packed.int()), r"packed: expected float64, float32, bfloat16 or float16, got torch.int32"),
        (lambda s: s._replace(points=s.points.double()), r"points: expected torch.float32, got torch.float64"),
        (lambda s: s._replace(weights=s.weights.half()), r"weights: expected torch.float32, got torch.float16"),
        (lambda s: s._replace(weights=s.weights.to("meta")), r"weights: expected a tensor on cpu like packed, got meta"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=f"deformable_aggregation.{message}.*; "):
        deformable_aggregation(*change(random_sample()))


def test_published_sizes_see_about_one_camera_in_six():
    for head, points in (("detection", (900, 13)), ("map", (100, 300))):
        sample = sparsedrive_small(head)
        assert sample.points.shape == (1, *points, 6, 2)
        assert 1.0 < visible.visible(sample.points).sum(-1).float().mean() < 1.2
