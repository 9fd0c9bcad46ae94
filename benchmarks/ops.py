"""Deformable aggregation at the sizes of SparseDrive-S: the reference against the backend that touches visible points only.

    python benchmarks/ops.py [--device cpu|cuda] [--threads N] [--repeats N] [--batch N]

Both are first held against each other, output and gradients; only then are they timed. Times are medians of runs that alternate
between the two, so other load on the machine hits both; the ratio says more than the milliseconds. With more threads than free
cores every small step waits for a thread that is not running: use as many threads as there are idle cores.
"seen by" is the mean number of cameras that see a point.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sparsedrive.ops import deformable_aggregation
from sparsedrive.ops.deformable_aggregation.reference import visible
from sparsedrive.ops.deformable_aggregation.samples import SPARSEDRIVE_SMALL_POINTS, Sample, sparsedrive_small

BACKENDS = ("reference", "visible")
TOLERANCE = 1e-4  # largest difference over largest value, float32


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time, and where."""

    device: str = "cpu"
    threads: int = 1
    repeats: int = 5
    batch: int = 1


def to_device(sample: Sample, device: str) -> Sample:
    """The same arguments on a device."""
    return Sample(*(value.to(device) if isinstance(value, Tensor) else value for value in sample))


def forward(sample: Sample, backend: str) -> Tensor:
    """One call without gradients."""
    with torch.no_grad():
        return deformable_aggregation(*sample, backend=backend)


def forward_backward(sample: Sample, backend: str) -> list[Tensor]:
    """Output and the gradients of features, points and weights."""
    packed, points, weights = leaves = [tensor.detach().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights)]
    output = deformable_aggregation(packed, sample.level_hw, points, weights, backend=backend)
    grad_output = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad_output)]


def largest_difference(sample: Sample) -> float:
    """Over output and gradients, relative to the largest value of each; raises if the backends do not agree."""
    pairs = zip(*(forward_backward(sample, backend) for backend in BACKENDS), strict=True)
    worst = max(((ours - want).abs().max() / want.abs().max()).item() for want, ours in pairs)
    if not worst <= TOLERANCE:
        raise SystemExit(f"the backends differ by {worst:.1e} of the largest value, allowed are {TOLERANCE:.0e}: nothing was timed")
    return worst


def median_ms(run: Callable[[Sample, str], object], sample: Sample, repeats: int) -> dict[str, float]:
    """Median wall time of each backend, in milliseconds, after one unmeasured run."""
    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for measured in range(repeats + 1):
        for backend in BACKENDS:
            _wait(sample)
            start_s = time.perf_counter()
            run(sample, backend)
            _wait(sample)
            if measured:
                times[backend].append((time.perf_counter() - start_s) * 1e3)
    return {backend: statistics.median(values) for backend, values in times.items()}


def _wait(sample: Sample) -> None:
    if sample.packed.is_cuda:
        torch.cuda.synchronize()


def main(options: Options) -> None:
    """Print the table."""
    torch.set_num_threads(options.threads)
    table = Table(title=f"deformable_aggregation, SparseDrive-S, batch {options.batch}, {options.device}, {options.threads} thread(s)")
    for name in ("head", "seen by", "what", *(f"{backend} [ms]" for backend in BACKENDS), "ratio", "difference"):
        table.add_column(name.replace("[", r"\["), justify="left" if name in ("head", "what") else "right", no_wrap=True)
    for head in SPARSEDRIVE_SMALL_POINTS:
        sample = to_device(sparsedrive_small(head, batch=options.batch), options.device)
        seen = f"{visible(sample.points).sum(-1).float().mean().item():.2f}"
        difference = f"{largest_difference(sample):.0e}"
        for what, run in (("forward", forward), ("+ gradients", forward_backward)):
            times = median_ms(run, sample, options.repeats)
            ratio = times["reference"] / times["visible"]
            table.add_row(head, seen, what, *(f"{times[backend]:.1f}" for backend in BACKENDS), f"{ratio:.1f}x", difference)
    Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
