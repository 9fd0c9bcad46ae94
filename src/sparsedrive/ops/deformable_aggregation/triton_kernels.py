"""Deformable aggregation in Triton: visible (point, camera) pairs only, sums in registers. Imported when it is first called.

A tile is BLOCK_P points of one anchor in one camera times the channels of one group, so a point has one weight a level and its
place in the maps is found once for all channels. A camera that sees no point of a tile costs one load. Indices inside a picture
are 32-bit unless a picture is too large for them (WIDE); what counts pictures, anchors and pairs is 64-bit.

The kernels are launched with `enable_fp_fusion=False`, and multiply and add in one step only where they say so: where a sample lies
between pixels then rounds as in PyTorch, or a point on a pixel's centre would get its gradient from the wrong side.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsedrive.ops.deformable_aggregation import visible
from sparsedrive.ops.deformable_aggregation.reference import compute_dtype

TILE = 1024
"""Numbers in a tile: with four warps each thread loads eight neighbouring channels at once."""
MAX_POINTS = 32
INT32_MAX = 2**31 - 1


class Sizes(NamedTuple):
    """What the kernels are compiled for."""

    LEVEL_HW: tuple[int, ...]
    STARTS: tuple[int, ...]
    CHANNELS: int
    GROUPS: int
    BLOCK_P: int
    BLOCK_D: int
    SUM: tl.dtype
    WIDE: bool


def forward(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked."""
    packed, points, weights = (tensor.detach().contiguous() for tensor in (packed, points, weights))
    batch, cameras, pixels, channels = packed.shape
    anchors, per_anchor = points.shape[1:3]
    output = packed.new_empty(batch, anchors, channels)
    if output.numel() == 0:
        return output
    sizes = _sizes(packed, level_hw, weights)
    grid = (batch * anchors * sizes.GROUPS,)
    with torch.cuda.device_of(packed):
        _forward[grid](packed, points, weights, output, anchors, per_anchor, cameras, pixels, **sizes._asdict(), enable_fp_fusion=False)
    return output


def backward(grad: Tensor, packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradients of those of (packed, points, weights) that `needs` names.

    The gradient of the features is summed by atomics in whatever order they come, or where PyTorch is told to be deterministic
    (`torch.use_deterministic_algorithms`) in a fixed order by sorting, as `visible` does it.
    """
    need_packed, need_points, need_weights = needs
    by_sorting = need_packed and torch.are_deterministic_algorithms_enabled()
    by_atomics = need_packed and not by_sorting
    grad, packed, points, weights = (tensor.detach().contiguous() for tensor in (grad, packed, points, weights))
    # Zeros, because hidden pairs are not written; an unwanted gradient is an empty tensor nothing points into.
    grad_packed = packed.new_zeros(packed.shape if by_atomics else (0,), dtype=compute_dtype(packed.dtype))
    grad_points, grad_weights = (
        tensor.new_zeros(tensor.shape if need else (0,)) for tensor, need in ((points, need_points), (weights, need_weights))
    )
    if points.numel() and (by_atomics or need_points or need_weights):
        batch, cameras, pixels, _ = packed.shape
        anchors, per_anchor = points.shape[1:3]
        sizes = _sizes(packed, level_hw, weights)
        tiles = triton.cdiv(per_anchor, sizes.BLOCK_P)
        tensors = (grad, packed, points, weights, grad_packed, grad_points, grad_weights)
        numbers = (anchors, per_anchor, cameras, pixels, tiles)
        wanted = {"NEED_PACKED": by_atomics, "NEED_POINTS": need_points, "NEED_WEIGHTS": need_weights}
        with torch.cuda.device_of(packed):
            _backward[(batch * anchors * tiles,)](*tensors, *numbers, **sizes._asdict(), **wanted, enable_fp_fusion=False)
    if by_sorting:
        (grad_packed,) = visible.backward(grad, packed, level_hw, points, weights, [True, False, False])
    found = (grad_packed.to(packed.dtype), grad_points, grad_weights)
    return [value for value, need in zip(found, needs, strict=True) if need]


def _sizes(packed: Tensor, level_hw: list[int], weights: Tensor) -> Sizes:
    pixels, channels = packed.shape[2:]
    per_anchor, groups = weights.shape[2], weights.shape[5]
    block_d = triton.next_power_of_2(channels // groups)
    block_p = min(triton.next_power_of_2(max(per_anchor, 1)), MAX_POINTS, max(1, TILE // block_d))
    dtype = tl.float64 if packed.dtype == torch.float64 else tl.float32
    areas = [height * width for height, width in zip(level_hw[::2], level_hw[1::2], strict=True)]
    starts = tuple(sum(areas[:level]) for level in range(len(areas)))
    return Sizes(tuple(level_hw), starts, channels, groups, block_p, block_d, dtype, pixels * channels > INT32_MAX)


@triton.jit
def _seen(points, first_pair, p, per_anchor, cameras, camera, SUM: tl.constexpr):
    """Of BLOCK_P points in one camera: their pairs, x, y, and which are visible (false for NaN); x and y of the others are 0.5."""
    pair = first_pair + p.to(tl.int64) * cameras + camera
    there = p < per_anchor
    x = tl.load(points + 2 * pair, mask=there, other=-1.0).to(SUM)
    y = tl.load(points + 2 * pair + 1, mask=there, other=-1.0).to(SUM)
    seen = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    return pair, tl.where(seen, x, 0.5), tl.where(seen, y, 0.5), seen


@triton.jit
def _neighbours(coordinate, size: tl.constexpr):
    """Along one axis: the first of the two pixels around each point, how far the point is from it, and whether each is on the map."""
    position = coordinate * size - 0.5
    low = tl.floor(position)
    pixel = low.to(tl.int32)
    return pixel, position - low, pixel >= 0, pixel + 1 < size


@triton.jit
def _corners(
    picture, px, py, level: tl.constexpr, d, mask,
    LEVEL_HW: tl.constexpr, STARTS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of each point on a level: where its four pixels' channels are, which of them count, and its place between them (y, x)."""
    HEIGHT: tl.constexpr = LEVEL_HW[2 * level]
    WIDTH: tl.constexpr = LEVEL_HW[2 * level + 1]
    y, fy, top, bottom = _neighbours(py, HEIGHT)
    x, fx, left, right = _neighbours(px, WIDTH)
    pixel = (y * WIDTH + x + STARTS[level]).to(tl.int64 if WIDE else tl.int32)
    first = picture + ((pixel * CHANNELS)[:, None] + d[None, :])
    pointers = (first, first + CHANNELS, first + WIDTH * CHANNELS, first + (WIDTH + 1) * CHANNELS)
    masks = (mask & (top & left)[:, None], mask & (top & right)[:, None], mask & (bottom & left)[:, None], mask & (bottom & right)[:, None])
    return pointers, masks, fy, fx


@triton.jit
def _forward(
    packed, points, weights, output, anchors, per_anchor, cameras, pixels,
    LEVEL_HW: tl.constexpr, STARTS: tl.constexpr, CHANNELS: tl.constexpr, GROUPS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, SUM: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program an anchor and group. The groups of an anchor follow each other: together they read whole pixels."""
    LEVELS: tl.constexpr = len(LEVEL_HW) // 2
    anchor = tl.program_id(0).to(tl.int64) // GROUPS
    group = tl.program_id(0) % GROUPS
    lane = tl.arange(0, BLOCK_D)
    in_group = lane < CHANNELS // GROUPS
    d = group * (CHANNELS // GROUPS) + lane
    first_pair = anchor * per_anchor * cameras
    first_picture = anchor // anchors * cameras
    total = tl.zeros([BLOCK_P, BLOCK_D], dtype=SUM)
    for begin in range(0, per_anchor, BLOCK_P):
        p = begin + tl.arange(0, BLOCK_P)
        for camera in range(cameras):
            pair, px, py, seen = _seen(points, first_pair, p, per_anchor, cameras, camera, SUM)
            if tl.max(seen.to(tl.int32), 0) > 0:
                picture = packed + (first_picture + camera) * pixels * CHANNELS
                mask = seen[:, None] & in_group[None, :]
                for level in tl.static_range(LEVELS):
                    at, on, fy, fx = _corners(picture, px, py, level, d, mask, LEVEL_HW, STARTS, CHANNELS, WIDE)
                    sample = ((1 - fy) * (1 - fx))[:, None] * tl.load(at[0], mask=on[0], other=0.0).to(SUM)
                    sample = _multiply_add((1 - fy) * fx, tl.load(at[1], mask=on[1], other=0.0).to(SUM), sample)
                    sample = _multiply_add(fy * (1 - fx), tl.load(at[2], mask=on[2], other=0.0).to(SUM), sample)
                    sample = _multiply_add(fy * fx, tl.load(at[3], mask=on[3], other=0.0).to(SUM), sample)
                    weight = tl.load(weights + (pair * LEVELS + level) * GROUPS + group, mask=seen, other=0.0).to(SUM)
                    total = _multiply_add(weight, sample, total)
    tl.store(output + anchor * CHANNELS + d, tl.sum(total, 0).to(output.dtype.element_ty), mask=in_group)


@triton.jit
def _multiply_add(factor, tile, total):
    """total + factor[:, None] * tile in one step."""
    return tl.fma(tl.broadcast_to(factor[:, None], tile.shape), tile, total)


@triton.jit
def _dot(pointer, mask, gradient, SUM: tl.constexpr):
    """Inner product of each point's pixel with the output's gradient: [BLOCK_P]."""
    return tl.sum(tl.load(pointer, mask=mask, other=0.0).to(SUM) * gradient[None, :], 1)


@triton.jit
def _backward(
    grad, packed, points, weights, grad_packed, grad_points, grad_weights, anchors, per_anchor, cameras, pixels, tiles,
    LEVEL_HW: tl.constexpr, STARTS: tl.constexpr, CHANNELS: tl.constexpr, GROUPS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, SUM: tl.constexpr, WIDE: tl.constexpr,
    NEED_PACKED: tl.constexpr, NEED_POINTS: tl.constexpr, NEED_WEIGHTS: tl.constexpr,
):  # fmt: skip
    """One program BLOCK_P points of an anchor. It goes through all groups, so a point's gradient is summed in registers."""
    LEVELS: tl.constexpr = len(LEVEL_HW) // 2
    anchor = tl.program_id(0).to(tl.int64) // tiles
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    lane = tl.arange(0, BLOCK_D)
    in_group = lane < CHANNELS // GROUPS
    first_pair = anchor * per_anchor * cameras
    for camera in range(cameras):
        pair, px, py, seen = _seen(points, first_pair, p, per_anchor, cameras, camera, SUM)
        if tl.max(seen.to(tl.int32), 0) > 0:
            first_row = (anchor // anchors * cameras + camera) * pixels * CHANNELS
            mask = seen[:, None] & in_group[None, :]
            slope_x, slope_y = tl.zeros([BLOCK_P], dtype=SUM), tl.zeros([BLOCK_P], dtype=SUM)
            for group in range(GROUPS):
                d = group * (CHANNELS // GROUPS) + lane
                gradient = tl.load(grad + anchor * CHANNELS + d, mask=in_group, other=0.0).to(SUM)
                for level in tl.static_range(LEVELS):
                    weight_at = (pair * LEVELS + level) * GROUPS + group
                    weight = tl.load(weights + weight_at, mask=seen, other=0.0).to(SUM)
                    if NEED_PACKED:
                        at, on, fy, fx = _corners(grad_packed + first_row, px, py, level, d, mask, LEVEL_HW, STARTS, CHANNELS, WIDE)
                        _scatter(at, on, fy, fx, weight, gradient)
                    if NEED_POINTS or NEED_WEIGHTS:
                        at, on, fy, fx = _corners(packed + first_row, px, py, level, d, mask, LEVEL_HW, STARTS, CHANNELS, WIDE)
                        a, b = _dot(at[0], on[0], gradient, SUM), _dot(at[1], on[1], gradient, SUM)
                        c, e = _dot(at[2], on[2], gradient, SUM), _dot(at[3], on[3], gradient, SUM)
                        if NEED_WEIGHTS:
                            value = (1 - fy) * ((1 - fx) * a + fx * b) + fy * ((1 - fx) * c + fx * e)
                            tl.store(grad_weights + weight_at, value.to(grad_weights.dtype.element_ty), mask=seen)
                        slope_x += weight * LEVEL_HW[2 * level + 1] * ((1 - fy) * (b - a) + fy * (e - c))
                        slope_y += weight * LEVEL_HW[2 * level] * ((1 - fx) * (c - a) + fx * (e - b))
            if NEED_POINTS:
                tl.store(grad_points + 2 * pair, slope_x.to(grad_points.dtype.element_ty), mask=seen)
                tl.store(grad_points + 2 * pair + 1, slope_y.to(grad_points.dtype.element_ty), mask=seen)


@triton.jit
def _scatter(at, on, fy, fx, weight, gradient):
    """Add the output's gradient to the gradients of the four pixels of each point."""
    tl.atomic_add(at[0], (weight * (1 - fy) * (1 - fx))[:, None] * gradient[None, :], mask=on[0], sem="relaxed")
    tl.atomic_add(at[1], (weight * (1 - fy) * fx)[:, None] * gradient[None, :], mask=on[1], sem="relaxed")
    tl.atomic_add(at[2], (weight * fy * (1 - fx))[:, None] * gradient[None, :], mask=on[2], sem="relaxed")
    tl.atomic_add(at[3], (weight * fy * fx)[:, None] * gradient[None, :], mask=on[3], sem="relaxed")
