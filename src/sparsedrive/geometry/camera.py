"""Pinhole projection of ego points into the images of a rig."""

import torch
from jaxtyping import Float
from torch import Tensor

MIN_DEPTH_M = 1e-5


def project(
    points_m: Float[Tensor, "B A P 3"], image_T_ego: Float[Tensor, "B C 4 4"], image_wh_px: Float[Tensor, "B C 2"]
) -> Float[Tensor, "B A P C 2"]:
    """Points in *image units*: (0, 0) the top left corner of the picture, (1, 1) the bottom right one.

    Depth is clamped to 1e-5 m before the division, so a point behind a camera lands far outside the picture; only one within
    about 1e-5 m of the optical axis could still count (kept from the published models: their weights were trained with it).
    """
    # Term by term, in the order a small matrix product adds them: pixel errors are multiplied by feature gradients, so that a
    # fused or blocked product would cost two digits of agreement with the published models.
    x_m, y_m, z_m = points_m[:, :, :, None].unbind(-1)
    row = image_T_ego[:, None, None, :, :3].unbind(-2)
    u, v, depth_m = (r[..., 0] * x_m + r[..., 1] * y_m + r[..., 2] * z_m + r[..., 3] for r in row)
    pixels = torch.stack([u, v], dim=-1) / depth_m.clamp(min=MIN_DEPTH_M)[..., None]
    return pixels / image_wh_px[:, None, None]


def project_with_depth(
    points_m: Float[Tensor, "N 3"], image_T_ego: Float[Tensor, "4 4"]
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N"]]:
    """Pixels and depths (metres along the optical axis, negative behind the camera) for one camera; for drawing and checks."""
    homogeneous = points_m @ image_T_ego[:3, :3].T + image_T_ego[:3, 3]
    depth_m = homogeneous[:, 2]
    sign = torch.where(depth_m < 0, -1.0, 1.0).to(depth_m.dtype)
    return homogeneous[:, :2] / (depth_m.abs().clamp(min=MIN_DEPTH_M) * sign)[:, None], depth_m
