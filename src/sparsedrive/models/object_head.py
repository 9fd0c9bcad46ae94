"""What stands where in the pictures, pixel by pixel: a task that teaches the backbone objects, and boxes for instances to start from."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from sparsedrive.structures import ImageFeatures, ObjectMap

PRIOR = 0.01  # share of pixels believed to be of a class before training
GEOMETRY_DIM = 8
BELIEVED = 0.5


@dataclass(frozen=True, kw_only=True)
class ObjectHeadConfig:
    """Predicts on the pyramid levels `levels`, 0 the finest.

    `num_proposals`: so many detection instances start from boxes seen on the first of the levels (`proposals.propose`) instead of from
    the last anchors; with 0 the head only teaches.
    """

    levels: tuple[int, ...] = (1, 2)
    num_classes: int = 10
    num_proposals: int = 0

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 0:
            raise ValueError(f"ObjectHeadConfig.levels: expected pyramid levels from 0, got {self.levels}; leave the head out instead")

    def build(self, channels: int) -> "ObjectHead":
        """A head with fresh weights for features of `channels`."""
        return ObjectHead(self, channels)


class ObjectHead(nn.Module):
    """Two layers for all levels.

    A query learns from the few objects it is matched to, a pixel from every picture. Sparse4D's published models start from a
    backbone trained so (FCOS3D, arXiv:2104.10956); StreamPETR (arXiv:2303.11926) trains a two-dimensional head along.
    """

    def __init__(self, config: ObjectHeadConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.linear = nn.Linear(channels, config.num_classes + GEOMETRY_DIM)
        with torch.no_grad():
            self.linear.bias.zero_()
            self.linear.bias[: config.num_classes] = -torch.tensor((1 - PRIOR) / PRIOR).log()

    def forward(self, features: ImageFeatures, available: Bool[Tensor, "B C"]) -> list[ObjectMap]:
        """One map a level.

        Errors: ValueError if the pyramid has fewer levels than the head looks at.
        """
        if features.num_levels <= max(self.config.levels):
            raise ValueError(
                f"ObjectHead: expected more than {max(self.config.levels)} feature levels, got {features.num_levels}; "
                "change ObjectHeadConfig.levels or FPNConfig.num_levels"
            )
        maps = []
        for level in self.config.levels:
            level_features = features.level(level)
            hidden = self.conv(level_features.flatten(0, 1)).relu().unflatten(0, level_features.shape[:2])
            logits, geometry = self.linear(hidden.movedim(2, -1)).split([self.config.num_classes, GEOMETRY_DIM], dim=-1)
            belief = features.level_confidence(level)
            shown = available[:, :, None, None].expand(logits.shape[:-1]) if belief is None else belief > BELIEVED
            maps.append(ObjectMap(class_logits=logits, geometry=geometry, shown=shown, level=level))
        return maps
