"""Losses of one detection layer: class, box, and the two qualities."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsedrive.geometry import box_state
from sparsedrive.losses.elementwise import averaged, cosine, gaussian_focal, l1, soft_cross_entropy
from sparsedrive.losses.matching import STATE_COLUMNS, BoxCost, Match, box_weights, gather_rows, known_state
from sparsedrive.ops.sigmoid_focal_loss import sigmoid_focal_loss
from sparsedrive.structures import BoxTargets, DecoderStep

BARRIER = 5
HEADING = [box_state.SIN_YAW, box_state.COS_YAW]


@dataclass(frozen=True, kw_only=True)
class BoxLossConfig:
    """Weights as published for SparseDrive.

    Boxes are only refined where the best class score is above `min_score`. A `reversible_classes` object looks the same from both
    sides: its target is turned to the heading it was predicted with.
    """

    cost: BoxCost = field(default_factory=BoxCost)
    class_weight: float = 2.0
    box_weight: float = 0.25
    state_weights: tuple[float, ...] = (2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    min_score: float = 0.05
    reversible_classes: tuple[int, ...] = (BARRIER,)


@dataclass(frozen=True, slots=True, eq=False)
class BoxLosses:
    """The four terms, weighted."""

    classification: Float[Tensor, ""]
    box: Float[Tensor, ""]
    centerness: Float[Tensor, ""]
    yawness: Float[Tensor, ""]


def detection_losses(step: DecoderStep, targets: BoxTargets, match: Match, count: Tensor, config: BoxLossConfig) -> BoxLosses:
    """Losses of the predictions of one layer. `count`: positives to average over, at least 1 (of all processes, on average).

    Source: Sparse4D v3 (arXiv:2311.11722), section 3.2; SparseDrive, public code.
    """
    label = match.labels(targets.label, step.class_logits.shape[-1])
    logits = step.class_logits.flatten(0, 1)
    focal = sigmoid_focal_loss(logits, label.flatten())
    # `count` stays that of all positives, those without a box loss too, as published.
    chosen = match.positive & (step.class_logits.amax(-1).sigmoid() > config.min_score)
    box = gather_rows(targets.box.to(step.state.dtype), match.target)[chosen]
    weights = box_weights(box, label[chosen]) * step.state.new_tensor(config.state_weights)
    quality = step.quality[chosen] if step.quality is not None else None
    terms = box_terms(step.state[chosen][:, :STATE_COLUMNS], known_state(box), weights, quality, label[chosen], count, config)
    return BoxLosses(averaged(focal, count=count) * config.class_weight, *terms)


def box_terms(
    state: Float[Tensor, "N 10"],
    target: Float[Tensor, "N 10"],
    weights: Float[Tensor, "N 10"],
    quality: Float[Tensor, "N 2"] | None,
    label: Int[Tensor, "N"],
    count: Tensor | float,
    config: BoxLossConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Box, centerness and yawness loss of matched pairs; the latter two 0 without `quality`."""
    heading = state[:, HEADING]
    turned = torch.isin(label, label.new_tensor(config.reversible_classes)) & (cosine(target[:, HEADING], heading) < 0)
    target = torch.cat([target[:, :6], torch.where(turned[:, None], -target[:, HEADING], target[:, HEADING]), target[:, 8:]], -1)
    box = averaged(l1(state, target), weights, count) * config.box_weight
    if quality is None:
        return box, box.new_zeros(()), box.new_zeros(())
    # Not detached: the published centerness loss pulls at the box too.
    near = torch.exp(-torch.linalg.vector_norm(target[:, :3] - state[:, :3], dim=-1))
    ahead = (cosine(target[:, HEADING], heading) > 0).to(state.dtype)
    centerness = averaged(soft_cross_entropy(quality[:, 0], near), count=count)
    yawness = averaged(gaussian_focal(quality[:, 1].sigmoid(), ahead), count=count)
    return box, centerness, yawness
