"""What an op has to move and to compute at least, and what this machine can: the bound a time is held against."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedrive.ops.deformable_aggregation.reference import compute_dtype, visible
from sparsedrive.ops.deformable_aggregation.samples import Sample
from sparsedrive.ops.deformable_aggregation.visible import bilinear_taps

GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes that must be read or written once, and floating-point operations."""

    bytes: float
    flops: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(bytes=self.bytes + other.bytes, flops=self.flops + other.flops)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What the machine was measured to do, a second."""

    bytes: float
    flops: float

    def bound_ms(self, cost: Cost) -> float:
        """The shortest time a cost can take."""
        return max(cost.bytes / self.bytes, cost.flops / self.flops) * 1e3


def aggregation_forward(sample: Sample) -> Cost:
    """Touched pixels, all points, the visible pairs' weights and the output once; a multiply and add a corner, and one for the weight."""
    seen, touched = _seen_and_touched(sample)
    channels, levels, groups = sample.packed.shape[3], *sample.weights.shape[4:]
    size = sample.packed.element_size()
    output = sample.packed.shape[0] * sample.points.shape[1] * channels
    numbers = touched * channels * size + output * size + _bytes(sample.points) + seen * levels * groups * sample.weights.element_size()
    return Cost(bytes=numbers, flops=seen * levels * channels * 10)


def aggregation_backward(sample: Sample) -> Cost:
    """The forward's inputs and the output's gradient read, dense gradients written; an inner product and a scaled sum a corner."""
    seen, _ = _seen_and_touched(sample)
    channels, levels = sample.packed.shape[3], sample.weights.shape[4]
    written = _bytes(sample.packed) + _bytes(sample.points) + _bytes(sample.weights)
    return Cost(bytes=aggregation_forward(sample).bytes + written, flops=seen * levels * channels * 4 * 5)


def focal(logits: Tensor, passes: int) -> Cost:
    """Each pass reads the logits (and a gradient, if it is the second) and writes as much; about 30 operations an element."""
    moved = 2 if passes == 1 else 2 + 3
    return Cost(bytes=moved * _bytes(logits) + passes * 8 * logits.shape[0], flops=30.0 * passes * logits.numel())


def measure(device: str) -> Ceiling:
    """Of a large copy and a large float32 matrix product, the fastest of a few."""
    numbers, size = (1 << 28, 8192) if device == "cuda" else (1 << 25, 1024)
    source, target = torch.ones(numbers, device=device), torch.empty(numbers, device=device)
    left, right = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    copy_s, product_s = (_fastest_s(run, device) for run in (lambda: target.copy_(source), lambda: left @ right))
    return Ceiling(bytes=2 * 4 * numbers / copy_s, flops=2 * size**3 / product_s)


def _fastest_s(run: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(6):
        start_s = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start_s)
    return min(times[1:])


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _seen_and_touched(sample: Sample) -> tuple[int, int]:
    """Visible pairs, and pixels that any of them touches."""
    packed, level_hw, points, _ = sample
    cameras, pixels = packed.shape[1:3]
    stream, _, _, camera = (index for index in visible(points).nonzero().unbind(1))
    where = points[visible(points)].to(compute_dtype(packed.dtype))
    first = (stream * cameras + camera) * pixels
    rows = bilinear_taps(where, list(level_hw), first_row=first, rows=packed.shape[0] * cameras * pixels).row
    return int(where.shape[0]), rows.unique().numel()
