"""Frames a second of six cameras: the loader, and the world that makes data for it.

    python benchmarks/data.py [--frames N] [--rounds N] [--prepared FOLDER --split NAME]

Without `--prepared`, a small world is written with pictures of 1600 x 900 as JPEG, prepared, and loaded again from the file cache: what
is timed is decoding, warping, targets and the way from the worker, not a disk. "training" is the published augmentation, decoded at the
reduced scale or in full; "evaluation" are the exact test-time pixels. Rounds go through all rows in turn, so that other load on the
machine hits all alike; numbers are medians. CPU time, of what runs in this process, hardly depends on other load.
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import torch
import tyro
from rich.console import Console
from rich.table import Table

from sparsedrive.data.augment import AugmentConfig
from sparsedrive.data.dataset import LoadConfig
from sparsedrive.data.loader import FrameLoader, make_loader
from sparsedrive.data.nuscenes.prepare import prepare
from sparsedrive.data.pixels import read_picture
from sparsedrive.data.prepared import PreparedData
from sparsedrive.world.camera import Renderer
from sparsedrive.world.recording import drive_scene
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.writer import WorldConfig, write_world

WARM_UP = 3  # batches
BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    frames: int = 16
    rounds: int = 3
    prepared: Path | None = None
    split: str = "train"


def write_data(folder: Path) -> PreparedData:
    """Two generated scenes of 6 s with pictures as large as those of nuScenes."""
    config = WorldConfig(seconds=6.0, wh_px=(1600, 900), looks=("day",))
    write_world(folder / "world", 2, config)
    prepare(folder / "world", None, folder / "prepared")
    return PreparedData.open(folder / "prepared")


def loaders(data: PreparedData, split: str) -> dict[str, Callable[[], FrameLoader]]:
    """A name and a way to make it for every row."""
    evaluation = LoadConfig(missing_images="skip")
    training = replace(evaluation, augment=AugmentConfig())
    rows = {}
    for workers in (0, 1, 2):
        for name, config in (
            ("training, reduced decode", training),
            ("training, full decode", replace(training, reduced_decode=False)),
            ("evaluation pixels", evaluation),
        ):

            def make(config: LoadConfig = config, workers: int = workers) -> FrameLoader:
                return make_loader(data, split, config, training=True, batch_size=BATCH, workers=workers)

            place = f"{workers} worker{'s' * (workers > 1)}" if workers else "this process"
            rows[f"loader, {place}, {name}"] = make
    return rows


def load(loader: FrameLoader, frames: int) -> Callable[[], int]:
    """A loader whose workers are running; what is to be timed loads `frames` and says how many they were."""
    batches = iter(loader)
    for _ in islice(batches, WARM_UP):
        pass
    return lambda: BATCH * sum(1 for _ in islice(batches, -(-frames // BATCH)))


def render(frames: int) -> Callable[[], int]:
    """The world's six pictures at 704 x 396, in this process with one thread."""
    plan = WorldConfig(seconds=4.0).scene(0)
    world, states = drive_scene(plan)
    renderer, rig = Renderer(world.town, world.cast, seed=plan.seed), nuscenes_rig()
    chosen = states[:: max(1, len(states) // frames)][:frames]
    for mount in rig.cameras:
        renderer.render(states[0], mount)
    return lambda: len([renderer.render(state, mount) for state in chosen for mount in rig.cameras]) // len(rig.cameras)


def timed(work: Callable[[], int]) -> tuple[float, float]:
    """Frames a second, and milliseconds of this process a frame."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    frames = work()
    return frames / (time.perf_counter() - start_s), (time.process_time() - start_cpu_s) / frames * 1e3


def picture_table(data: PreparedData, split: str) -> Table:
    """Milliseconds to decode one picture, whole and shrunk."""
    scene = next(scene for scene in map(data.scene, data.split(split)) if scene.image_present.any())
    frame, camera = (int(indices[0]) for indices in scene.image_present.nonzero())
    path, wh_px = data.root / scene.image_paths[frame][camera], tuple(map(int, scene.image_wh_px[frame, camera]))
    table = Table(title=f"one picture, {wh_px[0]} x {wh_px[1]}, {path.stat().st_size // 1000} kB")
    for name in ("shrunk to", "in the decoder [ms]".replace("[", r"\["), "after decoding [ms]".replace("[", r"\[")):
        table.add_column(name, justify="right")
    for factor in (1, 2, 4):
        times = []
        for reduced in (True, False):
            runs = []
            for _ in range(15):
                start_s = time.perf_counter()
                read_picture(path, (wh_px[0], wh_px[1]), factor, reduced=reduced)
                runs.append((time.perf_counter() - start_s) * 1e3)
            times.append(f"{statistics.median(runs):.1f}")
        table.add_row(f"1/{factor}", *times)
    return table


def main(options: Options) -> None:
    """Print the tables."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        data = PreparedData.open(options.prepared) if options.prepared else write_data(Path(folder))
        console.print(picture_table(data, options.split))
        rows = {name: lambda make=make: load(make(), options.frames) for name, make in loaders(data, options.split).items()}
        rows["world renderer, this process, 704 x 396"] = lambda: render(options.frames)
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        for _ in range(options.rounds):
            for name, ready in rows.items():
                results[name].append(timed(ready()))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    table = Table(title=f"python benchmarks/data.py {' '.join(sys.argv[1:])}\n{machine}, OpenCV {cv2.__version__}")
    for column in ("what", "frames/s", "lowest .. highest", "CPU [ms]".replace("[", r"\[")):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, values in results.items():
        per_s, cpu_ms = zip(*values, strict=True)
        cpu = f"{statistics.median(cpu_ms):.0f}" if "this process" in name else ""
        table.add_row(name, f"{statistics.median(per_s):.1f}", f"{min(per_s):.1f} .. {max(per_s):.1f}", cpu)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
