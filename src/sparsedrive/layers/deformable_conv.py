"""Convolution whose taps move: modulated deformable convolution in plain PyTorch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def modulated_deformable_conv(
    value: Float[Tensor, "N C H W"],
    offsets_px: Float[Tensor, "N K 2 h w"],
    modulation: Float[Tensor, "N K h w"],
    weight: Float[Tensor, "O C k k"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "N O h w"]:
    """Every output pixel reads the K = k * k taps of its window, each moved by (y, x) pixels and scaled by its modulation.

    Taps between pixels are bilinear; outside the picture there are zeros. Positions are computed in float32 at least.
    Source: Deformable ConvNets v2 (arXiv:1811.11168), section 3.2, with one group of offsets.
    """
    height, width = value.shape[2:]
    out_height, out_width = offsets_px.shape[3:]
    size = weight.shape[-1]
    dtype = torch.promote_types(value.dtype, torch.float32)
    offset_y, offset_x = offsets_px.to(dtype).unbind(2)
    tap = torch.arange(size, device=value.device, dtype=dtype) - padding
    row = torch.arange(out_height, device=value.device, dtype=dtype) * stride
    column = torch.arange(out_width, device=value.device, dtype=dtype) * stride
    y = tap.repeat_interleave(size)[:, None, None] + row[:, None] + offset_y
    x = tap.repeat(size)[:, None, None] + column + offset_x
    # grid_sample counts from -1 to 1 over the picture, pixel centres half a pixel inside
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    taps = F.grid_sample(value.to(dtype), grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False)
    taps = taps.unflatten(2, (size * size, out_height)) * modulation.to(dtype)[:, None]
    return torch.einsum("nckhw,ock->nohw", taps, weight.to(dtype).flatten(2)).to(value.dtype)


class DeformableConv2d(nn.Conv2d):
    """A convolution that predicts its own offsets and modulation: first all offsets (y, x of each tap), then all modulation logits.

    The prediction starts at zero: taps unmoved, each at half weight.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, out_channels, kernel, stride=stride, padding=padding, bias=False)
        self.conv_offset = nn.Conv2d(channels, 3 * kernel * kernel, kernel, stride=stride, padding=padding)
        self.start_unmoved()

    def start_unmoved(self) -> None:
        """Set the prediction to zero."""
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, value: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O h w"]:
        """As a convolution."""
        offsets_px, logits = self.conv_offset(value).tensor_split((2 * self.weight[0, 0].numel(),), dim=1)
        return modulated_deformable_conv(
            value, offsets_px.unflatten(1, (-1, 2)), logits.sigmoid(), self.weight, stride=self.stride[0], padding=int(self.padding[0])
        )
