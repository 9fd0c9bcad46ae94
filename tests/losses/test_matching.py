import itertools
from dataclasses import replace

import pytest
import torch
from loss_samples import ROI_M, box_targets, line_targets, perfect_step, random_boxes

from sparsedrive.losses.matching import BoxCost, LineCost, assign, box_cost, match_boxes, match_lines
from sparsedrive.structures import DecoderStep


def test_assignment_is_the_cheapest_of_all():
    cost = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    rows, columns = assign(cost)
    best = min(sum(cost[row, column] for column, row in enumerate(order)) for order in itertools.permutations(range(4), 3))
    assert cost[rows, columns].sum() == pytest.approx(float(best))


def test_numbers_that_are_none_are_the_last_choice():
    nan, inf = float("nan"), float("inf")
    rows, columns = assign(torch.tensor([[nan, 1.0], [5.0, -inf], [1e6, 2.0]]))
    assert dict(zip(columns.tolist(), rows.tolist(), strict=True)) == {0: 1, 1: 0}


def test_every_box_finds_its_prediction():
    targets = box_targets(random_boxes(5), torch.tensor([[0, 5, 8, 9, 2]]))
    match = match_boxes(perfect_step(targets, extra=3), targets, BoxCost())
    assert match.target.tolist() == [[-1, -1, -1, 4, 3, 2, 1, 0]]
    assert match.labels(targets.label, 10).tolist() == [[10, 10, 10, 2, 9, 8, 5, 0]]


def test_padding_matches_nothing():
    targets = box_targets(random_boxes(4), torch.tensor([[0, 1, 2, 3]]))
    padded = replace(targets, valid=torch.tensor([[True, False, True, False]]))
    match = match_boxes(perfect_step(targets), padded, BoxCost())
    assert sorted(match.target[match.positive].tolist()) == [0, 2]
    nothing = replace(targets, valid=torch.zeros(1, 4, dtype=torch.bool))
    assert not match_boxes(perfect_step(targets), nothing, BoxCost()).positive.any()


def test_unknown_velocity_counts_nothing():
    targets = box_targets(random_boxes(3), torch.tensor([[0, 1, 2]]))
    unknown = replace(targets, box=torch.cat([targets.box[..., :7], torch.full((1, 3, 3), float("nan"))], -1))
    step = perfect_step(targets)
    assert torch.equal(match_boxes(step, unknown, BoxCost()).target, match_boxes(step, targets, BoxCost()).target)
    cost = BoxCost(state_weights=(1.0,) * 10)
    assert box_cost(step.state[0], unknown.box[0], unknown.label[0], cost).isfinite().all()
    assert box_cost(step.state[0], unknown.box[0], unknown.label[0], cost, poisoned=True).isnan().all()


def test_a_line_matches_in_the_order_it_was_predicted():
    points_m = torch.stack([torch.linspace(-5, 5, 20), torch.linspace(0, 20, 20)], -1)
    targets = line_targets(torch.stack([points_m, points_m + 3])[None], torch.tensor([[1, 2]]))
    state = torch.stack([(points_m + 3).flip(0).flatten(), torch.zeros(40), points_m.flatten()])[None]
    step = DecoderStep(class_logits=torch.zeros(1, 3, 3), state=state, quality=None)
    match = match_lines(step, targets, ROI_M, LineCost())
    assert match.target.tolist() == [[1, -1, 0]] and match.order.tolist() == [[1, 0, 0]]


def test_orders_that_only_pad_are_not_chosen():
    points_m = torch.stack([torch.linspace(-5, 5, 20), torch.zeros(20)], -1)
    targets = line_targets(points_m[None, None], torch.tensor([[1]]))
    forward_only = replace(targets, order_valid=torch.tensor([[[True, False]]]))
    step = DecoderStep(class_logits=torch.zeros(1, 1, 3), state=points_m.flip(0).reshape(1, 1, 40), quality=None)
    assert match_lines(step, targets, ROI_M, LineCost()).order.item() == 1
    assert match_lines(step, forward_only, ROI_M, LineCost()).order.item() == 0


def test_no_lines_at_all():
    targets = line_targets(torch.zeros(1, 0, 20, 2), torch.zeros(1, 0, dtype=torch.int64))
    step = DecoderStep(class_logits=torch.zeros(1, 3, 3), state=torch.zeros(1, 3, 40), quality=None)
    assert not match_lines(step, targets, ROI_M, LineCost()).positive.any()
