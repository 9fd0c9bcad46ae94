"""Which cameras do not deliver, seen from the pictures alone: for rigs that do not say so themselves."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.structures import Frame

FLAT, SAME = 0.05, 1e-3
"""Least standard deviation of a picture, and least mean change from one to the next, in units of the network's normalised input."""
MOVED_M = 0.5


def flat_pictures(images: Float[Tensor, "B C 3 H W"], least: float = FLAT) -> Bool[Tensor, "B C"]:
    """Pictures of one colour: black, grey, covered. A picture with NaN is not flat; it is refused elsewhere."""
    return images.flatten(3).std(-1, correction=0).amax(-1) < least


def frozen_pictures(
    images: Float[Tensor, "B C 3 H W"], last_images: Float[Tensor, "B C 3 H W"], moved_m: Float[Tensor, "B"], least: float = SAME
) -> Bool[Tensor, "B C"]:
    """Pictures that did not change although the car moved. Of a car that stands nothing can be said."""
    same = (images - last_images).abs().flatten(2).mean(-1) < least
    return same & (moved_m > MOVED_M)[:, None]


def with_health(frame: Frame, last: Frame | None = None) -> Frame:
    """The frame with `rig.available` False also for cameras whose picture is flat, or the same as in the `last` frame of its stream.

    Cameras that were not available stay so. `last` counts only where it is of the same sequence.
    """
    broken = flat_pictures(frame.images)
    if last is not None:
        moved_m = torch.linalg.vector_norm(frame.global_T_ego[:, :3, 3] - last.global_T_ego[:, :3, 3], dim=-1)
        frozen = frozen_pictures(frame.images, last.images, moved_m)
        broken = broken | (frozen & (frame.sequence_id == last.sequence_id)[:, None])
    return replace(frame, rig=replace(frame.rig, available=frame.rig.available & ~broken))
