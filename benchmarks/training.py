"""Samples a second and peak memory of training steps: eager and compiled, float32 and bfloat16.

    python benchmarks/training.py                                        # tiny, and one step of sparsedrive_small_stage1
    python benchmarks/training.py --presets sparsedrive_small_stage2 --batch 6 --steps 20 --compile

Whole optimiser steps of `Trainer` (forward, matching, losses, backward, clipping, AdamW) on noise pictures with random targets; no
loader and no checkpoints. Every row runs in its own process, so that its peak memory is its own: on a GPU what PyTorch allocated, on
a CPU the resident memory of the process, Python and libraries included. The first two steps (cold streams, new shapes) are not counted
where there are more.
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

import sparsedrive
from latency import make_frame
from sparsedrive.data.sampler import FrameRequest
from sparsedrive.structures import BoxTargets, Frame, FrameTargets, FutureTargets, MapTargets, cat_frames
from sparsedrive.training.config import TrainConfig
from sparsedrive.training.trainer import Trainer, make_accelerator

BOXES, LINES = 30, 12


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time. Of the large presets, a CPU makes one step of one stream, its first, whatever is asked for."""

    presets: tuple[str, ...] = ("tiny", "sparsedrive_small_stage1")
    precisions: tuple[Literal["no", "bf16"], ...] = ("no", "bf16")
    compile: bool = False
    """Also with `torch.compile`; minutes of compilation on a CPU."""
    batch: int = 2
    steps: int = 4
    threads: int = 2
    cpu: bool = False
    worker: tuple[str, str, bool] | None = None
    """Internal: preset, precision and compiled of the one row to measure."""


def random_targets(streams: int, wh_px: tuple[int, int], levels: int, draw: torch.Generator) -> FrameTargets:
    """As many boxes and lines as a busy nuScenes frame has."""
    centre_m = torch.rand(streams, BOXES, 3, generator=draw) * 80 - 40
    size_m, rest = torch.rand(streams, BOXES, 3, generator=draw) * 4 + 0.5, torch.randn(streams, BOXES, 4, generator=draw)
    start_m, along = torch.rand(streams, LINES, 1, 2, generator=draw) * 20 - 10, torch.linspace(0, 1, 20)[:, None]
    line_m = start_m + along * torch.randn(streams, LINES, 1, 2, generator=draw) * 5
    true = torch.ones(streams, BOXES, dtype=torch.bool)
    return FrameTargets(
        boxes=BoxTargets(
            box=torch.cat([centre_m, size_m, rest], -1),
            label=torch.randint(0, 10, (streams, BOXES), generator=draw),
            instance=torch.arange(BOXES).expand(streams, -1),
            lidar_returns=torch.ones(streams, BOXES, dtype=torch.int64),
            valid=true,
        ),
        map=MapTargets(
            points_m=torch.stack([line_m, line_m.flip(2)], 2),
            order_valid=torch.ones(streams, LINES, 2, dtype=torch.bool),
            label=torch.randint(0, 3, (streams, LINES), generator=draw),
            valid=true[:, :LINES],
        ),
        futures=FutureTargets(
            agent_m=centre_m[:, :, None, :2] + torch.randn(streams, BOXES, 12, 2, generator=draw).cumsum(2),
            agent_valid=true[..., None].expand(-1, -1, 12),
            ego_m=torch.rand(streams, 6, 2, generator=draw).cumsum(1),
            ego_valid=true[:, :6],
        ),
        depth_m=tuple(
            torch.rand(streams, 6, wh_px[1] // (4 << level), wh_px[0] // (4 << level), generator=draw) * 50 for level in range(levels)
        ),
        ego_status_known=torch.ones(streams, 10, dtype=torch.bool),
    )


class Noise:
    """A loader: the same pictures and targets every time, half a second later."""

    def __init__(self, streams: int, wh_px: tuple[int, int], levels: int) -> None:
        self.step, self._wh_px, self._streams = 0, wh_px, streams
        self._targets = random_targets(streams, wh_px, levels, torch.Generator().manual_seed(0))

    def __iter__(self) -> Iterator[tuple[Frame, FrameTargets]]:
        while True:
            frame = make_frame(self._wh_px, self.step)
            self.step += 1
            yield cat_frames([frame] * self._streams), self._targets

    def requests(self, step: int) -> list[FrameRequest]:
        return [FrameRequest(scene="noise", frame=step, sequence_id=stream) for stream in range(self._streams)]

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: Any) -> None:
        self.step = state["step"]


def measure(options: Options, name: str, precision: Literal["no", "bf16"], compiled: bool) -> dict[str, float]:
    """Median seconds a step after the first two (cold streams; new shapes), and the peak memory in GB."""
    torch.set_num_threads(options.threads)
    gpu = torch.cuda.is_available() and not options.cpu
    batch, steps = (options.batch, options.steps) if gpu or name.startswith("tiny") else (1, 1)
    model = sparsedrive.load(name)
    config = TrainConfig(steps=1000, batch_size=batch, precision=precision)
    loader = Noise(batch, model.config.image_wh_px, model.config.depth.num_levels)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, loader, config, Path(folder), make_accelerator(config, cpu=options.cpu))
        if compiled:
            trainer.plain_model.compile()
        trainer.model.train()
        batches = iter(loader)
        for _ in range(steps + (2 if steps > 1 or compiled else 0)):
            frame, targets = next(batches)
            began = time.perf_counter()
            trainer.train_step(frame, targets)  # waits for the device: it reads the losses
            seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 1e9 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"batch": batch, "step_s": statistics.median(seconds[-steps:]), "first_s": seconds[0], "peak_gb": peak}


def main(options: Options) -> None:
    """Print the table."""
    if options.worker is not None:
        name, precision, compiled = options.worker
        print(json.dumps(measure(options, name, precision, compiled)))  # type: ignore[arg-type]
        return
    gpu = torch.cuda.is_available() and not options.cpu
    device = torch.cuda.get_device_name() if gpu else f"{options.threads} threads, {platform.processor() or platform.machine()}"
    console = Console(stderr=True)
    table = Table(title=f"python benchmarks/training.py {' '.join(sys.argv[1:])}\n{device}, torch {torch.__version__}")
    for column in ("preset", "precision", "mode", "batch", "step [s]", "samples/s", "first step [s]", "peak memory [GB]"):
        table.add_column(column.replace("[", r"\["), justify="right")
    for name in options.presets:
        for precision in options.precisions:
            for compiled in (False, True) if options.compile else (False,):
                console.print(f"{name} {precision}{' compiled' * compiled}")
                words = [sys.executable, *sys.argv, "--worker", name, precision, str(compiled)]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                cells = [name, {"no": "float32", "bf16": "bfloat16"}[precision], "compiled" if compiled else "eager"]
                if done.returncode:
                    table.add_row(*cells, "does not run:", [f"exit status {done.returncode}", *done.stderr.strip().splitlines()][-1][:60])
                    continue
                row = json.loads(done.stdout.splitlines()[-1])
                speed = f"{row['batch'] / row['step_s']:.2f}"
                table.add_row(
                    *cells, f"{row['batch']:.0f}", f"{row['step_s']:.2f}", speed, f"{row['first_s']:.1f}", f"{row['peak_gb']:.2f}"
                )
    Console(width=130).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
