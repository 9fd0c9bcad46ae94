"""Small parts that the levels of the cascade share. Rows are [B, M, H*W, D]: the pixels of M failed cameras of B streams."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.layers.attention import Attention
from sparsedrive.layers.mlp import linear_relu_norm

RAY_OCTAVES = 4
NORM_GROUPS = 8
MIN_BELIEF = 1e-6  # half precision rounds gates that are all but closed to 0


class RayEncoder(nn.Module):
    """Where a pixel is: the direction it looks along in the ego frame, so that all cameras of any rig speak of the same places."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=2, input_dim=3 * (1 + 2 * RAY_OCTAVES)))

    def forward(self, direction: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch D"]:
        """Embedding of directions of any length above 0."""
        unit = F.normalize(direction, dim=-1)
        scale = math.pi * 2.0 ** torch.arange(RAY_OCTAVES, dtype=unit.dtype, device=unit.device)
        phase = (unit[..., None] * scale).flatten(-2)
        return self.layers(torch.cat([unit, phase.sin(), phase.cos()], dim=-1))


class CameraAttention(nn.Module):
    """Queries look at the tokens of other pictures. One learned token is always there, for queries that find nothing else."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads)
        self.nothing = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, query: Float[Tensor, "N Q D"], value: Float[Tensor, "N K D"], position: Float[Tensor, "N K D"], allowed: Bool[Tensor, "N K"]
    ) -> Float[Tensor, "N Q D"]:
        """What the queries, which know their position, gather from allowed tokens."""
        nothing = self.nothing.expand(query.shape[0], -1, -1)
        value = torch.cat([nothing, value.masked_fill(~allowed[..., None], 0)], dim=1)
        key = value + F.pad(position, (0, 0, 1, 0))
        return self.norm(self.attention(query, key, value, F.pad(allowed, (1, 0), value=True)))


def separable(in_dim: int, out_dim: int) -> nn.Sequential:
    """3x3 convolution of every channel by itself, 1x1 convolution, norm within a picture, ReLU. No batch statistics: failures are rare."""
    return nn.Sequential(
        nn.Conv2d(in_dim, in_dim, 3, padding=1, groups=in_dim),
        nn.Conv2d(in_dim, out_dim, 1, bias=False),
        nn.GroupNorm(math.gcd(NORM_GROUPS, out_dim), out_dim),
        nn.ReLU(inplace=True),
    )


def small_start(layer: nn.Conv2d, deviation: float = 0.0, bias: float = 0.0) -> nn.Conv2d:
    """The layer with weights of that deviation and a constant bias: what it adds begins small."""
    nn.init.normal_(layer.weight, std=deviation) if deviation else nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer


def blend(before: Tensor, after: Tensor, share: Tensor) -> Tensor:
    """From `before` (share 0) to `after` (1); unlike `torch.lerp` also where autocast gave them other precisions."""
    return before + share * (after - before)


def revise(before: Tensor, belief: Tensor, after: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Features and belief once a gate (above 0) has let a newer opinion in: it counts as the gate is open, the older one, believed so far
    as `belief` says, for the rest. So what nothing was known of is replaced, and what was well known moves by the gate's share."""
    believed = belief + gate * (1 - belief)
    return blend(before, after, gate / believed.clamp(min=MIN_BELIEF)), believed


def as_pictures(rows: Float[Tensor, "B M HW D"], height: int, width: int) -> Float[Tensor, "BM D H W"]:
    """Rows as a batch of feature maps."""
    return rows.flatten(0, 1).unflatten(1, (height, width)).movedim(-1, 1)


def as_rows(pictures: Float[Tensor, "BM D H W"], batch: int) -> Float[Tensor, "B M HW D"]:
    """The inverse of `as_pictures`."""
    return pictures.movedim(1, -1).flatten(1, 2).unflatten(0, (batch, -1))


def level_sizes(level_hw: tuple[int, ...]) -> list[tuple[int, int]]:
    """(height, width) of each level, finest first."""
    return list(zip(level_hw[::2], level_hw[1::2], strict=True))


def split_levels(packed: Float[Tensor, "*batch S D"], level_hw: tuple[int, ...]) -> tuple[Float[Tensor, "*batch HW D"], ...]:
    """The levels of packed features, finest first."""
    return packed.split([height * width for height, width in level_sizes(level_hw)], dim=-2)
