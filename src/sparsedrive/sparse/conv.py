"""Conv3d: submanifold, strided, inverse and generative sparse convolution in one layer."""

import math

import torch
from torch import Tensor, nn

from sparsedrive.sparse import functional
from sparsedrive.sparse.config import ConvConfig
from sparsedrive.sparse.functional import Size, triple
from sparsedrive.sparse.tensor import SparseTensor

__all__ = ["Conv3d", "Size"]


class Conv3d(nn.Module):
    """Sparse 3D convolution. Parameters and their order are TorchSparse's; everything after `stride` is keyword-only.

    - stride 1: submanifold, outputs at the inputs (`submanifold=False`: at every cell the kernel reaches, spconv's SparseConv3d).
    - stride > 1: at the cells `config.downsample_mode` says.
    - `transposed`: inverse of the convolution that made the input's cells (same kernel size, stride, dilation): its input's cells come
      back in their order. Cat and add with features from there just work.
    - `transposed` and `generative`: a transposed convolution that makes new cells.

    With spconv's rule `y[q] += x[q * stride - padding + j * dilation] @ kernel[j]` (cross-correlation); the transposed forms use the same
    kernel, not flipped: `y[q * stride - padding + j * dilation] += x[q] @ kernel[j]`. kernel is [K, in, out] with j = (jx, jy, jz) in
    this order: x fastest if K = kx ky kz is odd, z fastest if it is even. [in, out] where kernel size and stride are 1.

    Args:
        in_channels, out_channels: features a cell.
        kernel_size, stride: one number, or one each for x, y, z.
        padding: of strided, not submanifold and generative convolutions. Taken as given (TorchSparse silently replaces it by
            (k - 1) / 2 on axes of odd kernel and stride 1).
        dilation: distance between kernel places, in cells.
        bias: learn a number a channel that is added.
        submanifold: None decides by the stride; False for a convolution of stride 1 that makes new cells.
        transposed, generative: see above.
        config: rules and dataflow of this layer; None for what `use_config` says when it runs.

    Raises:
        ValueError: sizes are not positive, or the options contradict each other.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        *,
        padding: Size = 0,
        dilation: Size = 1,
        bias: bool = False,
        submanifold: bool | None = None,
        transposed: bool = False,
        generative: bool = False,
        config: ConvConfig | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = triple(kernel_size, "Conv3d.kernel_size"), triple(stride, "Conv3d.stride")
        self.padding, self.dilation = triple(padding, "Conv3d.padding"), triple(dilation, "Conv3d.dilation")
        self.submanifold, self.transposed, self.generative, self.config = submanifold, transposed, generative, config
        self._check()
        volume = math.prod(self.kernel_size)
        # TorchSparse's layout: checkpoints have a matrix where a single offset meets the cell itself.
        is_matrix = volume == 1 and self.stride == (1, 1, 1)
        self.kernel = nn.Parameter(torch.empty(*(() if is_matrix else (volume,)), in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def _check(self) -> None:
        positive = (*self.kernel_size, *self.stride, *self.dilation, self.in_channels, self.out_channels)
        if min(positive) < 1 or min(self.padding) < 0:
            raise ValueError(f"Conv3d: expected positive sizes and a padding of at least 0, got {self.extra_repr()}; correct the arguments")
        if self.generative and not self.transposed:
            raise ValueError("Conv3d.generative: expected it with transposed=True, got it alone; say transposed=True too")
        if self.submanifold and (self.stride != (1, 1, 1) or self.transposed):
            raise ValueError("Conv3d.submanifold: expected stride 1 and not transposed, got other; leave submanifold out")

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(K * channels), of the input (of the output if transposed), as TorchSparse starts."""
        channels = self.out_channels if self.transposed else self.in_channels
        bound = 1 / math.sqrt(math.prod(self.kernel_size) * channels)
        with torch.no_grad():
            for parameter in self.parameters(recurse=False):
                parameter.uniform_(-bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """See the class.

        Raises:
            ValueError: channels differ; coordinates are outside the range or twice there; there is no convolution to invert.
        """
        kernel: Tensor = self.kernel
        if x.feats.shape[1] != self.in_channels:
            raise ValueError(f"Conv3d: expected {self.in_channels} channels, got {x.feats.shape[1]}; the layers before give others")
        return functional.conv3d(
            x,
            kernel,
            self.bias,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            submanifold=self.submanifold,
            transposed=self.transposed,
            generative=self.generative,
            config=self.config,
        )

    def extra_repr(self) -> str:
        """Arguments, those with a default only if they differ."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for name, default in (("padding", (0, 0, 0)), ("dilation", (1, 1, 1)), ("submanifold", None), ("config", None)):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        parts += [name for name in ("transposed", "generative") if getattr(self, name)]
        return ", ".join(parts)
