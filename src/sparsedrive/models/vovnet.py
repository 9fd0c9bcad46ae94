"""VoVNet with effective squeeze-and-excitation in plain PyTorch: V-99, the backbone of the largest published Sparse4D."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsedrive.models.resnet import checkpointed

STEM_CHANNELS = (64, 64, 128)
BLOCK_CHANNELS, STAGE_CHANNELS = (128, 160, 192, 224), (256, 512, 768, 1024)
LAYERS_PER_BLOCK = 5


@dataclass(frozen=True, kw_only=True)
class VoVNetConfig:
    """`blocks` of each of the four stages: (1, 3, 9, 3) is V-99, (1, 1, 4, 3) V-57, (1, 1, 2, 2) V-39.

    `checkpoint_activations` trades time for memory in training.
    """

    blocks: tuple[int, ...] = (1, 3, 9, 3)
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            raise ValueError(
                f"VoVNetConfig.blocks: expected at least 1 block in each of 4 stages, got {self.blocks}; V-99 has (1, 3, 9, 3)"
            )

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the four stages, strides 4, 8, 16, 32."""
        return STAGE_CHANNELS

    def build(self) -> "VoVNet":
        """A network with fresh weights."""
        return VoVNet(self)


class VoVNet(nn.Module):
    """Images [B, 3, H, W] -> outputs of the four stages, strides 4, 8, 16, 32.

    Images come normalised as for a ResNet; the public weights want the same numbers with the colours in the order BGR, and get them so.
    Source: arXiv:1904.09730 and CenterMask (arXiv:1911.06667, section 3.3).
    """

    def __init__(self, config: VoVNetConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (3, *STEM_CHANNELS)
        self.stem = nn.Sequential(
            *(ConvNormReLU(inputs[i], inputs[i + 1], 3, stride=stride) for i, stride in enumerate((2, 1, 2)))
        )  # fmt: skip
        channels, stages = STEM_CHANNELS[-1], []
        for count, width, out_channels in zip(config.blocks, BLOCK_CHANNELS, STAGE_CHANNELS, strict=True):
            first = OneShotBlock(channels, width, out_channels)
            stages.append(nn.Sequential(first, *(OneShotBlock(out_channels, width, out_channels) for _ in range(count - 1))))
            channels = out_channels
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        value = self.stem(images.flip(1))
        with_checkpoints = self.config.checkpoint_activations and self.training and torch.is_grad_enabled()
        outputs: list[Tensor] = []
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            if outputs:
                value = F.max_pool2d(value, 3, stride=2, ceil_mode=True)
            for index, block in enumerate(stage):
                refined = checkpointed(block, value) if with_checkpoints else block(value)
                value = refined if index == 0 else refined + value
            outputs.append(value)
        return outputs


class OneShotBlock(nn.Module):
    """3x3 convolutions one after the other, all of them put side by side once, narrowed, and weighed by channel."""

    def __init__(self, channels: int, width: int, out_channels: int) -> None:
        super().__init__()
        inputs = (channels, *(width,) * (LAYERS_PER_BLOCK - 1))
        self.layers = nn.ModuleList(ConvNormReLU(count, width, 3) for count in inputs)
        self.concat = ConvNormReLU(channels + LAYERS_PER_BLOCK * width, out_channels, 1)
        self.channel_gate = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, value: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, out_channels, H, W]."""
        collected = [value]
        for layer in self.layers:
            collected.append(layer(collected[-1]))
        narrowed = self.concat(torch.cat(collected, dim=1))
        gate = self.channel_gate(narrowed.mean((2, 3), keepdim=True))
        return narrowed * F.relu6(gate + 3) / 6


class ConvNormReLU(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, value: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, out_channels, H / stride, W / stride]."""
        return self.norm(self.conv(value)).relu()
