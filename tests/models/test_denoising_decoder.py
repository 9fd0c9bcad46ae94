from dataclasses import replace

import pytest
import torch
from model_samples import HEIGHT, ROUNDING, WIDTH, build, config, differences, frame, take_stream
from torch.testing import assert_close

from sparsedrive.geometry import se3
from sparsedrive.losses.denoising import denoising_losses, make_queries
from sparsedrive.losses.detection import BoxLossConfig
from sparsedrive.losses.matching import BoxCost
from sparsedrive.models import denoising as denoising_ops
from sparsedrive.models.instance_decoder import InstanceDecoder
from sparsedrive.models.memory_ops import Tick
from sparsedrive.structures import (
    BoxTargets,
    DenoisingConfig,
    DenoisingQueries,
    ImageFeatures,
    InstanceMemory,
    ParityOptions,
    cat_frames,
)

GROUPS = DenoisingConfig(num_groups=3, num_temporal_groups=2, max_objects=5)
OURS = ParityOptions()
PADDED = ParityOptions(padded_denoising_attention=True)


@pytest.fixture(scope="module")
def model():
    base = config()
    return build(replace(base, detection=replace(base.detection, denoising=GROUPS)))


@pytest.fixture(scope="module")
def decoder(model) -> InstanceDecoder:
    return model.detection


def targets(*counts: int, seed: int = 0, first_instance: int = 0) -> BoxTargets:
    """So many boxes for each stream, around the ego vehicle."""
    draw, columns = torch.Generator().manual_seed(seed), max(counts)
    shape = (len(counts), columns)
    box = torch.randn(*shape, 10, generator=draw) * 6
    box[..., 3:6] = box[..., 3:6].abs() / 6 + 0.5
    return BoxTargets(
        box=box,
        label=torch.randint(10, shape, generator=draw),
        instance=torch.arange(columns).repeat(len(counts), 1) + first_instance,
        lidar_returns=torch.ones(shape, dtype=torch.int64),
        valid=torch.arange(columns) < torch.tensor(counts)[:, None],
    )


def queries(boxes: BoxTargets, seed: int = 0) -> DenoisingQueries:
    return make_queries(boxes, GROUPS, BoxCost(), torch.Generator().manual_seed(seed))


def features(batch: int = 2) -> ImageFeatures:
    level_hw = tuple(size // stride for stride in (4, 8, 16, 32) for size in (HEIGHT, WIDTH))
    pixels = sum(h * w for h, w in zip(level_hw[::2], level_hw[1::2], strict=True))
    return ImageFeatures(packed=torch.randn(batch, 3, pixels, 32, generator=torch.Generator().manual_seed(0)), level_hw=level_hw)


def tick(*warm: bool) -> Tick:
    now_T_then = se3.from_yaw(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0]), torch.tensor([0.3, -0.2])).float()
    half_s = torch.full((2,), 0.5)
    return Tick(warm=torch.tensor(warm), attends=torch.tensor(warm), now_T_then=now_T_then, elapsed_s=half_s, step_s=half_s)


def decode(decoder: InstanceDecoder, made: DenoisingQueries | None, memory: InstanceMemory, now: Tick, parity: ParityOptions = OURS):
    cameras = cat_frames([frame(0), frame(0, stream=1)]).rig
    with torch.no_grad():
        return decoder(features(), cameras, memory, now, parity, made)


@pytest.fixture(scope="module")
def past(decoder) -> InstanceMemory:
    """Of a first frame with 4 and 3 objects."""
    return decode(decoder, queries(targets(4, 3), seed=5), decoder.initial_memory(2, denoising=True), tick(False, False))[1]


def without_denoising(value):
    return replace(value, denoising=None)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_instances_do_not_know_of_denoising(decoder, past, warm, training):
    """Bit by bit, even where dropout is drawn."""
    decoder.train(training)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            plain = decode(decoder, None, without_denoising(past), tick(warm, warm))
            torch.manual_seed(0)
            beside = decode(decoder, queries(targets(3, 5)), past, tick(warm, warm))
    finally:
        decoder.eval()
    for a, b in zip(plain, beside, strict=True):
        assert a.denoising is None and b.denoising is not None
        assert differences(a, without_denoising(b)) == []


def steps_by_group(predictions) -> list[torch.Tensor]:
    """Every number said about group g, for all g."""
    steps = predictions.denoising.steps
    rows = torch.cat([torch.cat([step.state, step.class_logits, step.quality], -1) for step in steps], -1)
    return list(rows.unflatten(1, (GROUPS.num_groups, -1)).unbind(1))


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("group", [0, 1, 2])
def test_groups_do_not_leak(decoder, past, warm, group):
    """Noise of one group decides nothing about another (nor, in a warm stream, does a group of the past)."""
    made, boxes = queries(targets(5, 5)), targets(5, 5)
    size = made.state.shape[1] // GROUPS.num_groups
    own = (torch.arange(made.state.shape[1]) // size == group)[None, :, None]
    other = replace(made, state=torch.where(own, queries(boxes, seed=1).state, made.state))
    memory = past
    if warm and group < GROUPS.num_temporal_groups:  # these rows come from the memory after the first layer
        feature = past.denoising.feature.clone()
        feature[:, group] += 1.0
        memory = replace(past, denoising=replace(past.denoising, feature=feature))
    before, after = decode(decoder, made, past, tick(warm, warm))[0], decode(decoder, other, memory, tick(warm, warm))[0]
    assert differences(without_denoising(before), without_denoising(after)) == []
    for index, (a, b) in enumerate(zip(steps_by_group(before), steps_by_group(after), strict=True)):
        assert torch.equal(a, b) == (index != group)


def test_queries_of_one_group_see_each_other(decoder):
    made = queries(targets(5, 5))
    state = made.state.clone()
    state[:, 0, :2] += 3.0
    cold = tick(False, False)
    fresh = decoder.initial_memory(2, denoising=True)
    before, after = (decode(decoder, m, fresh, cold)[0].denoising.steps[-1].state for m in (made, replace(made, state=state)))
    size = made.state.shape[1] // GROUPS.num_groups
    assert (before[:, 1:size] != after[:, 1:size]).any(-1).all() and torch.equal(before[:, size:], after[:, size:])


def test_rows_that_only_pad_are_not_seen(decoder):
    made, cold = queries(targets(5, 2)), tick(False, False)
    valid = made.targets.valid
    other = replace(made, state=torch.where(valid[..., None], made.state, made.state + 5.0))
    fresh = decoder.initial_memory(2, denoising=True)
    for parity, same in ((OURS, True), (PADDED, False)):
        before, after = (decode(decoder, m, fresh, cold, parity)[0].denoising.steps[-1].state[valid] for m in (made, other))
        assert torch.equal(before, after) is same


def test_a_stream_beside_a_fuller_one_gets_the_same_answers(decoder):
    """Two objects with their negatives, alone or padded to five."""
    padded = queries(targets(5, 2))
    rows = padded.targets.valid[1].nonzero()[:, 0]
    tight = torch.utils._pytree.tree_map(lambda leaf: leaf[:, rows], (padded.state, padded.targets))
    alone = DenoisingQueries(state=tight[0], targets=tight[1], propagated=padded.propagated)
    cold, fresh = tick(False, False), decoder.initial_memory(2, denoising=True)
    beside, apart = (decode(decoder, m, fresh, cold)[0].denoising.steps for m in (padded, alone))
    ours = [replace(step, **{name: getattr(step, name)[1:, rows] for name in ("state", "class_logits", "quality")}) for step in beside]
    assert differences(ours, take_stream(apart, 1), ROUNDING) == []


def test_what_lives_on_is_the_last_layer_s_answer(decoder, past):
    made = queries(targets(4, 3), seed=5)
    predictions, kept = decode(decoder, made, decoder.initial_memory(2, denoising=True), tick(False, False))
    assert differences(kept.denoising, past.denoising) == []
    chosen, rows = made.propagated[0].tolist(), made.state.shape[1] // GROUPS.num_groups
    last = predictions.denoising.steps[-1].state.unflatten(1, (GROUPS.num_groups, rows))
    assert torch.equal(kept.denoising.state[:, :, :rows], last[:, chosen])
    assert torch.equal(kept.denoising.valid[:, :, :rows], made.targets.valid.unflatten(1, (3, rows))[:, chosen])
    assert not kept.denoising.valid[:, :, rows:].any() and kept.denoising.valid.shape == (2, 2, GROUPS.max_group_size)


def merged(decoder, boxes: BoxTargets, memory: InstanceMemory, now: Tick):
    made = queries(boxes)
    feature = torch.full((*made.state.shape[:2], 32), 7.0)
    return made, *denoising_ops.merge(feature, made.state, made.targets, memory.denoising, now, decoder.config.kind.transform, 3)


def test_groups_follow_their_instances_to_the_next_frame(decoder, past):
    """The objects of the next frame come in another order, without the first and with a new one."""
    boxes = targets(4, 4, seed=9)
    boxes = replace(boxes, instance=torch.tensor([[3, 2, 50, 1], [2, 1, 0, 60]]))
    now = tick(True, True)
    made, feature, state, followed = merged(decoder, boxes, past, now)
    size = made.state.shape[1] // 3
    temporal, fresh = slice(0, 2 * size), slice(2 * size, None)
    instance = followed.instance[:, temporal]
    assert torch.equal(instance, past.denoising.instance[:, :, :size].flatten(1))
    assert set(instance[0].tolist()) == {-1, 0, 1, 2, 3} and set(instance[1].tolist()) == {-1, 0, 1, 2}
    for stream, row in (instance >= 0).nonzero().tolist():
        there = (boxes.instance[stream] == instance[stream, row]).nonzero()[:, 0]
        if len(there):
            assert torch.equal(followed.box[stream, row], boxes.box[stream, there[0]])
            assert followed.label[stream, row] == boxes.label[stream, there[0]]
        else:
            assert (stream, int(instance[stream, row])) == (0, 0), "gone from this frame"
            assert followed.label[stream, row] == -1 and followed.valid[stream, row]
    assert (followed.label[:, temporal][instance < 0] == -1).all()
    kept = past.denoising
    moved = decoder.config.kind.transform(kept.state[:, :, :size].flatten(1, 2), now.now_T_then, now.elapsed_s)
    assert_close(state[:, temporal], moved)
    assert torch.equal(feature[:, temporal], kept.feature[:, :, :size].flatten(1, 2))
    assert torch.equal(state[:, fresh], made.state[:, fresh]) and (feature[:, fresh] == 7).all()
    assert torch.equal(followed.label[:, fresh], made.targets.label[:, fresh])


def test_streams_without_a_past_keep_their_own_groups(decoder, past):
    boxes = targets(3, 3, seed=9)
    unfilled = replace(past, denoising=replace(past.denoising, valid=past.denoising.valid & torch.tensor([True, False])[:, None, None]))
    for memory, now in ((past, tick(True, False)), (unfilled, tick(True, True))):
        made, _, state, followed = merged(decoder, boxes, memory, now)
        assert differences(take_stream((state, followed), 1), take_stream((made.state, made.targets), 1)) == []
        assert not torch.equal(state[0], made.state[0])


def test_fewer_objects_than_before_cut_the_groups(decoder, past):
    made, _, state, followed = merged(decoder, targets(2, 1), past, tick(True, True))
    assert state.shape == made.state.shape and followed.valid.shape == made.state.shape[:2] == (2, 3 * 4)
    # four positives of the past fill the places of two positives and two negatives
    assert followed.instance[0, :4].tolist() == [0, 1, 2, 3] and followed.label[0, 2:4].tolist() == [-1, -1]


def test_the_layer_before_the_merge_answers_this_frame_s_queries(decoder, past):
    made = queries(targets(4, 4, seed=9))
    wanted = decode(decoder, made, past, tick(True, True))[0].denoising.targets
    assert len(wanted) == decoder.config.num_layers
    assert differences(wanted[0], made.targets) == []
    assert differences(wanted[0], wanted[1]) and all(differences(wanted[1], later) == [] for later in wanted[2:])


def test_a_whole_drive(model):
    """Objects or none, cold and warm: shapes stay, and the model without queries forgets."""
    state = model.initial_state(2, denoising=True)
    shapes = [leaf.shape for leaf in torch.utils._pytree.tree_leaves(state)]
    for index, counts in enumerate([(3, 1), (0, 0), (0, 7), (4, 2)]):
        now = cat_frames([frame(index), frame(index, stream=1, sequence=index // 2)])
        boxes = targets(*counts) if any(counts) else replace(targets(1, 1), valid=torch.zeros(2, 1, dtype=torch.bool))
        with torch.no_grad():
            predictions, state = model(now, state, denoising=queries(boxes, seed=index))
        assert [leaf.shape for leaf in torch.utils._pytree.tree_leaves(state)] == shapes
        assert all(leaf.isfinite().all() for leaf in torch.utils._pytree.tree_leaves((predictions.detection, state.detection)))
    with torch.no_grad():
        predictions, state = model(now, state)
    assert predictions.detection.denoising is None and state.detection.denoising is None
    assert model.initial_state(2).detection.denoising is None


def test_gradients_reach_every_part_of_the_decoder_and_stay_in_their_frame(decoder, past):
    made = queries(targets(4, 3))
    made = replace(made, state=made.state.requires_grad_())
    memory = torch.utils._pytree.tree_map(lambda leaf: leaf.clone().requires_grad_() if leaf.is_floating_point() else leaf, past)
    cameras = cat_frames([frame(0), frame(0, stream=1)]).rig
    images = features()
    images = replace(images, packed=images.packed.requires_grad_())
    predictions, kept = decoder(images, cameras, memory, tick(True, False), OURS, made)
    total = torch.zeros(())
    for step, wanted in zip(predictions.denoising.steps, predictions.denoising.targets, strict=True):
        losses = denoising_losses(step, wanted, wanted.valid.sum(), BoxLossConfig())
        total = total + losses.classification + losses.box
    decoder.zero_grad()
    total.backward()
    silent = {name for name, p in decoder.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    decoder.zero_grad()
    reads_zeros = "single_frame_layers.0.aggregation.key_points.learned_points.weight"  # features before the first layer
    assert {name for name in silent if "quality_branch" not in name} == {reads_zeros}
    assert images.packed.grad.any() and made.state.grad.any()
    assert memory.feature.grad.any() and memory.denoising.feature.grad.any()
    assert not any(leaf.requires_grad for leaf in torch.utils._pytree.tree_leaves(kept.denoising))


def test_queries_that_do_not_fit_are_refused(decoder, model):
    made, fresh, cold = queries(targets(2, 2)), decoder.initial_memory(2, denoising=True), tick(False, False)
    with pytest.raises(ValueError, match=r"expected None as DecoderConfig\.denoising is None"):
        decode(build().detection, made, without_denoising(fresh), cold)
    fuller = make_queries(targets(6, 6), replace(GROUPS, max_objects=6), BoxCost(), torch.Generator())
    with pytest.raises(ValueError, match=r"3 equal groups of at most 10 queries of which 2 live on, got 36 queries of which 2 groups"):
        decode(decoder, fuller, fresh, cold)
    with pytest.raises(ValueError, match=r"DecoderConfig\.denoising: expected None for PolylineKind, only boxes are denoised"):
        replace(model.config.map, denoising=GROUPS)
