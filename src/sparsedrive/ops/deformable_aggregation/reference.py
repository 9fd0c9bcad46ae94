"""The specification of deformable aggregation: mask, `grid_sample` a level, weighted sum."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def visible(points: Float[Tensor, "*batch 2"]) -> Bool[Tensor, "*batch"]:
    """Points strictly inside the picture: 0 < x < 1 and 0 < y < 1, so neither border points nor NaN."""
    return ((points > 0) & (points < 1)).all(-1)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precision is computed in float32 and rounded once at the end."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def deformable_aggregation(
    packed: Float[Tensor, "B C S D"],
    level_hw: tuple[int, ...],
    points: Float[Tensor, "B A P C 2"],
    weights: Float[Tensor, "B A P C L G"],
) -> Float[Tensor, "B A D"]:
    """As the public function of this package; differentiable by autograd."""
    batch, anchors, per_anchor, cameras = points.shape[:4]
    groups = weights.shape[5]
    group_channels = packed.shape[3] // groups
    dtype = compute_dtype(packed.dtype)
    features, points, weights = packed.to(dtype), points.to(dtype), weights.to(dtype)

    # Everything a hidden point touches is replaced, not multiplied by zero: its coordinates, weights and pixels may be inf or NaN.
    inside = visible(points)
    grid = torch.where(inside[..., None], points, 0.5) * 2 - 1
    grid = grid.permute(0, 3, 1, 2, 4).flatten(0, 1)  # [BC, A, P, 2]
    hidden = ~inside.permute(0, 3, 1, 2)[:, :, None, None]  # [B, C, 1, 1, A, P]

    output = features.new_zeros(batch, groups, group_channels, anchors)
    start = 0
    for level, (height, width) in enumerate(zip(level_hw[::2], level_hw[1::2], strict=True)):
        pixels = features[:, :, start : start + height * width].unflatten(2, (height, width))
        start += height * width
        images = pixels.permute(0, 1, 4, 2, 3).flatten(0, 1)  # [BC, D, H, W]
        sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        sampled = sampled.view(batch, cameras, groups, group_channels, anchors, per_anchor).masked_fill(hidden, 0)
        level_weights = torch.where(inside[..., None], weights[..., level, :], 0)
        output = output + torch.einsum("bcgdap,bapcg->bgda", sampled, level_weights)
    return output.permute(0, 3, 1, 2).flatten(2).to(packed.dtype)
