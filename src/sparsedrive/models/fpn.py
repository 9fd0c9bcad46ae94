"""Feature pyramid: every level gets the meaning of the coarser ones."""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class FPNConfig:
    """`num_levels` pyramid levels of `out_channels` from the backbone stages `start_level` and coarser.

    Levels beyond the backbone's are made by max pooling, or by stride-2 convolutions on the coarsest backbone stage ("on_input")
    or on the coarsest pyramid level ("on_output").
    """

    out_channels: int = 256
    num_levels: int = 4
    start_level: int = 0
    add_extra_convs: Literal["on_input", "on_output"] | None = None

    def __post_init__(self) -> None:
        if self.out_channels < 1:
            raise ValueError(f"FPNConfig.out_channels: expected at least 1, got {self.out_channels}; the published models use 256")
        if self.add_extra_convs not in (None, "on_input", "on_output"):
            raise ValueError(
                f"FPNConfig.add_extra_convs: expected None, 'on_input' or 'on_output', got {self.add_extra_convs!r}; None pools instead"
            )

    def build(self, in_channels: tuple[int, ...]) -> "FPN":
        """A pyramid with fresh weights over backbone stages of `in_channels`, finest first."""
        return FPN(self, in_channels)


class FPN(nn.Module):
    """Backbone outputs, finest first -> pyramid levels, finest first.

    Source: arXiv:1612.03144; extra levels after RetinaNet (arXiv:1708.02002). No norm, no activation, as in SparseDrive.
    """

    def __init__(self, config: FPNConfig, in_channels: tuple[int, ...]) -> None:
        super().__init__()
        if not 0 <= config.start_level < len(in_channels):
            raise ValueError(
                f"FPNConfig.start_level: expected 0 to {len(in_channels) - 1} for a backbone of {len(in_channels)} stages, "
                f"got {config.start_level}; name the finest stage to use"
            )
        used = in_channels[config.start_level :]
        if config.num_levels < len(used):
            raise ValueError(
                f"FPNConfig.num_levels: expected at least {len(used)} (stages from start_level {config.start_level}), "
                f"got {config.num_levels}; raise num_levels or start_level"
            )
        self.config = config
        width = config.out_channels
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in used)
        self.output_convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in used)
        if config.add_extra_convs is not None:
            for extra in range(config.num_levels - len(used)):
                channels = used[-1] if extra == 0 and config.add_extra_convs == "on_input" else width
                self.output_convs.append(nn.Conv2d(channels, width, 3, stride=2, padding=1))
        for conv in [*self.lateral_convs, *self.output_convs]:
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """Stages [B, in_channels[i], H_i, W_i] -> levels [B, out_channels, H_i, W_i]."""
        stages = stages[self.config.start_level :]
        merged = [conv(stage) for conv, stage in zip(self.lateral_convs, stages, strict=True)]
        for index in range(len(merged) - 1, 0, -1):
            finer = merged[index - 1]
            merged[index - 1] = finer + F.interpolate(merged[index], size=finer.shape[2:], mode="nearest")
        # output_convs may go on with the extra levels
        levels = [conv(value) for conv, value in zip(self.output_convs, merged, strict=False)]
        return levels + self._extra_levels(stages[-1], levels[-1])

    def _extra_levels(self, coarsest_stage: Tensor, coarsest_level: Tensor) -> list[Tensor]:
        count = self.config.num_levels - len(self.lateral_convs)
        value = coarsest_stage if self.config.add_extra_convs == "on_input" else coarsest_level
        extra: list[Tensor] = []
        for index in range(count):
            if self.config.add_extra_convs is None:
                value = F.max_pool2d(value, 1, stride=2)
            else:
                conv = self.output_convs[len(self.lateral_convs) + index]
                value = conv(value if index == 0 else value.relu())
            extra.append(value)
        return extra
