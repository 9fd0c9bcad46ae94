"""Random boxes and poses."""

import math

import torch
from torch import Tensor

from sparsedrive.geometry import se3


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(seed: int, *shape: int) -> Tensor:
    """Metric boxes in float64, yaw within (-pi, pi]."""
    draw = generator(seed)
    centre_m = torch.randn(*shape, 3, generator=draw, dtype=torch.float64) * 30
    size_m = torch.rand(*shape, 3, generator=draw, dtype=torch.float64) * 8 + 0.1
    yaw_rad = (torch.rand(*shape, 1, generator=draw, dtype=torch.float64) * 2 - 1) * math.pi
    velocity_mps = torch.randn(*shape, 3, generator=draw, dtype=torch.float64) * 5
    return torch.cat([centre_m, size_m, yaw_rad, velocity_mps], dim=-1)


def planar_poses(seed: int, batch: int, reach_m: float = 100.0) -> Tensor:
    draw = generator(seed)
    x_m, y_m, yaw_rad = (torch.randn(3, batch, generator=draw, dtype=torch.float64) * torch.tensor([[reach_m], [reach_m], [2.0]])).unbind()
    return se3.from_yaw(x_m, y_m, yaw_rad)


def affine(seed: int, batch: int) -> Tensor:
    """Any linear part (well conditioned, not orthonormal), and a translation."""
    draw = generator(seed)
    dst_T_src = torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1)
    dst_T_src[:, :3, :3] += torch.randn(batch, 3, 3, generator=draw, dtype=torch.float64) * 0.2
    dst_T_src[:, :3, 3] = torch.randn(batch, 3, generator=draw, dtype=torch.float64) * 1000
    return dst_T_src
