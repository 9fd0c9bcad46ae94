"""Which cells a convolution's output has and who meets whom there, found once and kept for every layer that needs it again.

A cache belongs to one graph of tensors: `SparseTensor`s made from each other share it. In it a set of cells is named by the steps that
led to it from the graph's input (`Site`), every step with all that decides it: kind, kernel, stride, padding, dilation, grid. So two
convolutions that differ in any of these, or two branches that reach the same stride differently, never share a map.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from sparsedrive.ops.sparse_conv import kernel_tables, reached_coords
from sparsedrive.ops.sparse_conv.reference import require

Triple = tuple[int, int, int]
Range = tuple[int, int, int, int]
Kind = Literal["submanifold", "spconv", "minkowski", "spread"]
Key = tuple[Kind, Triple, Triple, Triple, Triple, Range | None]
"""kind, kernel, stride, start or padding, dilation, grid of the source."""
Site = tuple[Key, ...]
UNBOUNDED = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelMap:
    """For each kernel offset the input row of each output row, and the other way round; -1 for none. int32."""

    in_of_out: Int[Tensor, "K M"]
    out_of_in: Int[Tensor, "K N"]

    def reversed(self) -> "KernelMap":
        """The same pairs from output to input, each with the same kernel offset."""
        return KernelMap(in_of_out=self.out_of_in, out_of_in=self.in_of_out)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """A set of cells: a SparseTensor without its features. The fields are described there."""

    coords: Int[Tensor, "N 4"]
    stride: Triple
    spatial_range: Range | None
    site: Site


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A convolution's way from the cells of its input to those of its output. No two of one cache have one `name`."""

    name: tuple
    source: Cells
    target: Cells
    pairs: KernelMap


@dataclass(frozen=True, kw_only=True, eq=False)
class SortedPart:
    """Some of a step's kernel offsets, with the output rows in an order of their own: `place[m]` is where row m went."""

    first: int
    last: int
    pairs: KernelMap
    place: Int[Tensor, " M"]


class MapCache:
    """The steps taken in one graph of tensors, each under its target's name."""

    def __init__(self) -> None:
        self._steps: dict[Site, Step] = {}
        self._sorted: dict[tuple, tuple[SortedPart, ...]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def step(self, source: Cells, key: Key, make: Callable[[], Step]) -> Step:
        """The step `key` from `source`; made if it was not taken before.

        Raises:
            ValueError: the cache was made for other coordinates than these.
        """
        name = (*source.site, key)
        found = self._steps.get(name)
        if found is None:
            found = make()
            self._steps[name] = found
        return _of_these_cells(found, found.source, source)

    def sorted_parts(self, step: Step, splits: int) -> tuple[SortedPart, ...]:
        """The step's kernel offsets in `splits` parts, each with the output rows that have the same neighbours side by side."""
        name = (splits, step.name)
        if name not in self._sorted:
            bounds = [step.pairs.in_of_out.shape[0] * part // splits for part in range(splits + 1)]
            self._sorted[name] = tuple(_sorted_part(step.pairs, *ends) for ends in pairwise(bounds) if ends[0] < ends[1])
        return self._sorted[name]

    def last_step(self, target: Cells) -> Step | None:
        """The step that led to these cells, None if they are the graph's input."""
        found = self._steps.get(target.site)
        return None if found is None else _of_these_cells(found, found.target, target)


def _of_these_cells(step: Step, cached: Cells, wanted: Cells) -> Step:
    if cached.coords is not wanted.coords:
        raise ValueError(
            "SparseTensor.maps: expected the coordinates the cache was filled for, got others; "
            "make a new SparseTensor without maps= and site="
        )
    return step


def _sorted_part(pairs: KernelMap, first: int, last: int) -> SortedPart:
    ins, outs = pairs.in_of_out[first:last], pairs.out_of_in[first:last]
    order = torch.arange(ins.shape[1], device=ins.device)
    # By the last offset first and the first last; stable, so in the end the first decides most.
    for present in reversed((ins >= 0).unbind()):
        order = order[torch.argsort(present[order].to(torch.uint8), stable=True, descending=True)]
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    moved = torch.where(outs >= 0, place.to(torch.int32)[outs.clamp(min=0).long()] if len(order) else outs, -1)
    return SortedPart(first=first, last=last, pairs=KernelMap(in_of_out=ins[:, order], out_of_in=moved), place=place)


def submanifold(cache: MapCache, cells: Cells, kernel: Triple, dilation: Triple, *, centred: bool) -> Step:
    """Outputs at the inputs. Offsets are centred (start -((k - 1) // 2) cells on each axis), else 0..k-1."""
    start = _centre(kernel, dilation) if centred else (0, 0, 0)
    key: Key = ("submanifold", kernel, (1, 1, 1), start, dilation, cells.spatial_range)

    def make() -> Step:
        _check_inside(cells, at_least_zero=False)
        ins, outs = kernel_tables(cells.coords, cells.coords, kernel=kernel, start=start, dilation=dilation)
        return Step(name=(*cells.site, key), source=cells, target=cells, pairs=KernelMap(in_of_out=ins, out_of_in=outs))

    return cache.step(cells, key, make)


def strided(cache: MapCache, cells: Cells, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> Step:
    """spconv's rule: outputs q >= 0 within the grid that any input q * stride - padding + j * dilation reaches, sorted.

    The grid's end is that of a dense convolution over `spatial_range`; without one, that of TorchSparse: the largest coordinate of the
    whole batch takes its place, floor((largest + 2 padding - dilation (k - 1)) / stride).
    """
    key: Key = ("spconv", kernel, stride, padding, dilation, cells.spatial_range)

    def make() -> Step:
        _check_inside(cells, at_least_zero=True)
        spans = tuple(2 * p - d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))
        shape = None
        if cells.spatial_range is not None:
            batch, *sizes = cells.spatial_range
            shape = (batch, *((n - 1 + span) // s + 1 for n, span, s in zip(sizes, spans, stride, strict=True)))
            if min(shape) < 1:
                raise ValueError(f"Conv3d: expected a grid the kernel {kernel} fits into, got {cells.spatial_range}; add padding")
        start: Triple = (-padding[0], -padding[1], -padding[2])
        bounds = _bounds(cells.coords, shape, spans, stride)
        coords = reached_coords(cells.coords, kernel=kernel, stride=stride, start=start, dilation=dilation, bounds=bounds)
        return _strided_step(cells, key, coords, start, shape)

    return cache.step(cells, key, make)


def floored(cache: MapCache, cells: Cells, kernel: Triple, stride: Triple, dilation: Triple) -> Step:
    """Minkowski's rule: outputs floor(input / stride), sorted; the kernel is centred there. Works for negative coordinates too."""
    key: Key = ("minkowski", kernel, stride, (0, 0, 0), dilation, cells.spatial_range)

    def make() -> Step:
        _check_inside(cells, at_least_zero=False)
        shape = None
        if cells.spatial_range is not None:
            batch, *sizes = cells.spatial_range
            shape = (batch, *((n - 1) // s + 1 for n, s in zip(sizes, stride, strict=True)))
        # Whatever an unpadded kernel of the stride's size reaches is the floor.
        ones, zeros = (1, 1, 1), (0, 0, 0)
        bounds = torch.tensor(UNBOUNDED).view(2, 1).expand(2, 3).to(cells.coords.device)
        coords = reached_coords(cells.coords, kernel=stride, stride=stride, start=zeros, dilation=ones, bounds=bounds)
        return _strided_step(cells, key, coords, _centre(kernel, dilation), shape)

    return cache.step(cells, key, make)


def spread(cache: MapCache, cells: Cells, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> Step:
    """Generative transposed: outputs input * stride - padding + j * dilation, sorted; what a dense transposed convolution would reach.

    Cells outside that one's output, (n - 1) stride - 2 padding + dilation (k - 1) + 1 long, are cut if there is a `spatial_range`.

    Raises:
        ValueError: the input's stride is not a multiple of `stride`, or a new cell does not fit int32.
    """
    if any(have % step for have, step in zip(cells.stride, stride, strict=True)):
        remedy = "give the SparseTensor the stride its cells have, counted in the finest cells there will be"
        raise ValueError(f"Conv3d(generative): expected a stride that divides the tensor's {cells.stride}, got {stride}; {remedy}")
    key: Key = ("spread", kernel, stride, padding, dilation, cells.spatial_range)

    def make() -> Step:
        _check_inside(cells, at_least_zero=False)
        _check_finer_fit(cells.coords, kernel, stride, padding, dilation)
        shape, limits = None, [UNBOUNDED] * 3
        if cells.spatial_range is not None:
            batch, *sizes = cells.spatial_range
            axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
            shape = (batch, *((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in axes))
            limits = [(0, size - 1) for size in shape[1:]]
        start: Triple = (-padding[0], -padding[1], -padding[2])
        bounds = torch.tensor(limits, device=cells.coords.device).T
        coords = reached_coords(cells.coords, kernel=kernel, stride=stride, start=start, dilation=dilation, bounds=bounds, transposed=True)
        outs, ins = kernel_tables(coords, cells.coords, kernel=kernel, stride=stride, start=start, dilation=dilation)
        if not torch.compiler.is_compiling():  # of equal cells one only would give to the new ones
            once = (outs >= 0).sum() == (ins >= 0).sum()
            require(once, "SparseTensor.coords", "each cell once", "some twice", "sparse_quantize keeps one of each")
        finer: Triple = tuple(have // step for have, step in zip(cells.stride, stride, strict=True))  # type: ignore[assignment]
        target = Cells(coords=coords, stride=finer, spatial_range=shape, site=(*cells.site, key))  # type: ignore[arg-type]
        return Step(name=target.site, source=cells, target=target, pairs=KernelMap(in_of_out=ins, out_of_in=outs))

    return cache.step(cells, key, make)


def undone(cache: MapCache, cells: Cells, kernel: Triple, stride: Triple, dilation: Triple) -> Step:
    """Back over the convolution that made these cells: its step reversed, so that its input's cells come back in their order.

    Raises:
        ValueError: no convolution made them, or one with another kernel, stride or dilation.
    """
    step = cache.last_step(cells)
    wanted = f"kernel {kernel}, stride {stride}, dilation {dilation}"
    if step is None:
        raise ValueError(
            f"Conv3d(transposed): expected cells made by a convolution with {wanted}, got cells no strided convolution of this graph made; "
            "use generative=True to make new cells"
        )
    _, had_kernel, had_stride, _, had_dilation, _ = cells.site[-1]
    if (had_kernel, had_stride, had_dilation) != (kernel, stride, dilation):
        got = f"kernel {had_kernel}, stride {had_stride}, dilation {had_dilation}"
        raise ValueError(f"Conv3d(transposed): expected cells made by a convolution with {wanted}, got {got}; give it the same numbers")
    return Step(name=("undone", *step.name), source=step.target, target=step.source, pairs=step.pairs.reversed())


def _check_finer_fit(coords: Tensor, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> None:
    """New cells of a generative convolution fit int32."""
    if not torch.compiler.is_compiling():
        lowest = coords[:, 1:].long() * torch.tensor(stride, device=coords.device) - torch.tensor(padding, device=coords.device)
        span = torch.tensor([d * (k - 1) for k, d in zip(kernel, dilation, strict=True)], device=coords.device)
        fits = (lowest >= UNBOUNDED[0]) & (lowest + span <= UNBOUNDED[1])
        require(fits, "SparseTensor.coords", "cells whose finer ones fit int32", "some too far out", "move them towards 0")


def _strided_step(cells: Cells, key: Key, coords: Tensor, start: Triple, shape: tuple[int, ...] | None) -> Step:
    _, kernel, stride, _, dilation, _ = key
    ins, outs = kernel_tables(cells.coords, coords, kernel=kernel, stride=stride, start=start, dilation=dilation)
    coarser: Triple = tuple(have * step for have, step in zip(cells.stride, stride, strict=True))  # type: ignore[assignment]
    target = Cells(coords=coords, stride=coarser, spatial_range=shape, site=(*cells.site, key))  # type: ignore[arg-type]
    return Step(name=target.site, source=cells, target=target, pairs=KernelMap(in_of_out=ins, out_of_in=outs))


def _centre(kernel: Triple, dilation: Triple) -> Triple:
    x, y, z = (-((k - 1) // 2) * d for k, d in zip(kernel, dilation, strict=True))
    return x, y, z


def _bounds(coords: Tensor, shape: tuple[int, ...] | None, spans: tuple[int, ...], stride: Triple) -> Tensor:
    """Smallest and largest output coordinate on each axis, [2, 3]."""
    if shape is not None:
        highest = torch.tensor([size - 1 for size in shape[1:]], device=coords.device)
    else:
        # A row of zeros more, for tensors without any.
        largest = torch.cat([coords[:, 1:].long(), coords.new_zeros(1, 3)]).amax(0)
        highest = torch.div(
            largest + torch.tensor(spans, device=coords.device), torch.tensor(stride, device=coords.device), rounding_mode="floor"
        )
    return torch.stack([torch.zeros_like(highest), highest])


def require_inside(coords: Int[Tensor, "N 4"], full: Range) -> None:
    """ValueError where a cell lies outside the range. Compiled code does not look."""
    if not torch.compiler.is_compiling():
        inside = (coords >= 0) & (coords < torch.tensor(full, device=coords.device))
        require(inside, "SparseTensor.coords", f"cells inside spatial_range {full}", "some outside", "crop, or widen the range")


def require_once(coords: Int[Tensor, "N 4"], full: Range) -> None:
    """ValueError where a cell of the range is there twice. Compiled code does not look."""
    if not torch.compiler.is_compiling():
        place, row = tuple(coords.long().unbind(1)), torch.arange(len(coords), dtype=torch.int32, device=coords.device)
        held = row.new_zeros(full).index_put(place, row)[place]  # of equal cells one row is held
        require(held == row, "SparseTensor.coords", "each cell once", "some twice", "sparse_quantize keeps one of each")


def _check_inside(cells: Cells, *, at_least_zero: bool) -> None:
    """Coordinates lie in the range there is; with `at_least_zero` they must not be negative even without one."""
    if cells.spatial_range is not None:
        require_inside(cells.coords, cells.spatial_range)
    elif at_least_zero and not torch.compiler.is_compiling():
        expected = "coordinates of at least 0 for a strided convolution by spconv's rule"
        require(cells.coords >= 0, "SparseTensor.coords", expected, "negative ones", "shift them, or use downsample_mode='minkowski'")
