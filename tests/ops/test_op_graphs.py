"""The ops as compilers see them: one node forward and one backward; and sizes whose product 32 bits cannot count."""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsedrive.ops import backend_report, deformable_aggregation, sigmoid_focal_loss
from sparsedrive.ops.deformable_aggregation.samples import SPARSEDRIVE_SMALL_LEVEL_HW, SPARSEDRIVE_SMALL_POINTS, random_sample

ON_CPU = {
    op: [row.backend for row in backend_report() if row.op == op and row.available and row.backend in names]
    for op, names in (("deformable_aggregation", ("cpp", "visible", "ordered")), ("sigmoid_focal_loss", ("cpp", "closed_form")))
}
BATCH = 32


def compiled_nodes(function, *arguments: torch.Tensor) -> list[list[str]]:
    """Our ops in the compiled forward and backward of a function, none of whose parts may come from inside an op."""
    graphs: list[list[str]] = []

    def note(graph, _):
        calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        assert not any(inner in call for call in calls for inner in ("grid_sampler", "embedding_bag", "index", "log", "exp"))
        graphs.append([call for call in calls if call.startswith("sparsedrive")])
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=aot_autograd(fw_compiler=note, bw_compiler=note))
    compiled(*arguments).sum().backward()
    return graphs


@pytest.mark.parametrize("backend", [None, *ON_CPU["deformable_aggregation"]])
def test_deformable_aggregation_compiles_to_one_node_each_way(backend):
    packed, level_hw, points, weights = random_sample()
    leaves = [tensor.requires_grad_() for tensor in (packed, points, weights)]
    nodes = compiled_nodes(lambda p, q, w: deformable_aggregation(p, level_hw, q, w, backend=backend), *leaves)
    assert nodes == [["sparsedrive.deformable_aggregation.default"], ["sparsedrive.deformable_aggregation_backward.default"]]


@pytest.mark.parametrize("backend", [None, *ON_CPU["sigmoid_focal_loss"]])
def test_focal_loss_compiles_to_one_node_each_way(backend):
    logits, target = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(), torch.tensor([0, 1, 2, 3, -1])
    nodes = compiled_nodes(lambda x: sigmoid_focal_loss(x, target, backend=backend), logits)
    assert nodes == [["sparsedrive.sigmoid_focal_loss.default"], ["sparsedrive.sigmoid_focal_loss_backward.default"]]


@pytest.mark.parametrize("head", SPARSEDRIVE_SMALL_POINTS)
@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_shapes_of_a_batch_of_32(head, device):
    """More (anchor, point, camera, level, channel) samples than 32 bits count: shapes only, so for a GPU too, and no memory."""
    anchors, per_anchor, _ = SPARSEDRIVE_SMALL_POINTS[head]
    cameras, channels, groups, levels = 6, 256, 8, len(SPARSEDRIVE_SMALL_LEVEL_HW) // 2
    pixels = sum(h * w for h, w in zip(SPARSEDRIVE_SMALL_LEVEL_HW[::2], SPARSEDRIVE_SMALL_LEVEL_HW[1::2], strict=True))
    assert BATCH * anchors * per_anchor * cameras * levels * channels > 2**31
    with FakeTensorMode():
        packed = torch.empty(BATCH, cameras, pixels, channels, dtype=torch.bfloat16, device=device)
        points = torch.empty(BATCH, anchors, per_anchor, cameras, 2, device=device)
        weights = torch.empty(BATCH, anchors, per_anchor, cameras, levels, groups, device=device)
        output = deformable_aggregation(packed, SPARSEDRIVE_SMALL_LEVEL_HW, points, weights)
        assert output.shape == (BATCH, anchors, channels) and output.dtype == torch.bfloat16 and output.device.type == device
        arguments = (packed, list(SPARSEDRIVE_SMALL_LEVEL_HW), points, weights)
        grads = torch.ops.sparsedrive.deformable_aggregation_backward(output, *arguments, [True] * 3, "auto")
        assert [(grad.shape, grad.dtype) for grad in grads] == [(leaf.shape, leaf.dtype) for leaf in (packed, points, weights)]


@pytest.mark.parametrize("backend", ON_CPU["deformable_aggregation"])
def test_the_last_of_more_samples_than_32_bits_count(backend):
    """Only the very last point of a batch of 32 is seen: it is found, and nothing else is touched."""
    anchors, per_anchor, cameras, levels, channels = 900, 13, 6, 4, 256
    assert BATCH * anchors * per_anchor * cameras * levels * channels > 2**31
    packed = torch.zeros(BATCH, cameras, levels, channels)
    packed[-1, -1] = torch.arange(1.0, 5.0)[:, None]  # levels of one pixel each
    points = torch.full((BATCH, anchors, per_anchor, cameras, 2), -1.0)
    points[-1, -1, -1, -1] = 0.5
    weights = torch.ones(BATCH, anchors, per_anchor, cameras, levels, 1)
    leaves = [packed.requires_grad_(), weights.requires_grad_()]
    output = deformable_aggregation(packed, (1, 1) * levels, points, weights, backend=backend)
    assert (output[-1, -1] == 10).all() and output.count_nonzero() == channels
    grad_packed, grad_weights = torch.autograd.grad(output.sum(), leaves)
    assert (grad_packed[-1, -1] == 1).all() and grad_packed.count_nonzero() == levels * channels
    assert grad_weights[-1, -1, -1, -1].flatten().tolist() == [256, 512, 768, 1024] and grad_weights.count_nonzero() == levels
