"""Level 3: the cameras that work, and where the car is going, refine the features once more."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.geometry import camera
from sparsedrive.models.completion import warp
from sparsedrive.models.completion.blocks import (
    CameraAttention,
    RayEncoder,
    as_pictures,
    as_rows,
    blend,
    level_sizes,
    revise,
    separable,
    small_start,
    split_levels,
)
from sparsedrive.models.completion.cameras import take_cameras
from sparsedrive.models.completion.config import GuidedConfig
from sparsedrive.models.completion.memory import along
from sparsedrive.models.completion.reconstruction import CLOSED_GATE
from sparsedrive.structures import CameraRig, FailedCameras, ImageFeatures

POINTS_BETWEEN = 3
ATTENDED_SHARE = 0.1  # of what the attention adds, at the start (as published)


class Guided(NamedTuple):
    """Features after level 3, how much of each pixel is believed then, and how important the way makes it (0..1)."""

    features: Float[Tensor, "B M S D"]
    confidence: Float[Tensor, "B M S"]
    importance: Float[Tensor, "B M S"]


class PlanningGuided(nn.Module):
    """A coarse refinement everywhere, a fine one along the way, the same weights at every pyramid level; only failed cameras."""

    def __init__(self, config: GuidedConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.rays = RayEncoder(dim)
        self.attention = CameraAttention(dim, config.num_heads)
        self.share = nn.Parameter(torch.tensor(ATTENDED_SHARE))
        self.coarse = nn.Sequential(separable(dim, dim), separable(dim, dim), small_start(nn.Conv2d(dim, dim, 1), deviation=0.01))
        # Without a way there is no place for a fine one, and nothing would train it.
        self.fine = (
            nn.Sequential(*(separable(dim, dim) for _ in range(3)), small_start(nn.Conv2d(dim, dim, 1), deviation=0.01))
            if config.trajectory != "none"
            else None
        )
        self.gate = nn.Sequential(separable(2 * dim, dim), small_start(nn.Conv2d(dim, 1, 1), 0.01, CLOSED_GATE))

    def forward(
        self,
        features: Float[Tensor, "B M S D"],
        confidence: Float[Tensor, "B M S"],
        images: ImageFeatures,
        rig: CameraRig,
        cameras: FailedCameras,
        way_m: Float[Tensor, "B T 2"],
        way_known: Bool[Tensor, "B"],
    ) -> Guided:
        """`way_m`: where the car is going, in this frame's ego frame; a stream in which it is not known has no important pixels."""
        batch = features.shape[0]
        importance = self._importance(images.level_hw, rig, cameras, way_m, way_known)
        attended = self._attend(split_levels(features, images.level_hw)[-1], images, rig, cameras)
        made = []
        parts = (split_levels(t, images.level_hw) for t in (features, confidence[..., None], importance[..., None]))
        for (height, width), *rows in zip(level_sizes(images.level_hw), *parts, strict=True):
            before, belief, important = (as_pictures(row, height, width) for row in rows)
            context = F.interpolate(attended, size=(height, width), mode="bilinear", align_corners=False)
            better = before + self.share * context
            refined = self.coarse(better)
            if self.fine is not None:
                refined = blend(refined, self.fine(better), important)
            gate = self.gate(torch.cat([before, better + refined], dim=1)).sigmoid()
            made.append([as_rows(part, batch) for part in revise(before, belief, better + refined, gate)])
        refined, belief = (torch.cat(list(levels), dim=2) for levels in zip(*made, strict=True))
        return Guided(refined, belief[..., 0], importance)

    def _attend(self, coarsest: Tensor, images: ImageFeatures, rig: CameraRig, cameras: FailedCameras) -> Float[Tensor, "BM D H W"]:
        """What the coarsest pixels find in the cameras that work."""
        height, width = level_sizes(images.level_hw)[-1]
        direction, _ = warp.rays(rig.image_T_ego, rig.image_wh_px, warp.pixel_centres(height, width, rig.focal_px))
        position = self.rays(direction)
        value = split_levels(images.packed, images.level_hw)[-1]
        query = coarsest + take_cameras(position, cameras)
        allowed = rig.available[..., None].expand(value.shape[:3])
        attended = self.attention(query.flatten(1, 2), value.flatten(1, 2), position.flatten(1, 2), allowed.flatten(1, 2))
        return as_pictures(attended.unflatten(1, query.shape[1:3]), height, width)

    def _importance(
        self, level_hw: tuple[int, ...], rig: CameraRig, cameras: FailedCameras, way_m: Tensor, way_known: Tensor
    ) -> Float[Tensor, "B M S"]:
        if self.config.trajectory == "none":
            return rig.focal_px.new_zeros(*cameras.camera.shape, sum(h * w for h, w in level_sizes(level_hw)))
        config = self.config
        heights_m = tuple(config.ground_z_m + height for height in config.heights_m)
        maps = [
            corridor(way_m, way_known, rig, cameras, warp.pixel_centres(h, w, rig.focal_px), heights_m, config.corridor_m)
            for h, w in level_sizes(level_hw)
        ]
        return torch.cat(maps, dim=2)


def corridor(
    way_m: Float[Tensor, "B T 2"],
    way_known: Bool[Tensor, "B"],
    rig: CameraRig,
    cameras: FailedCameras,
    centres: Float[Tensor, "N 2"],
    heights_m: tuple[float, ...],
    deviation_m: float,
) -> Float[Tensor, "B M N"]:
    """How near pixels are to the way: 1 on it, falling off as a Gaussian of `deviation_m` at the way's distance; 0 where it is not seen.

    The way is set at some heights and projected into each failed camera; all cameras and streams count by themselves.
    """
    path_m = along(way_m, POINTS_BETWEEN)
    z_m = torch.tensor(heights_m, dtype=path_m.dtype, device=path_m.device)
    shape = (*path_m.shape[:2], len(heights_m))
    points_m = torch.cat([path_m[:, :, None].expand(*shape, 2), z_m[:, None].expand(*shape, 1)], dim=-1).flatten(1, 2)
    image_T_ego, wh_px = take_cameras(rig.image_T_ego, cameras), take_cameras(rig.image_wh_px, cameras)
    places = camera.project(points_m[:, :, None], image_T_ego, wh_px)[:, :, 0].movedim(1, 2)  # [B, M, A, 2]
    axis = image_T_ego[:, :, None, 2]
    depth_m = (axis[..., :3] * points_m[:, None]).sum(-1) + axis[..., 3]
    seen = (depth_m > warp.MIN_DEPTH_M) & ((places > 0) & (places < 1)).all(-1) & way_known[:, None, None]
    places = places.where(seen[..., None], 0.0)
    away_px = (centres[:, None] - places[:, :, None]) * wh_px[:, :, None, None]
    spread_px = deviation_m * take_cameras(rig.focal_px, cameras)[:, :, None] / depth_m.clamp(min=warp.MIN_DEPTH_M)
    near = (-0.5 * away_px.square().sum(-1) / spread_px[:, :, None].square()).exp()
    return near.masked_fill(~seen[:, :, None], 0).amax(-1)
