"""GridMask: hide a regular grid of squares, so that no object is known by one of its parts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class GridMaskConfig:
    """`probability` of masking a forward pass; `kept_ratio`: share of each period that is a kept stripe, in rows and in columns."""

    probability: float = 0.7
    kept_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"GridMaskConfig.probability: expected 0 to 1, got {self.probability}; 0.7 is published")
        if not 0.0 < self.kept_ratio < 1.0:
            raise ValueError(f"GridMaskConfig.kept_ratio: expected between 0 and 1, got {self.kept_ratio}; 0.5 hides a quarter")

    def build(self) -> "GridMask":
        """The augmentation."""
        return GridMask(self)


class GridMask(nn.Module):
    """In training, sets squares of all images to 0: one period and position for the whole batch, drawn anew at every pass.

    The period is 2 to H - 1 pixels; a row or column stripe of `kept_ratio` of it is kept, the squares between the stripes go:
    about (1 - kept_ratio)^2 of the picture. Normalised images: 0 is the mean colour.
    Source: arXiv:2001.04086, in the inverted mode and without rotation, as SparseDrive uses it.
    """

    def __init__(self, config: GridMaskConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Float[Tensor, "*batch H W"], generator: torch.Generator | None = None) -> Float[Tensor, "*batch H W"]:
        """`generator` must live on the images' device; None takes that device's default one."""
        if not self.training:
            return images
        height, width = images.shape[-2:]
        chance, size, row, column = torch.rand(4, device=images.device, generator=generator).unbind()
        period = 2 + (size * (height - 2)).floor()
        stripe = (period * self.config.kept_ratio + 0.5).floor().clamp(min=1).minimum(period - 1)
        rows = self._in_stripe(height, row, period, stripe)
        columns = self._in_stripe(width, column, period, stripe)
        hidden = ~(rows[:, None] | columns) & (chance < self.config.probability)
        return images.masked_fill(hidden, 0)

    @staticmethod
    def _in_stripe(length: int, shift: Tensor, period: Tensor, stripe: Tensor) -> Tensor:
        """Which of `length` rows or columns are kept, the stripes moved by `shift` of a period."""
        position = torch.arange(length, device=shift.device) + (shift * period).floor()
        return position.remainder(period) < stripe
