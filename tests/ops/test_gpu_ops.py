"""The ops on a GPU: every backend there is, against the reference in float64. Skipped where there is none."""

import contextlib

import kernel_checks as checks
import pytest
import torch

from sparsedrive.ops import backend_report, backends, deformable_aggregation, sigmoid_focal_loss
from sparsedrive.ops.deformable_aggregation.op import run
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample, sparsedrive_small

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: nothing was run on one")
DAF, FOCAL = "deformable_aggregation", "sigmoid_focal_loss"
SAMPLING, LOSS = (
    [row.backend for row in backend_report() if row.op == op and row.available and row.backend not in ("reference", "ordered", "cpp")]
    for op in (DAF, FOCAL)
)


def kernel(op: str, backend: str) -> backends.Kernel:
    return backends.find_kernel(op, backend, "cuda")


def gpu(sample: Sample) -> Sample:
    return checks.on_device(sample, "cuda")


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backend", SAMPLING)
@pytest.mark.parametrize("dtype", checks.TOLERANCE)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"channels": 256, "groups": 8, "anchors": 60},
        {"channels": 7, "groups": 1, "cameras": 1},
        {"channels": 33, "groups": 3, "cameras": 8},
        {"level_hw": (1, 9, 7, 1, 3, 5, 1, 1), "groups": 1},
        {"per_anchor": 500, "anchors": 3},
    ],
    ids=["plain", "published_channels", "one_camera", "odd_8_cameras", "odd_levels", "many_points"],
)
def test_agrees_with_the_reference(sizes, dtype, backend):
    if backend == "visible" and dtype in (torch.bfloat16, torch.float16):
        pytest.skip("visible rounds its factors too: it has tolerances of its own in test_deformable_aggregation_op.py")
    checks.assert_agrees(kernel(DAF, backend), gpu(random_sample(dtype=dtype, **sizes)))


@pytest.mark.parametrize("backend", SAMPLING)
def test_borders_fences_and_empty(backend):
    checks.assert_borders(kernel(DAF, backend), "cuda")
    checks.assert_reads_only_its_arguments(kernel(DAF, backend), "cuda", channels=16, anchors=20)
    for sizes in ({"anchors": 0}, {"per_anchor": 0}, {"batch": 0}):
        assert all((tensor == 0).all() for tensor in checks.outcome(kernel(DAF, backend), gpu(random_sample(**sizes))))
    for needs in checks.NEEDS:
        checks.assert_only_wanted_gradients(kernel(DAF, backend), needs, "cuda")


@pytest.mark.parametrize("backend", SAMPLING)
@pytest.mark.skipif(not checks.UNIT.exists(), reason=f"no golden file {checks.UNIT}; name its folder in SPARSEDRIVE_GOLDEN")
@pytest.mark.parametrize("group", ["daf_small", "daf_mid", "daf_inrange"])
def test_golden(group, backend):
    checks.assert_golden(kernel(DAF, backend), group, "cuda")


@pytest.mark.parametrize("backend", SAMPLING)
@pytest.mark.parametrize("head", ["detection", "map"])
def test_published_sizes_agree_with_the_reference_there(head, backend):
    sample = gpu(sparsedrive_small(head))
    want = deformable_aggregation(*sample, backend="reference")
    checks.assert_close([deformable_aggregation(*sample, backend=backend)], [want], 2e-5)


@pytest.mark.parametrize("backend", SAMPLING)
def test_deterministic_mode_gives_the_same_bits(backend):
    """The forward always does."""
    sample = gpu(sparsedrive_small("detection"))
    with deterministic():
        first = checks.outcome(kernel(DAF, backend), sample)
        for _ in range(4):
            assert all(torch.equal(a, b) for a, b in zip(checks.outcome(kernel(DAF, backend), sample), first, strict=True))
    assert torch.equal(checks.outcome(kernel(DAF, backend), sample)[0], first[0])


@pytest.mark.parametrize("backend", [name for name in SAMPLING if name != "visible"])
def test_more_numbers_than_32_bits_count(backend):
    """One picture of 2^31 and some numbers, sampled at its very end."""
    if torch.cuda.get_device_properties(0).total_memory < 24 << 30:
        pytest.skip("needs a GPU with 24 GB")
    height, width, channels = 2**14, 2**13 + 1, 16
    packed = torch.zeros(1, 1, height * width, channels, dtype=torch.bfloat16, device="cuda")
    packed[0, 0, -1] = torch.arange(channels)
    points = torch.tensor([1 - 0.5 / width, 1 - 0.5 / height], device="cuda").view(1, 1, 1, 1, 2)
    arguments = (packed, [height, width], points, torch.ones(1, 1, 1, 1, 1, 2, device="cuda"))
    assert packed.numel() > 2**31
    output = kernel(DAF, backend).forward(*arguments)
    torch.testing.assert_close(output.flatten().float().cpu(), torch.arange(16.0), rtol=0.02, atol=0)
    (grad,) = kernel(DAF, backend).backward(torch.ones_like(output), *arguments, [True, False, False])
    assert (grad[0, 0, -1] > 0.95).all() and grad.count_nonzero() <= 4 * channels


@pytest.mark.parametrize("backend", SAMPLING)
def test_runs_on_the_current_stream_and_in_a_graph(backend):
    """Recorded into a CUDA graph and replayed on other numbers; listing pairs, as `visible` does, cannot be recorded."""
    sample, other = gpu(random_sample()), gpu(random_sample(seed=1))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        warm = deformable_aggregation(*sample, backend=backend)
    stream.synchronize()
    checks.assert_close([warm], [checks.exact(sample)[0]], 5e-6)
    if backend == "visible":
        return
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = deformable_aggregation(*sample, backend=backend)
    for into, values in zip((sample.packed, sample.points, sample.weights), (other.packed, other.points, other.weights), strict=True):
        into.copy_(values)
    graph.replay()
    torch.cuda.synchronize()
    checks.assert_close([output], [checks.exact(other)[0]], 5e-6)


@pytest.mark.parametrize("backend", SAMPLING)
def test_opcheck(backend):
    packed, level_hw, points, weights = gpu(random_sample())
    with deterministic():  # opcheck compares two runs to the bit
        leaves = [tensor.requires_grad_() for tensor in (packed, points, weights)]
        torch.library.opcheck(run, (leaves[0], list(level_hw), leaves[1], leaves[2], backend))


@pytest.mark.parametrize("backend", LOSS)
@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_focal_loss_agrees_with_the_reference(dtype, gamma, clamp_log, backend):
    checks.assert_focal_agrees(kernel(FOCAL, backend), dtype, gamma, clamp_log, "cuda")


def test_the_best_there_is_runs_by_default():
    for op, found in ((DAF, SAMPLING), (FOCAL, LOSS)):
        assert [row.backend for row in backend_report() if row.op == op and row.active_for_cuda] == found[:1]
    assert sigmoid_focal_loss(torch.zeros(2, 3, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda")).is_cuda
