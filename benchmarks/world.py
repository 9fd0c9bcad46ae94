"""How fast the world is seen: six-camera frames a second of the renderer, and lidar sweeps, along a generated drive.

    python benchmarks/world.py [--seed N] [--frames N] [--rounds N] [--looks day rain ...]

One thread. Frames are key frames of a drive, half a second apart, so the ground is cut anew as the ego vehicle moves on. Numbers are
processor time, which other load on the machine disturbs less than the clock does; rounds go through all rows in turn, medians count.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from sparsedrive.world.camera import Renderer
from sparsedrive.world.lidar import LidarScanner
from sparsedrive.world.looks import LOOKS
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.simulation import World, drive
from sparsedrive.world.state import WorldState

SIZES_PX = ((704, 256), (704, 396))
KEY_FRAME_TICKS = 10
NEAR_M = 60.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    seed: int = 0
    frames: int = 16
    rounds: int = 3
    looks: tuple[str, ...] = tuple(LOOKS)


def world_tasks(world: World, looks: tuple[str, ...]) -> dict[str, Callable[[WorldState], object]]:
    """What is done to every frame, by the name of the row."""
    tasks: dict[str, Callable[[WorldState], object]] = {}
    for look in looks:
        renderer = Renderer(world.town, world.cast, LOOKS[look]())
        for wh_px in SIZES_PX:
            rig = nuscenes_rig(wh_px)
            tasks[f"six cameras {wh_px[0]} x {wh_px[1]}, {look}"] = lambda state, renderer=renderer, rig=rig: renderer.render_rig(
                state, rig
            )
    rig = nuscenes_rig()
    tasks["visible parts of all actors"] = lambda state: renderer.visible_fraction(state, rig)
    scanner = LidarScanner(world.town, world.cast)
    tasks["lidar sweep"] = lambda state: scanner.scan(state, rig.lidar)
    return tasks


def milliseconds(task: Callable[[WorldState], object], states: list[WorldState]) -> float:
    """Processor time of one frame, mean over the drive."""
    start = time.process_time()
    for state in states:
        task(state)
    return 1e3 * (time.process_time() - start) / len(states)


def main(options: Options) -> None:
    """Time every row and print the table."""
    cv2.setNumThreads(1)
    world = World.create(options.seed)
    states = drive(world, 0.5 * options.frames)[::KEY_FRAME_TICKS]
    tasks = world_tasks(world, options.looks)
    for task in tasks.values():
        task(states[0])
    rounds = [{name: milliseconds(task, states) for name, task in tasks.items()} for _ in range(options.rounds)]
    near = np.mean([(np.linalg.norm(state.pose[:, :2] - state.ego.position_m, axis=1) < NEAR_M).sum() for state in states])
    moved_m = np.linalg.norm(np.diff([state.ego.position_m for state in states], axis=0), axis=1).sum()
    table = Table("on one core", "ms a frame", "frames a second", title=f"{near:.0f} actors within {NEAR_M:.0f} m, {moved_m:.0f} m driven")
    for name in tasks:
        median_ms = statistics.median(times[name] for times in rounds)
        table.add_row(name, f"{median_ms:.1f}", f"{1e3 / median_ms:.1f}")
    console = Console()
    console.print(f"python {' '.join(sys.argv)}", highlight=False)
    versions = f"Python {platform.python_version()}, OpenCV {cv2.__version__}, NumPy {np.__version__}"
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, {versions}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
