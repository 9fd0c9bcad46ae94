"""The 11 columns of a box instance, and what can be done with them.

A *state* is what the network refines: centre in metres, logarithms of the sizes, sine and cosine of the yaw (not
normalised), velocity. A *box* is the metric form: x y z length width height yaw_rad vx vy vz (10 columns).
Frame: the ego frame of the model (for nuScenes LIDAR_TOP: x right, y forward, z up), yaw counter-clockwise from +x.

Source: column order of the Sparse4D family (arXiv:2211.10581). Its public code names columns 3, 4, 5 "W, L, H"; they hold
length (along the heading), width and height, and are named so here.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.geometry import se3

X, Y, Z, LOG_LENGTH, LOG_WIDTH, LOG_HEIGHT, SIN_YAW, COS_YAW, VX, VY, VZ = range(11)
STATE_DIM = 11
YAW = 6  # column of the metric box
BOX_DIM = 10


def encode(box: Float[Tensor, "*batch 10"]) -> Float[Tensor, "*batch 11"]:
    """Metric box -> state. Sizes must be positive."""
    yaw = box[..., YAW : YAW + 1]
    return torch.cat([box[..., :3], box[..., 3:6].log(), yaw.sin(), yaw.cos(), box[..., YAW + 1 :]], dim=-1)


def decode(state: Float[Tensor, "*batch 11"]) -> Float[Tensor, "*batch 10"]:
    """State -> metric box x y z l w h yaw_rad vx vy vz (metres, radians, metres per second)."""
    return torch.cat([state[..., :3], state[..., 3:6].exp(), yaw_rad(state)[..., None], state[..., VX:]], dim=-1)


def yaw_rad(state: Float[Tensor, "*batch 11"]) -> Float[Tensor, "*batch"]:
    """Heading in (-pi, pi]."""
    return torch.atan2(state[..., SIN_YAW], state[..., COS_YAW])


def transform(
    state: Float[Tensor, "B N 11"], dst_T_src: Float[Tensor, "B 4 4"], elapsed_s: Float[Tensor, "B"] | None = None
) -> Float[Tensor, "B N 11"]:
    """States of frame `src` expressed in frame `dst`; with `elapsed_s` also moved on by their own velocity for that long.

    Source: instance projection of Sparse4D v2 (arXiv:2305.14018, section 3.2).
    """
    rotation = dst_T_src[:, None, :3, :3]
    centre, velocity = state[..., :3], state[..., VX:]
    if elapsed_s is not None:
        centre = centre + velocity * elapsed_s[:, None, None]
    centre = se3.rotate(rotation, centre) + dst_T_src[:, None, :3, 3]
    velocity = se3.rotate(rotation, velocity)
    heading = torch.stack([state[..., COS_YAW], state[..., SIN_YAW]], dim=-1)
    cos_yaw, sin_yaw = se3.rotate(rotation[..., :2, :2], heading).unbind(-1)
    return torch.cat([centre, state[..., 3:6], torch.stack([sin_yaw, cos_yaw], -1), velocity], dim=-1)


def rotation_about_z(sin_yaw: Float[Tensor, "*batch"], cos_yaw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Matrix that turns box coordinates (x along the heading) into ego coordinates; taken as given, not normalised."""
    zero, one = torch.zeros_like(sin_yaw), torch.ones_like(sin_yaw)
    rows = [torch.stack([cos_yaw, -sin_yaw, zero], -1), torch.stack([sin_yaw, cos_yaw, zero], -1), torch.stack([zero, zero, one], -1)]
    return torch.stack(rows, dim=-2)


def corners(box: Float[Tensor, "*batch 10"]) -> Float[Tensor, "*batch 8 3"]:
    """Eight corners in metres: 0 front-left, 1 back-left, 2 back-right, 3 front-right of the bottom face, 4-7 the top face above them."""
    unit = box.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    bottom = torch.cat([unit, box.new_full((4, 1), -0.5)], -1)
    top = torch.cat([unit, box.new_full((4, 1), 0.5)], -1)
    local = torch.cat([bottom, top]) * box[..., None, 3:6]
    rotation = rotation_about_z(box[..., YAW].sin(), box[..., YAW].cos())
    return local @ rotation.transpose(-1, -2) + box[..., None, :3]


def centres_inside(box: Float[Tensor, "B N 10"]) -> Bool[Tensor, "B N N"]:
    """Whether the centre of box j (last axis) lies inside the footprint of box i."""
    offset = box[:, None, :, :2] - box[:, :, None, :2]
    cos, sin = box[..., YAW].cos()[..., None], box[..., YAW].sin()[..., None]
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    return (along.abs() < box[..., 3, None] / 2) & (across.abs() < box[..., 4, None] / 2)
