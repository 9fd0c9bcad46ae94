"""Do rectangles on the ground overlap?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def rectangles_overlap(first: Float[Tensor, "*#batch 5"], second: Float[Tensor, "*#batch 5"]) -> Bool[Tensor, "*batch"]:
    """Whether two rectangles share a point, their edges included. Rows: x y length width (m) yaw_rad; shapes broadcast.

    Separating axes: two convex shapes are apart exactly if a side of one of them separates them.
    """
    return _no_side_separates(first, second) & _no_side_separates(second, first)


def corners_inside(first: Float[Tensor, "*#batch 5"], second: Float[Tensor, "*#batch 5"]) -> Bool[Tensor, "*batch"]:
    """Whether a corner of one rectangle lies in the other, its edge included: the published test.

    Two rectangles that cross like a plus sign have no corner in each other and are not found, so a plan may lead through a thin
    obstacle across the lane. Source: rescore of swc-17/SparseDrive; kept for `ParityOptions.corner_only_collisions`.
    """
    return _any_corner_inside(first, second) | _any_corner_inside(second, first)


def _seen_from(box: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre of `other` along and across `box`, and its yaw relative to it."""
    east, north = other[..., 0] - box[..., 0], other[..., 1] - box[..., 1]
    cos, sin = box[..., 4].cos(), box[..., 4].sin()
    return east * cos + north * sin, north * cos - east * sin, other[..., 4] - box[..., 4]


def _no_side_separates(box: Tensor, other: Tensor) -> Tensor:
    """Whether `other`, seen along and across `box`, reaches into it."""
    along, across, turn = _seen_from(box, other)
    length, width, other_length, other_width = box[..., 2], box[..., 3], other[..., 2], other[..., 3]
    cos_turn, sin_turn = turn.cos().abs(), turn.sin().abs()
    reach_along = (length + other_length * cos_turn + other_width * sin_turn) / 2
    reach_across = (width + other_length * sin_turn + other_width * cos_turn) / 2
    return (along.abs() <= reach_along) & (across.abs() <= reach_across)


def _any_corner_inside(box: Tensor, other: Tensor) -> Tensor:
    """Whether a corner of `other` lies in `box`, checked in the coordinates of `box`."""
    along, across, turn = _seen_from(box, other)
    length, width, other_length, other_width = box[..., 2], box[..., 3], other[..., 2], other[..., 3]
    cos_turn, sin_turn = turn.cos(), turn.sin()
    inside = torch.zeros_like(along, dtype=torch.bool)
    for half_length in (other_length / 2, -other_length / 2):
        for half_width in (other_width / 2, -other_width / 2):
            corner_along = along + half_length * cos_turn - half_width * sin_turn
            corner_across = across + half_length * sin_turn + half_width * cos_turn
            inside = inside | ((corner_along.abs() <= length / 2) & (corner_across.abs() <= width / 2))
    return inside
