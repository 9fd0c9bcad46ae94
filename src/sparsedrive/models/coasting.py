"""Remembered boxes that only failed cameras could see go on as they moved: what is not looked at is not revised."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.models.memory_ops import Prior
from sparsedrive.structures import CameraRig, DecoderStep

MIN_DEPTH_M = 0.1
MIN_CONFIDENCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class CoastingConfig:
    """`keeps`: share of its confidence that an unseen instance keeps from frame to frame. `speed`: share of its velocity it goes on with;
    a model that has not learned velocities does better with 0, where things stand still."""

    keeps: float = 0.95
    speed: float = 1.0

    def __post_init__(self) -> None:
        for name in ("keeps", "speed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"CoastingConfig.{name}: expected a share from 0 to 1, got {getattr(self, name)}")


def blind(state: Float[Tensor, "B K 11"], rig: CameraRig) -> Bool[Tensor, "B K"]:
    """Whose centre is in the picture of a failed camera and of none that works."""
    image_T_ego, (width, height) = rig.image_T_ego.to(state.dtype), rig.image_wh_px.to(state.dtype)[:, None].unbind(-1)
    u, v, depth_m = (torch.einsum("bci,bki->bkc", image_T_ego[:, :, axis, :3], state[..., :3]) + image_T_ego[:, None, :, axis, 3]
                     for axis in range(3))  # fmt: skip
    inside = (depth_m > MIN_DEPTH_M) & (u >= 0) & (v >= 0) & (u < width * depth_m) & (v < height * depth_m)
    works = rig.available[:, None]
    return (inside & ~works).any(-1) & ~(inside & works).any(-1)


def coast(
    last: DecoderStep, feature: Float[Tensor, "B N D"], known: DecoderStep, prior: Prior, rig: CameraRig, keeps: float
) -> tuple[DecoderStep, Float[Tensor, "B N D"]]:
    """The last layer's prediction and features, with blind remembered instances as they were, their confidence times `keeps`. One that was
    decoded with more confidence than that stays as decoded.

    `known`: what the last layer says of the remembered features [B,K,...], its states those of the instances now. The first K instances of
    `last` are the remembered ones.
    """
    count = prior.confidence.shape[1]
    wanted = (prior.confidence * keeps).clamp(MIN_CONFIDENCE, 1 - MIN_CONFIDENCE)
    logits = known.class_logits + (wanted.logit() - known.class_logits.amax(-1))[..., None]
    decoded = last.class_logits[:, :count].amax(-1).sigmoid()
    coasts = (blind(known.state, rig) & (prior.track_id >= 0) & (wanted > decoded))[..., None]

    def mixed(old: Tensor, new: Tensor) -> Tensor:
        return torch.cat([torch.where(coasts, old.to(new.dtype), new[:, :count]), new[:, count:]], dim=1)

    quality = None if last.quality is None or known.quality is None else mixed(known.quality, last.quality)
    step = replace(last, class_logits=mixed(logits, last.class_logits), state=mixed(known.state, last.state), quality=quality)
    return step, mixed(prior.feature, feature)
