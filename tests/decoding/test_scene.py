from dataclasses import replace

import pytest
import torch
from decoding_samples import predictions
from torch import nn
from torch.utils import _pytree as pytree

from sparsedrive.decoding import decode
from sparsedrive.structures import ParityOptions, Predictions, Scene

COMMAND = torch.tensor([0, 2])


def assert_same(first: Scene, second: Scene) -> None:
    one, other = pytree.tree_leaves(first), pytree.tree_leaves(second)
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right)


def test_all_stages():
    scene = decode(predictions(), COMMAND)
    assert scene.detections.box.shape == (2, 40, 10)
    assert scene.map.points_m.shape == (2, 12, 20, 2)
    assert scene.forecasts.trajectory_m.shape == (2, 40, 6, 12, 2)
    assert scene.plan.trajectory_m.shape == (2, 6, 2)
    assert torch.equal(scene.plan.command, COMMAND)


def test_stage_one_has_no_forecasts_and_no_plan():
    scene = decode(replace(predictions(), motion=None, plan=None), COMMAND)
    assert scene.forecasts is None
    assert scene.plan is None


def test_threshold_reaches_detections_and_map():
    scene = decode(predictions(), COMMAND, score_threshold=0.8)
    assert not scene.detections.valid.all()
    assert torch.equal(scene.map.valid, scene.map.score >= 0.8)
    assert not scene.map.valid.all()


def test_parity_reaches_the_parts():
    given = predictions()
    ours, published = decode(given, COMMAND), decode(given, COMMAND, parity=ParityOptions.published())
    assert not torch.equal(ours.detections.class_score, published.detections.class_score)


def test_a_stream_decodes_alone_as_in_a_batch():
    given = predictions()
    alone = decode(pytree.tree_map(lambda leaf: leaf[1:], given), COMMAND[1:])
    assert_same(decode(given, COMMAND).stream(1), alone)


@pytest.mark.parametrize("parity", [ParityOptions(), ParityOptions.published()], ids=["ours", "published"])
def test_compiles_into_one_graph(parity):
    torch.compiler.reset()

    def run(given: Predictions, command: torch.Tensor) -> Scene:
        return decode(given, command, score_threshold=0.5, parity=parity)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for seed in (0, 7):
        assert_same(compiled(predictions(seed=seed), COMMAND), run(predictions(seed=seed), COMMAND))


def test_exports():
    class Decode(nn.Module):
        def forward(self, given: Predictions, command: torch.Tensor) -> Scene:
            return decode(given, command)

    program = torch.export.export(Decode(), (predictions(), COMMAND))
    fresh = predictions(seed=7)
    assert_same(program.module()(fresh, COMMAND), decode(fresh, COMMAND))


def test_half_precision_keeps_its_type():
    half = pytree.tree_map(lambda leaf: leaf.bfloat16() if leaf.is_floating_point() else leaf, predictions())
    scene = decode(half, COMMAND)
    assert scene.detections.box.dtype == scene.plan.trajectory_m.dtype == torch.bfloat16
