"""ResNet backbones in plain PyTorch; parameter names are torchvision's, so its ImageNet weights load as they are (without `fc`)."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparsedrive.layers.deformable_conv import DeformableConv2d

IMAGENET_STD_RGB = (58.395, 57.12, 57.375)
"""What the images of this library were divided by."""
_BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """`checkpoint_activations` trades time for memory in training. `frozen_stages`: -1 none, 0 the stem, n the stem and n stages.

    `width`: channels of the stem; the stages have 1, 2, 4 and 8 times as many. 64 is the published network.
    `caffe`: the older variant of Sparse4D v1: strides in the first convolution of a block, and pictures (normalised as for all networks of
    this library) are turned to BGR grey levels around their mean. `deformable_stages`: so many of the last stages have deformable 3x3
    convolutions. `frozen_norms`: no batch norm learns.
    """

    depth: int = 50
    width: int = 64
    checkpoint_activations: bool = False
    frozen_stages: int = -1
    caffe: bool = False
    deformable_stages: int = 0
    frozen_norms: bool = False

    def __post_init__(self) -> None:
        if self.depth not in _BLOCKS_PER_STAGE:
            raise ValueError(f"ResNetConfig.depth: expected one of {sorted(_BLOCKS_PER_STAGE)}, got {self.depth}; choose one of these")
        if self.width < 1:
            raise ValueError(f"ResNetConfig.width: expected at least 1, got {self.width}; 64 is the published network")
        if not -1 <= self.frozen_stages <= 4:
            raise ValueError(f"ResNetConfig.frozen_stages: expected -1 (none) to 4 (all), got {self.frozen_stages}; -1 trains everything")
        if not 0 <= self.deformable_stages <= 4:
            raise ValueError(f"ResNetConfig.deformable_stages: expected 0 (none) to 4 (all), got {self.deformable_stages}; v1 has 2")
        if self.depth < 50 and (self.caffe or self.deformable_stages):
            raise ValueError(
                f"ResNetConfig: expected caffe=False and deformable_stages=0 with depth {self.depth}; both need depth 50 or 101"
            )

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the four stages, strides 4, 8, 16, 32."""
        expansion = BasicBlock.expansion if self.depth < 50 else Bottleneck.expansion
        return tuple(times * self.width * expansion for times in (1, 2, 4, 8))

    def build(self) -> "ResNet":
        """A network with fresh weights."""
        return ResNet(self)


class ResNet(nn.Module):
    """Images [B, 3, H, W] -> outputs of the four stages, strides 4, 8, 16, 32.

    Source: arXiv:1512.03385, with the stride in the 3x3 convolution as torchvision does.
    """

    std_rgb: Tensor

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.register_buffer("std_rgb", torch.tensor(IMAGENET_STD_RGB)[:, None, None], persistent=False)
        inputs, counts = (width, *config.out_channels), _BLOCKS_PER_STAGE[config.depth]
        self.layer1 = _stage(config, 0, inputs[0], width, counts[0])
        self.layer2 = _stage(config, 1, inputs[1], 2 * width, counts[1])
        self.layer3 = _stage(config, 2, inputs[2], 4 * width, counts[2])
        self.layer4 = _stage(config, 3, inputs[3], 8 * width, counts[3])
        self._initialise()
        for module in self._frozen_modules():
            module.requires_grad_(False).eval()

    @property
    def stages(self) -> list[nn.Sequential]:
        """The four stages in order."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def train(self, mode: bool = True) -> "ResNet":
        """Frozen stages stay in evaluation mode: their batch statistics are fixed too."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        if self.config.caffe:
            images = (images * self.std_rgb).flip(1)
        value = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        # only training holds activations for a backward pass
        with_checkpoints = self.config.checkpoint_activations and self.training and torch.is_grad_enabled()
        outputs = []
        for stage in self.stages:
            for block in stage:
                value = checkpointed(block, value) if with_checkpoints else block(value)
            outputs.append(value)
        return outputs

    def _frozen_modules(self) -> list[nn.Module]:
        frozen = self.config.frozen_stages
        norms: list[nn.Module] = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        return (norms if self.config.frozen_norms else []) + ([] if frozen < 0 else [self.conv1, self.bn1, *self.stages[:frozen]])

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, DeformableConv2d):
                module.start_unmoved()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18, 34)."""

    expansion = 1

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, value: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, width, H / stride, W / stride]."""
        shortcut = value if self.downsample is None else self.downsample(value)
        value = self.relu(self.bn1(self.conv1(value)))
        return self.relu(self.bn2(self.conv2(value)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (ResNet-50, 101). `stride_first`, `deformable`: see `ResNetConfig`."""

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int, stride_first: bool = False, deformable: bool = False) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2: nn.Conv2d
        if deformable:
            self.conv2 = DeformableConv2d(width, width, 3, stride=second, padding=1)
        else:
            self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, value: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, 4 * width, H / stride, W / stride]."""
        shortcut = value if self.downsample is None else self.downsample(value)
        value = self.relu(self.bn1(self.conv1(value)))
        value = self.relu(self.bn2(self.conv2(value)))
        return self.relu(self.bn3(self.conv3(value)) + shortcut)


def checkpointed(block: nn.Module, value: Tensor) -> Tensor:
    """`block(value)` that keeps no activations and recomputes them in the backward pass, batch statistics updated once."""
    if torch.compiler.is_compiling():  # the compiler keeps side effects out of what it recomputes
        return checkpoint(block, value, use_reentrant=False, preserve_rng_state=False)
    return checkpoint(block, value, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), _buffers_kept(block)))


@contextmanager
def _buffers_kept(block: nn.Module) -> Iterator[None]:
    """Whatever runs inside leaves the buffers as they were."""
    kept = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            # .data: autograd holds the buffers from the first pass and would take a counted write for an error
            buffer.data.copy_(value)


def _stage(config: ResNetConfig, index: int, channels: int, width: int, count: int) -> nn.Sequential:
    deformable = index >= len(_BLOCKS_PER_STAGE[config.depth]) - config.deformable_stages

    def block(channels: int, stride: int) -> nn.Module:
        if config.depth < 50:
            return BasicBlock(channels, width, stride=stride)
        return Bottleneck(channels, width, stride=stride, stride_first=config.caffe, deformable=deformable)

    out_channels = config.out_channels[index]
    first = block(channels, 1 if index == 0 else 2)
    return nn.Sequential(first, *(block(out_channels, 1) for _ in range(count - 1)))


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels))
