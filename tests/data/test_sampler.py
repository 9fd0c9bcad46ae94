"""Which frame is shown where and when: disjoint, contiguous, complete, the same for every split into ranks, and resumable."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsedrive.data.sampler import EvaluationSampler, FrameRequest, FrameRun, SequenceSampler, StepSampler, split_runs

RUNS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=8).map(
    lambda rows: [FrameRun(scene=f"s{number}", start=start, stop=start + length) for number, (start, length) in enumerate(rows)]
)
SLOTS = st.integers(1, 5)
SEEDS = st.integers(0, 3)


def frames(runs) -> list[tuple[str, int]]:
    return [(run.scene, frame) for run in runs for frame in range(run.start, run.stop)]


def shown(requests: list[FrameRequest]) -> list[tuple[str, int]]:
    return [(request.scene, request.frame) for request in requests if not request.padding]


@given(RUNS, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 4)))
def test_split_runs_keep_every_frame_in_order(runs, parts, max_frames):
    pieces = split_runs(runs, parts, max_frames)
    assert frames(pieces) == frames(runs)
    assert all(len(piece) > 0 for piece in pieces)
    assert max_frames is None or max(map(len, pieces)) <= max_frames
    if max_frames is None:
        assert all(sum(piece.scene == run.scene for piece in pieces) <= parts for run in runs)


def test_two_parts_as_published():
    assert list(map(len, split_runs([FrameRun(scene="s", start=0, stop=41)], 2))) == [21, 20]


@given(RUNS, SLOTS, SEEDS, st.integers(0, 2))
def test_an_epoch_shows_every_frame_at_most_once_and_leaves_out_few(runs, slots, seed, epoch):
    slots = min(slots, sum(map(len, runs)))
    sampler = SequenceSampler(runs, slots, seed=seed)
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    seen = [frame for step in steps for frame in shown(sampler.requests(step))]
    assert len(set(seen)) == len(seen) and set(seen) <= set(frames(runs))
    assert len(frames(runs)) - len(seen) < slots


@given(RUNS, SLOTS, SEEDS)
def test_a_slot_shows_consecutive_frames_until_the_sequence_changes(runs, slots, seed):
    slots = min(slots, sum(map(len, runs)))
    sampler = SequenceSampler(runs, slots, seed=seed)
    lanes = zip(*(sampler.requests(step) for step in range(3 * sampler.steps_per_epoch)), strict=True)
    cuts = 0
    for lane in lanes:
        for now, later in pairwise(lane):
            if now.sequence_id == later.sequence_id:
                assert later.scene == now.scene and later.frame == now.frame + 1
            else:
                run = next(run for run in runs if run.scene == later.scene)
                cuts += later.frame != run.start
    assert cuts <= 2 * slots  # only where an epoch's tape is cut into stretches


@given(RUNS, SEEDS)
def test_a_sequence_has_another_id_in_every_epoch(runs, seed):
    sampler = SequenceSampler(runs, 1, seed=seed)
    steps = sampler.steps_per_epoch
    epochs = [{r.sequence_id for step in range(e * steps, (e + 1) * steps) for r in sampler.requests(step)} for e in range(3)]
    assert not (epochs[0] & epochs[1] or epochs[1] & epochs[2] or epochs[0] & epochs[2])
    assert all(len(ids) == len(runs) for ids in epochs)


@given(RUNS, st.sampled_from([(1, 4), (2, 2), (4, 1), (2, 1), (1, 2)]), SEEDS, st.integers(0, 40))
def test_ranks_share_the_slots_of_one_big_batch(runs, shape, seed, step):
    batch_size, world_size = shape
    runs = [*runs, FrameRun(scene="long", start=0, stop=8)]
    whole = SequenceSampler(runs, batch_size * world_size, seed=seed)
    ranks = [SequenceSampler(runs, batch_size, rank=rank, world_size=world_size, seed=seed) for rank in range(world_size)]
    assert [request for rank in ranks for request in rank.requests(step)] == whole.requests(step)
    assert {tuple(rank.identity().items()) for rank in ranks} == {tuple(whole.identity().items())}


def test_epochs_are_shuffled_by_the_seed():
    runs = [FrameRun(scene=f"s{number}", start=0, stop=2) for number in range(20)]

    def order(seed: int, epoch: int) -> list[str]:
        sampler = SequenceSampler(runs, 1, seed=seed)
        return [sampler.requests(epoch * 40 + step)[0].scene for step in range(0, 40, 2)]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_positions_among_other_scenes_are_told_apart():
    runs = [FrameRun(scene=f"s{number}", start=0, stop=2) for number in range(3)]
    others = [FrameRun(scene=f"t{number}", start=0, stop=2) for number in range(3)]
    assert SequenceSampler(runs, 1).identity() == SequenceSampler(tuple(runs), 1).identity()
    assert SequenceSampler(runs, 1).identity() != SequenceSampler(others, 1).identity()
    assert EvaluationSampler(runs, 1).identity() != EvaluationSampler(others, 1).identity()


@given(RUNS, SEEDS, st.integers(0, 30))
def test_steps_can_begin_anywhere(runs, seed, first):
    sampler = SequenceSampler(runs, 1, seed=seed)
    assert list(islice(StepSampler(sampler, first), 5)) == list(islice(StepSampler(sampler, 0), first, first + 5))


@given(RUNS, SLOTS, st.integers(1, 3))
def test_evaluation_shows_every_frame_once_in_order(runs, batch_size, world_size):
    ranks = [EvaluationSampler(runs, batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({sampler.num_steps for sampler in ranks}) == 1
    steps = [list(StepSampler(sampler, 0)) for sampler in ranks]
    assert all(len(batch) == batch_size for rank in steps for batch in rank)
    assert sorted(frame for rank in steps for batch in rank for frame in shown(batch)) == sorted(frames(runs))
    for rank in steps:
        for lane in zip(*rank, strict=True):
            assert [request.padding for request in lane] == sorted(request.padding for request in lane)
            by_scene = {request.scene: request.sequence_id for request in lane if not request.padding}
            expected = frames([run for run in runs if run.scene in by_scene])
            assert shown(list(lane)) == expected  # whole scenes
            assert all(by_scene.get(request.scene) != request.sequence_id for request in lane if request.padding)


def test_one_slot_needs_no_padding():
    runs = [FrameRun(scene=f"s{number}", start=0, stop=3) for number in range(3)]
    assert shown([request for batch in StepSampler(EvaluationSampler(runs, 1), 0) for request in batch]) == frames(runs)
    assert EvaluationSampler([*runs, *runs], 2).num_steps == 9  # the work is shared


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda runs: SequenceSampler(runs, 4), r"4 slots.*got 3 frames"),
        (lambda runs: SequenceSampler([], 1), "got 0 frames"),
        (lambda runs: SequenceSampler(runs, 1, rank=2, world_size=2), "rank 2 of 2"),
        (lambda runs: SequenceSampler(runs, 0), "batch_size >= 1"),
        (lambda runs: SequenceSampler(runs, 1, seed=-1), "seed"),
        (lambda runs: EvaluationSampler([], 1), "at least one sequence"),
        (lambda runs: split_runs(runs, 0), "parts"),
    ],
)
def test_impossible_samplers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make([FrameRun(scene="s", start=0, stop=3)])
