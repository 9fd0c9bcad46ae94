"""SparseEncoder: from voxels of a LiDAR sweep to a picture from above, as in SECOND, CenterPoint and BEVFusion.

Source: Yan et al., SECOND (Sensors 2018); Yin et al., CenterPoint (arXiv:2006.11275); Liu et al., BEVFusion (arXiv:2205.13542). Layers
and names of the parameters of open-mmlab/mmdetection3d.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.sparse.activation import ReLU
from sparsedrive.sparse.conv import Conv3d
from sparsedrive.sparse.norm import BatchNorm
from sparsedrive.sparse.tensor import SparseTensor

Axes = Literal["zyx", "xyz"]
Triple = tuple[int, int, int]
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01
CONV_MODULE_WIDTHS = ((16,), (32, 32, 32), (64, 64, 64), (64, 64, 64))
BASIC_BLOCK_WIDTHS = ((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128))


@dataclass(frozen=True, kw_only=True)
class SparseEncoderConfig:
    """Layers of an encoder; `second`, `centerpoint` and `bevfusion` give the published ones.

    Attributes:
        block: "conv_module" (convolutions; the first of stages 2 to 4 is strided) or "basicblock" (residual blocks; the last entry of
            stages 1 to 3 is a strided convolution).
        axes: what the three axes of the coordinates are. Height is halved once more at the end and becomes channels.
        widths: channels of the layers of the four stages.
    """

    in_channels: int = 5
    block: Literal["conv_module", "basicblock"] = "basicblock"
    axes: Axes = "zyx"
    widths: tuple[tuple[int, ...], ...] = BASIC_BLOCK_WIDTHS
    base_channels: int = 16
    out_channels: int = 128

    def __post_init__(self) -> None:
        if self.block not in ("conv_module", "basicblock"):
            raise ValueError(f"SparseEncoderConfig.block: expected conv_module or basicblock, got {self.block!r}; choose one of these")
        if self.axes not in ("zyx", "xyz"):
            raise ValueError(f"SparseEncoderConfig.axes: expected zyx or xyz, got {self.axes!r}; name the axes of the coordinates")
        if len(self.widths) != 4 or not all(self.widths):
            raise ValueError(f"SparseEncoderConfig.widths: expected four stages with a layer or more each, got {self.widths}")

    def along_axes(self, height: int, ground: int) -> Triple:
        """A setting for the height and one for the two ground axes, in the order of the axes."""
        return (height, ground, ground) if self.axes == "zyx" else (ground, ground, height)


def second(in_channels: int = 4) -> SparseEncoderConfig:
    """Of SECOND as in mmdetection3d: plain convolutions, coordinates (batch, z, y, x)."""
    return SparseEncoderConfig(in_channels=in_channels, block="conv_module", widths=CONV_MODULE_WIDTHS)


def centerpoint(in_channels: int = 5) -> SparseEncoderConfig:
    """Of CenterPoint as in mmdetection3d: residual blocks, coordinates (batch, z, y, x)."""
    return SparseEncoderConfig(in_channels=in_channels)


def bevfusion(in_channels: int = 5) -> SparseEncoderConfig:
    """Of BEVFusion: residual blocks, coordinates (batch, x, y, z)."""
    return SparseEncoderConfig(in_channels=in_channels, axes="xyz")


class SparseBasicBlock(nn.Module):
    """Two submanifold convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = Conv3d(channels, channels, 3), _norm(channels)
        self.conv2, self.bn2 = Conv3d(channels, channels, 3), _norm(channels)
        self.relu = ReLU()

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features of the same cells."""
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class SparseEncoder(nn.Module):
    """Sparse convolutions down to an eighth of the resolution, a sixteenth in height; then a dense map, height among its channels."""

    def __init__(self, config: SparseEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_input = conv_norm_relu(config.in_channels, config.base_channels)
        self.encoder_layers = nn.Sequential()
        channels = config.base_channels
        for number, widths in enumerate(config.widths, 1):
            layers = nn.Sequential()
            for place, width in enumerate(widths):
                layers.append(self._layer(number, place, channels, width))
                channels = width
            self.encoder_layers.add_module(f"encoder_layer{number}", layers)
        kernel, stride = config.along_axes(3, 1), config.along_axes(2, 1)
        self.conv_out = conv_norm_relu(channels, config.out_channels, kernel, stride)

    def _layer(self, stage: int, place: int, before: int, after: int) -> nn.Module:
        """Layer `place` of a stage that counts from 1. The third halving does not pad the height: 11 becomes 5."""
        last = len(self.config.widths[stage - 1]) - 1
        if self.config.block == "conv_module":
            halving, strided = stage - 1, stage > 1 and place == 0
        else:
            halving, strided = stage, stage < 4 and place == last
        if strided:
            return conv_norm_relu(before, after, (3, 3, 3), (2, 2, 2), self.config.along_axes(int(halving < 3), 1))
        if self.config.block == "conv_module":
            return conv_norm_relu(before, after)
        if before != after:
            raise ValueError(f"SparseEncoderConfig.widths: a residual block keeps its channels, got {before} and {after} in stage {stage}")
        return SparseBasicBlock(after)

    def stages(self, x: SparseTensor) -> tuple[SparseTensor, ...]:
        """Outputs of the four stages and of the last convolution."""
        outputs = []
        x = self.conv_input(x)
        for layers in self.encoder_layers:
            x = layers(x)
            outputs.append(x)
        return (*outputs, self.conv_out(x))

    def forward(self, x: SparseTensor) -> Float[Tensor, "B CD H W"]:
        """The map from above: [B, channels x heights, Y, X] for axes zyx, [B, channels x heights, X, Y] for xyz.

        Args:
            x: voxels with their `spatial_range`; 41 cells of height become 2.
        """
        grid = self.stages(x)[-1].dense()
        if self.config.axes == "xyz":
            grid = grid.movedim(4, 2)
        return grid.flatten(1, 2)


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: Triple = (3, 3, 3), stride: Triple = (1, 1, 1), padding: Triple = (0, 0, 0)
) -> nn.Sequential:
    """Convolution (submanifold with stride 1), batch norm, ReLU."""
    return nn.Sequential(Conv3d(in_channels, out_channels, kernel_size, stride, padding=padding), _norm(out_channels), ReLU())


def _norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
