from dataclasses import replace

import completion_samples as samples
import pytest
import torch

from sparsedrive.geometry import se3
from sparsedrive.losses.completion import CompletionLossConfig, CompletionTeacher, completion_losses
from sparsedrive.models.completion.cascade import CompletionCascade
from sparsedrive.models.completion.config import CompletionConfig
from sparsedrive.models.completion.world_model import WorldModel, mean_features

TURNS_RAD = torch.tensor([0.0, 2.0, -2.0])


def surround_rig():
    """Three cameras that look 115 degrees apart, the last one failed."""
    turned = se3.from_yaw(torch.zeros(3), torch.zeros(3), TURNS_RAD)
    rig = samples.forward_rig(3)
    return samples.failed(replace(rig, image_T_ego=rig.image_T_ego @ turned), 2)


def imagine(model, images, rig):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return model(images, rig)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return WorldModel(samples.DIM, 2)


def test_a_failed_camera_is_imagined_from_the_others(model):
    rig, images = surround_rig(), samples.features(cameras=3)
    expected, surprise = imagine(model, images, rig)
    assert expected.shape == mean_features(images).shape == (1, 3, 2 * samples.DIM) and surprise > 0
    for camera, matters in ((0, True), (1, True), (2, False)):
        packed = images.packed.clone()
        packed[:, camera] += 1
        found, changed = imagine(model, replace(images, packed=packed), rig)
        assert torch.equal(found, expected) != matters, camera
        assert torch.equal(changed, surprise) != matters, camera


def test_where_cameras_look_counts_not_their_place_in_the_rig(model):
    rig, images, order = surround_rig(), samples.features(cameras=3), [2, 0, 1]
    rows = {name: getattr(rig, name)[:, order] for name in ("image_T_ego", "image_wh_px", "focal_px", "available")}
    expected, surprise = imagine(model, images, rig)
    found, same = imagine(model, replace(images, packed=images.packed[:, order]), replace(rig, **rows))
    torch.testing.assert_close(found, expected[:, order])
    torch.testing.assert_close(same, surprise)


def test_it_has_the_published_size():
    with torch.device("meta"):
        assert round(sum(p.numel() for p in WorldModel(256, 4).parameters()) / 1e6, 2) == 0.43


def test_it_is_off_unless_asked_for_and_works_in_training_only():
    assert not CompletionConfig().world_model
    assert not any("world_model" in name for name, _ in samples.small_cascade(temporal=samples.temporal()).named_parameters())
    torch.manual_seed(0)
    config = CompletionConfig(temporal=samples.temporal(), reconstruction=None, guided=None, world_model=True)
    cascade = CompletionCascade(config, samples.DIM, 2, samples.RING)
    rig, whole = surround_rig(), samples.features(cameras=3)
    images, teacher = samples.blank(whole, rig), CompletionTeacher(packed=whole.packed, known=~rig.available)
    _, _, said = cascade.eval()(images, rig, samples.start(cascade, 3), samples.tick())
    assert said.imagined is None
    assert "completion.imagined" not in completion_losses(said, teacher, samples.RING, CompletionLossConfig())
    _, _, said = cascade.train()(images, rig, samples.start(cascade, 3), samples.tick())
    losses = completion_losses(said, teacher, samples.RING, CompletionLossConfig())
    truth = mean_features(whole)[:, 2]
    assert losses["completion.imagined"].item() == pytest.approx(0.01 * (said.imagined[:, 2] - truth).square().mean().item(), rel=1e-4)
    assert losses["completion.surprise"].item() == pytest.approx(1e-4 * said.surprise.item(), rel=1e-4)
    sum(losses.values()).backward()
    assert all(p.grad.any() for p in cascade.world_model.parameters())
    nobody_knows = completion_losses(said, None, samples.RING, CompletionLossConfig())
    assert losses.keys() == nobody_knows.keys() and all(value.item() == 0 for value in nobody_knows.values())
