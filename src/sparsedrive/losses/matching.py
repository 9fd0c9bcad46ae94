"""Which prediction answers for which target: one-to-one assignment of least cost (Hungarian method).

Source: set prediction of DETR (arXiv:2005.12872), with the costs of Sparse4D (arXiv:2211.10581) and StreamMapNet (arXiv:2308.12570).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.geometry import box_state, polyline
from sparsedrive.structures import BoxTargets, DecoderStep, MapTargets

TRAFFIC_CONE = 9
FOCAL_ALPHA, FOCAL_GAMMA, LOG_EPS = 0.25, 2.0, 1e-12
WORST_COST = 1e8
STATE_COLUMNS = 10
"""Columns of a box state that are trained: all but the vertical velocity."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """`target` [B, N]: the target row each prediction answers for, -1 for none. `order` [B, N]: which order of that line, 0 for boxes."""

    target: Int[Tensor, "B N"]
    order: Int[Tensor, "B N"]

    @property
    def positive(self) -> Bool[Tensor, "B N"]:
        """Predictions that answer for a target."""
        return self.target >= 0

    def labels(self, label: Int[Tensor, "B M"], background: int) -> Int[Tensor, "B N"]:
        """Class each prediction should say."""
        return torch.where(self.positive, gather_rows(label, self.target), background)


@dataclass(frozen=True, kw_only=True)
class BoxCost:
    """Cost of a box: `class_weight` * focal cost + `box_weight` * weighted L1 distance of the first ten state columns."""

    class_weight: float = 2.0
    box_weight: float = 0.25
    state_weights: tuple[float, ...] = (2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class LineCost:
    """Cost of a polyline: focal cost + `line_weight` * smooth L1 distance a point (region scaled to 1), best of all orders."""

    class_weight: float = 1.0
    line_weight: float = 10.0
    beta: float = 0.01


def box_weights(box: Float[Tensor, "*batch 10"], label: Int[Tensor, "*batch"], *, poisoned: bool = False) -> Float[Tensor, "*batch 10"]:
    """Weight of every state column of a target: 0 where it is unknown (NaN velocity), and 0 for the heading of a traffic cone.

    `poisoned`: a cone's weights hold for its unknown columns too, as in the published code.
    """
    state = box_state.encode(box)[..., :STATE_COLUMNS]
    cone = state.new_tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    weights = torch.ones_like(state)
    weights[..., box_state.VX :] = (~state[..., box_state.VX :].isnan()).to(state.dtype)
    return torch.where((label == TRAFFIC_CONE)[..., None], cone if poisoned else cone * weights, weights)


def known_state(box: Float[Tensor, "*batch 10"]) -> Float[Tensor, "*batch 10"]:
    """Trained columns of a target's state, an unknown velocity as 0. Anything else that is not a number stays so and stops the run."""
    state = box_state.encode(box)[..., :STATE_COLUMNS]
    return torch.cat([state[..., : box_state.VX], state[..., box_state.VX :].nan_to_num()], -1)


def class_cost(logits: Float[Tensor, "N K"], label: Int[Tensor, "M"]) -> Float[Tensor, "N M"]:
    """What it costs less (negative: gains) to call a prediction positive rather than negative, in focal loss."""
    p = logits.sigmoid()
    negative = -(1 - p + LOG_EPS).log() * (1 - FOCAL_ALPHA) * p.pow(FOCAL_GAMMA)
    positive = -(p + LOG_EPS).log() * FOCAL_ALPHA * (1 - p).pow(FOCAL_GAMMA)
    return (positive - negative)[:, label]


def box_cost(
    state: Float[Tensor, "N S"], box: Float[Tensor, "M 10"], label: Int[Tensor, "M"], cost: BoxCost, *, poisoned: bool = False
) -> Float[Tensor, "N M"]:
    """Weighted distance; `poisoned` lets an unknown velocity spoil the whole row of costs, as the published code does."""
    target = box_state.encode(box)[:, :STATE_COLUMNS] if poisoned else known_state(box)
    weights = box_weights(box, label, poisoned=poisoned)
    distance = (state[:, None, :STATE_COLUMNS] - target[None]).abs() * weights[None] * state.new_tensor(cost.state_weights)
    return distance.sum(-1) * cost.box_weight


def normalise_lines(points_m: Float[Tensor, "*batch P 2"], roi_m: tuple[float, float]) -> Float[Tensor, "*batch P 2"]:
    """Region -> (0, 1); the published constant keeps its border out of 1."""
    size_m = points_m.new_tensor(roi_m)
    return (points_m + size_m / 2) / (size_m + 1e-5)


def line_cost(
    state: Float[Tensor, "N PC"],
    points_m: Float[Tensor, "M V P 2"],
    order_valid: Bool[Tensor, "M V"],
    roi_m: tuple[float, float],
    cost: LineCost,
) -> tuple[Float[Tensor, "N M"], Int[Tensor, "N M"]]:
    """Distance to the best order of each target, and which order that is."""
    predicted = normalise_lines(polyline.points(state), roi_m).flatten(1)
    wanted = normalise_lines(points_m, roi_m).flatten(2)
    shape = (predicted.shape[0], *wanted.shape)
    distance = F.smooth_l1_loss(predicted[:, None, None].expand(shape), wanted[None].expand(shape), reduction="none", beta=cost.beta)
    distance = distance.sum(-1) / points_m.shape[2]
    best = distance.masked_fill(~order_valid[None], torch.inf).min(-1)
    return best.values * cost.line_weight, best.indices


@torch.no_grad()
def match_boxes(step: DecoderStep, targets: BoxTargets, cost: BoxCost, *, poisoned: bool = False) -> Match:
    """Assign the predictions of one decoder layer to boxes. The assignment runs on the CPU (SciPy)."""
    matched = torch.full(step.class_logits.shape[:2], -1, dtype=torch.int64, device=step.class_logits.device)
    for stream, valid in enumerate(targets.valid):
        rows = valid.nonzero()[:, 0]
        box, label = targets.box[stream, rows].to(step.state.dtype), targets.label[stream, rows]
        total = class_cost(step.class_logits[stream].float(), label) * cost.class_weight
        total = total + box_cost(step.state[stream].float(), box.float(), label, cost, poisoned=poisoned)
        prediction, target = assign(total)
        matched[stream, prediction] = rows[target]
    return Match(matched, torch.zeros_like(matched))


@torch.no_grad()
def match_lines(step: DecoderStep, targets: MapTargets, roi_m: tuple[float, float], cost: LineCost) -> Match:
    """Assign the predictions of one decoder layer to map elements."""
    matched = torch.full(step.class_logits.shape[:2], -1, dtype=torch.int64, device=step.class_logits.device)
    order = torch.zeros_like(matched)
    for stream, valid in enumerate(targets.valid):
        rows = valid.nonzero()[:, 0]
        if len(rows) == 0:
            continue
        points_m = targets.points_m[stream, rows].float()
        distance, best = line_cost(step.state[stream].float(), points_m, targets.order_valid[stream, rows], roi_m, cost)
        total = class_cost(step.class_logits[stream].float(), targets.label[stream, rows]) * cost.class_weight + distance
        prediction, target = assign(total)
        matched[stream, prediction] = rows[target]
        order[stream, prediction] = best[prediction, target]
    return Match(matched, order)


def assign(cost: Float[Tensor, "N M"]) -> tuple[Int[Tensor, "K"], Int[Tensor, "K"]]:
    """Rows and columns of the assignment of least total cost; what is not a number counts as the worst."""
    values = cost.detach().cpu().double()
    values = torch.where(values.isnan() | values.isneginf(), WORST_COST, values)
    rows, columns = linear_sum_assignment(values.numpy())
    return torch.as_tensor(rows, device=cost.device), torch.as_tensor(columns, device=cost.device)


def gather_rows(values: Tensor, index: Int[Tensor, "B N"]) -> Tensor:
    """values [B, M, ...] -> [B, N, ...]; rows where the index is -1 are arbitrary, zeros where there are no values at all."""
    if values.shape[1] == 0:
        return values.new_zeros((*index.shape, *values.shape[2:]))
    return values[torch.arange(len(index), device=index.device)[:, None], index.clamp(min=0)]
