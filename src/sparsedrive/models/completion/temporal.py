"""Level 1: the failed camera's features from remembered pictures and from cameras that work, looked up along its rays.

From the coarsest level to the finest: every pixel is a point at each of some depths; the points are projected into all source pictures,
sampled there and mixed with learned weights; an attention over averaged pixels of the sources adds what geometry does not find.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sparsedrive.models.completion import warp
from sparsedrive.models.completion.blocks import (
    CameraAttention,
    RayEncoder,
    as_pictures,
    as_rows,
    level_sizes,
    separable,
    small_start,
    split_levels,
)
from sparsedrive.models.completion.cameras import DATA_ORDER_NEIGHBOURS, ring_neighbours, seen_neighbours, take_cameras
from sparsedrive.models.completion.config import EXTRINSICS, PublishedQuirks, TemporalConfig
from sparsedrive.models.completion.warp import Places, Sources
from sparsedrive.ops import deformable_aggregation
from sparsedrive.structures import CameraRig, FailedCameras

AGE_WEIGHT_PER_S, DEPTH_WEIGHT = -2.0, -1.0  # of the mixing weights at the start: young pictures of things as far away as now
COVERED_LOGIT = 2.0  # the gate begins at 0.88 where something was found, at 0.12 (as published) where not


class Completed(NamedTuple):
    """Features of failed cameras, and how much of each pixel is believed."""

    features: Float[Tensor, "B M S D"]
    confidence: Float[Tensor, "B M S"]


class TemporalCompletion(nn.Module):
    """V1 or V2 of the published motion-compensated temporal completion, by `TemporalConfig.attention`."""

    def __init__(self, config: TemporalConfig, dim: int, camera_names: tuple[str, ...], published: PublishedQuirks) -> None:
        super().__init__()
        self.config, self.published = config, published
        num_depths, groups = len(config.depths_m), config.num_groups
        self.neighbours = self._fixed_neighbours(camera_names)
        self.rays = RayEncoder(dim)
        self.age = nn.Linear(1, dim)
        self.attention = CameraAttention(dim, config.num_heads)
        self.from_coarser = nn.Linear(dim, dim) if len(config.levels) > 1 else None
        self.depth_logits = nn.Linear(dim, num_depths * groups)
        self.source_logits = nn.Linear(2, groups, bias=False)
        self.offsets = nn.Linear(dim, num_depths * 2)
        self.nothing = nn.Parameter(torch.zeros(dim))
        self.decoders = nn.ModuleList(nn.Sequential(separable(2 * dim, dim), separable(dim, dim)) for _ in config.levels)
        self.additions = nn.ModuleList(small_start(nn.Conv2d(dim, dim, 1)) for _ in config.levels)
        self.gates = nn.ModuleList(small_start(nn.Conv2d(dim, 1, 1)) for _ in config.levels)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)
        nn.init.zeros_(self.depth_logits.weight)
        prior = -0.5 * torch.tensor(config.depths_m).log()  # weights as depth^-1/2, as published
        with torch.no_grad():
            self.depth_logits.bias.copy_(prior.repeat_interleave(groups))
            self.source_logits.weight.copy_(torch.tensor([AGE_WEIGHT_PER_S, DEPTH_WEIGHT]).expand(groups, 2))

    def forward(self, pictures: Sources, rig: CameraRig, cameras: FailedCameras) -> Completed:
        """Features of the failed cameras on the configured levels, zero on the others."""
        sizes = level_sizes(pictures.level_hw)
        batch, rows = cameras.camera.shape
        dim = pictures.packed[0].shape[-1]
        found = [(rig.focal_px.new_zeros(batch, rows, h * w, dim), rig.focal_px.new_zeros(batch, rows, h * w)) for h, w in sizes]
        partners = self._partners(rig, cameras)
        coarser: Tensor | None = None
        for index in reversed(range(len(self.config.levels))):
            level = self.config.levels[index]
            height, width = sizes[level]
            centres = warp.pixel_centres(height, width, rig.focal_px, aligned_corners=self.published.aligned_corners)
            context = self._context(pictures, rig, cameras, partners, centres, level, coarser)
            seen, coverage = self._look(pictures, rig, cameras, partners, centres, level, context)
            hidden = self.decoders[index](as_pictures(torch.cat([seen, context], dim=-1), height, width))
            gate = as_rows(self.gates[index](hidden), batch)[..., 0] + COVERED_LOGIT * (2 * coverage - 1)
            found[level] = (seen + as_rows(self.additions[index](hidden), batch), gate.sigmoid())
            if index:
                finer = F.interpolate(hidden, size=sizes[self.config.levels[index - 1]], mode="bilinear", align_corners=False)
                coarser = as_rows(finer, batch)
        return Completed(torch.cat([feature for feature, _ in found], dim=2), torch.cat([belief for _, belief in found], dim=2))

    def _context(
        self, pictures: Sources, rig: CameraRig, cameras: FailedCameras, partners: Int[Tensor, "B M J"] | None, centres: Tensor, level: int,
        coarser: Tensor | None,
    ) -> Float[Tensor, "B M HW D"]:  # fmt: skip
        """What is known of every pixel beside what is seen along its ray: its direction, and what was found at the coarser level."""
        direction, _ = warp.rays(take_cameras(rig.image_T_ego, cameras), take_cameras(rig.image_wh_px, cameras), centres)
        query = self.rays(torch.zeros_like(direction) if self.published.no_positions else direction)
        if coarser is not None and self.from_coarser is not None:
            return query + self.from_coarser(coarser)
        value, position, allowed = self._tokens(pictures, level)
        batch, rows, pixels = query.shape[:3]
        if partners is None:
            shared = (value.flatten(1, 3), position.flatten(1, 3), allowed.flatten(1, 3))
            return query + self.attention(query.flatten(1, 2), *shared).unflatten(1, (rows, pixels))
        stream = torch.arange(batch, device=partners.device)[:, None, None]
        own = (tokens.movedim(2, 1)[stream, partners] for tokens in (value, position, allowed))  # [B, M, J, V, K, ...]
        keys = (tokens.flatten(0, 1).flatten(1, 3) for tokens in own)
        return query + self.attention(query.flatten(0, 1), *keys).unflatten(0, (batch, rows))

    def _tokens(self, pictures: Sources, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """Averaged pixels of all sources [B, V, C, K, D], their positions, and whether they were seen [B, V, C, K]."""
        height, width = level_sizes(pictures.level_hw)[level]
        maps = torch.stack([split_levels(packed, pictures.level_hw)[level] for packed in pictures.packed], dim=1)
        lead = maps.shape[:3]
        images = maps.flatten(0, 2).unflatten(1, (height, width)).movedim(-1, 1)
        small = (max(1, height // self.config.kv_downsample), max(1, width // self.config.kv_downsample))
        value = F.adaptive_avg_pool2d(images, small).flatten(2).transpose(1, 2).unflatten(0, lead)
        identity = torch.eye(4, dtype=maps.dtype, device=maps.device)
        image_T_now = torch.where(pictures.valid[..., None, None], pictures.image_T_now, identity)
        direction, _ = warp.rays(image_T_now, pictures.image_wh_px, warp.pixel_centres(*small, maps))
        if self.published.no_positions:
            direction = torch.zeros_like(direction)
        position = self.rays(direction) + self.age(pictures.age_s[..., None])[..., None, :]
        return value, position, pictures.valid[..., None].expand(*lead, value.shape[3])

    def _look(
        self, pictures: Sources, rig: CameraRig, cameras: FailedCameras, partners: Int[Tensor, "B M J"] | None, centres: Tensor, level: int,
        context: Tensor,
    ) -> tuple[Float[Tensor, "B M HW D"], Float[Tensor, "B M HW"]]:  # fmt: skip
        """What is seen along the rays, a learned feature where nothing is, and the share of the depths at which something is."""
        rows = cameras.camera.shape[1]
        depths_m, groups = self.config.depths_m, self.config.num_groups
        views, points_m = pictures, warp.hypotheses(rig, cameras, centres, depths_m)
        if self.published.pseudo_geometry:
            views, points_m = warp.pseudo_views(pictures, rig), warp.pseudo_hypotheses(cameras, centres, depths_m)
            partners = cameras.camera[..., None]
        places = warp.find(points_m, views, mean_weights=self._mean_weights(points_m))
        seen = places.seen
        if partners is not None:
            seen = seen & _is_partner(partners, rig.focal_px.shape[1]).repeat_interleave(len(centres), dim=1)[:, :, None, None]
        depth_logits = self.depth_logits(context).flatten(1, 2).unflatten(-1, (len(depths_m), groups))
        weights = self._weights(places, seen, depth_logits, pictures)
        offset = self.offsets(context).flatten(1, 2).unflatten(-1, (len(depths_m), 2)).tanh() * self.config.max_offset
        points = places.points + offset[:, :, : places.points.shape[2], None, None]
        points = points.where(seen[..., None], warp.HIDDEN)
        sampled = gather(pictures, level, points, weights).unflatten(1, (rows, -1))
        share = depth_logits.softmax(dim=2).mean(-1)
        any_seen = seen.flatten(3).any(-1)
        covered = any_seen.any(-1).unflatten(1, (rows, -1))
        coverage = (share * any_seen).sum(-1).unflatten(1, (rows, -1))
        return torch.where(covered[..., None], sampled, self.nothing.to(sampled.dtype)), coverage

    def _weights(self, places: Places, seen: Tensor, depth_logits: Tensor, pictures: Sources) -> Float[Tensor, "B N P V C G"]:
        """Softmax over depths and pictures in which something is to be seen; zero where nothing is."""
        direct_m = torch.tensor(self.config.depths_m, dtype=places.depth_m.dtype, device=places.depth_m.device)
        ratio = (places.depth_m.clamp(min=warp.MIN_DEPTH_M) / direct_m[: places.depth_m.shape[2], None, None]).log().abs()
        age_s = pictures.age_s[:, None, None].expand_as(ratio)
        logits = self.source_logits(torch.stack([age_s, ratio.clamp(max=5.0)], dim=-1)) + depth_logits[:, :, : ratio.shape[2], None, None]
        hidden = ~seen[..., None]
        shape = logits.shape[2:5]
        weights = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).flatten(2, 4).softmax(dim=2).unflatten(2, shape)
        return weights.masked_fill(hidden, 0)

    def _mean_weights(self, like: Tensor) -> Tensor | None:
        if not self.published.mean_coordinates:
            return None
        weights = torch.tensor(self.config.depths_m, dtype=like.dtype, device=like.device) ** -0.5
        return weights / weights.sum()

    def _fixed_neighbours(self, names: tuple[str, ...]) -> tuple[tuple[int, ...], ...] | None:
        """Who looks at whom; None if all at all, or as the extrinsics say."""
        config = self.config
        if config.attention == "global":
            return None
        if self.published.data_order_neighbours:
            return DATA_ORDER_NEIGHBOURS
        return None if isinstance(config.ring, str) else ring_neighbours(names, config.ring)

    def _partners(self, rig: CameraRig, cameras: FailedCameras) -> Int[Tensor, "B M J"] | None:
        """The cameras that each failed one looks at; None for all."""
        if self.config.attention == "global":
            return None
        if self.neighbours is not None:
            table = torch.tensor(self.neighbours, device=cameras.camera.device)
            return table[cameras.camera]
        assert self.config.ring == EXTRINSICS
        return take_cameras(seen_neighbours(rig.image_T_ego), cameras)


def gather(
    pictures: Sources, level: int, points: Float[Tensor, "B N P V C 2"], weights: Float[Tensor, "B N P V C G"]
) -> Float[Tensor, "B N D"]:
    """Weighted sum of the samples of one level in all source pictures."""
    height, width = level_sizes(pictures.level_hw)[level]
    total: Tensor | None = None
    for view, packed in enumerate(pictures.packed):
        pixels = split_levels(packed, pictures.level_hw)[level]
        sampled = deformable_aggregation(
            pixels, (height, width), points[:, :, :, view].contiguous(), weights[:, :, :, view, :, None].to(pixels.dtype)
        )
        total = sampled if total is None else total + sampled
    assert total is not None, "this frame is a source"
    return total


def _is_partner(partners: Int[Tensor, "B M J"], num_cameras: int) -> Bool[Tensor, "B M C"]:
    return (partners[..., None] == torch.arange(num_cameras, device=partners.device)).any(dim=2)
