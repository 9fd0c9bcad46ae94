"""Pooling over active cells."""

from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.sparse import functional
from sparsedrive.sparse.config import ConvConfig
from sparsedrive.sparse.functional import Size, triple
from sparsedrive.sparse.tensor import SparseTensor


class _Pool3d(nn.Module):
    def __init__(
        self, kernel_size: Size, stride: Size | None = None, *, padding: Size = 0, dilation: Size = 1, config: ConvConfig | None = None
    ) -> None:
        super().__init__()
        self.kernel_size = triple(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else triple(stride, "stride")
        self.padding, self.dilation, self.config = triple(padding, "padding"), triple(dilation, "dilation"), config


class MaxPool3d(_Pool3d):
    """Largest value over the active cells under the kernel (spconv's takes the larger of that and 0). See `functional.max_pool3d`."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Output cells as of a convolution of the same numbers."""
        return functional.max_pool3d(x, self.kernel_size, self.stride, self.padding, self.dilation, config=self.config)


class AvgPool3d(_Pool3d):
    """Mean over the active cells under the kernel. See `functional.avg_pool3d`."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Output cells as of a convolution of the same numbers."""
        return functional.avg_pool3d(x, self.kernel_size, self.stride, self.padding, self.dilation, config=self.config)


class GlobalAvgPool(nn.Module):
    """Mean over each sample's cells, zeros for an empty sample."""

    def forward(self, x: SparseTensor) -> Float[Tensor, "B C"]:
        """A dense row a sample."""
        return functional.global_avg_pool(x)


class GlobalMaxPool(nn.Module):
    """Largest value over each sample's cells, zeros for an empty sample."""

    def forward(self, x: SparseTensor) -> Float[Tensor, "B C"]:
        """A dense row a sample."""
        return functional.global_max_pool(x)
