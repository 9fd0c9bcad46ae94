"""The sparse U-Net of point cloud segmentation: MinkUNet, and the same network without classifier as a backbone.

Source: Choy et al., 4D Spatio-Temporal ConvNets (arXiv:1904.08755); widths, and names of the parameters, of mit-han-lab/spvnas.
"""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.sparse.activation import ReLU
from sparsedrive.sparse.blocks import ConvBlock, residual_blocks
from sparsedrive.sparse.config import ConvConfig
from sparsedrive.sparse.conv import Conv3d
from sparsedrive.sparse.norm import BatchNorm
from sparsedrive.sparse.tensor import SparseTensor, cat

LEVELS = 4
WIDTHS = (32, 32, 64, 128, 256, 256, 128, 96, 96)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Size of a U-Net with four levels.

    Attributes:
        widths: channels after the stem, the four stages down, and the four stages up.
        depths: residual blocks of the eight stages, 1 or more each.
        always_project: whether the first block of each stage projects its shortcut even where the number of channels stays.
        num_classes: of networks with a classifier.
        halving: rules of the strided convolutions. By default cell q holds the cells 2q and 2q + 1 on every axis, whatever the batch, so
            every cell has a parent, negative ones too. None: what `use_config` says; by spconv's rule the last odd row is lost.
    """

    in_channels: int = 4
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = (2,) * (2 * LEVELS)
    always_project: bool = False
    num_classes: int = 19
    halving: ConvConfig | None = field(default_factory=lambda: ConvConfig(downsample_mode="minkowski"))

    def __post_init__(self) -> None:
        if len(self.widths) != 2 * LEVELS + 1 or min(self.widths) < 1:
            raise ValueError(f"UNetConfig.widths: expected nine numbers > 0, got {self.widths}; stem, four stages down, four up")
        if len(self.depths) != 2 * LEVELS or min(self.depths) < 1:
            raise ValueError(f"UNetConfig.depths: expected eight numbers > 0, got {self.depths}; four stages down, four up")
        if self.in_channels < 1 or self.num_classes < 1:
            got = f"{self.in_channels} channels, {self.num_classes} classes"
            raise ValueError(f"UNetConfig: expected at least one channel and class, got {got}; give positive numbers")


def scaled_widths(ratio: float) -> tuple[int, ...]:
    """The published widths times a ratio, rounded down; 0.5, 0.64 and 1.0 are the published "cr"."""
    return tuple(int(ratio * width) for width in WIDTHS)


class SparseResUNet42(nn.Module):
    """U-Net backbone: a stem at full resolution, four stages of half the resolution each, and four back up to the cells of the input."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, depths = config.widths, config.depths
        first = [Conv3d(config.in_channels, widths[0], 3), BatchNorm(widths[0]), ReLU()]
        self.stem = nn.Sequential(*first, Conv3d(widths[0], widths[0], 3), BatchNorm(widths[0]), ReLU())
        self.stage1, self.stage2, self.stage3, self.stage4 = (self._down(i, depths[i]) for i in range(LEVELS))
        self.up1, self.up2, self.up3, self.up4 = (self._up(i, depths[LEVELS + i]) for i in range(LEVELS))

    def _down(self, level: int, depth: int) -> nn.Sequential:
        before, after = self.config.widths[level : level + 2]
        blocks = residual_blocks(before, after, depth, always_project=self.config.always_project)
        return nn.Sequential(ConvBlock(before, before, 2, 2, config=self.config.halving), *blocks)

    def _up(self, level: int, depth: int) -> nn.ModuleList:
        before, after = self.config.widths[LEVELS + level : LEVELS + level + 2]
        skipped = self.config.widths[LEVELS - 1 - level]
        blocks = residual_blocks(after + skipped, after, depth, always_project=self.config.always_project)
        return nn.ModuleList([ConvBlock(before, after, 2, 2, transposed=True), nn.Sequential(*blocks)])

    def encode(self, x: SparseTensor) -> tuple[SparseTensor, ...]:
        """Stem and four stages, strides 1, 2, 4, 8, 16."""
        outputs = [self.stem(x)]
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            outputs.append(stage(outputs[-1]))
        return tuple(outputs)

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, ...]:
        """Stem, four stages down, four stages up: strides 1, 2, 4, 8, 16, 8, 4, 2, 1. The last has the cells of the input."""
        outputs = list(self.encode(x))
        for stage, skipped in zip((self.up1, self.up2, self.up3, self.up4), outputs[LEVELS - 1 :: -1], strict=True):
            outputs.append(up(stage, outputs[-1], skipped))
        return tuple(outputs)


def up(stage: nn.ModuleList, x: SparseTensor, skipped: SparseTensor) -> SparseTensor:
    """One stage up: back to the cells of `skipped`, its features beside, residual blocks."""
    rise, blocks = stage
    return blocks(cat([rise(x), skipped]))


class MinkUNet(SparseResUNet42):
    """The U-Net with a linear classifier on the cells of the input."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Sequential(nn.Linear(config.widths[-1], config.num_classes))

    def forward(self, x: SparseTensor) -> Float[Tensor, "N classes"]:  # type: ignore[override]
        """Class logits, one row a cell of the input."""
        return self.classifier(super().forward(x)[-1].feats)
