import math
from dataclasses import replace

import pytest
import torch

from sparsedrive.losses.completion import CompletionLossConfig, CompletionTeacher, completion_losses, unexplained_share
from sparsedrive.structures import CompletionPredictions, FailedCameras

LEVEL_HW, PIXELS, DIM = (2, 4, 1, 2), 10, 4
NAMES = ("A", "B", "C")
SMOOTH_L1 = 0.5


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def teacher(known=((True, True, True), (True, True, True))) -> CompletionTeacher:
    return CompletionTeacher(packed=drawn(2, 3, PIXELS, DIM), known=torch.tensor(known))


def said(truth: CompletionTeacher, error: float = 0.0, *, importance: float = 0.0) -> CompletionPredictions:
    """Camera 1 failed in stream 0, cameras 0 and 2 in stream 1; everything is the truth plus an error."""
    cameras = FailedCameras(camera=torch.tensor([[1, 0], [0, 2]]), failed=torch.tensor([[True, False], [True, True]]))
    index = cameras.camera[..., None, None].expand(-1, -1, PIXELS, DIM)
    features = truth.packed.gather(1, index) + error
    latent = torch.zeros(2, 2, PIXELS, 3)
    return CompletionPredictions(
        cameras=cameras, level_hw=LEVEL_HW, confidence=torch.ones(2, 2, PIXELS), temporal=features, source=features,
        reconstructed=features, mean=latent, log_variance=latent, guided=features,
        importance=torch.full((2, 2, PIXELS), importance),
    )  # fmt: skip


def test_the_truth_costs_nothing():
    truth = teacher()
    assert {name: value.item() for name, value in completion_losses(said(truth), truth, NAMES, CompletionLossConfig()).items()} == {
        "completion.consistency": 0, "completion.reconstruction": 0, "completion.kl": 0, "completion.guided": 0,
    }  # fmt: skip


def test_documented_weights_on_plain_errors():
    truth = teacher()
    losses = completion_losses(said(truth, 1.0, importance=1.0), truth, NAMES, CompletionLossConfig.published())
    assert losses["completion.consistency"].item() == pytest.approx(0.01)
    assert losses["completion.reconstruction"].item() == pytest.approx(0.01 * 2), "a sum over levels"
    assert losses["completion.guided"].item() == pytest.approx(0.1 * math.log1p(SMOOTH_L1 * 1.5))


def test_divergence_is_summed_over_levels():
    truth = teacher()
    wide = replace(said(truth), mean=torch.ones(2, 2, PIXELS, 3), log_variance=torch.ones(2, 2, PIXELS, 3))
    expected = 1e-4 * 2 * 0.5 * (1 + math.e - 1 - 1)
    assert completion_losses(wide, truth, NAMES, CompletionLossConfig())["completion.kl"].item() == pytest.approx(expected)


def test_the_mean_feature_leaves_all_unexplained():
    truth = drawn(1, 2, PIXELS, DIM, seed=3)
    mean = torch.cat([level.mean((0, 1, 2)).expand_as(level) for level in truth.split([8, 2], dim=2)], dim=2)
    torch.testing.assert_close(unexplained_share(mean, truth, torch.ones(1, 2), LEVEL_HW), torch.ones(2))
    assert (unexplained_share(truth, truth, torch.ones(1, 2), LEVEL_HW) == 0).all()
    assert (unexplained_share(mean, truth, torch.zeros(1, 2), LEVEL_HW) == 0).all()


def test_belief_is_taught_what_share_of_a_pixel_is_explained():
    truth, config = teacher(), CompletionLossConfig(belief=2.0)
    right = said(truth)
    assert completion_losses(right, truth, NAMES, config)["completion.belief"].item() == 0
    doubting = replace(right, confidence=torch.full((2, 2, PIXELS), 0.25))
    assert completion_losses(doubting, truth, NAMES, config)["completion.belief"].item() == pytest.approx(2.0 * 0.75**2)
    wrong = said(truth, 10.0)
    assert completion_losses(wrong, truth, NAMES, config)["completion.belief"].item() == pytest.approx(2.0)
    features = wrong.temporal.clone().requires_grad_()
    confidence = wrong.confidence.clone().requires_grad_()
    taught = replace(wrong, temporal=features, reconstructed=None, guided=None, confidence=confidence)
    completion_losses(taught, truth, NAMES, config)["completion.belief"].backward()
    assert (features.grad is None or not features.grad.any()) and (confidence.grad[0, 1] == 0).all() and (confidence.grad[0, 0] > 0).all()


@pytest.mark.parametrize("normalise", [True, False])
def test_only_failed_cameras_with_a_known_picture_count(normalise):
    truth = teacher(((True, True, True), (True, True, False)))
    config = CompletionLossConfig(normalise=normalise)
    right = said(truth)
    for row, counts in (((0, 0), True), ((0, 1), False), ((1, 0), True), ((1, 1), False)):
        wrong = right.guided.clone()
        wrong[row] += 1
        losses = completion_losses(replace(right, guided=wrong), truth, NAMES, config)
        assert (losses["completion.consistency"] > 0) == counts, row
        assert (losses["completion.guided"] > 0) == counts, row


def test_without_a_teacher_losses_are_zero_but_in_the_graph():
    right = said(teacher())
    features = right.guided.clone().requires_grad_()
    losses = completion_losses(replace(right, guided=features), None, NAMES, CompletionLossConfig())
    assert all(value.item() == 0 for value in losses.values()) and len(losses) == 4
    sum(losses.values()).backward()
    assert features.grad is not None and not features.grad.any()


def test_the_reconstruction_can_be_taught_its_own_input_as_published():
    truth = teacher()
    damaged = replace(said(truth), source=said(truth, 2.0).guided)
    ours = completion_losses(damaged, truth, NAMES, replace(CompletionLossConfig.published()))
    theirs = completion_losses(damaged, truth, NAMES, replace(CompletionLossConfig.published(), own_target=True))
    assert ours["completion.reconstruction"].item() == 0
    assert theirs["completion.reconstruction"].item() == pytest.approx(0.01 * 2 * 4)


def test_cameras_can_count_more():
    truth = teacher()
    right = said(truth)
    wrong = right.guided.clone()
    wrong[0, 0] += 1  # camera B
    plain = CompletionLossConfig(normalise=False)
    weighted = replace(plain, camera_weights=(("B", 4.0),))  # 4, 1, 1 scaled to 2, 1/2, 1/2
    first, second = (completion_losses(replace(right, guided=wrong), truth, NAMES, c)["completion.consistency"] for c in (plain, weighted))
    assert first.item() == pytest.approx(1 / 3)
    assert second.item() == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"camera_weights: expected names among .*, got \['D'\]"):
        completion_losses(right, truth, NAMES, replace(plain, camera_weights=(("D", 1.0),)))


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="expected weights of at least 0, got -1"):
        CompletionLossConfig(kl=-1)
