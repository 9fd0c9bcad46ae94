"""Blocks that sparse networks are built of. Parameter names are those of mit-han-lab/spvnas (`net`, `downsample`)."""

from torch import nn

from sparsedrive.sparse.activation import ReLU
from sparsedrive.sparse.config import ConvConfig
from sparsedrive.sparse.conv import Conv3d, Size
from sparsedrive.sparse.norm import BatchNorm
from sparsedrive.sparse.tensor import SparseTensor


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU. `transposed` undoes the convolution that made the cells; `config` is the convolution's."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size = 3, stride: Size = 1, *, transposed: bool = False,
        config: ConvConfig | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        conv = Conv3d(in_channels, out_channels, kernel_size, stride, transposed=transposed, config=config)
        self.net = nn.Sequential(conv, BatchNorm(out_channels), ReLU())

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features of the same cells, or of those the stride leads to."""
        return self.net(x)


class ResidualBlock(nn.Module):
    """Two 3x3x3 submanifold convolutions around a shortcut: the features themselves, or a pointwise convolution of them.

    Args:
        always_project: project the shortcut even where the number of channels stays the same.
    """

    def __init__(self, in_channels: int, out_channels: int, *, always_project: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(
            Conv3d(in_channels, out_channels, 3),
            BatchNorm(out_channels),
            ReLU(),
            Conv3d(out_channels, out_channels, 3),
            BatchNorm(out_channels),
        )
        project = always_project or in_channels != out_channels
        self.downsample = nn.Sequential(Conv3d(in_channels, out_channels, 1), BatchNorm(out_channels)) if project else nn.Identity()
        self.relu = ReLU()

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features of the same cells."""
        return self.relu(self.net(x) + self.downsample(x))


def residual_blocks(in_channels: int, out_channels: int, count: int, *, always_project: bool = False) -> list[ResidualBlock]:
    """Blocks one after the other; the first changes the number of channels (and projects), the others keep it."""
    first = ResidualBlock(in_channels, out_channels, always_project=always_project)
    return [first, *(ResidualBlock(out_channels, out_channels) for _ in range(count - 1))]
