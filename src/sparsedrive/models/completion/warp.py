"""Where the things that a failed camera's pixels show are in other pictures: pinhole geometry, no weights."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.geometry import camera, se3
from sparsedrive.models.completion.cameras import take_cameras
from sparsedrive.structures import CameraRig, CompletionMemory, FailedCameras, ImageFeatures
from sparsedrive.structures._structure import structure

MIN_DEPTH_M = 0.1
HIDDEN = -1.0  # outside every picture
PSEUDO_SLOPES = (0.8, 0.48)  # metres to the side and down for a metre ahead, at the border of the picture


@structure
class Sources:
    """Pictures to look things up in: the remembered ones, oldest first, then this frame's: V of each of C cameras.

    `image_T_now` takes ego coordinates of this frame to (pixel_x * depth, pixel_y * depth, depth, 1) of each picture.
    """

    packed: list[Float[Tensor, "B C S D"]]
    level_hw: tuple[int, ...]
    image_T_now: Float[Tensor, "B V C 4 4"]
    image_wh_px: Float[Tensor, "B V C 2"]
    age_s: Float[Tensor, "B V C"]
    valid: Bool[Tensor, "B V C"]


@structure
class Places:
    """A point's place in every source picture: `points` in image units (`HIDDEN` where it is not to be seen), `depth_m` before it."""

    points: Float[Tensor, "B N P V C 2"]
    depth_m: Float[Tensor, "B N P V C"]
    seen: Bool[Tensor, "B N P V C"]


def sources(memory: CompletionMemory, images: ImageFeatures, rig: CameraRig) -> Sources:
    """All pictures there are; `memory` advanced to this frame."""

    def join(past: Tensor, present: Tensor) -> Tensor:
        return torch.cat([past, present[:, None]], dim=1)

    return Sources(
        packed=[*memory.packed, images.packed.to(rig.image_T_ego.dtype)],
        level_hw=images.level_hw,
        image_T_now=join(memory.image_T_last, rig.image_T_ego),
        # A picture without size would make NaN gradients where nothing was seen yet.
        image_wh_px=join(torch.where(memory.valid[..., None], memory.image_wh_px, 1.0), rig.image_wh_px),
        age_s=join(memory.age_s, torch.zeros_like(rig.focal_px)),
        valid=join(memory.valid, rig.available),
    )


def pixel_centres(height: int, width: int, like: Tensor, *, aligned_corners: bool = False) -> Float[Tensor, "HW 2"]:
    """(x, y) of every pixel of a feature map in image units, row by row; (0, 0) is the top left corner of the picture."""
    x, y = (torch.arange(size, dtype=like.dtype, device=like.device) for size in (width, height))
    x, y = (x / max(width - 1, 1), y / max(height - 1, 1)) if aligned_corners else ((x + 0.5) / width, (y + 0.5) / height)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).flatten(0, 1)


def rays(
    image_T_ego: Float[Tensor, "*batch 4 4"], image_wh_px: Float[Tensor, "*batch 2"], centres: Float[Tensor, "N 2"]
) -> tuple[Float[Tensor, "*batch N 3"], Float[Tensor, "*batch 3"]]:
    """What each pixel looks along, in ego metres for a metre of depth, and the camera's centre."""
    ego_T_image = se3.invert(image_T_ego.double()).to(image_T_ego.dtype)  # double precision: never halved by autocast
    pixels = centres * image_wh_px[..., None, :]
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    return se3.rotate(ego_T_image[..., None, :3, :3], homogeneous), ego_T_image[..., :3, 3]


def hypotheses(
    rig: CameraRig, cameras: FailedCameras, centres: Float[Tensor, "N 2"], depths_m: tuple[float, ...]
) -> Float[Tensor, "B MN P 3"]:
    """Points that the pixels of failed cameras may show, in the ego frame: each pixel at each of P depths."""
    image_T_ego, wh_px = take_cameras(rig.image_T_ego, cameras), take_cameras(rig.image_wh_px, cameras)
    direction, centre_m = rays(image_T_ego, wh_px, centres)
    depth_m = torch.tensor(depths_m, dtype=direction.dtype, device=direction.device)
    return (centre_m[:, :, None, None] + direction[:, :, :, None] * depth_m[:, None]).flatten(1, 2)


def pseudo_hypotheses(cameras: FailedCameras, centres: Float[Tensor, "N 2"], depths_m: tuple[float, ...]) -> Float[Tensor, "B MN P 3"]:
    """In place of `hypotheses`, as published: each pixel ahead of the car, whatever its camera (`PublishedQuirks.pseudo_geometry`)."""
    aside = (2 * centres - 1) * centres.new_tensor(PSEUDO_SLOPES)
    points_m = F.pad(aside, (1, 0), value=1.0)[:, None] * centres.new_tensor(depths_m)[:, None]
    batch, rows = cameras.camera.shape
    return points_m.repeat(rows, 1, 1).expand(batch, -1, -1, -1)


def pseudo_views(pictures: Sources, rig: CameraRig) -> Sources:
    """The remembered pictures as published: points are taken from then to now and into the present picture, whose place of the remembered
    one is then read: the wrong way around."""
    identity = torch.eye(4, dtype=rig.focal_px.dtype, device=rig.focal_px.device)
    image_T_then = rig.image_T_ego[:, None].double()
    then_T_image = se3.invert(torch.where(pictures.valid[..., None, None], pictures.image_T_now, identity).double())
    image_T_moved = (image_T_then @ then_T_image @ image_T_then).to(rig.image_T_ego.dtype)
    return replace(pictures, image_T_now=image_T_moved)


def find(points_m: Float[Tensor, "B N P 3"], pictures: Sources, mean_weights: Float[Tensor, "P"] | None = None) -> Places:
    """The places of ego points in all source pictures. Not to be seen: behind the camera, outside the picture, no such picture.

    With `mean_weights` only one place a pixel, the mean of its P points' (`PublishedQuirks.mean_coordinates`).
    """
    views, count = pictures.valid.shape[1:]
    image_T_now, wh_px = pictures.image_T_now.flatten(1, 2), pictures.image_wh_px.flatten(1, 2)
    points = camera.project(points_m, image_T_now, wh_px)
    axis = image_T_now[:, None, None, :, 2]
    depth_m = (axis[..., :3] * points_m[:, :, :, None]).sum(-1) + axis[..., 3]
    before = depth_m > MIN_DEPTH_M
    if mean_weights is not None:
        points = (points * mean_weights[:, None, None]).sum(2, keepdim=True)
        depth_m, before = (depth_m * mean_weights[:, None]).sum(2, keepdim=True), before.all(2, keepdim=True)
    inside = ((points > 0) & (points < 1)).all(-1)
    seen = (inside & before).unflatten(3, (views, count)) & pictures.valid[:, None, None]
    points, depth_m = points.unflatten(3, (views, count)), depth_m.unflatten(3, (views, count))
    return Places(points=points.where(seen[..., None], HIDDEN), depth_m=depth_m, seen=seen)
