"""Visible samples added one after the other, point by point, camera by camera, level by level: the order of the published kernel.

The published CUDA kernel adds with atomics in whatever order its threads come; run serially, it is this. It exists to compare recorded
numbers to the last bit (`ops.published_order`); its gradients are those of `visible`, rounded in their own way.
"""

import torch
from torch import Tensor

PAIRS_AT_ONCE = 1 << 14  # x levels x channels floats; an anchor's pairs stay in order across chunks


def forward(packed: Tensor, level_hw: list[int], points: Tensor, weights: Tensor) -> Tensor:
    """See `deformable_aggregation`."""
    batch, cameras, pixels, channels = packed.shape
    anchors = points.shape[1]
    rows = packed.reshape(-1, channels)
    out = packed.new_zeros(batch * anchors, channels)
    pairs = ((points > 0) & (points < 1)).all(-1).nonzero()
    for chunk in pairs.split(PAIRS_AT_ONCE):
        b, a, p, c = chunk.unbind(1)
        where, weight = points[b, a, p, c], weights[b, a, p, c].to(packed.dtype).repeat_interleave(channels // weights.shape[-1], dim=-1)
        sampled = torch.stack(_levels(rows, (b * cameras + c) * pixels, where, level_hw), dim=1) * weight
        out.index_add_(0, (b * anchors + a).repeat_interleave(sampled.shape[1]), sampled.flatten(0, 1))
    return out.reshape(batch, anchors, channels)


def _levels(rows: Tensor, first_row: Tensor, where: Tensor, level_hw: list[int]) -> list[Tensor]:
    """Bilinear samples [M, D] of each level."""
    out = []
    for height, width in zip(level_hw[::2], level_hw[1::2], strict=True):
        x, y = where[:, 0] * width - 0.5, where[:, 1] * height - 0.5
        left, top = x.floor(), y.floor()
        right_part, bottom_part = x - left, y - top
        left_part, top_part = 1 - right_part, 1 - bottom_part
        column, line = left.long(), top.long()
        sampled = (top_part * left_part)[:, None] * _tap(rows, first_row, column, line, width, height)
        sampled = sampled + (top_part * right_part)[:, None] * _tap(rows, first_row, column + 1, line, width, height)
        sampled = sampled + (bottom_part * left_part)[:, None] * _tap(rows, first_row, column, line + 1, width, height)
        sampled = sampled + (bottom_part * right_part)[:, None] * _tap(rows, first_row, column + 1, line + 1, width, height)
        out.append(sampled)
        first_row = first_row + height * width
    return out


def _tap(rows: Tensor, first_row: Tensor, column: Tensor, line: Tensor, width: int, height: int) -> Tensor:
    inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
    index = first_row + line.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return rows[index].masked_fill(~inside[:, None], 0)
