from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_samples import RandomLoader, model_config, same_weights, train_config

from sparsedrive.structures import DenoisingConfig
from sparsedrive.training import checkpoint as disk
from sparsedrive.training.logs import read_log
from sparsedrive.training.trainer import CHECKPOINTS, Trainer, make_accelerator

STEPS = 5
DENOISING = DenoisingConfig(num_groups=3, num_temporal_groups=2, max_objects=4)


def trainer(folder: Path, *, denoising: DenoisingConfig | None = DENOISING, seed: int = 0, **changes) -> Trainer:
    """A fresh run on the CPU; `seed` is that of the first weights."""
    config = train_config(**{"steps": STEPS, "accumulation": 2} | changes)
    accelerator = make_accelerator(config, cpu=True)
    base = model_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = replace(base, detection=replace(base.detection, denoising=denoising)).build()
    return Trainer(model, RandomLoader(), config, folder, accelerator)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Trainer:
    """An uninterrupted run; a stream of its first batch has no objects."""
    run = trainer(tmp_path_factory.mktemp("whole"))
    run.run()
    return run


def test_every_layer_logs_its_denoising_losses(whole):
    names = {f"loss.detection.{layer}.denoise_{term}" for layer in range(3) for term in ("class", "box")}
    entries = read_log(whole.folder)
    assert len(entries) == STEPS
    assert all(entry[name] > 0 for entry in entries for name in names)


def test_groups_of_the_last_frame_are_in_the_state(whole):
    """Of every stream, outside the graph."""
    for state in whole.states:
        kept = state.detection.denoising
        assert kept.valid.any(2).all() and not kept.feature.requires_grad


@pytest.mark.parametrize("forget", [False, True])
def test_resume_goes_on_bit_by_bit(whole, tmp_path, forget):
    """The memory of the groups decides the outcome: without it, other weights."""
    resumed = trainer(tmp_path, seed=99)
    resumed.resume(disk.checkpoints(whole.folder / CHECKPOINTS)[0])
    assert resumed.step == 4
    if forget:
        resumed.states = [
            replace(s, detection=replace(s.detection, denoising=replace(s.detection.denoising, valid=s.detection.denoising.valid & False)))
            for s in resumed.states
        ]
    resumed.run()
    assert same_weights(resumed, whole) is not forget


def test_a_checkpoint_without_denoising_says_that_its_memory_is_another(whole, tmp_path):
    before = trainer(tmp_path / "before", denoising=None, steps=2)
    before.run()
    assert not any("denoise" in name for name in read_log(before.folder)[0])
    with pytest.raises(ValueError, match=r"part 0 has other shapes than this run's"):
        trainer(tmp_path / "after").resume(disk.checkpoints(before.folder / CHECKPOINTS)[-1])
