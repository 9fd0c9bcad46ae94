from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import box_targets, random_boxes
from torch.testing import assert_close

from sparsedrive.geometry import box_state
from sparsedrive.losses.denoising import DenoisingDraws, denoising_losses, draw, make_queries, noised_queries
from sparsedrive.losses.detection import BoxLossConfig
from sparsedrive.losses.matching import BoxCost, known_state
from sparsedrive.structures import BoxTargets, DecoderStep, DenoisingConfig, DenoisingTargets
from sparsedrive.structures.denoising import NOISED_COLUMNS

CONFIG = DenoisingConfig(num_groups=3, num_temporal_groups=2, max_objects=6)
SCALE = torch.tensor(CONFIG.noise_scale)
COST = BoxCost()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objects(count: int = 5, batch: int = 2, seed: int = 0) -> BoxTargets:
    """Well apart; instances are numbered from 10 times the stream on."""
    targets = box_targets(random_boxes(count, seed).repeat(batch, 1, 1), torch.arange(count).expand(batch, count).contiguous())
    return replace(targets, instance=targets.instance + 10 * torch.arange(batch)[:, None])


def in_groups(rows: torch.Tensor, config: DenoisingConfig = CONFIG) -> torch.Tensor:
    """[B, Q, ...] -> [B, G, 2 (positive, negative), M, ...]."""
    return rows.unflatten(1, (config.num_groups, 2, -1))


def test_positives_answer_for_their_own_object_and_negatives_for_none():
    targets = objects()
    made = make_queries(targets, CONFIG, COST, rng()).targets
    for rows, own in ((made.label, targets.label), (made.instance, targets.instance)):
        positive, negative = in_groups(rows).unbind(2)
        assert (positive == own[:, None]).all() and (negative == -1).all()
    assert_close(in_groups(made.box)[:, :, 0], targets.box[:, None].expand(-1, 3, -1, -1))
    assert made.valid.all()


def test_noise_of_positives_is_within_the_scale_and_that_of_negatives_beyond():
    targets = objects()
    state = in_groups(make_queries(targets, CONFIG, COST, rng()).state)
    noise = (state[..., :NOISED_COLUMNS] - known_state(targets.box)[:, None, None]) / SCALE
    positive, negative = noise.abs().unbind(2)
    assert positive.max() <= 1 + 1e-4 and 0.45 < positive.mean() < 0.55
    assert negative.min() >= 1 - 1e-4 and negative.max() <= 2 + 1e-4 and 1.45 < negative.mean() < 1.55
    assert 0.4 < (noise[:, :, 1] > 0).float().mean() < 0.6
    assert (state[..., box_state.VZ] == 0).all()


def test_groups_and_streams_have_noise_of_their_own():
    state = in_groups(make_queries(objects(), CONFIG, COST, rng()).state)
    assert not torch.equal(state[:, 0], state[:, 1]) and not torch.equal(state[0], state[1])


def test_the_generator_decides_everything():
    targets, before = objects(), torch.get_rng_state()
    first, again, other = (make_queries(targets, CONFIG, COST, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.state, again.state) and torch.equal(first.propagated, again.propagated)
    assert not torch.equal(first.state, other.state)
    assert torch.equal(torch.get_rng_state(), before)


def test_groups_that_live_on_are_chosen_at_random_and_in_order():
    kept = {tuple(make_queries(objects(1), CONFIG, COST, rng(seed)).propagated[0].tolist()) for seed in range(30)}
    assert kept == {(0, 1), (0, 2), (1, 2)}


def test_draws_are_those_of_the_published_order():
    draws, generator = draw(CONFIG, 2, 4, rng(3)), rng(3)
    for ours in (draws.positive, draws.negative, draws.sign):
        assert torch.equal(ours.flatten(0, 1), torch.rand(3 * 2, 4, NOISED_COLUMNS, generator=generator))
    assert torch.equal(draws.group_order, torch.randperm(3, generator=generator))


def test_a_negative_that_lies_nearer_takes_the_place_of_a_positive():
    targets = objects(2, batch=1)
    box = targets.box.clone()
    box[:, 1] = box[:, 0] + torch.tensor([2.0] + [0.0] * 9)
    still = torch.full((3, 1, 2, NOISED_COLUMNS), 0.5)
    positive, negative = still.clone(), torch.zeros_like(still)
    positive[:, :, 1, 0] = 0.0  # the second object's positive goes 2 m back, onto the first one
    negative[0, 0, 0] = 0.0  # the first object's negative goes 2 m ahead, onto the second one, in the first group only
    sign = torch.zeros_like(still)
    sign[0, 0, 0] = 1.0
    scale = (2.0, *[1e-3] * 9)
    draws = DenoisingDraws(positive, negative, sign, torch.arange(3))
    made = noised_queries(replace(targets, box=box), replace(CONFIG, noise_scale=scale), COST, draws).targets
    assert in_groups(made.label)[0].tolist() == [[[0, -1], [1, -1]], [[0, 1], [-1, -1]], [[0, 1], [-1, -1]]]
    assert in_groups(made.instance)[0, 0].tolist() == [[0, -1], [1, -1]]


@given(seed=st.integers(0, 10_000), columns=st.integers(0, 9), batch=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_in_every_group_each_object_has_exactly_one_query(seed, columns, batch):
    draws = rng(seed)
    box = torch.rand(batch, columns, 10, generator=draws) * 4 + 0.5  # close together
    label = torch.randint(10, (batch, columns), generator=draws)
    valid = torch.rand(batch, columns, generator=draws) > 0.4
    targets = BoxTargets(box=box, label=label, instance=torch.arange(columns).repeat(batch, 1) + 100, lidar_returns=label, valid=valid)
    made = make_queries(targets, CONFIG, COST, draws)
    assert made.state.isfinite().all()
    for stream in range(batch):
        wanted = targets.instance[stream, valid[stream]][: CONFIG.max_objects].tolist()
        instance, answer = made.targets.instance[stream].view(3, -1), made.targets.label[stream].view(3, -1)
        for group in range(3):
            assert sorted(instance[group][instance[group] >= 0].tolist()) == wanted
        assert torch.equal(instance >= 0, answer >= 0)
        made_valid = made.targets.valid[stream].view(3, -1)
        assert (made_valid.sum(1) == 2 * len(wanted)).all() and not (instance[~made_valid] >= 0).any()
        known = instance >= 0
        assert torch.equal(answer[known], label[stream][instance[known] - 100])
        assert torch.equal(made.targets.box[stream].view(3, -1, 10)[known], box[stream][instance[known] - 100])


def test_padding_changes_nothing():
    """A stream beside a fuller one, its rows in other places, gets the same queries from the same numbers."""
    alone, draws = objects(3, batch=1), draw(CONFIG, 1, 5, rng())
    rows, box = torch.tensor([1, 2, 4]), torch.full((1, 5, 10), float("nan"))
    box[:, rows] = alone.box
    scattered = BoxTargets(
        box=box,
        label=torch.full((1, 5), 7).index_copy(1, rows, alone.label),
        instance=torch.full((1, 5), 99).index_copy(1, rows, alone.instance),
        lidar_returns=torch.zeros(1, 5, dtype=torch.int64),
        valid=torch.zeros(1, 5, dtype=torch.bool).index_fill(1, rows, True),
    )
    tight, loose = noised_queries(alone, CONFIG, COST, draws), noised_queries(scattered, CONFIG, COST, draws)
    assert torch.equal(tight.targets.valid, loose.targets.valid) and in_groups(tight.targets.valid)[..., 3:].logical_not().all()
    valid = tight.targets.valid
    assert torch.equal(tight.state, loose.state)
    for name in ("box", "label", "instance"):
        assert torch.equal(getattr(tight.targets, name)[valid], getattr(loose.targets, name)[valid])
    assert (loose.targets.label[~valid] == -1).all()


def test_at_most_so_many_objects():
    made = make_queries(objects(9), CONFIG, COST, rng())
    assert made.state.shape == (2, 3 * 12, 11)
    assert made.targets.instance[1].unique().tolist() == [-1, *range(10, 16)]


def test_unknown_velocities_are_noised_from_zero():
    targets = objects()
    unknown = replace(targets, box=torch.cat([targets.box[..., :7], torch.full((2, 5, 3), float("nan"))], -1))
    made = make_queries(unknown, CONFIG, COST, rng())
    assert made.state.isfinite().all() and made.state[..., 8:10].abs().max() <= 2 * 0.5
    assert made.targets.box[..., 7:].isnan().any()


def perfect(made: DenoisingTargets, confidence: float = 8.0) -> DecoderStep:
    positive = made.label >= 0
    logits = torch.full((*made.label.shape, 10), -confidence)
    logits[positive, made.label[positive]] = confidence
    state = torch.where(positive[..., None], box_state.encode(made.box.nan_to_num(nan=0.0)), torch.zeros(11))
    return DecoderStep(class_logits=logits, state=state, quality=None)


def losses_of(step: DecoderStep, made: DenoisingTargets):
    return denoising_losses(step, made, made.valid.sum().float().clamp(min=1), BoxLossConfig())


def test_right_answers_cost_nothing_and_wrong_ones_their_weighted_distance():
    made = make_queries(objects(), CONFIG, COST, rng()).targets
    right = losses_of(perfect(made), made)
    assert right.box == pytest.approx(0, abs=1e-6) and right.classification < 1e-4
    moved = perfect(made)
    moved = replace(moved, state=moved.state + torch.tensor([0.5] + [0.0] * 10))
    # only positives, a half of the queries, have a box; the average is over all
    assert losses_of(moved, made).box == pytest.approx(0.5 * 2.0 * 0.25 / 2, rel=1e-4)


def test_a_negative_has_to_say_that_it_is_nothing():
    made = make_queries(objects(), CONFIG, COST, rng()).targets
    step = perfect(made)
    sure = step.class_logits.clone()
    sure[made.label < 0, 3] = 8.0
    assert losses_of(replace(step, class_logits=sure), made).classification == pytest.approx(2.0 * 0.75 * 8 / 2, rel=1e-2)


def test_rows_that_only_pad_cost_nothing():
    targets = objects()
    fewer = replace(targets, valid=torch.arange(5) < torch.tensor([[5], [2]]))
    made = make_queries(fewer, CONFIG, COST, rng()).targets
    step = perfect(made)
    spoilt = replace(
        step,
        class_logits=torch.where(made.valid[..., None], step.class_logits, float("nan")),
        state=torch.where(made.valid[..., None], step.state, float("nan")),
    )
    ours, theirs = losses_of(step, made), losses_of(spoilt, made)
    assert ours.classification == theirs.classification and ours.box == theirs.box


def test_unknown_velocity_has_no_gradient():
    targets = objects()
    unknown = replace(targets, box=torch.cat([targets.box[..., :7], torch.full((2, 5, 3), float("nan"))], -1))
    made = make_queries(unknown, CONFIG, COST, rng()).targets
    step = perfect(made)
    state = (step.state + 0.3).requires_grad_()
    loss = losses_of(replace(step, state=state), made).box
    loss.backward()
    assert loss.isfinite() and (state.grad[..., box_state.VX :] == 0).all() and (state.grad[made.label >= 0][:, :8] != 0).all()


@pytest.mark.parametrize("columns", [0, 4])
def test_no_objects_at_all_give_finite_losses_with_a_graph(columns):
    empty = replace(objects(columns), valid=torch.zeros(2, columns, dtype=torch.bool))
    made = make_queries(empty, CONFIG, COST, rng())
    assert made.state.isfinite().all() and not made.targets.valid.any() and made.state.shape[1] == 6
    step = perfect(made.targets)
    logits, state = step.class_logits.requires_grad_(), step.state.requires_grad_()
    losses = losses_of(DecoderStep(class_logits=logits, state=state, quality=None), made.targets)
    (losses.classification + losses.box).backward()
    assert losses.classification == 0 and losses.box == 0
    assert (logits.grad == 0).all() and (state.grad == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_groups": 0}, r"num_groups: expected at least 1, got 0; denoising=None switches it off"),
        ({"max_objects": 0}, r"max_objects: expected at least 1"),
        ({"num_temporal_groups": 4}, r"num_temporal_groups: expected 0\.\.num_groups=3, got 4"),
        ({"noise_scale": (1.0, 2.0)}, r"noise_scale: expected 10 numbers"),
        ({"noise_scale": (-1.0,) * 10}, r"noise_scale: expected 10 numbers >= 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)
