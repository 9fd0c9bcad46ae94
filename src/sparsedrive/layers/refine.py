"""Refinement heads: from an instance's feature to a better state, class scores and quality."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.geometry import box_state
from sparsedrive.layers.mlp import linear_relu_norm
from sparsedrive.structures import DecoderStep

PRIOR_PROBABILITY = 0.01


def prior_bias(probability: float = PRIOR_PROBABILITY) -> float:
    """Bias that makes a sigmoid start at `probability` (RetinaNet, arXiv:1708.02002, section 4.1)."""
    return -math.log((1 - probability) / probability)


class _Refine(nn.Module):
    """Branches shared by boxes and polylines. Classes come from the feature alone, the rest from feature plus anchor embedding."""

    def __init__(self, dim: int, state_dim: int, num_classes: int):
        super().__init__()
        self.state_branch = nn.Sequential(*linear_relu_norm(dim, linears_per_block=2, blocks=2), nn.Linear(dim, state_dim))
        self.state_scale = nn.Parameter(torch.ones(state_dim))
        class_output = nn.Linear(dim, num_classes)
        nn.init.constant_(class_output.bias, prior_bias())
        self.class_branch = nn.Sequential(*linear_relu_norm(dim, linears_per_block=1, blocks=2), class_output)


class BoxRefine(_Refine):
    """Adds to position, log size and yaw; velocity is a displacement over the time since the last frame.

    Without `adds_to_yaw` every layer says sine and cosine anew (Sparse4D v1); without `with_quality` there are no quality logits.
    """

    def __init__(self, dim: int, num_classes: int, *, adds_to_yaw: bool = True, with_quality: bool = True):
        super().__init__(dim, box_state.STATE_DIM, num_classes)
        self.adds_to_yaw = adds_to_yaw
        branch = [*linear_relu_norm(dim, linears_per_block=1, blocks=2), nn.Linear(dim, 2)] if with_quality else []
        self.quality_branch = nn.Sequential(*branch) if branch else None

    def forward(
        self, feature: Float[Tensor, "B N D"], state: Float[Tensor, "B N 11"], embed: Float[Tensor, "B N D"], elapsed_s: Float[Tensor, "B"]
    ) -> DecoderStep:
        """Refined boxes with class logits and quality logits (centerness, yawness)."""
        positioned = feature + embed
        delta = self.state_branch(positioned) * self.state_scale
        velocity = delta[..., box_state.VX :] / elapsed_s[:, None, None]
        refined = state + torch.cat([delta[..., : box_state.VX], velocity], dim=-1)
        if not self.adds_to_yaw:
            yaw = delta[..., box_state.SIN_YAW : box_state.VX]
            refined = torch.cat([refined[..., : box_state.SIN_YAW], yaw, refined[..., box_state.VX :]], dim=-1)
        quality = None if self.quality_branch is None else self.quality_branch(positioned)
        return DecoderStep(class_logits=self.class_branch(feature), state=refined, quality=quality)


class PolylineRefine(_Refine):
    """Adds to every coordinate."""

    def forward(
        self, feature: Float[Tensor, "B N D"], state: Float[Tensor, "B N S"], embed: Float[Tensor, "B N D"], elapsed_s: Float[Tensor, "B"]
    ) -> DecoderStep:
        """Refined polylines with class logits."""
        delta = self.state_branch(feature + embed) * self.state_scale
        return DecoderStep(class_logits=self.class_branch(feature), state=state + delta, quality=None)
