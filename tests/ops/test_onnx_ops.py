"""Deformable aggregation in ONNX, both flavours, run by ONNX Runtime and by the reference evaluator. Needs the packages; see the skip."""

import numpy as np
import pytest
import torch

from sparsedrive.ops import deformable_aggregation, use_backend
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package, reason=f"no package {package}: the export of ops to ONNX is not tested")
pytestmark = pytest.mark.filterwarnings("ignore")
LEVEL_HW = random_sample().level_hw
ANCHORS = torch.export.Dim("anchors", min=2)
DYNAMIC = {"packed": None, "points": {1: ANCHORS}, "weights": {1: ANCHORS}}


class Sampler(torch.nn.Module):
    """The op, twice: what a model of two layers holds."""

    def forward(self, packed, points, weights):
        first = deformable_aggregation(packed, LEVEL_HW, points, weights)
        return first + deformable_aggregation(packed, LEVEL_HW, 1 - points, weights)


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    return {"packed": sample.packed.numpy(), "points": sample.points.numpy(), "weights": sample.weights.numpy()}


def exported(**options):
    sample = random_sample()
    arguments = (sample.packed, sample.points, sample.weights)
    return torch.onnx.export(Sampler(), arguments, dynamo=True, verbose=False, dynamic_shapes=DYNAMIC, **options).model_proto


def assert_right(run) -> None:
    """For another number of anchors than it was exported with, and with NaN and inf where nobody looks."""
    sample = random_sample(anchors=11, seed=1)
    want = Sampler()(sample.packed, sample.points, sample.weights)
    hidden = ~((sample.points > 0) & (sample.points < 1)).all(-1)
    sample = sample._replace(points=sample.points.masked_fill(hidden[..., None], torch.nan))
    sample = sample._replace(weights=sample.weights.masked_fill(hidden[..., None, None], torch.inf))
    torch.testing.assert_close(torch.from_numpy(run(numbers(sample))), want, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def standard():
    with use_backend("reference", op="deformable_aggregation"):
        return exported()


@pytest.fixture(scope="module")
def custom():
    from sparsedrive.ops.deformable_aggregation.onnx import translation_table

    return exported(custom_translation_table=translation_table())


def test_standard_nodes_run_in_onnx_runtime(standard):
    runtime = pytest.importorskip("onnxruntime", reason="no package onnxruntime: exported nodes are not run")
    assert {node.domain for node in standard.graph.node} == {""}
    assert sum(node.op_type == "GridSample" for node in standard.graph.node) == 2 * 2  # a level each
    session = runtime.InferenceSession(standard.SerializeToString())
    assert_right(lambda inputs: session.run(None, inputs)[0])


def test_one_node_of_our_domain(custom):
    """With a kernel for it, here ours in the reference evaluator, it computes the same."""
    import onnx
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    from sparsedrive.ops.deformable_aggregation.onnx import DOMAIN, NODE, VERSION, node_schema

    ours = [node for node in custom.graph.node if node.domain == DOMAIN]
    assert [node.op_type for node in ours] == [NODE, NODE]
    assert not any(node.op_type == "GridSample" for node in custom.graph.node)
    assert {entry.domain: entry.version for entry in custom.opset_import}[DOMAIN] == VERSION
    assert [list(attribute.ints) for attribute in ours[0].attribute] == [list(LEVEL_HW)]
    onnx.defs.register_schema(node_schema())
    try:
        onnx.checker.check_model(custom, full_check=True)
    finally:
        onnx.defs.deregister_schema(NODE, VERSION, DOMAIN)

    class DeformableAggregation(OpRun):
        op_domain = DOMAIN

        def _run(self, packed, points, weights, level_hw=None):
            tensors = [torch.from_numpy(np.array(values)) for values in (packed, points, weights)]
            return (deformable_aggregation(tensors[0], tuple(level_hw), *tensors[1:]).numpy(),)

    evaluator = ReferenceEvaluator(custom, new_ops=[DeformableAggregation])
    assert_right(lambda inputs: evaluator.run(None, inputs)[0])
