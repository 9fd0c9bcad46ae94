import pytest
import torch
from torch.testing import assert_close

from sparsedrive.layers.refine import BoxRefine, PolylineRefine, prior_bias

DIM, CLASSES = 8, 10


def inputs(state_dim: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 3, width, generator=draw) for width in (DIM, state_dim, DIM))


def test_box_state_plus_delta_and_velocity_per_second():
    torch.manual_seed(0)
    refine, (feature, state, embed) = BoxRefine(DIM, CLASSES), inputs(11)
    with torch.no_grad():
        refine.state_scale.copy_(torch.arange(1.0, 12))
    delta = refine.state_branch(feature + embed) * torch.arange(1.0, 12)
    step = refine(feature, state, embed, torch.tensor([0.5, 0.1]))
    assert_close(step.state[..., :8], (state + delta)[..., :8])
    assert_close(step.state[0, :, 8:], state[0, :, 8:] + delta[0, :, 8:] * 2)
    assert_close(step.state[1, :, 8:], state[1, :, 8:] + delta[1, :, 8:] * 10)


def test_classes_read_the_feature_alone_and_quality_also_the_embedding():
    torch.manual_seed(0)
    refine, (feature, state, embed), second = BoxRefine(DIM, CLASSES), inputs(11), torch.ones(2)
    step, moved = refine(feature, state, embed, second), refine(feature, state, embed + 1.7 * embed.flip(-1), second)
    assert step.class_logits.shape == (2, 3, CLASSES) and step.quality.shape == (2, 3, 2)
    assert torch.equal(step.class_logits, moved.class_logits)
    assert not torch.equal(step.quality, moved.quality) and not torch.equal(step.state, moved.state)


def test_polylines_do_not_know_time_or_quality():
    torch.manual_seed(0)
    refine, (feature, state, embed) = PolylineRefine(DIM, 6, 3), inputs(6)
    step = refine(feature, state, embed, torch.tensor([0.5, 0.1]))
    assert step.quality is None
    assert_close(step.state, state + refine.state_branch(feature + embed))
    assert torch.equal(step.state, refine(feature, state, embed, torch.tensor([7.0, -3.0])).state)


def test_classes_start_at_one_percent():
    assert torch.tensor(prior_bias()).sigmoid().item() == pytest.approx(0.01)
    assert torch.tensor(prior_bias(0.3)).sigmoid().item() == pytest.approx(0.3)
    for refine in (BoxRefine(DIM, CLASSES), PolylineRefine(DIM, 6, 3)):
        assert_close(refine.class_branch[-1].bias.detach().sigmoid(), torch.full_like(refine.class_branch[-1].bias, 0.01))
