import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from training_samples import RandomLoader, model_config, same_weights, train_config, trainer

from sparsedrive.training import checkpoint as disk
from sparsedrive.training.guard import TrainingError
from sparsedrive.training.logs import read_log
from sparsedrive.training.recipes import recipe
from sparsedrive.training.trainer import CHECKPOINTS, Trainer, make_accelerator


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    run = trainer(tmp_path_factory.mktemp("whole"), ema_decay=0.9)
    run.run()
    return run


def saved(run) -> list[Path]:
    return disk.checkpoints(run.folder / CHECKPOINTS)


def test_a_run_changes_what_learns_and_only_that(whole):
    fresh = trainer(whole.folder / "fresh", ema_decay=0.9)
    before, after = fresh.plain_model.state_dict(), whole.plain_model.state_dict()
    assert not torch.equal(before["image_encoder.backbone.conv1.weight"], after["image_encoder.backbone.conv1.weight"])
    assert not torch.equal(before["detection.anchors"], after["detection.anchors"])
    for fixed in ("detection.initial_feature", "planner.plan_anchors_m"):
        assert torch.equal(before[fixed], after[fixed])


def test_the_last_checkpoints_stay(whole):
    assert [path.name for path in saved(whole)] == ["step-00000004", "step-00000006"]
    assert not list((whole.folder / CHECKPOINTS).glob("*.part"))


def test_resume_goes_on_bit_by_bit(whole, tmp_path):
    resumed = trainer(tmp_path, seed=99, ema_decay=0.9)
    resumed.resume(saved(whole)[0])
    assert resumed.step == 4
    resumed.run()
    assert same_weights(resumed, whole)
    assert all(torch.equal(resumed.ema[name], whole.ema[name]) for name in whole.ema)
    ours, theirs = read_log(resumed.folder), read_log(whole.folder)[4:]
    assert [(e["step"], e["loss"], e["gradient_norm"]) for e in ours] == [(e["step"], e["loss"], e["gradient_norm"]) for e in theirs]


@pytest.mark.parametrize("missing", ["streams", "random", "optimiser"])
def test_resume_needs_every_part_of_the_state(whole, tmp_path, missing):
    """Each part really decides the outcome: forgetting one gives other weights."""
    resumed = trainer(tmp_path, seed=99, ema_decay=0.9)
    states = resumed.states
    resumed.resume(saved(whole)[0])
    if missing == "streams":
        resumed.states = states
    elif missing == "random":
        torch.manual_seed(5)
    else:
        resumed.optimiser.optimizer.state.clear()
    resumed.run()
    assert not same_weights(resumed, whole)


def test_two_runs_are_equal(whole, tmp_path):
    again = trainer(tmp_path, ema_decay=0.9)
    again.run()
    assert same_weights(again, whole)


def test_accumulation_keeps_streams_apart(tmp_path):
    for parts in (1, 2, 4):
        run = trainer(tmp_path / str(parts), accumulation=parts, steps=1)
        run.run()
        assert len(run.states) == parts
        sequences = torch.cat([state.clock.sequence_id for state in run.states])
        assert sequences.tolist() == [0, 1, 2, 3]
        assert read_log(run.folder)[0]["loss"] > 0


def test_memory_starts_cold_where_the_sequence_changes(tmp_path):
    run = trainer(tmp_path, steps=4)
    run.run()
    assert run.states[0].clock.sequence_id.tolist() == [10, 11, 12, 13]
    assert not any(leaf.requires_grad for leaf in torch.utils._pytree.tree_leaves(run.states))


def test_the_log_has_every_loss(whole):
    entries = read_log(whole.folder)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert {"rate", "loss", "gradient_norm", "seconds", "loss.detection.2.box", "loss.map.1.line", "loss.plan.path"} <= entries[0].keys()
    total = sum(value for name, value in entries[0].items() if name.startswith("loss."))
    assert entries[0]["loss"] == pytest.approx(total)
    rows = (whole.folder / "log.csv").read_text().splitlines()
    assert len(rows) == 7 and rows[0].split(",")[0] == "step"


def spoil(what: str, at: int):
    def change(step, frame, targets):
        if step != at:
            return frame, targets
        if what == "image":
            frame = replace(frame, images=frame.images.clone().index_fill_(0, torch.tensor([1]), float("nan")))
        elif what == "truth":
            box = targets.boxes.box.clone()
            box[2, 0, 0] = float("nan")
            targets = replace(targets, boxes=replace(targets.boxes, box=box))
        return frame, targets

    return change


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    ("what", "named"), [("image", r"Frame\.images; frames drive-1 #2\."), ("truth", r"BoxTargets\.box; frames drive-2 #2\.")]
)
def test_data_that_are_no_numbers_stop_the_run_with_their_name(tmp_path, what, named, accumulation):
    run = trainer(tmp_path, loader=RandomLoader(spoil=spoil(what, at=2)), accumulation=accumulation)
    with pytest.raises(TrainingError, match=f"step 3: .*the data are not finite: {named}"):
        run.run()
    assert [path.name for path in saved(run)] == ["step-00000002"]


def test_weights_that_are_no_numbers_stop_the_run_with_the_module(tmp_path):
    run = trainer(tmp_path)
    with torch.no_grad():
        next(iter(run.plain_model.map.encoder.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"first module whose output is not finite is 'map\.encoder"):
        run.run()


def test_gradients_that_are_no_numbers_stop_the_run_before_they_reach_the_weights(tmp_path):
    run = trainer(tmp_path)
    weight = next(run.plain_model.map.encoder.parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        TrainingError, match=r"step 1: the losses are finite, but not their gradients: those of 1 parameters are not, the first is 'map\."
    ):
        run.run()
    assert all(value.isfinite().all() for value in run.plain_model.state_dict().values())


def test_unknown_velocities_are_no_culprits(tmp_path):
    def unknown(step, frame, targets):
        box = targets.boxes.box.clone()
        box[..., 7:] = float("nan")
        return frame, replace(targets, boxes=replace(targets.boxes, box=box))

    run = trainer(tmp_path, steps=2, loader=RandomLoader(spoil=unknown))
    run.run()
    assert all(leaf.isfinite().all() for leaf in run.plain_model.state_dict().values())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device (os error 28)")])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, error):
    run = trainer(tmp_path)
    real = disk.save_file

    def full(tensors, path, *args, **kwargs):
        if "step-00000004" in str(path):
            raise error
        return real(tensors, path, *args, **kwargs)

    monkeypatch.setattr(disk, "save_file", full)
    with pytest.raises(TrainingError, match=r"step 4: the checkpoint could not be written .*No space left.*; the last whole checkpoint is"):
        run.run()
    assert [path.name for path in saved(run)] == ["step-00000002"]
    again = trainer(tmp_path / "again", seed=3)
    again.resume(saved(run)[0])
    assert again.step == 2


def test_damaged_checkpoints_are_refused(whole, tmp_path):
    for name, match in (
        ("run.json", "not the position"),
        ("optimiser.safetensors", "complete safetensors"),
        ("model.safetensors", "complete"),
    ):
        copy = tmp_path / name
        shutil.copytree(saved(whole)[0], copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:40])
        with pytest.raises(ValueError, match=match):
            trainer(tmp_path / "run").resume(copy)


def test_another_batch_does_not_resume(whole, tmp_path):
    with pytest.raises(ValueError, match="other shapes than this run's; resume with the same batch size"):
        trainer(tmp_path, batch_size=2, loader=RandomLoader(streams=2)).resume(saved(whole)[0])


def test_batches_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected batches of 4 streams .*, got 3"):
        trainer(tmp_path, loader=RandomLoader(streams=3)).run()


def test_batches_that_do_not_divide_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"multiple of processes \* accumulation = 1 \* 3, got 4"):
        trainer(tmp_path, accumulation=3)


def test_the_rate_follows_the_batch():
    before = recipe("tiny")
    after = before.with_batch(4 * before.batch_size)
    assert after.optimiser.rate == pytest.approx(4 * before.optimiser.rate)
    assert after.train_config(10_000).steps == pytest.approx(before.train_config(10_000).steps / 4, abs=1)


def test_the_position_is_readable(whole):
    run = json.loads((saved(whole)[-1] / "run.json").read_text())
    assert run == {"step": 6, "loader": {"step": 6}, "loss_scale": None, "processes": 1, "settings": train_config(ema_decay=0.9).settings()}


def test_a_resumed_run_says_which_settings_are_others(whole, tmp_path):
    assert trainer(tmp_path / "same", ema_decay=0.9).resume(saved(whole)[0]) == []
    config = replace(train_config().optimiser, rate=2e-3)
    changed = trainer(tmp_path / "other", ema_decay=0.9, steps=8, optimiser=config, keep=1).resume(saved(whole)[0])
    assert changed == ["steps 6 -> 8", "optimiser.rate 0.001 -> 0.002"]


def test_another_number_of_processes_does_not_resume(whole, tmp_path):
    copy = tmp_path / "step-00000004"
    shutil.copytree(saved(whole)[0], copy)
    run = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(run | {"processes": 8}))
    with pytest.raises(ValueError, match=r"written by 8 process\(es\).* this run has 1; start as many"):
        trainer(tmp_path / "run").resume(copy)


def test_another_model_does_not_resume(whole, tmp_path):
    config = replace(model_config(), name="other", planner=None)
    run = Trainer(config.build(), RandomLoader(), train_config(), tmp_path, make_accelerator(train_config(), cpu=True))
    with pytest.raises(ValueError, match="not the weights of 'other'"):
        run.resume(saved(whole)[0])


def test_what_froze_since_does_not_resume(whole, tmp_path):
    with pytest.raises(ValueError, match=r"parameters do not learn in this run, the first is 'map\."):
        trainer(tmp_path, freeze=("map.",)).resume(saved(whole)[0])
