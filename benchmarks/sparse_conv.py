"""Sparse convolution on a LiDAR sweep: maps, forward and gradients beside what a plain matrix product of the same size takes.

    python benchmarks/sparse_conv.py [--device cpu|cuda] [--threads N] [--repeats N] [--sweep FILE] [--save]

"GEMM" is one dense product with as many rows as there are pairs of cells, measured in the same run, into memory that is there: the
convolution without its gathering and adding. Times are medians of runs that take turns, so other load hits all; with one thread they are
the processor's time for this process. A backend is first held against the reference; one that differs gets no time. Without --sweep (a
nuScenes .bin file, five float32 a point) the cells are those of generated ground and walls. The encoder is also run by spconv where that is
installed (`pip install -e .[benchmark]`); its CPU kernels are right with one thread only, so with more it is left out.
"""

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from sparsedrive.ops import backend_report
from sparsedrive.ops.sparse_conv import kernel_places, kernel_tables, sparse_conv
from sparsedrive.sparse import Conv3d, ReLU, SparseTensor, sparse_quantize

CENTRED = {"kernel": (3, 3, 3), "start": (-1, -1, -1)}
WIDTHS = (32, 32, 64, 128, 256)
COLUMNS = ("cells", "pairs", "what", "ms", "GFLOP/s", "to GEMM", "to forward", "difference")
TOLERANCE = 1e-5
"""Largest difference over largest value, to the reference in float64 on the same numbers."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time, and where."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = 1
    repeats: int = 7
    channels: int = 64
    voxel_m: float = 0.1
    sweep: Path | None = None
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    save: bool = False
    """Write the tables to benchmarks/results, named by date and machine."""


def generated_cells(count: int, seed: int = 0) -> Tensor:
    """[N, 4] cells of wavy ground and walls, as dense wherever it lies: about `count`, sorted by nothing."""
    generator = torch.Generator().manual_seed(seed)
    points = count * 4 // 3  # some fall into one cell
    xy = torch.rand(points, 2, generator=generator) * (1.6 * points) ** 0.5
    ground = torch.sin(xy[:, 0] / 40) * 6 + torch.cos(xy[:, 1] / 55) * 6 + 20
    wall = (xy[:, 0] % 50 < 1) | (xy[:, 1] % 70 < 1)
    z = torch.where(wall, ground + torch.rand(points, generator=generator) * 20, ground)
    cells = torch.unique(torch.cat([xy, z[:, None]], 1).floor().to(torch.int32), dim=0)
    cells = cells[torch.randperm(len(cells), generator=generator)]
    return torch.cat([cells.new_zeros(len(cells), 1), cells], 1)


def sweep_cells(options: Options) -> Tensor:
    """[N, 4] cells of the sweep asked for, or of generated points."""
    if options.sweep is None:
        return generated_cells(20_000)
    points = torch.from_numpy(np.fromfile(options.sweep, np.float32).reshape(-1, 5)[:, :3].copy())
    cells, first, _ = sparse_quantize(points, options.voxel_m)
    cells = (cells - cells.amin(0))[first.argsort()]
    return torch.cat([cells.new_zeros(len(cells), 1), cells], 1)


def range_of(coords: Tensor) -> tuple[int, int, int, int]:
    """The smallest even grid around cells: even, so that no rule drops a last row."""
    x, y, z = (int(size) // 16 * 16 + 16 for size in coords[:, 1:].amax(0))
    return 1, x, y, z


def medians(runs: dict[str, Callable[[], object]], options: Options) -> dict[str, float]:
    """Milliseconds of each; they take turns, and the first round is not counted."""
    clock = time.process_time if options.threads == 1 and options.device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if options.device == "cuda":
                torch.cuda.synchronize()
            times[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def ways(options: Options) -> dict[str, tuple[str, str]]:
    """Name -> backend and dataflow of everything that runs on the device."""
    rows = [row for row in backend_report() if row.op == "sparse_conv" and row.available and row.backend not in ("reference", "rowwise")]
    found = {"gather_scatter (rowwise)": ("rowwise", "gather_scatter")}
    for row in rows:
        if (row.backend == "cpp") == (options.device == "cpu"):
            flows = ("implicit_gemm", "fetch_on_demand") if row.backend == "cpp" else ("implicit_gemm",)
            found = {**{f"{flow} ({row.backend})": (row.backend, flow) for flow in flows}, **found}
    return found


def layer_lines(coords: Tensor, options: Options) -> list[tuple[str, ...]]:
    """Submanifold 3x3x3 with `channels` in and out."""
    coords, width = coords.to(options.device), options.channels
    generator = torch.Generator().manual_seed(0)
    feats, grad = (torch.randn(len(coords), width, generator=generator).to(options.device) for _ in range(2))
    weight = (torch.randn(27, width, width, generator=generator) / width).to(options.device)
    tables = kernel_tables(coords, coords, **CENTRED)
    pairs = int((tables[0] >= 0).sum())
    gathered = torch.randn(pairs, width, generator=generator).to(options.device)
    product = torch.empty_like(gathered)
    exact = sparse_conv(feats.double(), weight.double(), *tables, backend="reference")

    def both(backend: str, dataflow: str) -> None:
        leaves = [tensor.detach().requires_grad_() for tensor in (feats, weight)]
        torch.autograd.grad(sparse_conv(*leaves, *tables, backend=backend, dataflow=dataflow), leaves, grad)

    runs: dict[str, Callable[[], object]] = {
        "GEMM": lambda: torch.mm(gathered, weight[0], out=product),
        "map": lambda: kernel_tables(coords, coords, **CENTRED),
    }
    differences = {}
    for name, (backend, dataflow) in ways(options).items():
        got = sparse_conv(feats, weight, *tables, backend=backend, dataflow=dataflow)
        differences[name] = ((got - exact).abs().max() / exact.abs().max()).item()
        if differences[name] <= TOLERANCE:
            runs[f"{name}, forward"] = lambda b=backend, d=dataflow: sparse_conv(feats, weight, *tables, backend=b, dataflow=d)
            runs[f"{name}, + gradients"] = lambda b=backend, d=dataflow: both(b, d)
    found = medians(runs, options)
    lines = []
    for what, ms in found.items():
        name, _, part = what.partition(", ")
        forward = found.get(f"{name}, forward")
        flops = 2 * pairs * width * width * (3 if part == "+ gradients" else 1)
        rate = "" if what == "map" else f"{flops / ms / 1e6:.0f}"
        to_forward = f"{ms / forward:.2f}" if forward else ""
        lines.append(
            (str(len(coords)), str(pairs), what, f"{ms:.2f}", rate, f"{ms / found['GEMM']:.2f}", to_forward, _shown(differences.get(name)))
        )
    lines += [
        (str(len(coords)), str(pairs), name, "not timed", "", "", "", f"wrong: {value:.0e}")
        for name, value in differences.items()
        if value > TOLERANCE
    ]
    return lines


def _shown(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.0e}"


def encoder(channels: int) -> nn.Sequential:
    """Stem and four stages of a kernel 2 stride 2 and two submanifold convolutions, with ReLU."""
    layers: list[nn.Module] = [Conv3d(channels, WIDTHS[0]), ReLU()]
    for before, width in pairwise(WIDTHS):
        layers += [Conv3d(before, width, 2, 2), ReLU(), Conv3d(width, width), ReLU(), Conv3d(width, width), ReLU()]
    return nn.Sequential(*layers)


def encoder_of_spconv(model: nn.Sequential) -> nn.Module:
    """The same network with the same weights in spconv."""
    import spconv.pytorch as spconv

    layers: list[nn.Module] = []
    stage = 0
    for layer in model:
        if not isinstance(layer, Conv3d):
            layers.append(nn.ReLU())
            continue
        strided = layer.stride != (1, 1, 1)
        stage += strided
        arguments = (layer.in_channels, layer.out_channels, layer.kernel_size)
        native = spconv.ConvAlgo.Native
        if strided:
            theirs = spconv.SparseConv3d(*arguments, stride=2, bias=False, algo=native)
        else:
            theirs = spconv.SubMConv3d(*arguments, bias=False, indice_key=f"stage{stage}", algo=native)
        for matrix, (x, y, z) in zip(layer.kernel.detach(), kernel_places(layer.kernel_size), strict=True):
            theirs.weight.data[:, x, y, z] = matrix.T
        layers.append(theirs)
    return spconv.SparseSequential(*layers)


def encoder_lines(coords: Tensor, options: Options) -> list[str]:
    """Whole encoder, maps built anew each time."""
    torch.manual_seed(0)
    coords, model = coords.to(options.device), encoder(4).to(options.device).eval()
    full = range_of(coords.cpu())
    feats = torch.randn(len(coords), 4, generator=torch.Generator().manual_seed(0)).to(options.device)

    @torch.no_grad()
    def ours() -> Tensor:
        return model(SparseTensor(coords=coords, feats=feats, spatial_range=full)).feats

    runs: dict[str, Callable[[], object]] = {"ours": ours}
    note = ""
    if importlib.util.find_spec("spconv") is None:
        note = "spconv is not installed"
    elif options.threads > 1 and options.device == "cpu":
        note = "spconv's CPU kernels are wrong with more than one thread"
    else:
        import spconv.pytorch as spconv

        theirs = encoder_of_spconv(model).to(options.device).eval()

        @torch.no_grad()
        def run_spconv() -> Tensor:
            return theirs(spconv.SparseConvTensor(feats, coords, full[1:], 1)).features

        want, got = ours().double().sum(), run_spconv().double().sum()
        note = f"sums of the outputs differ by {abs(got / want - 1):.0e}"
        runs["spconv"] = run_spconv
    found = medians(runs, options)
    lines = [f"| {name} | {ms:.1f} | {ms / found['ours']:.2f} |" for name, ms in found.items()]
    return [
        "",
        f"Encoder, stem and four stages of {WIDTHS[1:]} channels, maps and forward ({note}):",
        "",
        "| | ms | to ours |",
        "| --- | --- | --- |",
        *lines,
    ]


def growth_lines(options: Options) -> list[str]:
    """How map and forward grow with the cells; the time a pair is what should stay."""
    text = [
        "",
        "Growth, generated cells:",
        "",
        "| cells | pairs | map ms | forward ms | map ns a cell | forward ns a pair |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for count in options.growth:
        coords = generated_cells(count).to(options.device)
        weight = torch.ones(27, options.channels, options.channels, device=options.device)
        feats, tables = torch.ones(len(coords), options.channels, device=options.device), kernel_tables(coords, coords, **CENTRED)
        pairs = int((tables[0] >= 0).sum())
        runs = {
            "map": lambda c=coords: kernel_tables(c, c, **CENTRED),
            "forward": lambda f=feats, w=weight, t=tables: sparse_conv(f, w, *t),
        }
        found = medians(runs, options)
        figures = (
            f"{found['map']:.1f}",
            f"{found['forward']:.1f}",
            f"{found['map'] * 1e6 / len(coords):.0f}",
            f"{found['forward'] * 1e6 / pairs:.0f}",
        )
        text.append(f"| {len(coords)} | {pairs} | {' | '.join(figures)} |")
    return text


def machine(device: str) -> str:
    """What it was measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return f"{name}, PyTorch {torch.__version__}, Python {platform.python_version()}"


def main(options: Options) -> None:
    """Print the tables, and save them if asked to."""
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    today = datetime.now(timezone.utc).date().isoformat()
    cells = sweep_cells(options)
    # The second level of a LiDAR encoder: strided with padding, so that every cell grows to its neighbours.
    finer = SparseTensor(coords=cells, feats=torch.zeros(len(cells), 1), spatial_range=range_of(cells))
    second = Conv3d(1, 1, 3, 2, padding=1)(finer).coords
    text = [
        f"{machine(options.device)}, {options.threads} thread(s), {options.sweep.name if options.sweep else 'generated cells'}, {today}: "
        f"submanifold 3x3x3, {options.channels} channels in and out, float32",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
    ]
    for coords in (cells, second):
        text += ["| " + " | ".join(line) + " |" for line in layer_lines(coords, options)]
    text += encoder_lines(cells, options)
    text += growth_lines(options)
    print("\n".join(text))
    if options.save:
        slug = "-".join(machine(options.device).split(",")[0].lower().split())
        path = Path(__file__).parent / "results" / f"sparse_conv-{today}-{slug}.md"
        path.write_text("\n".join([f"# Sparse convolution, {today}", "", *text, ""]), encoding="utf-8")
        print(f"saved as {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
