"""The step as one graph: compiled and exported programs say what the model says, and one program serves cold and warm streams."""

import logging
from dataclasses import replace

import pytest
import torch
from model_samples import ROUNDING, build, config, differences, frame, run
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Frame, cat_frames


@pytest.fixture(autouse=True, scope="module")
def quiet_tracer():
    """It writes tens of thousands of records where somebody listens."""
    logging.disable(logging.DEBUG)
    yield
    logging.disable(logging.NOTSET)
    torch.compiler.reset()


@pytest.fixture(scope="module")
def model() -> SparseDrive:
    """As few layers as there are kinds of layers."""
    whole = config()
    fewer = replace(whole, detection=replace(whole.detection, num_layers=2), planner=replace(whole.planner, num_layers=1))
    return build(fewer)


class Step(nn.Module):
    """`torch.export` takes positional arguments; no `None` for a state that holds tensors later, so the cold state is a value."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, frame, state):
        return self.model(frame, state)


def streams(count: int) -> list[Frame]:
    """Stream 0 starts a new scene in frame 2."""
    return [cat_frames([frame(i, sequence=int(i >= 2)), frame(i, stream=1, sequence=5)]) for i in range(count)]


def test_one_compiled_step_serves_cold_and_warm_streams(model):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    first, *others = streams(4)
    state = ours = run(model, [first])[1]
    with torch.no_grad():
        for now in others:
            predictions, state = compiled(now, state)
            expected, ours = model(now, ours)
            assert differences((predictions, state), (expected, ours), ROUNDING) == []
    assert counter.frame_count == 1


@pytest.mark.parametrize("made_from", ["cold", "warm"])
def test_one_exported_program_serves_cold_and_warm_streams(model, made_from):
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
