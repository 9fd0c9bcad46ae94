"""Inputs for tests and benchmarks: random ones with every kind of point, and the published model's sizes."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SPARSEDRIVE_SMALL_LEVEL_HW = (64, 176, 32, 88, 16, 44, 8, 22)
SPARSEDRIVE_SMALL_POINTS = {"detection": (900, 13, 0.03), "map": (100, 300, 0.15)}
"""Head -> anchors, points an anchor, and how far these spread in the picture (standard deviation, image units)."""


class Sample(NamedTuple):
    """Arguments of `deformable_aggregation`, in order."""

    packed: Float[Tensor, "B C S D"]
    level_hw: tuple[int, ...]
    points: Float[Tensor, "B A P C 2"]
    weights: Float[Tensor, "B A P C L G"]


def random_sample(
    *,
    batch: int = 2,
    cameras: int = 3,
    anchors: int = 7,
    per_anchor: int = 5,
    level_hw: tuple[int, ...] = (5, 7, 2, 3),
    groups: int = 4,
    channels: int = 12,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Sample:
    """Gaussian features and weights; points in -0.5..1.5, so about one of four is visible, some just inside the picture's edge."""
    generator = torch.Generator().manual_seed(seed)
    pixels = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    packed = torch.randn(batch, cameras, pixels, channels, generator=generator, dtype=torch.float64)
    points = torch.rand(batch, anchors, per_anchor, cameras, 2, generator=generator, dtype=torch.float64) * 2 - 0.5
    weights = torch.randn(batch, anchors, per_anchor, cameras, len(level_hw) // 2, groups, generator=generator, dtype=torch.float64)
    return Sample(packed.to(dtype), level_hw, points.to(dtype), weights.to(dtype))


def sparsedrive_small(head: str, *, batch: int = 1, dtype: torch.dtype = torch.float32, seed: int = 0) -> Sample:
    """Sizes of the published SparseDrive-S ("detection" or "map" head), 6 cameras in a ring.

    Each anchor lies in one picture, with its points around it; one of ten also in the next camera's overlap: a point is seen by
    about 1.1 cameras. The rest are far outside, as points behind a camera are. Weights sum to 1 over an anchor, group by group.
    """
    anchors, per_anchor, spread = SPARSEDRIVE_SMALL_POINTS[head]
    cameras, levels, groups, channels = 6, len(SPARSEDRIVE_SMALL_LEVEL_HW) // 2, 8, 256
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    centre = 0.1 + 0.8 * uniform(batch, anchors, 1, 1, 2)
    offset = spread * torch.randn(batch, anchors, per_anchor, cameras, 2, generator=generator)
    inside = (centre + offset).clamp(1e-3, 1 - 1e-3)
    outside = torch.where(uniform(batch, anchors, per_anchor, cameras, 2) < 0.5, -3.0, 1e5)
    camera = torch.randint(cameras, (batch, anchors, 1), generator=generator)
    neighbour = torch.where(uniform(batch, anchors, 1) < 0.1, (camera + 1) % cameras, camera)
    ring = torch.arange(cameras)
    seen = (ring == camera) | (ring == neighbour)
    points = torch.where(seen[:, :, None, :, None], inside, outside)

    pixels = sum(h * w for h, w in zip(SPARSEDRIVE_SMALL_LEVEL_HW[::2], SPARSEDRIVE_SMALL_LEVEL_HW[1::2], strict=True))
    packed = torch.randn(batch, cameras, pixels, channels, generator=generator)
    weights = torch.randn(batch, anchors, per_anchor * cameras * levels, groups, generator=generator).softmax(2)
    weights = weights.view(batch, anchors, per_anchor, cameras, levels, groups)
    return Sample(packed.to(dtype), SPARSEDRIVE_SMALL_LEVEL_HW, points.to(dtype), weights.to(dtype))
