"""Denoising: queries from noised ground truth, and the losses of what a decoder answers to them.

Source: Sparse4D v3 (arXiv:2311.11722), section 3.1, and its public code, HorizonRobotics/Sparse4D.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from sparsedrive.geometry import box_state
from sparsedrive.losses.detection import BoxLossConfig
from sparsedrive.losses.elementwise import averaged, l1
from sparsedrive.losses.matching import BoxCost, assign, box_cost, box_weights, gather_rows, known_state
from sparsedrive.ops.sigmoid_focal_loss import sigmoid_focal_loss
from sparsedrive.structures import BoxTargets, DecoderStep, DenoisingConfig, DenoisingQueries, DenoisingTargets
from sparsedrive.structures.denoising import NOISED_COLUMNS

NO_OBJECT = -1


@dataclass(frozen=True, slots=True, eq=False)
class DenoisingDraws:
    """All that is random about the queries of one batch: numbers in [0, 1) for G groups, B streams and M objects, and a shuffle of the
    groups. The groups whose number in it is below `DenoisingConfig.num_temporal_groups` live on.
    """

    positive: Float[Tensor, "G B M 10"]
    negative: Float[Tensor, "G B M 10"]
    sign: Float[Tensor, "G B M 10"]
    group_order: Int[Tensor, "G"]


@dataclass(frozen=True, slots=True, eq=False)
class DenoisingLosses:
    """The two terms, weighted."""

    classification: Float[Tensor, ""]
    box: Float[Tensor, ""]


def make_queries(targets: BoxTargets, config: DenoisingConfig, cost: BoxCost, generator: torch.Generator) -> DenoisingQueries:
    """Queries for one batch, on the targets' device; `generator` decides the noise. See `noised_queries`."""
    batch = targets.valid.shape[0]
    fullest = int(targets.valid.sum(1).max()) if targets.valid.numel() else 0
    num_objects = max(1, min(fullest, config.max_objects))  # a batch without objects has queries too, not valid
    return noised_queries(targets, config, cost, draw(config, batch, num_objects, generator))


def draw(config: DenoisingConfig, batch_size: int, num_objects: int, generator: torch.Generator) -> DenoisingDraws:
    """Random numbers in the order the published code draws them."""
    shape = (config.num_groups, batch_size, num_objects, NOISED_COLUMNS)
    positive, negative, sign = (torch.rand(shape, generator=generator, device=generator.device) for _ in range(3))
    return DenoisingDraws(positive, negative, sign, torch.randperm(config.num_groups, generator=generator, device=generator.device))


def noised_queries(targets: BoxTargets, config: DenoisingConfig, cost: BoxCost, draws: DenoisingDraws) -> DenoisingQueries:
    """The first M objects of every stream, noised G times as positive and as negative.

    In each group the queries are matched one-to-one to the objects by their box alone (`cost`), so a negative that came to lie nearer than
    a positive takes its place. An unknown velocity counts as 0 before the noise. Vertical velocities are 0.
    """
    device, dtype = targets.box.device, targets.box.dtype
    positive, negative, sign = (numbers.to(device, dtype) for numbers in (draws.positive, draws.negative, draws.sign))
    num_groups, batch, num_objects, _ = positive.shape
    row, present = _first_rows(targets.valid, num_objects)
    box = torch.where(present[..., None], gather_rows(targets.box, row), 1.0)
    state = torch.where(present[..., None], known_state(box), 0.0)
    scale = state.new_tensor(config.noise_scale)
    near = (2 * positive - 1) * scale
    far = torch.where(sign > 0.5, 1.0, -1.0) * (1 + negative) * scale
    noised = torch.cat([state + near, state + far], dim=2)
    match = _match(noised, box, present, cost).flatten(1)
    answers, instance = match >= 0, gather_rows(gather_rows(targets.instance, row), match)
    lives_on = (draws.group_order < config.num_temporal_groups).nonzero()[:, 0].to(device)
    return DenoisingQueries(
        state=F.pad(noised.transpose(0, 1).flatten(1, 2), (0, box_state.STATE_DIM - NOISED_COLUMNS)),
        targets=DenoisingTargets(
            box=gather_rows(box, match),
            label=torch.where(answers, gather_rows(gather_rows(targets.label, row), match), NO_OBJECT),
            instance=torch.where(answers, instance, -1),
            valid=present.repeat(1, 2 * num_groups),
        ),
        propagated=lives_on.repeat(batch, 1),
    )


def denoising_losses(step: DecoderStep, targets: DenoisingTargets, count: Tensor, config: BoxLossConfig) -> DenoisingLosses:
    """Losses of one layer's answers; `count`: valid queries, positive or not, to average over, at least 1.

    As published, a traffic cone's heading counts here, and a barrier is not turned.
    """
    logits, label = step.class_logits[targets.valid], targets.label[targets.valid]
    focal = sigmoid_focal_loss(logits, label)
    positive = targets.valid & (targets.label >= 0)
    box = targets.box[positive].to(step.state.dtype)
    weights = box_weights(box, torch.full_like(targets.label[positive], NO_OBJECT)) * box.new_tensor(config.state_weights)
    error = l1(step.state[positive][:, :NOISED_COLUMNS], known_state(box))
    return DenoisingLosses(averaged(focal, count=count) * config.class_weight, averaged(error, weights, count) * config.box_weight)


def _first_rows(valid: Bool[Tensor, "B N"], count: int) -> tuple[Int[Tensor, "B M"], Bool[Tensor, "B M"]]:
    """Indices of the first `count` valid rows, and which of them there are."""
    row = (~valid).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    missing = (0, count - row.shape[1])
    return F.pad(row, missing), F.pad(valid.gather(1, row), missing)


@torch.no_grad()
def _match(
    noised: Float[Tensor, "G B Q 10"], box: Float[Tensor, "B M 10"], present: Bool[Tensor, "B M"], cost: BoxCost
) -> Int[Tensor, "B G Q"]:
    """The object each query answers for, -1 for none. Padding takes no part. The assignment runs on the CPU (SciPy)."""
    num_groups, batch, num_queries, _ = noised.shape
    matched = torch.full((batch, num_groups, num_queries), -1, dtype=torch.int64, device=box.device)
    for stream in range(batch):
        objects = present[stream].nonzero()[:, 0]
        queries = torch.cat([objects, objects + box.shape[1]])
        no_class = torch.full_like(objects, NO_OBJECT)
        for group in range(num_groups):
            query, target = assign(box_cost(noised[group, stream, queries], box[stream, objects], no_class, cost))
            matched[stream, group, queries[query]] = objects[target]
    return matched
