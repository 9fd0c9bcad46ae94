import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sparsedrive.layers.deformable_conv import DeformableConv2d, modulated_deformable_conv


def draw(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bilinear(image: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """[C, H, W] at a point, zero outside."""
    total = torch.zeros(image.shape[0], dtype=image.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                total = total + (1 - abs(y - row)) * (1 - abs(x - column)) * image[:, row, column]
    return total


def loop(value, offsets_px, modulation, weight, stride: int, padding: int) -> torch.Tensor:
    """Tap by tap."""
    size = weight.shape[-1]
    out = torch.zeros(value.shape[0], weight.shape[0], *offsets_px.shape[3:], dtype=value.dtype)
    for n, k, row, column in (
        (n, k, r, c) for n in range(out.shape[0]) for k in range(size**2) for r in range(out.shape[2]) for c in range(out.shape[3])
    ):
        dy, dx = offsets_px[n, k, :, row, column].tolist()
        y, x = row * stride - padding + k // size + dy, column * stride - padding + k % size + dx
        tap = bilinear(value[n], y, x) * modulation[n, k, row, column]
        out[n, :, row, column] += weight[:, :, k // size, k % size] @ tap
    return out


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, 3), (2, 1, 3), (1, 0, 3), (2, 2, 5)])
def test_equals_a_loop_over_taps(stride, padding, size):
    value, weight = draw(2, 3, 6, 7, seed=0), draw(4, 3, size, size, seed=1)
    height, width = ((n + 2 * padding - size) // stride + 1 for n in (6, 7))
    offsets_px = draw(2, size * size, 2, height, width, seed=2, scale=2.0)  # many taps leave the picture
    modulation = draw(2, size * size, height, width, seed=3).sigmoid()
    ours = modulated_deformable_conv(value, offsets_px, modulation, weight, stride=stride, padding=padding)
    assert_close(ours, loop(value, offsets_px, modulation, weight, stride, padding), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_unmoved_and_unscaled_it_is_a_convolution(stride):
    value, weight = draw(2, 3, 8, 6, seed=0), draw(4, 3, 3, 3, seed=1)
    plain = F.conv2d(value, weight, stride=stride, padding=1)
    still, whole = torch.zeros(2, 9, 2, *plain.shape[2:]).double(), torch.ones(2, 9, *plain.shape[2:]).double()
    assert_close(modulated_deformable_conv(value, still, whole, weight, stride=stride, padding=1), plain, rtol=0, atol=1e-12)


def test_gradients():
    value, weight = draw(1, 2, 4, 4, seed=0), draw(2, 2, 3, 3, seed=1)
    # Off the grid of pixels, where the derivative by position jumps.
    offsets_px = draw(1, 9, 2, 4, 4, seed=2, scale=0.2).clamp(-0.4, 0.4) + 0.5
    inputs = [tensor.requires_grad_() for tensor in (value, offsets_px, draw(1, 9, 4, 4, seed=3), weight)]
    assert torch.autograd.gradcheck(lambda *given: modulated_deformable_conv(*given, padding=1), inputs, fast_mode=True)


def test_the_module_predicts_offsets_first_then_modulation():
    module = DeformableConv2d(3, 4, 3, padding=1).double()
    value = draw(1, 3, 5, 5, seed=0)
    assert_close(module(value), F.conv2d(value, module.weight, padding=1) / 2)  # starts unmoved, at half weight
    with torch.no_grad():
        module.conv_offset.bias[:18] = torch.tensor([0.0, 1.0]).repeat(9)  # y, x: one to the right
        module.conv_offset.bias[18:] = 50.0  # whole
    shifted = F.pad(value, (0, 1))[..., 1:]
    assert_close(module(value)[..., 1:-1], F.conv2d(shifted, module.weight, padding=1)[..., 1:-1])


def test_half_precision_keeps_positions():
    value = torch.rand(1, 2, 4, 300, dtype=torch.float64)
    weight, still = torch.ones(1, 2, 1, 1, dtype=torch.float64), torch.full((1, 1, 2, 4, 300), 0.25, dtype=torch.float64)
    whole = torch.ones(1, 1, 4, 300, dtype=torch.float64)
    exact = modulated_deformable_conv(value, still, whole, weight)
    rounded = modulated_deformable_conv(value.bfloat16(), still.bfloat16(), whole.bfloat16(), weight.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert_close(rounded.double(), exact, rtol=0, atol=0.02)
