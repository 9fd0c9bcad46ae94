"""Poses as nuScenes stores them -> 4x4 transforms."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor


def pose_matrix(translation_m: Sequence | Tensor, rotation_wxyz: Sequence | Tensor) -> Tensor:
    """Transform(s) [..., 4, 4] float64 from translations [..., 3] and quaternions w x y z [..., 4], which need not be unit length.

    A pose "of b in a" gives `a_T_b`.
    """
    translation = torch.as_tensor(translation_m, dtype=torch.float64)
    quaternion = torch.as_tensor(rotation_wxyz, dtype=torch.float64)
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), translation[..., 0]], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), translation[..., 1]], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), translation[..., 2]], -1),
        torch.tensor([0, 0, 0, 1], dtype=torch.float64).expand(*quaternion.shape[:-1], 4),
    ]
    return torch.stack(rows, -2)


def check_pose(translation_m: Sequence[float], rotation_wxyz: Sequence[float], place: str) -> None:
    """`ValueError` naming `place` when a number is NaN or infinite, or the quaternion is zero: none of them is a pose."""
    if not all(map(isfinite, (*translation_m, *rotation_wxyz))) or not any(rotation_wxyz):
        raise ValueError(
            f"{place}: expected finite numbers and a quaternion that is not zero, got translation {list(translation_m)} and "
            f"rotation {list(rotation_wxyz)}; correct the row or leave the scene out"
        )
