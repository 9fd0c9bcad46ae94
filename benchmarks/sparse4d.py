"""Sparse4D v1, v2 and v3 side by side: frame time, and what the parts of v3 bring.

    python benchmarks/sparse4d.py time                        # all with ResNet-50 at 256 x 704, v1 with 1 to 4 frames
    python benchmarks/sparse4d.py ablation --data PREPARED --out runs/ablation --epochs 2

`time`: versions take turns, so that a change of the machine's speed hits all of them; medians over warm frames of noise, random weights.
`ablation`: `sparse4d_tiny` and the same decoder without memory, without denoising, and without quality estimation, each trained with the
same recipe, seed and steps on the split "train", evaluated on "val". A run that is there already is not repeated. Unless told otherwise
all start from the trained image encoder of `tiny` and leave it as it is, so that the decoder gets far in a short run.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

import sparsedrive
from latency import make_frame
from sparsedrive.cli import main as command
from sparsedrive.config.presets import PRESETS
from sparsedrive.convert.checkpoint import save
from sparsedrive.evaluation.results import Evaluation
from sparsedrive.models.anchors import set_anchors
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.runtime.session import StreamingSession
from sparsedrive.structures.anchors import Anchors
from sparsedrive.training.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Time:
    """Frame time of every version, and how v1's grows with its history."""

    frames: int = 3
    """Warm frames of each version and round, after as many cold ones as v1 looks back to."""
    rounds: int = 2
    """Turns of each version."""
    threads: int = 2
    """Torch threads."""
    device: str = "cpu"
    """Where to run."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Four short trainings."""

    data: Path
    """Folder written by `sparsedrive prepare`."""
    out: Path
    """Folder for the runs."""
    epochs: float = 2.0
    """Passes over the split."""
    seed: int = 0
    """Of weights, order and augmentation."""
    encoder: Literal["tiny", "random"] = "tiny"
    """The trained image encoder of `tiny`, which does not learn here: what learns is what the variants differ in. Or all from scratch."""
    anchors: Path | None = None
    """Written by `sparsedrive anchors`."""
    workers: int = 2
    """Loading processes."""


def timed_versions() -> dict[str, SparseDriveConfig]:
    """All at the size of the published v2 and v3."""
    v2, v3 = sparsedrive.preset("sparse4d_v2_r50"), sparsedrive.preset("sparse4d_v3_r50")
    v1 = replace(sparsedrive.preset("sparse4d_v1_r101_h4"), image_wh_px=v2.image_wh_px, encoder=v2.encoder)
    versions = {}
    for num_past in range(4):
        layer = replace(v1.detection.layer, history=replace(v1.detection.layer.history, num_past=num_past))
        versions[f"v1, {num_past + 1} frames"] = replace(v1, detection=replace(v1.detection, layer=layer))
    return versions | {"v2": v2, "v3": v3}


def measure(arguments: Time) -> None:
    """Prints the table."""
    torch.set_num_threads(arguments.threads)
    seconds: dict[str, list[float]] = {name: [] for name in timed_versions()}
    turns = [name for _ in range(arguments.rounds) for name in seconds]
    for name in track(turns, "measuring", console=Console(stderr=True)):
        model = sparsedrive.load(timed_versions()[name], device=arguments.device)
        session = StreamingSession(model)
        for index in range(3 + arguments.frames):
            frame = make_frame(model.config.image_wh_px, index)
            start = time.perf_counter()
            session.step(frame).to("cpu")  # the copy waits for a GPU
            if index >= 3:
                seconds[name].append(time.perf_counter() - start)
    table = Table("version", "frame, s", "fastest, s", "/ v2", title=f"{arguments.device}, {arguments.threads} threads")
    for name, values in seconds.items():
        middle = statistics.median(values)
        table.add_row(name, f"{middle:.3f}", f"{min(values):.3f}", f"{middle / statistics.median(seconds['v2']):.2f}")
    Console().print(table)


def variants() -> dict[str, Callable[[], SparseDriveConfig]]:
    """What is trained, by preset name."""
    full = sparsedrive.preset("sparse4d_tiny")
    detection, denoising = full.detection, full.detection.denoising
    assert denoising is not None
    changed = {
        "sparse4d_tiny": detection,
        "no_memory": replace(detection, num_memory=0, denoising=replace(denoising, num_temporal_groups=0)),
        "no_denoising": replace(detection, denoising=None),
        "no_quality": replace(detection, kind=replace(detection.kind, with_quality=False)),
    }
    return {name: lambda name=name, head=head: replace(full, name=name, detection=head) for name, head in changed.items()}


def ablate(arguments: Ablation) -> None:
    """Trains, evaluates and prints the table."""
    table = Table("trained with", "mAP", "NDS", "AMOTA", "AMOTP, m", title=f"{arguments.epochs:g} epochs, seed {arguments.seed}")
    for name, make in variants().items():
        PRESETS[name], RECIPES[name] = make, RECIPES["sparse4d_tiny"]
        run = arguments.out / name
        weights, evaluation = run / "model.safetensors", run / "eval" / "evaluation.json"
        words = ["--data", str(arguments.data)]
        if not weights.is_file():
            options = ["--epochs", str(arguments.epochs), "--seed", str(arguments.seed), "--workers", str(arguments.workers), "--resume"]
            _succeed(["train", name, *words, "--out", str(run), *_start(make(), run, arguments), *options])
        if not evaluation.is_file():
            options = ["--preset", name, "--weights", str(weights), "--tasks", "det,track", "--no-report"]
            _succeed(["eval", *words, "--out", str(evaluation.parent), *options])
        result = Evaluation.load(evaluation)
        assert result.detection is not None and result.tracking is not None
        numbers = (result.detection.mean_ap, result.detection.nds, result.tracking.mean_amota, result.tracking.mean_amotp_m)
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    Console().print(table)


def _start(config: SparseDriveConfig, run: Path, arguments: Ablation) -> list[str]:
    """Options for what a run starts from. A trained encoder leaves all other weights what they would have been without it."""
    if arguments.encoder == "random":
        return [] if arguments.anchors is None else ["--anchors", str(arguments.anchors)]
    model, trained = sparsedrive.load(config, seed=arguments.seed), sparsedrive.load("tiny", "packaged")
    model.image_encoder.load_state_dict(trained.image_encoder.state_dict())
    if arguments.anchors is not None:
        set_anchors(model, Anchors.load(arguments.anchors))
    run.mkdir(parents=True, exist_ok=True)
    save(model, run / "start.safetensors")
    return ["--init", str(run / "start.safetensors"), "--freeze", "image_encoder"]


def _succeed(words: list[str]) -> None:
    if command(words):
        raise SystemExit(f"failed: sparsedrive {' '.join(words)}")


def main() -> None:
    """Command line."""
    times, runs = Annotated[Time, tyro.conf.subcommand("time")], Annotated[Ablation, tyro.conf.subcommand("ablation")]
    arguments = tyro.cli(times | runs, description=__doc__, default=Time())  # type: ignore[arg-type, call-overload]
    if isinstance(arguments, Time):
        measure(arguments)
    else:
        ablate(arguments)


if __name__ == "__main__":
    main()
