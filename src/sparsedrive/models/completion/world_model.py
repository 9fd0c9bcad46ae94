"""An aid to training: a recurrent state goes around the car from camera to camera and says what each one's features are on average.

Source: the recurrent state space model of Dreamer (arXiv:1811.04551), over cameras in place of time as in Wu-didi/SparseDrive.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.models.completion.blocks import split_levels
from sparsedrive.models.completion.cameras import heading_rad
from sparsedrive.structures import CameraRig, ImageFeatures

HIDDEN, LATENT = 128, 32  # as published
MIN_VARIANCE = 1e-5


class WorldModel(nn.Module):
    """A camera that works is seen, one that failed is guessed from those before it. Nothing of it is used at test time."""

    def __init__(self, dim: int, num_levels: int) -> None:
        super().__init__()
        token = dim * num_levels
        self.observe = nn.Sequential(
            nn.Linear(token, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU()
        )
        self.prior, self.posterior = _two_layers(HIDDEN, 2 * LATENT), _two_layers(2 * HIDDEN, 2 * LATENT)
        self.turn = nn.GRUCell(LATENT, HIDDEN)
        self.decode = _two_layers(HIDDEN + LATENT, token)

    def forward(self, images: ImageFeatures, rig: CameraRig) -> tuple[Float[Tensor, "B C T"], Float[Tensor, "B"]]:
        """Mean features of every level of every camera side by side, as imagined; and by how much seeing changes the guess (divergence of
        posterior and prior, mean over the cameras that work)."""
        observed = self.observe(mean_features(images))
        order = heading_rad(rig.image_T_ego).argsort(dim=1)
        state = observed.new_zeros(observed.shape[0], HIDDEN)
        stream = torch.arange(observed.shape[0], device=observed.device)
        imagined, divergence = [], []
        for camera in order.unbind(1):
            seen = rig.available[stream, camera]
            guessed = _gaussian(self.prior(state))
            looked = _gaussian(self.posterior(torch.cat([state, observed[stream, camera]], dim=-1)))
            mean, variance = (torch.where(seen[:, None], *pair) for pair in zip(looked, guessed, strict=True))
            latent = mean + variance.sqrt() * torch.randn_like(mean)
            state = self.turn(latent, state)
            imagined.append(self.decode(torch.cat([state, latent], dim=-1)))
            divergence.append(_divergence(looked, guessed) * seen)
        back = order.argsort(dim=1)[..., None].expand(-1, -1, imagined[0].shape[-1])
        return torch.stack(imagined, dim=1).gather(1, back), torch.stack(divergence).sum(0) / _count(rig.available)


def mean_features(images: ImageFeatures) -> Float[Tensor, "B C T"]:
    """Mean over the pixels of each level, all levels of a camera side by side."""
    return torch.cat([level.mean(dim=-2) for level in split_levels(images.packed, images.level_hw)], dim=-1)


def _count(available: Bool[Tensor, "B C"]) -> Float[Tensor, "B"]:
    return available.sum(dim=1).clamp(min=1).float()


def _gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance."""
    mean, log_variance = parameters.chunk(2, dim=-1)
    return mean, log_variance.exp().clamp(min=MIN_VARIANCE)


def _divergence(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Float[Tensor, "B"]:
    """Kullback-Leibler divergence of q from p, summed over dimensions."""
    ratio = p[1] / q[1]
    return 0.5 * ((p[0] - q[0]).square() / q[1] + ratio - 1 - ratio.log()).sum(-1)


def _two_layers(in_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, out_dim))
