"""`sparsedrive train` in this process, on a preset small enough for it; processes that are killed are in tests/training."""

import re
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from sparsedrive.cli import main
from sparsedrive.cli.train_show import duration, seconds_left
from sparsedrive.data.prepared import PreparedData, scene_path
from sparsedrive.models.completion.config import CompletionConfig, GuidedConfig, ReconstructionConfig, TemporalConfig
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.training.logs import read_log
from sparsedrive.training.recipes import recipe

sys.path.append(str(Path(__file__).parents[1] / "training"))
import small_runs


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(small_runs.PRESETS, "small", small_runs.small)
    monkeypatch.setitem(small_runs.recipes.RECIPES, "small", small_runs.recipe)
    monkeypatch.delenv("SPARSEDRIVE_DEBUG", raising=False)
    AcceleratorState._reset_state(reset_partial_state=False)  # it keeps the precision for the life of a process


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    return small_runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def own_data(data, tmp_path) -> PreparedData:
    """A copy to spoil."""
    return PreparedData.open(shutil.copytree(data.folder, tmp_path / "data"))


def train(data: Path, out: Path, *options: str) -> int:
    words = ["train", "small", "--data", str(data), "--out", str(out), "--cpu", "--workers", "0", "--epochs", "0.5", "--log-every", "1"]
    return main([*words, *options])


def change(data: PreparedData, **changes) -> None:
    """Change arrays of every scene: name -> function of the array."""
    from prepared_samples import change_scene

    for name in data.scenes:
        scene = data.scene(name)
        change_scene(data, name, **{field: function(getattr(scene, field).copy()) for field, function in changes.items()})


def errors(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory, request):
    """Three steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small_runs.PRESETS, "small", small_runs.small)
        patch.setitem(small_runs.recipes.RECIPES, "small", small_runs.recipe)
        assert train(data.folder, out, "--save-every", "2", "--ema", "0.9") == 0
    return out


def test_a_run_says_what_it_does_and_leaves_weights_and_curves(data, tmp_path, capsys):
    assert train(data.folder, tmp_path / "run", "--batch", "4", "--accumulation", "2") == 0
    printed = capsys.readouterr()
    for text in (
        "model      small, 0.12 M parameters, 0.12 M learn",
        "split 'train', 12 frames",
        "machine    1 process on cpu, float32",
        "run        2 steps of 4 streams in 2 parts: 0.667 epochs, rate 0.002",
        "batch 4 instead of 2: rate 0.002 instead of 0.001; --rate sets another",
        "s a step, 0 s to go",
        f"weights    {tmp_path / 'run' / 'model.safetensors'}",
    ):
        assert text in printed.out
    lines = [line for line in printed.err.splitlines() if line.startswith("step ")]
    assert len(lines) == 2 and lines[1].startswith("step 2/2  loss ")
    assert all(word in lines[0] for word in ("gradient", "samples/s", "left"))
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_a_recipe_with_failures_loses_cameras_and_teaches_their_completion(data, tmp_path, capsys, monkeypatch):
    completion = CompletionConfig(
        temporal=TemporalConfig(num_heads=2, attention="neighbours", ring="extrinsics"),
        reconstruction=ReconstructionConfig(hidden_dim=4),
        guided=GuidedConfig(num_heads=2),
    )
    config = replace(small_runs.small(), mask_aware=True, completion=completion)
    failures = replace(recipe("tiny_completion").failures, down_share=0.5)
    monkeypatch.setitem(small_runs.PRESETS, "small", lambda: config)
    monkeypatch.setitem(small_runs.recipes.RECIPES, "small", lambda: replace(small_runs.recipe(), failures=failures))
    lost, forward = [], SparseDrive.forward

    def watched(self, frame, *others, **named):
        lost.append(~frame.rig.available)
        return forward(self, frame, *others, **named)

    monkeypatch.setattr(SparseDrive, "forward", watched)
    assert train(data.folder, tmp_path / "run", "--epochs", "2") == 0
    assert 0.2 < torch.cat(lost).float().mean() < 0.8
    assert "cameras fail: MarkovFailures(" in capsys.readouterr().out
    taught = [row["loss.completion.consistency"] for row in read_log(tmp_path / "run")]
    assert [value > 0 for value in taught] == [bool(some.any()) for some in lost]


def test_the_weights_are_those_of_the_last_checkpoint_and_load(finished):
    import sparsedrive

    last = finished / "checkpoints" / "step-00000003"
    assert small_runs.same_tensors(finished / "model.safetensors", last / "model.safetensors")
    assert small_runs.same_tensors(finished / "ema.safetensors", last / "ema.safetensors")
    sparsedrive.load(small_runs.small(), finished / "ema.safetensors")


def test_the_end_of_a_run_can_be_resumed(data, finished, capsys):
    before = load_file(finished / "model.safetensors")
    assert train(data.folder, finished, "--ema", "0.9", "--resume") == 0
    assert "going on from step 3" in capsys.readouterr().out
    after = load_file(finished / "model.safetensors")
    assert all((after[name] == value).all() for name, value in before.items())
    assert len(read_log(finished)) == 3


def test_resuming_with_other_settings_is_said(data, finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    assert train(data.folder, run, "--ema", "0.9", "--resume", "--rate", "0.5") == 0
    assert "not the interrupted run any more: optimiser.rate 0.001 -> 0.5" in capsys.readouterr().err


def test_resume_without_a_checkpoint_begins(data, tmp_path, capsys):
    assert train(data.folder, tmp_path / "run", "--epochs", "0.1", "--resume") == 0
    assert "no checkpoint in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "already holds a run .step-00000003.; go on with --resume or choose another folder"),
        (("--resume", "--batch", "4", "--accumulation", "2"), "memory of part 1 has other shapes"),
        (("--resume", "--batch", "4"), "memory of part 0 has other shapes"),
        (("--resume", "--accumulation", "2"), "memory of part 0 has other shapes"),
        (("--resume", "--freeze", "detection"), "do not learn in this run"),
    ],
)
def test_a_run_is_neither_overwritten_nor_resumed_as_another(data, finished, capsys, options, message):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert train(data.folder, finished, *options) == 2
    found = errors(capsys)
    assert len(found) == 1 and re.search(message, found[0]), found
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere"), "not prepared"),
        (("--split", "night"), "expected one of"),
        (("--accumulation", "3"), "multiple of processes * accumulation"),
        (("--batch", "40"), "use a smaller batch"),
        (("--freeze", "head"), "no parameter begins with 'head'"),
        (("--precision", "fp16"), "'fp16' needs a GPU"),
        (("--ema", "2"), "TrainConfig.ema_decay"),
        (("--backbone", "imagenet"), "no package ships weights of a ResNet-18 of width 4"),
        (("--backbone", "no.pth"), "no file no.pth"),
        (("--init", "no.safetensors"), "no.safetensors"),
    ],
)
def test_wrong_options_are_one_line(data, tmp_path, capsys, options, message):
    assert train(data.folder, tmp_path / "run", *options) == 2
    found = errors(capsys)
    assert len(found) == 1 and message in found[0], found


def nothing(array: np.ndarray) -> np.ndarray:
    return array[:0]


@pytest.mark.parametrize(
    "changes",
    [
        {
            "box_splits": np.zeros_like,
            **dict.fromkeys(("box", "box_label", "box_instance", "lidar_returns", "radar_returns"), nothing),
            **dict.fromkeys(("agent_future_m", "agent_future_valid"), nothing),
        },
        {"map_splits": np.zeros_like, "map_label": nothing, "map_points_m": nothing, "point_splits": lambda splits: splits[:1]},
        {"agent_future_valid": np.zeros_like, "ego_future_valid": np.zeros_like, "ego_status_known": np.zeros_like},
    ],
    ids=["no boxes", "no map", "no futures"],
)
def test_frames_without_something_are_trained_on(own_data, tmp_path, changes):
    change(own_data, **changes)
    assert train(own_data.folder, tmp_path / "run", "--epochs", "0.4") == 0
    assert all(np.isfinite(value) for entry in read_log(tmp_path / "run") for value in entry.values())


def test_one_nan_in_the_ground_truth_is_found(own_data, tmp_path, capsys):
    name = own_data.scenes[1]
    box = own_data.scene(name).box.copy()
    frame = 2
    rows = own_data.scene(name).boxes_of(frame)
    box[rows.stop - 1, 3] = np.nan
    from prepared_samples import change_scene

    change_scene(own_data, name, box=box)
    assert train(own_data.folder, tmp_path / "run", "--epochs", "2", "--save-every", "1") == 3
    found = errors(capsys)
    assert len(found) == 1 and f"BoxTargets.box; frames {name} #{frame}." in found[0], found
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    for path in saved:
        assert path.suffix == "" and all(value.isfinite().all() for value in load_file(path / "model.safetensors").values())


def test_a_damaged_archive_is_named(own_data, tmp_path, capsys):
    path = scene_path(own_data.folder, own_data.scenes[0])
    path.write_bytes(path.read_bytes()[:500])
    assert train(own_data.folder, tmp_path / "run") == 2
    assert str(path) in errors(capsys)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_disk_that_is_full_is_one_line_and_leaves_whole_checkpoints(data, tmp_path, capsys):
    """A limit on the size of files stands for the disk: the weights do not fit."""
    run = tmp_path / "run"
    assert train(data.folder, run, "--save-every", "2", "--epochs", "0.34") == 0
    before = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    capsys.readouterr()
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        code = train(data.folder, run, "--save-every", "1", "--epochs", "1", "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    found = errors(capsys)
    assert code == 3 and len(found) == 1 and "the checkpoint could not be written" in found[0] and "too large" in found[0], found
    assert all(path.read_bytes() == content for path, content in before.items())
    assert train(data.folder, run, "--save-every", "1", "--epochs", "0.5", "--resume") == 0


def test_time_left():
    assert seconds_left({"step": 40, "samples_per_s": 8.0}, batch_size=4, steps=100) == pytest.approx(30)
    assert [duration(seconds) for seconds in (7.4, 61, 3600 * 2 + 300, 86400 * 3 + 7300)] == ["7 s", "1 min 01 s", "2 h 05 min", "3 d 2 h"]
