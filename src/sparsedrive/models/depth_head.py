"""Dense depth from image features: an auxiliary task that teaches the backbone distance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.structures import ImageFeatures

FOCAL_UNIT_PX = 100.0  # a camera of this focal length sees depth exp(conv)


@dataclass(frozen=True, kw_only=True)
class DepthHeadConfig:
    """Predicts on the `num_levels` finest levels."""

    num_levels: int = 3

    def __post_init__(self) -> None:
        if self.num_levels < 1:
            raise ValueError(f"DepthHeadConfig.num_levels: expected at least 1, got {self.num_levels}; leave the depth head out instead")

    def build(self, channels: int) -> "DepthHead":
        """A head with fresh weights for features of `channels`."""
        return DepthHead(self, channels)


class DepthHead(nn.Module):
    """One 1x1 convolution a level. Source: the dense depth branch of Sparse4D v2 (arXiv:2305.14018)."""

    def __init__(self, config: DepthHeadConfig, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in range(config.num_levels))

    def forward(self, features: ImageFeatures, focal_px: Float[Tensor, "B C"]) -> list[Float[Tensor, "BC 1 H W"]]:
        """Metres along the optical axis, finest level first; proportional to the focal length at equal appearance.

        Errors: ValueError if the pyramid has fewer levels than the head.
        """
        if features.num_levels < len(self.convs):
            raise ValueError(
                f"DepthHead: expected at least {len(self.convs)} feature levels, got {features.num_levels}; "
                "lower DepthHeadConfig.num_levels or raise FPNConfig.num_levels"
            )
        scale = focal_px.reshape(-1, 1, 1, 1) / FOCAL_UNIT_PX
        # float(): exp of a half-precision logit would be coarse
        return [conv(features.level(index).flatten(0, 1)).float().exp() * scale for index, conv in enumerate(self.convs)]
