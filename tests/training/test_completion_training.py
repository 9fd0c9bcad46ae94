"""The trainer with a completion: teacher, losses, memory in the checkpoint."""

from dataclasses import replace

import pytest
import torch
import training_samples
from torch.utils import _pytree as pytree

from sparsedrive.config import preset, presets
from sparsedrive.data.sampler import FrameRequest
from sparsedrive.losses.completion import CompletionLossConfig
from sparsedrive.models.completion.config import CompletionConfig, GuidedConfig, ReconstructionConfig, TemporalConfig
from sparsedrive.structures import with_available
from sparsedrive.training.checkpoint import checkpoints
from sparsedrive.training.recipes import recipe
from sparsedrive.training.teacher import completion_teacher
from sparsedrive.training.trainer import CHECKPOINTS, Trainer, make_accelerator

LOSSES = {"completion.consistency", "completion.reconstruction", "completion.kl", "completion.guided"}


def lose_one(step: int, frame, targets):
    """Every frame but the first of a sequence loses one camera, whose true picture stays in the frame."""
    available = torch.ones_like(frame.rig.available)
    if step % training_samples.SEQUENCE_LENGTH:
        available[:, step % available.shape[1]] = False
    return with_available(frame, available), targets


def trainer(folder, **changes) -> Trainer:
    completion = CompletionConfig(
        temporal=TemporalConfig(num_heads=4, kv_downsample=2, ring="extrinsics", attention="neighbours"),
        reconstruction=ReconstructionConfig(hidden_dim=4),
        guided=GuidedConfig(num_heads=4),
    )
    config = replace(training_samples.model_config(), mask_aware=True, completion=completion)
    torch.manual_seed(0)
    run = training_samples.train_config(batch_size=2, **changes)
    return Trainer(config.build(), training_samples.RandomLoader(2, spoil=lose_one), run, folder, make_accelerator(run, cpu=True))


def test_training_teaches_the_completion_and_resumes_bit_by_bit(tmp_path):
    first, entries = trainer(tmp_path / "a", steps=4, save_every=2), []
    before = {name: value.clone() for name, value in first.plain_model.state_dict().items() if name.startswith("completion.")}
    first.run(entries.append)
    assert all({f"loss.{name}" for name in LOSSES} <= entry.keys() for entry in entries)
    assert [entry["loss.completion.consistency"] > 0 for entry in entries] == [False, True, True, False]
    after = first.plain_model.state_dict()
    assert sum(not torch.equal(after[name], value) for name, value in before.items()) > 0.9 * len(before)
    second = trainer(tmp_path / "b", steps=4)
    second.resume(checkpoints(tmp_path / "a" / CHECKPOINTS)[0])
    assert second.step == 2 and second.states[0].completion.valid.any()
    second.run()
    assert training_samples.same_weights(first, second)
    assert all(torch.equal(a, b) for a, b in zip(pytree.tree_leaves(first.states), pytree.tree_leaves(second.states), strict=True))


@pytest.fixture
def model(tmp_path):
    return trainer(tmp_path).plain_model.train()


def frame(*failed: int, black: bool = False):
    """The loader's first frame with these cameras failed in stream 0, their pictures true or black."""
    first, _ = next(iter(training_samples.RandomLoader(2)))
    available = torch.ones_like(first.rig.available)
    available[0, list(failed)] = False
    images = first.images.masked_fill(~available[:, :, None, None, None], -2.0) if black else first.images
    return with_available(replace(first, images=images), available)


def test_the_teacher_sees_what_failed_cameras_would_have_given(model):
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    found = completion_teacher(model, frame(1))
    assert found.known.tolist() == [[False, True, False], [False, False, False]]
    assert not found.packed.requires_grad and (found.packed[~found.known] == 0).all()
    assert all(torch.equal(value, statistics[name]) for name, value in model.named_buffers())
    assert model.image_encoder.training and model.image_encoder.backbone.bn1.training
    torch.testing.assert_close(found.packed[0, 1], model.eval().image_encoder(frame().images).packed[0, 1], atol=1e-4, rtol=1e-4)


def test_every_preset_with_a_completion_has_a_recipe_with_failures_and_a_teacher():
    for name in (name for name in presets() if preset(name).completion is not None):
        chosen = recipe(name)
        request = [FrameRequest(scene="s", frame=0, sequence_id=index, step=10**6) for index in range(50)]
        faults = [fault for each in request for fault in chosen.failures.faults(each, preset(name).camera_names) if fault is not None]
        assert 20 < len(faults) < 120 and all(fault.kind == "intact" and fault.announced for fault in faults), name
    small = recipe("sparsedrive_small_stage2_completion")
    assert small.criterion.completion == CompletionLossConfig.published() == CompletionLossConfig(
        consistency=0.01, reconstruction=0.01, kl=1e-4, guided=0.1, normalise=False
    )  # fmt: skip
    assert (small.failures.probability, small.failures.max_cameras, small.failures.curriculum.start_share) == (0.6, 2, 0.25)
    assert recipe("tiny").failures is None


def test_without_a_true_picture_there_is_no_teacher(model):
    assert completion_teacher(model, frame()) is None
    assert completion_teacher(model, frame(1, black=True)) is None
