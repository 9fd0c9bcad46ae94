"""Frame time of a preset by stage, for several sampling backends in one run, with each one's peak memory.

    python benchmarks/latency.py                                       # sparsedrive_small_stage2 on every backend of a CPU
    python benchmarks/latency.py --preset sparse4d_v3_r50 --frames 20 --backends reference auto

The first backend is what the others are compared with: "reference" (masked grid_sample, all cameras) is the time without any kernel of
ours, and the last of the usual list the one that runs when nothing is said ("auto" is another name for it). Every backend runs in its
own process (so that its peak memory is its own), in turn and `--rounds` times (so that a change of the machine's speed hits all of them);
stage times are medians over warm frames. Random weights of the size of trained ones: the work does not depend on their values, except
that key points fall where they fall.
"""

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import sparsedrive
from sparsedrive.decoding import decode
from sparsedrive.geometry import se3
from sparsedrive.ops import backend_report, use_backend
from sparsedrive.structures import NUSCENES_CAMERAS, CameraRig, Frame

OP = "deformable_aggregation"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Frame time of a preset by stage."""

    preset: str = "sparsedrive_small_stage2"
    """A preset, with whatever stages it has."""
    backends: tuple[str, ...] = ()
    """Sampling backends, see `sparsedrive doctor`; by default the reference and all that are made for speed, the best last."""
    frames: int = 3
    """Warm frames a process measures, after one cold frame that is not counted."""
    rounds: int = 2
    """How often each backend's process is run."""
    threads: int = 2
    """Torch threads."""
    worker: str | None = None
    """Internal: measure this backend and print JSON."""


def surround_rig(wh_px: tuple[int, int]) -> CameraRig:
    """Six cameras 60 degrees apart, 65 degrees wide, 1.5 m above the ground like a nuScenes car's, in the LiDAR's frame."""
    width, height = wh_px
    focal_px = width / 2 / torch.tan(torch.deg2rad(torch.tensor(32.5))).item()
    intrinsics = torch.tensor([[focal_px, 0, width / 2, 0], [0, focal_px, height * 0.45, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    forward_to_camera = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # x right, z forward, y down
    yaw = torch.deg2rad(torch.tensor([0.0, -60.0, 60.0, 180.0, 120.0, -120.0]))
    zero = torch.zeros(6)
    ego_T_heading = se3.from_yaw(zero, zero, yaw)
    ego_T_heading[:, :2, 3] = torch.stack([-yaw.sin(), yaw.cos()], -1) * 0.8
    ego_T_heading[:, 2, 3] = -0.3
    image_T_ego = intrinsics @ forward_to_camera @ se3.invert(ego_T_heading)
    return CameraRig(
        image_T_ego=image_T_ego[None],
        image_wh_px=torch.tensor([width, height]).float().expand(1, 6, 2),
        focal_px=torch.full((1, 6), focal_px),
        available=torch.ones(1, 6, dtype=torch.bool),
        names=NUSCENES_CAMERAS,
    )


def make_frame(wh_px: tuple[int, int], index: int) -> Frame:
    """Noise pictures of a car that drives straight at 5 m/s."""
    generator = torch.Generator().manual_seed(index)
    pose = se3.from_yaw(torch.zeros(1), torch.tensor([2.5 * index]), torch.zeros(1)).double()
    return Frame(
        images=torch.randn(1, 6, 3, wh_px[1], wh_px[0], generator=generator),
        rig=surround_rig(wh_px),
        global_T_ego=pose,
        time_s=torch.tensor([1.5e9 + 0.5 * index], dtype=torch.float64),
        sequence_id=torch.zeros(1, dtype=torch.int64),
        ego_status=torch.zeros(1, 10),
        command=torch.tensor([2]),
    )


class StageClock:
    """Adds up the wall time spent inside some submodules."""

    def __init__(self, stages: dict[str, nn.Module]):
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}
        for name, module in stages.items():
            module.register_forward_pre_hook(lambda *_, name=name: self._started.__setitem__(name, time.perf_counter()))
            module.register_forward_hook(lambda *_, name=name: self._stop(name))

    def _stop(self, name: str) -> None:
        self.seconds[name] = time.perf_counter() - self._started[name]


@torch.inference_mode()
def measure(arguments: Arguments, backend: str) -> dict[str, float]:
    """Median seconds of each stage on this process's warm frames, and the peak memory in GB."""
    torch.set_num_threads(arguments.threads)
    model = sparsedrive.load(arguments.preset)
    stages = {"encoder": model.image_encoder, "detection": model.detection, "map": model.map, "motion+plan": model.planner}
    clock = StageClock({name: module for name, module in stages.items() if module is not None})
    state, rows = None, []
    with use_backend(backend, op=OP):
        for index in range(arguments.frames + 1):
            frame = make_frame(model.config.image_wh_px, index)
            start = time.perf_counter()
            predictions, state = model(frame, state)
            middle = time.perf_counter()
            decode(predictions, frame.command)
            end = time.perf_counter()
            rows.append(clock.seconds | {"decode": end - middle, "frame": end - start})
    medians = {name: statistics.median(row[name] for row in rows[1:]) for name in rows[-1]}
    return medians | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def usual_backends() -> tuple[str, ...]:
    """What runs on a CPU and is made for speed, the best last; the reference before all."""
    rows = [row for row in backend_report() if row.op == OP and row.available and row.backend in ("cpp", "visible")]
    return ("reference", *(row.backend for row in sorted(rows, key=lambda row: row.active_for_cpu)))


def main() -> None:
    """Command line."""
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.worker:
        print(json.dumps(measure(arguments, arguments.worker)))
        return
    backends = arguments.backends or usual_backends()
    runs: dict[str, list[dict[str, float]]] = {backend: [] for backend in backends}
    console = Console(stderr=True)
    for backend in track([b for _ in range(arguments.rounds) for b in backends], "measuring", console=console):
        command = [sys.executable, *sys.argv, "--worker", backend]
        runs[backend].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]))
    medians = {b: {k: statistics.median(run[k] for run in rows) for k in rows[0]} for b, rows in runs.items()}
    stages = [name for name in medians[backends[0]] if name != "peak_gb"]
    table = Table(
        title=f"{arguments.preset}, {arguments.threads} threads, {platform.processor() or platform.machine()}, torch {torch.__version__}"
    )
    for column in ("backend", *(f"{name} [s]" for name in stages), "peak [GB]", f"frame / {backends[0]}"):
        table.add_column(column, justify="right")
    for backend, row in medians.items():
        ratio = row["frame"] / medians[backends[0]]["frame"]
        table.add_row(backend, *(f"{row[name]:.3f}" for name in stages), f"{row['peak_gb']:.2f}", f"{ratio:.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
