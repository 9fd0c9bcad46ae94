"""What the completion of failed cameras costs: V1 against V2 at three sizes of feature map, and a whole frame with 0, 1 and 2 failures.

    python benchmarks/completion.py                       # both parts; the frame is that of tiny_completion
    python benchmarks/completion.py --preset sparsedrive_small_stage2_completion --frames 2

First part: level 1 alone on a single map of 256 channels (six cameras, two remembered pictures), as the published documents compare it:
time of forward and backward, and bytes kept for the backward pass. Everything is measured in one process, in turn and `--rounds` times;
the smallest time counts. Second part: frames in evaluation mode; the model without completion runs between the others, so that a change of
the machine's speed hits all. Memory and floating point operations do not depend on the machine's load, times do.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import sparsedrive
from baselines.memory import MIB, most_mib
from latency import make_frame, surround_rig
from sparsedrive.models.completion import memory as memory_of
from sparsedrive.models.completion import warp
from sparsedrive.models.completion.cameras import failed_cameras
from sparsedrive.models.completion.config import PublishedQuirks, TemporalConfig
from sparsedrive.models.completion.temporal import TemporalCompletion
from sparsedrive.models.memory_ops import Tick
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.structures import NUSCENES_CAMERAS, Frame, ImageFeatures, StreamState, with_available

MAPS_HW = ((8, 22), (16, 44), (32, 88))
DIM, CAMERAS = 256, 6


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Cost of the completion."""

    preset: str = "tiny_completion"
    """Whose frames are measured; a preset with a completion."""
    frames: int = 6
    """Frames of each kind."""
    rounds: int = 3
    """How often every map is measured."""
    threads: int = 1
    """Torch threads."""
    out: Path | None = None
    """Also write the numbers here, as JSON."""


def still(batch: int = 1) -> Tick:
    """Half a second after the last frame, 2 m farther on."""
    now_T_then = torch.eye(4).repeat(batch, 1, 1)
    now_T_then[:, 1, 3] = -2.0
    half_s = torch.full((batch,), 0.5)
    return Tick(
        warm=torch.ones(batch, dtype=torch.bool), attends=torch.ones(batch, dtype=torch.bool), now_T_then=now_T_then, elapsed_s=half_s,
        step_s=half_s,
    )  # fmt: skip


def level_one(attention: str, size_hw: tuple[int, int], failures: int, kv_downsample: int) -> Callable[[], torch.Tensor]:
    """One forward of level 1 on a map of that size, ready to be called."""
    torch.manual_seed(0)
    config = TemporalConfig(attention=attention, levels=(0,), kv_downsample=kv_downsample)  # type: ignore[arg-type]
    level = TemporalCompletion(config, DIM, NUSCENES_CAMERAS, PublishedQuirks()).train()
    available = torch.arange(CAMERAS)[None] >= failures
    rig = replace(surround_rig((704, 256)), available=available)
    pixels = size_hw[0] * size_hw[1]
    memory = memory_of.initial(1, CAMERAS, config.queue_length, pixels, DIM, 6, torch.float32, "cpu")
    for _ in range(config.queue_length):
        seen = ImageFeatures(packed=torch.randn(1, CAMERAS, pixels, DIM), level_hw=size_hw)
        memory = memory_of.remember(memory_of.advance(memory, still(), 4.0), seen, rig, torch.ones_like(available), all_seen=True)
    packed = torch.randn(1, CAMERAS, pixels, DIM).masked_fill(~available[..., None, None], 0).requires_grad_()
    images = ImageFeatures(packed=packed, level_hw=size_hw)
    pictures = warp.sources(memory_of.advance(memory, still(), 4.0), images, rig)
    cameras = failed_cameras(available)
    assert cameras is not None
    return lambda: level(pictures, rig, cameras).features.sum()


def kept_mib(forward: Callable[[], torch.Tensor]) -> float:
    """Memory of distinct tensors that the backward pass needs, weights included."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()
    assert kept.requires_grad
    return sum(storages.values()) / MIB


def compare_attention(rounds: int) -> list[dict[str, float | str]]:
    """V1 and V2 on each map with one and two failed cameras, keys averaged over 4 x 4 pixels, and 1 x 1 on the smallest."""
    rows: list[dict[str, float | str]] = []
    for size_hw, failures, kv in [((8, 22), 2, 1), *((size, count, 4) for size in MAPS_HW for count in (1, 2))]:
        runs = {name: level_one(name, size_hw, failures, kv) for name in ("global", "neighbours")}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, forward in runs.items():
                begin = time.process_time()
                forward().backward()
                seconds[name].append(time.process_time() - begin)
        for name, forward in runs.items():
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                forward()
            rows.append(
                {
                    "map": f"{size_hw[0]}x{size_hw[1]}", "failed": failures, "pool": kv, "attention": name,
                    "seconds": min(seconds[name]), "kept_mib": kept_mib(forward), "gflop": counter.get_total_flops() / 1e9,
                }
            )  # fmt: skip
    return rows


@torch.inference_mode()
def frames_with_failures(preset: str, frames: int) -> tuple[list[dict[str, float | str]], float]:
    """CPU time and memory of warm frames with 0, 1 and 2 failed cameras, with and without completion, time and work of the cascade alone;
    and the MiB that a stream remembers for it."""
    config = sparsedrive.preset(preset)
    if config.completion is None:
        raise ValueError(f"--preset: expected one with a completion, such as tiny_completion, got {preset!r}")
    models = {"plain": _model(replace(config, completion=None, mask_aware=False)), "completion": _model(config)}
    inside: list[float] = []
    cascade = models["completion"].completion
    assert cascade is not None
    cascade.register_forward_pre_hook(lambda *_: inside.append(-time.process_time()))
    cascade.register_forward_hook(lambda *_: inside.append(time.process_time() + inside.pop()))
    rows: list[dict[str, float | str]] = []
    for failures in (0, 1, 2):
        available = torch.arange(len(config.camera_names))[None] >= failures
        seconds: dict[str, list[float]] = {name: [] for name in models}
        states: dict[str, StreamState | None] = dict.fromkeys(models)
        inside.clear()
        for index in range(frames + 3):
            frame = make_frame(config.image_wh_px, index)
            frame = frame if index < 3 else with_available(frame, available)
            for name, model in models.items():
                begin = time.process_time()
                _, states[name] = model(frame, states[name])
                seconds[name].append(time.process_time() - begin)
        for name, values in seconds.items():
            peak_mib = most_mib(partial(models[name], frame, states[name]))
            row = {"model": name, "failed": failures, "peak_mib": peak_mib, "seconds": statistics.median(values[3:])}
            rows.append(row | {"of them cascade": 0.0, "gflop": 0.0})
        rows[-1] |= {
            "of them cascade": statistics.median(inside[3:]),
            "gflop": _cascade_gflop(models["completion"], states["completion"], frame),
        }
    last = states["completion"]
    assert last is not None and last.completion is not None
    return rows, sum(entry.nbytes for entry in last.completion.packed) / MIB


def _model(config: SparseDriveConfig) -> SparseDrive:
    torch.manual_seed(0)
    return config.build().eval()


def _cascade_gflop(model: SparseDrive, state: StreamState | None, frame: Frame) -> float:
    with FlopCounterMode(display=False) as counter:
        model(frame, state)
    return sum(sum(found.values()) for name, found in counter.get_flop_counts().items() if name.endswith(".completion")) / 1e9


def show(title: str, rows: list[dict[str, float | str]]) -> None:
    """A table on the terminal."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(table)


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(arguments.threads)
    machine = f"{arguments.threads} thread(s), {platform.processor() or platform.machine()}, torch {torch.__version__}"
    maps = compare_attention(arguments.rounds)
    show(f"level 1 alone, forward and backward, CPU time; {machine}", maps)
    frames, remembered_mib = frames_with_failures(arguments.preset, arguments.frames)
    show(f"{arguments.preset}: frames, CPU time; a stream remembers {remembered_mib:.1f} MiB; {machine}", frames)
    if arguments.out is not None:
        arguments.out.write_text(
            json.dumps({"machine": machine, "level_1": maps, "frames": frames, "remembered_mib": remembered_mib}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
