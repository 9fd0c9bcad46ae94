"""Layers under the names that configuration files use, with SpConv's arguments, for registries that build layers by name.

    for name, layer in LAYERS.items():
        MODELS.register_module(name=name, module=layer, force=True)   # mmengine, mmdetection3d

`SparseTensor` takes the place of SpConv's tensor there: coordinates (batch, then the axes in the order of the weights), features.
"""

from typing import Any

from torch import nn

from sparsedrive.sparse import functional
from sparsedrive.sparse.activation import LeakyReLU, ReLU, SiLU
from sparsedrive.sparse.conv import Conv3d, Size
from sparsedrive.sparse.norm import BatchNorm, GroupNorm, InstanceNorm, SyncBatchNorm
from sparsedrive.sparse.tensor import SparseTensor


class SubMConv3d(Conv3d):
    """SpConv's submanifold convolution. `indice_key` and `algo` are accepted and not needed: maps are found by what they depend on."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0, dilation: Size = 1,
        groups: int = 1, bias: bool = True, indice_key: str | None = None, algo: Any = None,
    ) -> None:  # fmt: skip
        _check_groups(groups)
        super().__init__(in_channels, out_channels, kernel_size, 1, dilation=dilation, bias=bias)


class SparseConv3d(Conv3d):
    """SpConv's convolution: every cell the kernel reaches, with stride 1 too. `indice_key` and `algo` are not needed."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0, dilation: Size = 1,
        groups: int = 1, bias: bool = True, indice_key: str | None = None, algo: Any = None,
    ) -> None:  # fmt: skip
        _check_groups(groups)
        spreads = False if functional.triple(stride, "SparseConv3d.stride") == (1, 1, 1) else None
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding=padding, dilation=dilation, bias=bias, submanifold=spreads
        )  # fmt: skip


class SparseConvTranspose3d(Conv3d):
    """SpConv's transposed convolution, which makes new cells."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0, dilation: Size = 1,
        groups: int = 1, bias: bool = True, indice_key: str | None = None, algo: Any = None,
    ) -> None:  # fmt: skip
        _check_groups(groups)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding=padding, dilation=dilation, bias=bias, transposed=True, generative=True
        )  # fmt: skip


class SparseInverseConv3d(Conv3d):
    """SpConv's inverse convolution: undoes the convolution that made the input's cells, whatever its stride was."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, indice_key: str | None = None, bias: bool = True, algo: Any = None
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, bias=bias, transposed=True)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features at the cells before. ValueError where no convolution with this kernel made the input's."""
        if not x.site:
            raise ValueError(
                "SparseInverseConv3d: expected cells made by a convolution, got those the graph began with; use SparseConvTranspose3d"
            )
        _, _, stride, _, dilation, _ = x.site[-1]
        return functional.conv3d(
            x, self.kernel, self.bias, kernel_size=self.kernel_size, stride=stride, dilation=dilation, transposed=True, config=self.config
        )  # fmt: skip


def _check_groups(groups: int) -> None:
    if groups != 1:
        raise ValueError(f"groups: expected 1, got {groups}; convolutions with groups are not there")


LAYERS: dict[str, type[nn.Module]] = {
    "SubMConv3d": SubMConv3d,
    "SparseConv3d": SparseConv3d,
    "SparseConvTranspose3d": SparseConvTranspose3d,
    "SparseInverseConv3d": SparseInverseConv3d,
    "TorchSparseConv3d": Conv3d,
    "TorchSparseBatchNorm": BatchNorm,
    "TorchSparseSyncBatchNorm": SyncBatchNorm,
    "TorchSparseGroupNorm": GroupNorm,
    "TorchSparseInstanceNorm": InstanceNorm,
    "TorchSparseReLU": ReLU,
    "TorchSparseLeakyReLU": LeakyReLU,
    "TorchSparseSiLU": SiLU,
}
"""The first four have SpConv's arguments in SpConv's order; the others ours, keyword-only after the stride, so that arguments in the
order of TorchSparse 1.4 are an error and not another layer."""
