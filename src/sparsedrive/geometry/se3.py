"""Affine 4x4 transforms. `dst_T_src` takes coordinates of frame `src` to frame `dst`."""

import torch
from jaxtyping import Float
from torch import Tensor


def invert(dst_T_src: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of an affine transform whose last row is (0, 0, 0, 1).

    Closed form by cross products: exact for a linear part that is not quite a rotation (calibrations stored in float32),
    without the device synchronisation of `torch.linalg.inv`, and exportable.
    """
    linear, translation = dst_T_src[..., :3, :3], dst_T_src[..., :3, 3]
    row0, row1, row2 = linear.unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(row1, row2), torch.linalg.cross(row2, row0), torch.linalg.cross(row0, row1)], dim=-1)
    determinant = (row0 * cofactors[..., 0]).sum(-1)
    inverse = cofactors / determinant[..., None, None]
    shift = -(inverse @ translation[..., None])
    upper = torch.cat([inverse, shift], dim=-1)
    return torch.cat([upper, dst_T_src[..., 3:, :]], dim=-2)


def relative(global_T_dst: Float[Tensor, "*batch 4 4"], global_T_src: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """`dst_T_src` of two poses in one global frame. Give float64: global coordinates reach 10^3..10^6 m."""
    return invert(global_T_dst) @ global_T_src


def transform_points(dst_T_src: Float[Tensor, "*batch 4 4"], points_m: Float[Tensor, "*batch N 3"]) -> Float[Tensor, "*batch N 3"]:
    """Points in `dst`. One transform a batch element."""
    return points_m @ dst_T_src[..., :3, :3].transpose(-1, -2) + dst_T_src[..., None, :3, 3]


def rotate(rotation: Float[Tensor, "*#batch D D"], vector: Float[Tensor, "*#batch D"]) -> Float[Tensor, "... D"]:
    """`rotation @ vector` (broadcast), term by term: a matrix product would be rounded to half precision under autocast, which is a
    quarter of a metre at 50 m in bfloat16."""
    columns = rotation.unbind(-1)
    total = columns[0] * vector[..., :1]
    for index, column in enumerate(columns[1:], 1):
        total = total + column * vector[..., index : index + 1]
    return total


def from_yaw(x_m: Tensor, y_m: Tensor, yaw_rad: Tensor) -> Float[Tensor, "*batch 4 4"]:
    """Planar pose: rotation about z by `yaw_rad`, translation (x, y, 0)."""
    cos, sin, zero, one = torch.cos(yaw_rad), torch.sin(yaw_rad), torch.zeros_like(yaw_rad), torch.ones_like(yaw_rad)
    rows = [
        torch.stack([cos, -sin, zero, x_m], -1),
        torch.stack([sin, cos, zero, y_m], -1),
        torch.stack([zero, zero, one, zero], -1),
        torch.stack([zero, zero, zero, one], -1),
    ]
    return torch.stack(rows, dim=-2)
