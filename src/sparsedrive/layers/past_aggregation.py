"""Sparse4D v1: what an instance reads from the pictures of this frame and of past ones, point by point."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sparsedrive.geometry import box_state, camera, se3
from sparsedrive.layers.deformable_aggregation import DeformableAggregation
from sparsedrive.layers.depth_reweight import DepthReweight
from sparsedrive.layers.keypoints import BOX_FIXED_POINTS
from sparsedrive.ops import deformable_aggregation
from sparsedrive.structures import ImageFeatures

DECAY, DECAY_PER_S = 0.9, 10.0  # a frame t seconds old counts 0.9^(10 t)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class View:
    """Pictures of one instant and their cameras. `levels`: see `bordered`. `then_T_now` takes ego coordinates of this frame to those of
    that instant, `age_s` seconds ago. A stream in which there is no such view is not `valid`.
    """

    levels: tuple[ImageFeatures, ...]
    image_T_ego: Float[Tensor, "B C 4 4"]
    image_wh_px: Float[Tensor, "B C 2"]
    available: Bool[Tensor, "B C"]
    then_T_now: Float[Tensor, "B 4 4"]
    age_s: Float[Tensor, "B"]
    valid: Bool[Tensor, "B"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Views:
    """This frame and those before, oldest first, with what all layers of a decoder share to read them."""

    now: View
    past: tuple[View, ...]
    encoder: Callable[[Tensor], Tensor]
    depth: DepthReweight


class PastAggregation(DeformableAggregation):
    """Key points are moved back by the box's velocity and the ego motion, and sampled in every frame. A point's feature is scaled by how
    well its depth fits (`DepthReweight`); frames are fused from the oldest to now by a linear layer; then points are summed.

    The sampling weights are predicted for a fixed number of cameras, without looking at their calibration.
    Source: Sparse4D (arXiv:2211.10581), sections 3.3 and 3.4; linxuewu/Sparse4D.
    """

    def __init__(
        self, key_points: nn.Module, num_points: int, dim: int, num_groups: int, num_levels: int, *, num_cameras: int, fuses: bool,
        output_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__(key_points, num_points, dim, num_groups, num_levels, num_cameras=num_cameras)
        self.fusion = nn.Linear(2 * dim, dim) if fuses else None
        self.dropout = nn.Dropout(output_dropout)
        if self.fusion is not None:
            nn.init.xavier_uniform_(self.fusion.weight)
            nn.init.zeros_(self.fusion.bias)

    def forward(  # type: ignore[override]  # pictures come as views
        self, feature: Float[Tensor, "B N D"], state: Float[Tensor, "B N 11"], embed: Float[Tensor, "B N D"], views: Views
    ) -> Float[Tensor, "B N D"]:
        """What was gathered, added to the feature."""
        points_m = self.key_points(state, feature)
        fused = torch.zeros_like(feature[:, :, None]).expand(-1, -1, points_m.shape[2], -1)
        begun = torch.zeros_like(views.now.valid)
        for view in views.past:
            then = box_state.transform(state, view.then_T_now, -view.age_s)
            seen = self._look(feature + views.encoder(then), then, _moved(points_m, state, view), view, views.depth)
            # The oldest frame there is enters as it is, as published.
            joined = torch.where(_rows(begun), self._fuse(fused, seen, view.age_s), seen)
            fused, begun = torch.where(_rows(view.valid), joined, fused), begun | view.valid
        seen = self._look(feature + embed, state, points_m, views.now, views.depth)
        gathered = (seen if self.fusion is None else self._fuse(fused, seen, views.now.age_s)).sum(dim=2)
        return feature + self.dropout(self.output(gathered))

    def _look(self, query: Tensor, state: Tensor, points_m: Tensor, view: View, depth: DepthReweight) -> Float[Tensor, "B N P D"]:
        points = camera.project(points_m, view.image_T_ego, view.image_wh_px)
        points = points.where(view.available[:, None, None, :, None], -1.0)  # outside every picture
        seen = gather_points(view.levels, points, self._sampling_weights(query, None))
        return seen * depth(seen, torch.linalg.vector_norm(state[..., :2], dim=-1))[..., None]

    def _fuse(self, fused: Tensor, seen: Tensor, age_s: Float[Tensor, "B"]) -> Float[Tensor, "B N P D"]:
        assert self.fusion is not None
        return self.fusion(torch.cat([fused, seen * _rows(DECAY ** (age_s * DECAY_PER_S).abs())], dim=-1))


def depth_of_boxes(
    key_points: nn.Module, state: Float[Tensor, "B M 11"], view: View, depth: DepthReweight, num_groups: int
) -> Float[Tensor, "B M P"]:
    """How well depth fits at the fixed key points of true boxes, for the loss: features averaged over all cameras and levels."""
    dim = view.levels[0].packed.shape[-1]
    points_m = key_points(state, state.new_zeros(*state.shape[:2], dim))[:, :, : len(BOX_FIXED_POINTS)]
    points = camera.project(points_m, view.image_T_ego, view.image_wh_px)
    points = points.where(view.available[:, None, None, :, None], -1.0)
    cameras, levels = points.shape[3], len(view.levels)
    seen = gather_points(view.levels, points, points.new_full((*points.shape[:4], levels, num_groups), 1 / (cameras * levels)))
    return depth(seen, torch.linalg.vector_norm(state[..., :2], dim=-1))


def bordered(images: ImageFeatures) -> tuple[ImageFeatures, ...]:
    """The levels one by one, each with a border of zeros one pixel wide.

    So a point up to half a pixel outside still reads part of the outermost ones: v1 was trained without the sharp border of later
    versions (`ops.deformable_aggregation`).
    """
    levels = [F.pad(images.level(index), (1, 1, 1, 1)) for index in range(images.num_levels)]
    return tuple(ImageFeatures(packed=level.movedim(2, -1).flatten(2, 3), level_hw=tuple(level.shape[-2:])) for level in levels)


def gather_points(
    levels: tuple[ImageFeatures, ...], points: Float[Tensor, "B N P C 2"], weights: Float[Tensor, "B N P C L G"]
) -> Float[Tensor, "B N P D"]:
    """As `ops.deformable_aggregation`, but each point by itself, and on `bordered` levels; `points` in units of the picture inside."""
    x, y = points.flatten(1, 2)[:, :, None].unbind(-1)
    flat = weights.flatten(1, 2)[:, :, None]
    total: Tensor | None = None
    for index, level in enumerate(levels):
        height, width = level.level_hw
        inside = torch.stack([(x * (width - 2) + 1) / width, (y * (height - 2) + 1) / height], dim=-1)
        sampled = deformable_aggregation(level.packed, level.level_hw, inside, flat[..., index : index + 1, :])
        total = sampled if total is None else total + sampled
    assert total is not None, "there is at least one level"
    return total.unflatten(1, points.shape[1:3])


def _moved(points_m: Float[Tensor, "B N P 3"], state: Float[Tensor, "B N 11"], view: View) -> Float[Tensor, "B N P 3"]:
    """Where the points of moving boxes were, in the ego frame of then."""
    before_m = points_m - (state[..., box_state.VX :] * view.age_s[:, None, None])[:, :, None]
    return se3.rotate(view.then_T_now[:, None, None, :3, :3], before_m) + view.then_T_now[:, None, None, :3, 3]


def _rows(of_stream: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return of_stream[:, None, None, None]
