"""Level 2: a variational auto-encoder for each pyramid level, which has learned what features of a working camera are like."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.models.completion.blocks import NORM_GROUPS, as_pictures, as_rows, level_sizes, revise, small_start, split_levels
from sparsedrive.models.completion.config import PublishedQuirks, ReconstructionConfig

CLOSED_GATE = -2.0  # as published: 0.12 at the start
MAX_LOG_VARIANCE = 8.0
GATE_SHARE = 4


class Reconstructed(NamedTuple):
    """Features after level 2, how much of each pixel is believed then, and the latent they were made of."""

    features: Float[Tensor, "B M S D"]
    confidence: Float[Tensor, "B M S"]
    mean: Float[Tensor, "B M S Z"]
    log_variance: Float[Tensor, "B M S Z"]


class ReconstructionLevel(nn.Module):
    """One pyramid level: encode features, their confidence and the pixels' directions, draw (in training) a latent, decode, blend."""

    def __init__(self, hidden_dim: int, dim: int, *, gated: bool) -> None:
        super().__init__()
        self.encoder = _block(dim + 4, hidden_dim)
        self.mean, self.log_variance = nn.Conv2d(hidden_dim, hidden_dim, 1), nn.Conv2d(hidden_dim, hidden_dim, 1)
        self.decoder = nn.Sequential(_block(hidden_dim, hidden_dim), small_start(nn.Conv2d(hidden_dim, dim, 1), deviation=0.01))
        self.gate = _gate(dim) if gated else None

    def forward(self, features: Tensor, confidence: Tensor, direction: Tensor, *, draw: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[N, D, H, W] with [N, 1, H, W] and [N, 3, H, W] -> features, confidence, mean and logarithm of the variance of the latent."""
        hidden = self.encoder(torch.cat([features, confidence, direction], dim=1))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if draw else mean
        decoded = self.decoder(latent)
        if self.gate is None:
            return decoded, torch.ones_like(confidence), mean, log_variance
        share = self.gate(torch.cat([features, decoded], dim=1)).sigmoid()
        return *revise(features, confidence, decoded, share), mean, log_variance


class Reconstruction(nn.Module):
    """All levels. What it gets counts, where the gate is closed; what it makes is believed as far as the gate is open."""

    def __init__(self, config: ReconstructionConfig, dim: int, num_levels: int, published: PublishedQuirks) -> None:
        super().__init__()
        self.published = published
        gated = not published.replaced_by_reconstruction
        self.levels = nn.ModuleList(ReconstructionLevel(config.hidden_dim, dim, gated=gated) for _ in range(num_levels))

    def forward(
        self,
        features: Float[Tensor, "B M S D"],
        confidence: Float[Tensor, "B M S"],
        direction: Float[Tensor, "B M S 3"],
        level_hw: tuple[int, ...],
    ) -> Reconstructed:
        """Every pixel of failed cameras; the latent is drawn while training, else its mean."""
        if self.published.replaced_by_reconstruction:
            features = features.detach()
        draw = self.training or self.published.sampled_latent
        rows = [split_levels(tensor, level_hw) for tensor in (features, confidence[..., None], direction)]
        made = []
        for index, ((height, width), *parts) in enumerate(zip(level_sizes(level_hw), *rows, strict=True)):
            pictures = (as_pictures(part, height, width) for part in parts)
            made.append([as_rows(part, features.shape[0]) for part in self.levels[index](*pictures, draw=draw)])
        blended, belief, mean, log_variance = (torch.cat(list(levels), dim=2) for levels in zip(*made, strict=True))
        return Reconstructed(blended, belief[..., 0], mean, log_variance)


def _block(in_dim: int, out_dim: int) -> nn.Sequential:
    groups = NORM_GROUPS if out_dim % NORM_GROUPS == 0 else 1
    return nn.Sequential(nn.Conv2d(in_dim, out_dim, 3, padding=1, bias=False), nn.GroupNorm(groups, out_dim), nn.ReLU(inplace=True))


def _gate(dim: int) -> nn.Sequential:
    hidden = max(1, dim // GATE_SHARE)
    return nn.Sequential(nn.Conv2d(2 * dim, hidden, 1), nn.ReLU(inplace=True), small_start(nn.Conv2d(hidden, 1, 1), 0.01, CLOSED_GATE))
