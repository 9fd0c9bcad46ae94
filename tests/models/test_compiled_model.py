"""The step as one graph: compiled and exported programs say what the model says, and one program serves cold and warm streams."""

import pytest
import torch
from model_samples import ROUNDING, build, cat_two, differences, frame, run
from torch import nn


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small convolutions on busy cores wait for each other otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.compiler.reset()


class Step(nn.Module):
    """`torch.export` takes no `None` for a state that is a tensor later, so the cold state is given as a value."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, frame, state):
        return self.model(frame, state)


def streams(count: int):
    """Stream 0 starts a new scene in frame 2."""
    return [cat_two(frame(i, sequence=int(i >= 2)), frame(i, stream=1, sequence=5)) for i in range(count)]


def test_compiled_step_is_one_graph_that_serves_cold_and_warm_streams():
    model, graphs = build(), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(Step(model), fullgraph=True, backend=count)
    state = ours = model.initial_state(2)
    with torch.no_grad():
        for now in streams(4):
            predictions, state = compiled(now, state)
            expected, ours = model(now, ours)
            assert differences((predictions, state), (expected, ours), ROUNDING) == []
    assert len(graphs) == 1


def test_compiled_without_state_equals_a_cold_start():
    model = build()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        predictions, state = compiled(frame(0))
        assert differences((predictions, state), tuple(model(frame(0))), ROUNDING) == []
        assert differences(compiled(frame(1), state)[0], model(frame(1), state)[0], ROUNDING) == []


@pytest.mark.parametrize("made_from", ["cold", "warm"])
def test_one_exported_program_serves_cold_and_warm_streams(made_from):
    model = build()
    frames = streams(4)
    _, warm = run(model, frames[:1])
    example = (frames[0], model.initial_state(2)) if made_from == "cold" else (frames[1], warm)
    with torch.no_grad():
        program = torch.export.export(Step(model), example).module()
        state = ours = model.initial_state(2)
        for now in frames:
            predictions, state = program(now, state)
            expected, ours = model(now, ours)
            assert differences((predictions, state), (expected, ours), ROUNDING) == []


def test_training_step_compiles_as_one_graph():
    model = build().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    predictions, state = compiled(streams(1)[0])
    predictions.detection.last.state.sum().backward()
    assert model.detection.anchors.grad.isfinite().all() and model.image_encoder.backbone.conv1.weight.grad.any()
    assert not state.detection.feature.requires_grad
