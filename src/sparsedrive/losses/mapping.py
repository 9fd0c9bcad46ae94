"""Losses of one map layer: class and polyline."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sparsedrive.geometry import polyline
from sparsedrive.losses.elementwise import averaged, smooth_line_distance
from sparsedrive.losses.matching import LineCost, Match, gather_rows, normalise_lines
from sparsedrive.ops.sigmoid_focal_loss import sigmoid_focal_loss
from sparsedrive.structures import DecoderStep, MapTargets


@dataclass(frozen=True, kw_only=True)
class LineLossConfig:
    """Weights as published for SparseDrive."""

    cost: LineCost = field(default_factory=LineCost)
    class_weight: float = 1.0
    line_weight: float = 10.0
    beta: float = 0.01
    min_score: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class LineLosses:
    """The two terms, weighted."""

    classification: Float[Tensor, ""]
    line: Float[Tensor, ""]


def map_losses(
    step: DecoderStep, targets: MapTargets, match: Match, count: Tensor, roi_m: tuple[float, float], config: LineLossConfig
) -> LineLosses:
    """Losses of the predictions of one layer. `count` as in `detection_losses`. Source: StreamMapNet (arXiv:2308.12570), section 3.4."""
    label = match.labels(targets.label, step.class_logits.shape[-1])
    focal = sigmoid_focal_loss(step.class_logits.flatten(0, 1), label.flatten())
    chosen = match.positive & (step.class_logits.amax(-1).sigmoid() > config.min_score)
    orders = gather_rows(targets.points_m.to(step.state.dtype), match.target)[chosen]
    wanted = orders[torch.arange(len(orders), device=orders.device), match.order[chosen]]
    predicted = normalise_lines(polyline.points(step.state[chosen]), roi_m).flatten(1)
    target = normalise_lines(wanted, roi_m).flatten(1).reshape(predicted.shape)  # a batch without lines has no number of points either
    distance = smooth_line_distance(predicted, target, config.beta)
    return LineLosses(
        averaged(focal, count=count) * config.class_weight,
        averaged(distance, count=count) * config.line_weight,
    )
