"""The ops at the sizes of SparseDrive-S: every backend that runs here, beside a baseline and beside what the machine can do at best.

    python benchmarks/ops.py [--device cpu|cuda] [--threads N] [--repeats N] [--batch N] [--save]

Baselines are grid_sample over all cameras ("reference") and on a GPU a kernel that divides the work as the published one does. A backend
is first held against the reference, output and gradients; one that differs gets no time. Times are medians of runs that take turns, so
other load on the machine hits all; ratios are to the baseline named first. "bound" is the shortest time for the bytes and operations that
cannot be avoided, at the speed of a large copy and a large matrix product measured in this run. On a GPU a time is that of the device
(a recorded graph where the backend can be recorded, the cache cleared before each run); "called" is what one call takes from Python.
"peak MiB" is the most that one call allocates at once, its
result included. With more threads than free cores every small step waits for a thread that is not running: use as many as there are idle
cores.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
import tyro
from torch import Tensor

from baselines import counted, published_style
from baselines.counted import Ceiling, Cost
from baselines.memory import most_mib
from sparsedrive.ops import backend_report, deformable_aggregation, sigmoid_focal_loss
from sparsedrive.ops.deformable_aggregation.reference import visible
from sparsedrive.ops.deformable_aggregation.samples import SPARSEDRIVE_SMALL_POINTS, Sample, sparsedrive_small

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference over largest value, to the reference in float32 on the same numbers."""
PUBLISHED = "published-style"
NOT_RECORDED = ("visible",)
"""Backends that wait for the device: there is no graph of them, and their time has Python in it."""
CACHE_BYTES = 1 << 28  # more than any GPU's cache
COLUMNS = ("op", "dtype", "what", "backend", "ms", "ratio", "called ms", "bound ms", "of bound", "GB", "GFLOP", "peak MiB", "difference")
Results = list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time, and where."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = 1
    repeats: int = 5
    batch: int = 1
    save: bool = False
    """Write the table to benchmarks/results, named by date and machine."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line group of the table: an op on inputs, by each backend. `exact` is what they are held against."""

    name: str
    dtype: torch.dtype
    what: str
    cost: Cost
    exact: Results
    runs: dict[str, Callable[[], Results]]


def backends_for(op: str, device: str) -> list[str]:
    """What can run there of an op's backends, baseline first."""
    found = [row.backend for row in backend_report() if row.op == op and row.available and row.backend not in ("ordered", "reference")]
    elsewhere = {"cpu": ("cuda", "triton"), "cuda": ("cpp",)}[device]
    return ["reference", *(name for name in found if name not in elsewhere)]


def aggregation_cases(options: Options, dtype: torch.dtype) -> list[Case]:
    """Forward, and forward with all gradients, of both heads."""
    cases = []
    for head in SPARSEDRIVE_SMALL_POINTS:
        sample = sparsedrive_small(head, batch=options.batch)
        packed, points, weights = (tensor.to(options.device) for tensor in (sample.packed, sample.points, sample.weights))
        sample = Sample(packed.to(dtype), sample.level_hw, points, weights)
        exact = _value_and_grads(sample._replace(packed=sample.packed.float()), "reference")
        names = backends_for("deformable_aggregation", options.device)
        forward = {name: lambda sample=sample, name=name: [_forward(sample, name)] for name in names}
        both = {name: lambda sample=sample, name=name: _value_and_grads(sample, name) for name in names}
        if options.device == "cuda" and published_style.why_missing() is None and published_style.fits(sample):
            forward = {PUBLISHED: lambda sample=sample: [published_style.forward(sample)], **forward}
            both = {PUBLISHED: lambda sample=sample: _published(sample), **both}
        seen = f"{head}, seen by {visible(sample.points).sum(-1).float().mean().item():.2f}"
        there = counted.aggregation_forward(sample)
        cases.append(Case(name=seen, dtype=dtype, what="forward", cost=there, exact=exact[:1], runs=forward))
        back = counted.aggregation_backward(sample)
        cases.append(Case(name=seen, dtype=dtype, what="+ gradients", cost=there + back, exact=exact, runs=both))
    return cases


def focal_cases(options: Options, dtype: torch.dtype) -> list[Case]:
    """Of one frame's detections, and of enough for the memory to matter."""
    cases = []
    for rows in (900 * options.batch, 1 << 20):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(rows, 10, generator=generator).to(options.device, dtype)
        target = torch.randint(0, 11, (rows,), generator=generator).to(options.device)
        runs = {
            name: lambda logits=logits, target=target, name=name: _focal(logits, target, name)
            for name in backends_for("sigmoid_focal_loss", options.device)
        }
        exact = _focal(logits.float(), target, "reference")
        name = f"focal loss {rows} x 10"
        cases.append(Case(name=name, dtype=dtype, what="+ gradients", cost=counted.focal(logits, 2), exact=exact, runs=runs))
    return cases


def _forward(sample: Sample, backend: str) -> Tensor:
    with torch.no_grad():
        return deformable_aggregation(*sample, backend=backend)


def _value_and_grads(sample: Sample, backend: str) -> Results:
    packed, points, weights = leaves = [tensor.detach().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights)]
    output = deformable_aggregation(packed, sample.level_hw, points, weights, backend=backend)
    return [output.detach(), *torch.autograd.grad(output, leaves, _output_gradient(output))]


def _published(sample: Sample) -> Results:
    output = published_style.forward(sample)
    return [output, *published_style.backward(sample, _output_gradient(output))]


def _output_gradient(output: Tensor) -> Tensor:
    return torch.linspace(-1, 1, output.numel(), device=output.device, dtype=output.dtype).view_as(output)


def _focal(logits: Tensor, target: Tensor, backend: str) -> Results:
    leaf = logits.detach().requires_grad_()
    loss = sigmoid_focal_loss(leaf, target, backend=backend)
    return [loss.detach(), torch.autograd.grad(loss, leaf, torch.ones_like(loss))[0]]


def difference(got: Results, want: Results) -> float:
    """Largest over all results, each relative to its largest value; NaN where there is any."""
    return max(((ours.float() - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in zip(got, want, strict=True))


def timed(case: Case, names: list[str], options: Options) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each backend: of the device, and of a call from Python (on a CPU the same). They take turns."""
    clocks = {name: _clocks(name, case.runs[name], options.device) for name in names}
    times: dict[str, list[list[float]]] = {name: [[] for _ in clocks[name]] for name in names}
    for measured in range(options.repeats + 1):
        for name in names:
            for clock, values in zip(clocks[name], times[name], strict=True):
                value = clock()
                if measured:
                    values.append(value)
    return {name: (statistics.median(values[0]), statistics.median(values[-1])) for name, values in times.items()}


def _clocks(name: str, run: Callable[[], object], device: str) -> list[Callable[[], float]]:
    if device == "cpu":
        return [lambda: _called_ms(run)]
    played = run if name in NOT_RECORDED else _recorded(run)
    return [lambda: _device_ms(played), lambda: _called_ms(run)]


def _called_ms(run: Callable[[], object]) -> float:
    _clear_cache()
    start_s = time.perf_counter()
    run()
    _wait()
    return (time.perf_counter() - start_s) * 1e3


def _device_ms(run: Callable[[], object]) -> float:
    _clear_cache()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    _wait()
    return begin.elapsed_time(end)


def _recorded(run: Callable[[], object]) -> Callable[[], object]:
    """The run as a graph, which takes Python out of the time."""
    run()
    _wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _clear_cache() -> None:
    if torch.cuda.is_available():
        torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda").zero_()
    _wait()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def lines_of(case: Case, ceiling: Ceiling, options: Options) -> list[tuple[str, ...]]:
    """The table's lines of one case."""
    differences = {name: difference(run(), case.exact) for name, run in case.runs.items()}
    right = [name for name, value in differences.items() if value <= TOLERANCE[case.dtype]]
    times = timed(case, right, options)
    bound, cost = ceiling.bound_ms(case.cost), (f"{case.cost.bytes / counted.GIGA:.3f}", f"{case.cost.flops / counted.GIGA:.3f}")
    lines = []
    for name in case.runs:
        head = (case.name, str(case.dtype).removeprefix("torch."), case.what, name)
        if name in right:
            device, called = times[name]
            figures = (f"{device:.3f}", f"{times[right[0]][0] / device:.1f}x", f"{called:.3f}", f"{bound:.3f}", f"{bound / device:.0%}")
            peak = f"{most_mib(case.runs[name], options.device):.1f}"
            lines.append((*head, *figures, *cost, peak, f"{differences[name]:.0e}"))
        else:
            lines.append((*head, "not timed", "", "", "", "", *cost, "", f"wrong: {differences[name]:.0e}"))
    return lines


def machine(device: str) -> str:
    """What it was measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return f"{name}, PyTorch {torch.__version__}, Python {platform.python_version()}"


def main(options: Options) -> None:
    """Print the table, and save it if asked to."""
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    ceiling = counted.measure(options.device)
    today = datetime.now(timezone.utc).date().isoformat()
    threads = f", {options.threads} thread(s)" if options.device == "cpu" else ""
    text = [
        f"{machine(options.device)}{threads}, batch {options.batch}, {today}: copy {ceiling.bytes / counted.GIGA:.0f} GB/s, "
        f"float32 product {ceiling.flops / counted.GIGA:.0f} GFLOP/s",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    print("\n".join(text), flush=True)
    for dtype in (torch.float32, torch.bfloat16) if options.device == "cuda" else (torch.float32,):
        for make in (aggregation_cases, focal_cases):
            for case in make(options, dtype):
                for line in lines_of(case, ceiling, options):
                    text.append("| " + " | ".join(line) + " |")
                    print(text[-1], flush=True)
    if published_style.why_missing() and options.device == "cuda":
        text.append(f"\nWithout the {PUBLISHED} kernel: {published_style.why_missing()}.")
    if options.save:
        slug = "-".join(machine(options.device).split(",")[0].lower().split())
        path = Path(__file__).parent / "results" / f"ops-{today}-{slug}.md"
        path.write_text("\n".join([f"# Ops, {today}", "", *text, ""]), encoding="utf-8")
        print(f"saved as {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
