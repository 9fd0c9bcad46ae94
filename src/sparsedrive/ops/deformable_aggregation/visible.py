"""Deformable aggregation over visible (point, camera) pairs only, in plain PyTorch.

A point is seen by about one camera of six, so most of what `grid_sample` does counts for nothing. Here the pairs that count are
listed first. The forward and the gradient of the features are then weighted sums over bags of rows (`embedding_bag`): in the forward
a bag is an anchor and its rows are pixels, in the gradient a bag is a pixel and its rows are output gradients. No atomics: the order
of every sum is fixed. Listing the pairs waits for the device, a few times a call.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.ops.deformable_aggregation.reference import compute_dtype, visible

# Numbers a temporary may hold: on a CPU chunks that stay in the cache are fastest, a GPU wants few and large launches.
CHUNK_CPU, CHUNK_OTHER = 1 << 20, 1 << 26
INT32_MAX = 2**31 - 1
CORNERS = 4


class Taps(NamedTuple):
    """Bilinear taps of n points on L levels: two neighbours in y times two in x. Those outside the map have weight and slope 0."""

    row: Int[Tensor, "n L 2 2"]
    weight_y: Float[Tensor, "n L 2"]
    weight_x: Float[Tensor, "n L 2"]
    slope_y: Float[Tensor, "n L 2"]  # of the weight, per image unit
    slope_x: Float[Tensor, "n L 2"]

    def weight(self) -> Float[Tensor, "n L 2 2"]:
        return self.weight_y[..., :, None] * self.weight_x[..., None, :]


def forward(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    """Kernel of the op. Arguments as the public function's, already checked."""
    batch, cameras, pixels, channels = packed.shape
    anchors, per_anchor = points.shape[1:3]
    levels, groups = weights.shape[4:]
    table = packed.detach().reshape(-1, channels)
    output = packed.new_zeros(batch * anchors, channels)

    pairs = visible(points).flatten().nonzero().squeeze(1)  # index into [B, A, P, C]: ordered by anchor
    first_pair = torch.searchsorted(pairs, torch.arange(batch * anchors + 1, device=pairs.device) * (per_anchor * cameras))
    for begin, end, first, last in _spans(first_pair.tolist(), limit=_chunk(packed) // (levels * CORNERS * groups)):
        pair = pairs[first:last]
        image = pair // (anchors * per_anchor * cameras) * cameras + pair % cameras
        taps = bilinear_taps(_take(points, pair, packed.dtype), level_hw, first_row=image * pixels, rows=table.shape[0] * groups)
        coefficients = _coefficients(taps, _take(weights, pair, packed.dtype))
        bags = (first_pair[begin:end] - first) * (levels * CORNERS)
        output[begin:end] = _bag_sums(table, taps.row.flatten(), coefficients.to(packed.dtype), bags)
    return output.view(batch, anchors, channels)


def backward(grad: Tensor, packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor, needs: list[bool]) -> list[Tensor]:
    """Gradients of those of (packed, points, weights) that `needs` names. Works camera by camera."""
    need_packed, need_points, need_weights = needs
    cameras, pixels, channels = packed.shape[1:]
    anchors, per_anchor = points.shape[1:3]
    groups = weights.shape[5]
    images = packed.detach().reshape(-1, pixels, channels)
    grad_rows = grad.reshape(-1, channels).to(compute_dtype(packed.dtype))
    grad_packed, grad_points, grad_weights = (
        tensor.new_zeros(tensor.shape if need else (0,)) for tensor, need in zip((packed, points, weights), needs, strict=True)
    )
    for image, seen in enumerate(_seen_by_image(points)):
        if seen.numel() == 0:
            continue
        stream, camera = divmod(image, cameras)
        anchor = stream * anchors + seen // per_anchor
        pair = (stream * anchors * per_anchor + seen) * cameras + camera
        taps = bilinear_taps(_take(points, pair, packed.dtype), level_hw, first_row=None, rows=max(pixels, grad_rows.shape[0]) * groups)
        pair_weights = _take(weights, pair, packed.dtype)
        if need_packed:
            _features_gradient(grad_packed.view(images.shape)[image], grad_rows, anchor, taps, pair_weights)
        if need_points or need_weights:
            dots = _dots(images[image], grad_rows, anchor, taps.row, groups=groups)
            if need_points:
                by_tap = torch.einsum("nlyxg,nlg->nlyx", dots, pair_weights)
                slope_x = torch.einsum("nlyx,nly,nlx->n", by_tap, taps.weight_y, taps.slope_x)
                slope_y = torch.einsum("nlyx,nly,nlx->n", by_tap, taps.slope_y, taps.weight_x)
                grad_points.view(-1, 2)[pair] = torch.stack([slope_x, slope_y], -1).to(points.dtype)
            if need_weights:
                found = torch.einsum("nlyxg,nlyx->nlg", dots, taps.weight())
                grad_weights.view(-1, *weights.shape[4:])[pair] = found.to(weights.dtype)
    return [value for value, need in zip((grad_packed, grad_points, grad_weights), needs, strict=True) if need]


def bilinear_taps(points: Float[Tensor, "n 2"], level_hw: list[int], first_row: Int[Tensor, "n"] | None, rows: int) -> Taps:
    """Taps of visible points in a table where a point's picture begins at row `first_row` (None: at 0); indices count to `rows`."""
    heights, widths = level_hw[::2], level_hw[1::2]
    starts = [sum(h * w for h, w in zip(heights[:level], widths[:level], strict=True)) for level in range(len(heights))]
    # int32 halves the memory traffic; the 64-bit form is for tables it cannot count.
    integer = torch.int32 if rows <= INT32_MAX else torch.int64
    start, width = (torch.tensor(values, dtype=integer, device=points.device)[:, None] for values in (starts, widths))
    y, weight_y, slope_y = _neighbours(points[:, 1], heights)
    x, weight_x, slope_x = _neighbours(points[:, 0], widths)
    row = y.to(integer) * width + start
    if first_row is not None:
        row += first_row.to(integer)[:, None, None]
    return Taps(row[..., :, None] + x.to(integer)[..., None, :], weight_y, weight_x, slope_y, slope_x)


def _neighbours(coordinate: Float[Tensor, "n"], sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: the two pixels around each point (clamped to the map), their weights and the slopes of these; [n, L, 2]."""
    size = torch.tensor(sizes, dtype=coordinate.dtype, device=coordinate.device)
    position = coordinate[:, None] * size - 0.5
    low = position.floor()
    fraction = position - low
    pixel = torch.stack([low, low + 1], -1)
    clamped = pixel.clamp(min=0).minimum(size[:, None] - 1)
    on_map = pixel == clamped
    weight = torch.stack([1 - fraction, fraction], -1) * on_map
    slope = torch.stack([-size, size], -1) * on_map
    return clamped, weight, slope


def _coefficients(taps: Taps, weights: Float[Tensor, "n L G"]) -> Float[Tensor, "G nL4"]:
    """Factor of every tap in every group's sum."""
    by_group = weights.movedim(2, 0).contiguous()
    return (by_group[..., None] * taps.weight().flatten(2)).flatten(1)


def _bag_sums(table: Float[Tensor, "R D"], row: Int[Tensor, "m"], factor: Float[Tensor, "G m"], bags: Int[Tensor, "b"]) -> Tensor:
    """Weighted sums [b, D] of table rows, one a bag; bag i starts at entry `bags[i]`. Channel d has the factors of its group."""
    groups = factor.shape[0]
    pieces = table.view(-1, table.shape[1] // groups)  # a row's groups one after the other, each a row of its own
    piece, bags = row * groups, bags.to(row.dtype)
    sums = []
    for group_factor in factor:
        sums.append(F.embedding_bag(piece, pieces, bags, mode="sum", per_sample_weights=group_factor))
        piece += 1
    return torch.cat(sums, 1)


def _features_gradient(out: Float[Tensor, "S D"], grad_rows: Tensor, anchor: Int[Tensor, "n"], taps: Taps, weights: Tensor) -> None:
    """Write the gradient of one picture: each pixel that was touched sums the output gradients of the anchors that touched it."""
    row, order = taps.row.flatten().sort(stable=True)
    touched, count = torch.unique_consecutive(row, return_counts=True)
    factor = _coefficients(taps, weights).index_select(1, order)
    taps_per_pair = taps.row[0].numel()
    source = anchor.index_select(0, order // taps_per_pair).to(row.dtype)
    out[touched] = _bag_sums(grad_rows, source, factor, count.cumsum(0) - count).to(out.dtype)


def _dots(image: Float[Tensor, "S D"], grad_rows: Tensor, anchor: Tensor, row: Int[Tensor, "n L 2 2"], groups: int) -> Tensor:
    """Inner product of every tapped pixel with its anchor's output gradient, group by group: [n, L, 2, 2, G]."""
    pairs, taps = row.shape[0], row[0].numel()
    dots = grad_rows.new_empty(pairs, taps, groups)
    step = max(1, _chunk(image) // (taps * image.shape[1]))
    for start in range(0, pairs, step):
        piece = slice(start, min(start + step, pairs))
        pixels = image.index_select(0, row[piece].flatten()).to(grad_rows.dtype).view(-1, taps, groups, image.shape[1] // groups)
        gradient = grad_rows.index_select(0, anchor[piece]).view(-1, 1, *pixels.shape[2:])
        torch.sum(pixels.mul_(gradient), -1, out=dots[piece])
    return dots.view(*row.shape, groups)


def _take(values: Tensor, pair: Int[Tensor, "n"], dtype: torch.dtype) -> Tensor:
    """Rows of the visible pairs of a [B, A, P, C, ...] tensor, in the dtype to compute in."""
    return values.detach().flatten(0, 3).index_select(0, pair).to(compute_dtype(dtype))


def _seen_by_image(points: Float[Tensor, "B A P C 2"]) -> list[Int[Tensor, "m"]]:
    """For every (batch, camera) the points it sees, as an index into [A, P]."""
    batch, anchors, per_anchor, cameras = points.shape[:4]
    seen = visible(points).permute(0, 3, 1, 2).reshape(batch * cameras, anchors * per_anchor)
    point = seen.nonzero()[:, 1]  # ordered by image
    return list(point.split(seen.sum(1).tolist()))


def _spans(first: list[int], limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut bags into runs of at most `limit` entries (a single bag may have more): (bag begin, end, entry begin, end).

    `first` holds where each bag's entries begin, and last their number. Runs without entries are left out.
    """
    begin, bags = 0, len(first) - 1
    for end in range(1, bags + 1):
        if end == bags or first[end + 1] - first[begin] > limit:
            if first[end] > first[begin]:
                yield begin, end, first[begin], first[end]
            begin = end


def _chunk(tensor: Tensor) -> int:
    return CHUNK_CPU if tensor.device.type == "cpu" else CHUNK_OTHER
