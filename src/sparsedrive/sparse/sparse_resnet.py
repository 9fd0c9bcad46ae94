"""SparseResNet21D: a residual backbone of 21 sparse convolutions, down to an eighth of the resolution.

Source: backbones of mit-han-lab/torchsparse.
"""

from torch import nn

from sparsedrive.sparse.blocks import ConvBlock, ResidualBlock
from sparsedrive.sparse.conv import Size
from sparsedrive.sparse.tensor import SparseTensor

STAGES: tuple[tuple[int, int, Size, Size], ...] = (
    (3, 16, 3, 1),
    (3, 32, 3, 2),
    (3, 64, 3, 2),
    (3, 128, 3, 2),
    (1, 128, (1, 3, 1), (1, 2, 1)),
)
"""Layers, channels, kernel and stride of the first layer. The others are residual blocks."""


class SparseResNet21D(nn.Module):
    """Five stages, each a (strided) convolution and residual blocks.

    Args:
        in_channels: features of the input.
        width: multiplies all channels.
    """

    def __init__(self, in_channels: int = 4, width: float = 1.0) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before = in_channels
        for layers, channels, kernel_size, stride in STAGES:
            after = int(width * channels)
            blocks = [ResidualBlock(after, after) for _ in range(layers - 1)]
            self.stages.append(nn.Sequential(ConvBlock(before, after, kernel_size, stride), *blocks))
            before = after

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, ...]:
        """Outputs of the five stages."""
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)
