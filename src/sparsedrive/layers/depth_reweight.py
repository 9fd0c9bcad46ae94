"""How far away is what was sampled? A feature is believed as far as its own idea of depth agrees with the box that asked for it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.layers.ffn import AsymmetricFFN

MIN_DISTANCE_M, MAX_DISTANCE_M, BIN_M = 1.0, 56.0, 5.0
MARGIN_M = 1e-5


class DepthReweight(nn.Module):
    """A distribution over distance bins from a feature, read at a given distance. Source: Sparse4D (arXiv:2211.10581), section 3.4."""

    bins_m: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("bins_m", torch.arange(MIN_DISTANCE_M, MAX_DISTANCE_M + MARGIN_M, BIN_M), persistent=False)
        self.blocks = nn.Sequential(
            AsymmetricFFN(dim, dim, dim, plain=True), AsymmetricFFN(dim, dim, dim, plain=True), nn.Linear(dim, len(self.bins_m))
        )

    def forward(self, feature: Float[Tensor, "B N P D"], distance_m: Float[Tensor, "B N"]) -> Float[Tensor, "B N P"]:
        """Confidence, 0 to about 1: the two bins around the distance, mixed linearly, over the sum of their squared weights."""
        distance_m = distance_m.clamp(MIN_DISTANCE_M + MARGIN_M, MAX_DISTANCE_M - MARGIN_M)
        nearness = (1 - (distance_m[..., None, None] - self.bins_m).abs() / BIN_M).clamp(min=0)  # of all but two bins 0
        return (self.blocks(feature).softmax(-1) * nearness).sum(-1) / nearness.square().sum(-1)
