"""`sparsedrive train` as processes: killed anywhere it goes on to the same weights, and two processes do what one does."""

import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import DIE, command, environment, run_to_the_end, same_tensors, still, write_data

from sparsedrive.convert import load
from sparsedrive.training.checkpoint import MODEL, checkpoints, read_position
from sparsedrive.training.logs import read_log
from sparsedrive.training.trainer import CHECKPOINTS

pytestmark = pytest.mark.xdist_group("training processes")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data")).folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """Twelve steps without interruption."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = run_to_the_end(data, out)
    assert done.returncode == 0, done.stderr
    return out


def saved_steps(out: Path) -> list[int]:
    """Steps of the checkpoints, every one of which must be whole."""
    for path in checkpoints(out / CHECKPOINTS):
        assert {file.name for file in path.iterdir()} == {
            "model.safetensors", "model.json", "optimiser.safetensors", "process-0.safetensors", "run.json"
        }  # fmt: skip
        load_file(path / MODEL)
    return [read_position(path).step for path in checkpoints(out / CHECKPOINTS)]


def kill_after(data: Path, out: Path, step: int, delay_s: float) -> int:
    """Resumes, and kills the process a little after it logged `step`; returns the last step it logged."""
    process = subprocess.Popen(command(data, out, "--resume"), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline:
            if any(entry["step"] >= step for entry in read_log(out)):
                time.sleep(delay_s)
                break
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    return max((int(entry["step"]) for entry in read_log(out)), default=0)


def test_killed_while_it_saves_and_in_between_it_ends_with_the_same_weights(data, whole, tmp_path):
    out, places = tmp_path / "run", {4: "first file", 6: "name", 10: "removal"}
    steps = []
    for step, place in places.items():
        done = run_to_the_end(data, out, "--resume", **{DIE: f"{step}:{place}"})
        assert done.returncode == -signal.SIGKILL, done.stderr
        steps.append(saved_steps(out)[-1])
    assert steps == [2, 4, 10]  # the third was whole, only the removal of an old one was not
    assert list((out / CHECKPOINTS).glob("*.part"))
    assert kill_after(data, out, step=11, delay_s=random.Random(0).uniform(0, 0.1)) >= 11
    done = run_to_the_end(data, out, "--resume")
    assert done.returncode == 0 and "going on from step 1" in done.stdout, done.stderr
    assert same_tensors(out / MODEL, whole / MODEL)
    assert saved_steps(out) == saved_steps(whole) == [8, 10, 12]
    assert not list((out / CHECKPOINTS).glob("*.part"))
    assert [entry["loss"] for entry in read_log(out)] == [entry["loss"] for entry in read_log(whole)]


def test_two_processes_do_what_one_does(data, tmp_path):
    """Batch norms take their statistics from the pictures of one process, so they are frozen here; nothing else differs."""
    options = ("--freeze", "image_encoder.backbone", "planner.ego_feature", "--batch", "4", "--rate", "1e-4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    runs = [("one", {})] + [("two", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | rank) for rank in ranks]  # as torchrun does
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(command(data, tmp_path / out, *options, name="still"), env=environment(**more), **pipes) for out, more in runs
    ]
    texts = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], texts
    assert "2 processes on cpu" in texts[1][0] and texts[2] == ("", "")  # only the first one speaks
    logs = [read_log(tmp_path / out) for out in ("one", "two")]
    assert [len(log) for log in logs] == [6, 6]
    for one, two in zip(*logs, strict=True):
        for name in one:
            if name in ("loss", "gradient_norm") or name.startswith("loss."):
                assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (one["step"], name)
    one, two = (load_file(tmp_path / out / MODEL) for out in ("one", "two"))
    start = load(still(), seed=0).state_dict()
    learning = [name for name in one if not torch.equal(one[name], start[name])]
    apart = torch.cat([(two[name] - one[name]).abs().flatten() for name in learning])
    moved = torch.cat([(start[name] - one[name]).abs().flatten() for name in learning])
    # Not all: rounding decides on which side of zero a unit of a ReLU falls, and AdamW makes whole steps of tiny gradients.
    assert (apart > 1e-5).float().mean() < 1e-4 and apart.norm() < 2e-3 * moved.norm()
    states = [load_file(checkpoints(tmp_path / "two" / CHECKPOINTS)[-1] / f"process-{rank}.safetensors") for rank in range(2)]
    names = [name for name in states[0] if name.startswith("state.")]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in names)  # each has streams of its own
