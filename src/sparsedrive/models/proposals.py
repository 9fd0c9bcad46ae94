"""Boxes to start from, read out of the object maps: an instance that begins where something was seen has less far to go."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.structures import CameraRig, ObjectMap
from sparsedrive.structures.instances import FOCAL_UNIT_PX

DEPTH_RANGE_M = (0.5, 80.0)
LOG_SIZE_LIMIT = 3.0
HIDDEN_LOGIT = 100.0  # put below all others: pixels that are no peak, and those that show nothing


def propose(objects: ObjectMap, rig: CameraRig, count: int) -> Float[Tensor, "B count 11"]:
    """Box states at the `count` most confident peaks of a level, in the ego frame, at rest. No gradient flows back.

    A peak is a pixel none of whose eight neighbours is more confident of any class. Source of the idea: boxes lifted from the picture as
    queries (Far3D, arXiv:2308.09616; MV2D, arXiv:2301.02364).
    """
    logits, geometry = objects.class_logits.detach().float(), objects.geometry.detach().float()
    score = logits.amax(-1)
    height, width = score.shape[2:]
    peak = score == F.max_pool2d(score, 3, stride=1, padding=1)
    score = torch.where(peak & objects.shown, score, score - HIDDEN_LOGIT)
    chosen = score.flatten(1).topk(min(count, score[0].numel()), dim=1).indices  # [B, N] into C x H x W
    if chosen.shape[1] < count:
        chosen = torch.cat([chosen, chosen[:, :1].expand(-1, count - chosen.shape[1])], 1)
    camera, pixel = chosen // (height * width), chosen % (height * width)
    found = geometry.flatten(1, 3).gather(1, chosen[..., None].expand(-1, -1, geometry.shape[-1]))
    here = torch.stack([pixel % width, pixel // width], -1) + 0.5
    cell_px = rig.image_wh_px / rig.image_wh_px.new_tensor([width, height])  # [B, C, 2]
    place_px = (here + found[..., :2]) * _of(cell_px, camera)
    depth_m = (found[..., 2:3].clamp(-10, 10).exp() * _of(rig.focal_px[..., None], camera) / FOCAL_UNIT_PX).clamp(*DEPTH_RANGE_M)
    centre_m = _lift(place_px, depth_m, _of(rig.image_T_ego.float().flatten(2), camera).unflatten(-1, (4, 4)))
    size = found[..., 3:6].clamp(-LOG_SIZE_LIMIT, LOG_SIZE_LIMIT)
    return torch.cat([centre_m, size, _heading(centre_m, found[..., 6:8]), torch.zeros_like(centre_m)], -1)


def _of(per_camera: Float[Tensor, "B C K"], camera: Tensor) -> Float[Tensor, "B N K"]:
    return per_camera.gather(1, camera[..., None].expand(-1, -1, per_camera.shape[-1]))


def _lift(
    place_px: Float[Tensor, "B N 2"], depth_m: Float[Tensor, "B N 1"], image_T_ego: Float[Tensor, "B N 4 4"]
) -> Float[Tensor, "B N 3"]:
    """The point of the ego frame seen at that pixel in that depth: a 3 x 3 system by Cramer's rule, which every exporter knows."""
    rows, offset = image_T_ego[..., :3, :3], image_T_ego[..., :3, 3]
    right = torch.cat([place_px * depth_m, depth_m], -1) - offset
    a, b, c = rows.unbind(-2)
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    determinant = (a * columns[..., 0]).sum(-1, keepdim=True)
    return (columns @ right[..., None])[..., 0] / determinant


def _heading(centre_m: Float[Tensor, "B N 3"], turn: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N 2"]:
    """Sine and cosine of the yaw, from those against the direction from the ego origin."""
    sin, cos = F.normalize(turn, dim=-1).unbind(-1)
    along_x, along_y = F.normalize(centre_m[..., :2], dim=-1).unbind(-1)
    return torch.stack([sin * along_x + cos * along_y, cos * along_x - sin * along_y], -1)
