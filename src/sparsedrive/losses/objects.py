"""Losses of the object maps: which pixel shows which object, and where its centre, distance, size and heading are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.geometry import box_state
from sparsedrive.ops import sigmoid_focal_loss
from sparsedrive.structures import BoxTargets, CameraRig, ObjectMap
from sparsedrive.structures.instances import FOCAL_UNIT_PX

MIN_DEPTH_M = 0.5
NEAREST_PIXEL = 0.75  # cells: a circle so large holds at least one pixel, wherever its centre lies
NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class ObjectLossConfig:
    """`core`: the share of an object's outline, about its centre, whose pixels answer for it; never less than the nearest pixel.

    `geometry_weights`: of place (2), depth, size (3) and heading (2). The depth is what a picture says least clearly.
    """

    class_weight: float = 1.0
    geometry_weight: float = 0.2
    geometry_weights: tuple[float, ...] = (0.5, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5)
    core: float = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTargets:
    """Per pixel of one level: class (`NOTHING` for none), row of the object, and geometry, columns as in `structures.ObjectMap`."""

    label: Int[Tensor, "B C H W"]
    row: Int[Tensor, "B C H W"]
    geometry: Float[Tensor, "B C H W 8"]


def object_losses(
    maps: list[ObjectMap],
    boxes: BoxTargets,
    rig: CameraRig,
    config: ObjectLossConfig = ObjectLossConfig(),
    mean_over_processes: Callable[[Tensor], Tensor] = lambda value: value,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Class loss (focal) over the number of pixels that show an object, and geometry loss (smooth L1) over the number of objects shown,
    both weighted and summed over levels.

    The pixels of an object share its geometry loss: the far ones, of one pixel, would not be heard beside near ones of a hundred. Pixels
    that are not `ObjectMap.shown` do not count.
    """
    classes, geometry = [], []
    for each in maps:
        targets = object_targets(each, boxes, rig, config.core)
        shown = (targets.label != NOTHING) & each.shown
        count = mean_over_processes(shown.sum().float()).clamp(min=1.0)
        focal = sigmoid_focal_loss(each.class_logits.float()[each.shown], targets.label[each.shown])
        error = F.smooth_l1_loss(each.geometry.float()[shown], targets.geometry[shown], reduction="none", beta=0.1)
        share = _share(targets.row, shown, boxes.label.shape[1])
        classes.append(focal.sum() / count)
        objects = mean_over_processes(share.sum()).clamp(min=1.0)
        geometry.append((error @ error.new_tensor(config.geometry_weights) * share).sum() / objects)
    return torch.stack(classes).sum() * config.class_weight, torch.stack(geometry).sum() * config.geometry_weight


def object_targets(each: ObjectMap, boxes: BoxTargets, rig: CameraRig, core: float) -> ObjectTargets:
    """Which object every pixel shows: of those whose core covers it, the nearest. Objects without a lidar return are hidden: left out."""
    height, width = each.class_logits.shape[2:4]
    cell_px = rig.image_wh_px / torch.tensor([width, height], device=rig.image_wh_px.device)  # [B, C, 2]
    centre = torch.cat([boxes.box[..., :3], torch.ones_like(boxes.box[..., :1])], -1).float()
    pixel_times_depth = torch.einsum("bcij,bnj->bcni", rig.image_T_ego[:, :, :3].float(), centre)
    depth_m = pixel_times_depth[..., 2]
    front = (depth_m > MIN_DEPTH_M) & (boxes.valid & (boxes.lidar_returns > 0))[:, None]
    depth_m = depth_m.clamp(min=MIN_DEPTH_M)
    place = pixel_times_depth[..., :2] / depth_m[..., None] / cell_px[:, :, None]  # cells from the top left corner, [B, C, N, 2]
    reach_m = torch.stack([boxes.box[..., 3:5].amax(-1), boxes.box[..., 5]], -1).float() / 2
    radius = (core * rig.focal_px[:, :, None, None] * reach_m[:, None] / depth_m[..., None] / cell_px[:, :, None]).clamp(min=NEAREST_PIXEL)
    axes = [torch.arange(size, device=place.device) + 0.5 for size in (width, height)]
    across = (axes[0] - place[..., :1])[..., None, :]  # [B, C, N, 1, W]
    down = (axes[1] - place[..., 1:])[..., :, None]
    inside = (across / radius[..., :1, None]) ** 2 + (down / radius[..., 1:, None]) ** 2 < 1
    distance = torch.where(inside & front[..., None, None], depth_m[..., None, None], torch.inf)
    if distance.shape[2] == 0:
        label = distance.new_full((*distance.shape[:2], height, width), NOTHING, dtype=torch.int64)
        return ObjectTargets(label=label, row=torch.zeros_like(label), geometry=distance.new_zeros(*label.shape, 8))
    nearest_m, row = distance.min(2)
    label = torch.where(nearest_m.isfinite(), boxes.label[:, None, None].expand(*row.shape[:3], -1).gather(-1, row), NOTHING)
    return ObjectTargets(label=label, row=row, geometry=_geometry(place, depth_m, boxes, rig, row, axes))


def _share(row: Int[Tensor, "B C H W"], shown: Bool[Tensor, "B C H W"], num_objects: int) -> Float[Tensor, "P"]:
    """For each pixel shown, one over the number of pixels its object has in its picture."""
    picture = torch.arange(row.shape[0] * row.shape[1], device=row.device).reshape(*row.shape[:2], 1, 1)
    owner = (picture * num_objects + row)[shown]
    return 1.0 / torch.bincount(owner, minlength=1)[owner]


def _geometry(
    place: Tensor, depth_m: Tensor, boxes: BoxTargets, rig: CameraRig, row: Int[Tensor, "B C H W"], axes: list[Tensor]
) -> Float[Tensor, "B C H W 8"]:
    state = box_state.encode(boxes.box.clone().float())
    bearing = torch.atan2(boxes.box[..., 1], boxes.box[..., 0]).float()
    turn = boxes.box[..., box_state.YAW].float() - bearing
    own = torch.stack([turn.sin(), turn.cos()], -1)
    size = torch.where(boxes.valid[..., None], state[..., box_state.LOG_LENGTH : box_state.SIN_YAW], 0.0)
    log_depth = (depth_m / (rig.focal_px[:, :, None] / FOCAL_UNIT_PX)).log()
    per_camera = torch.cat([place, log_depth[..., None], torch.cat([size, own], -1)[:, None].expand(-1, place.shape[1], -1, -1)], -1)
    height, width = row.shape[2:]
    index = row.flatten(2)[..., None].expand(-1, -1, -1, per_camera.shape[-1])
    found = per_camera.gather(2, index).unflatten(2, (height, width))
    here = torch.stack([axes[0].expand(height, width), axes[1][:, None].expand(height, width)], -1)
    return torch.cat([found[..., :2] - here, found[..., 2:]], -1)
