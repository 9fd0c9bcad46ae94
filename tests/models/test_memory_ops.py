import math
from dataclasses import replace

import pytest
import torch
from model_samples import EPOCH_S, frame
from torch.testing import assert_close

from sparsedrive.geometry import se3
from sparsedrive.models import memory_ops
from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.memory_ops import Prior, Tick
from sparsedrive.structures import DecoderStep, Frame, InstanceMemory, InstancePredictions, ParityOptions, StreamClock

OURS, PUBLISHED = ParityOptions(), ParityOptions.published()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clock_of(now: Frame, started: bool = True) -> StreamClock:
    return StreamClock(
        global_T_ego=now.global_T_ego,
        time_s=now.time_s,
        sequence_id=now.sequence_id,
        started=torch.full_like(now.sequence_id, started).bool(),
    )


def tick(then: Frame, now: Frame, parity: ParityOptions = OURS, started: bool = True) -> Tick:
    return memory_ops.tick(clock_of(then, started), now, max_gap_s=2.0, default_step_s=0.5, parity=parity)


def after(gap_s: float, **changes) -> Frame:
    """A quarter metre drive later; times that float64 holds exactly."""
    return replace(frame(1), time_s=torch.tensor([EPOCH_S + gap_s], dtype=torch.float64), **changes)


def prior(batch: int = 2, seed: int = 0) -> Prior:
    draw = rng(seed)
    return Prior(
        feature=torch.randn(batch, 3, 4, generator=draw),
        state=torch.randn(batch, 3, 11, generator=draw),
        confidence=torch.rand(batch, 3, generator=draw),
        track_id=torch.arange(3).expand(batch, 3) + 10,
        next_id=torch.full((batch,), 20),
    )


def now_of(*warm: bool) -> Tick:
    flags, eye = torch.tensor(warm), torch.eye(4).repeat(len(warm), 1, 1)
    return Tick(warm=flags, attends=flags, now_T_then=eye, elapsed_s=torch.full((len(warm),), 0.5), step_s=torch.full((len(warm),), 0.5))


@pytest.mark.parametrize(
    ("gap_s", "warm", "step_s"),
    [(0.5, True, 0.5), (0.1, True, 0.1), (2.0, True, 2.0), (2.25, False, 0.5), (1e6, False, 0.5), (0.0, True, 0.5), (-0.5, False, 0.5)],
)
def test_gap_decides_whether_the_memory_counts(gap_s, warm, step_s):
    now = tick(frame(0), after(gap_s))
    assert now.warm.item() is warm and now.attends.item() is warm
    assert now.step_s.item() == pytest.approx(step_s, abs=1e-6)
    assert now.elapsed_s.item() == pytest.approx(gap_s if warm else 0.0, abs=1e-6)


def test_a_stream_that_has_seen_nothing_is_cold():
    for parity in (OURS, PUBLISHED):
        now = tick(frame(0), after(0.5), parity, started=False)
        assert not now.warm and not now.attends and torch.equal(now.now_T_then[0], torch.eye(4))


def test_another_sequence_is_cold():
    now = tick(frame(0), after(0.5, sequence_id=torch.tensor([9])))
    assert not now.warm and not now.attends and torch.equal(now.now_T_then[0], torch.eye(4))


def test_parity_backward_time_or_another_sequence_is_warm():
    parity = ParityOptions(backward_time_is_warm=True)
    now = tick(frame(0), after(-0.5), parity)
    assert now.warm and now.elapsed_s.item() == now.step_s.item() == -0.5
    assert tick(frame(0), after(0.5, sequence_id=torch.tensor([9])), parity).warm
    assert not tick(frame(0), after(-2.25), parity).warm
    assert not tick(frame(0), after(2.25), parity).warm


def test_parity_stale_memory_is_looked_at_but_not_warm():
    parity = ParityOptions(stale_memory_attention=True)
    now = tick(frame(0), after(5.0), parity)
    assert now.attends and not now.warm
    assert now.elapsed_s.item() == 5.0 and now.step_s.item() == 0.5
    assert not torch.equal(now.now_T_then[0], torch.eye(4))


def test_streams_of_a_batch_decide_for_themselves():
    then = frame(0)
    clock = StreamClock(
        global_T_ego=then.global_T_ego.repeat(3, 1, 1), time_s=then.time_s.repeat(3), sequence_id=torch.tensor([0, 0, 0]),
        started=torch.tensor([True, True, False]),
    )  # fmt: skip
    both = after(0.5)
    three = replace(
        both, images=both.images.repeat(3, 1, 1, 1, 1), time_s=both.time_s.repeat(3), sequence_id=torch.tensor([0, 1, 0]),
        global_T_ego=both.global_T_ego.repeat(3, 1, 1),
    )  # fmt: skip
    now = memory_ops.tick(clock, three, max_gap_s=2.0, default_step_s=0.5, parity=OURS)
    assert now.warm.tolist() == [True, False, False]


def test_motion_between_frames_is_exact_far_from_the_origin():
    """A thousand kilometres out float32 knows 6 cm: the poses must be compared in float64."""

    def pose(x_m: float) -> torch.Tensor:
        return se3.from_yaw(*(torch.tensor([value], dtype=torch.float64) for value in (1e6 + x_m, -1e6, 0.7)))

    now = tick(replace(frame(0), global_T_ego=pose(0.0)), after(0.5, global_T_ego=pose(0.01)))
    assert now.now_T_then.dtype == torch.float32
    expected = torch.tensor([-0.01 * math.cos(0.7), 0.01 * math.sin(0.7), 0])
    assert_close(now.now_T_then[0, :3, 3], expected, atol=1e-7, rtol=0)


def test_time_is_subtracted_in_double_precision():
    assert tick(frame(0), after(0.0625)).elapsed_s.item() == pytest.approx(0.0625, abs=1e-6)


def memory(batch: int = 2) -> InstanceMemory:
    p = prior(batch)
    return InstanceMemory(feature=p.feature, state=p.state, confidence=p.confidence, track_id=p.track_id, next_id=p.next_id)


def test_align_moves_states_and_blanks_what_cold_streams_must_not_inherit():
    now = replace(now_of(True, False), now_T_then=se3.from_yaw(*torch.tensor([[3.0, 0], [4.0, 0], [1.0, 0]])))
    kept = memory()
    aligned = memory_ops.align(kept, now, BoxKind().transform, OURS)
    assert_close(aligned.state, BoxKind().transform(kept.state, now.now_T_then, now.elapsed_s))
    assert not torch.equal(aligned.state[0], kept.state[0])
    assert torch.equal(aligned.confidence[0], kept.confidence[0]) and (aligned.confidence[1] == 0).all()
    assert aligned.track_id.tolist() == [[10, 11, 12], [-1, -1, -1]] and aligned.next_id.tolist() == [20, 0]
    assert memory_ops.align(kept, now, BoxKind().transform, PUBLISHED).next_id.tolist() == [20, 20]


def test_polylines_do_not_move_by_themselves_and_boxes_do():
    eye, half_s = torch.eye(4)[None], torch.tensor([0.5])
    line = torch.randn(1, 2, 40, generator=rng())
    assert torch.equal(PolylineKind().transform(line, eye, half_s), line)
    box = torch.randn(1, 2, 11, generator=rng())
    assert_close(BoxKind().transform(box, eye, half_s)[..., :3], box[..., :3] + box[..., 8:] * 0.5)


def test_merge_keeps_the_memory_first_then_the_best_new_ones():
    feature, state = torch.randn(2, 5, 4, generator=rng(1)), torch.randn(2, 5, 11, generator=rng(2))
    logits = torch.tensor([[0.0, 3.0, 1.0, 5.0, 2.0], [0.0, 3.0, 1.0, 5.0, 2.0]])
    logits = torch.stack([logits - 9, logits], dim=-1)  # the best class counts
    merged, merged_state = memory_ops.merge(feature, state, logits, prior(), now_of(True, False))
    assert torch.equal(merged[0], torch.cat([prior().feature[0], feature[0, [3, 1]]]))
    assert torch.equal(merged_state[0], torch.cat([prior().state[0], state[0, [3, 1]]]))
    assert torch.equal(merged[1], feature[1]) and torch.equal(merged_state[1], state[1])


def test_confidence_fades_by_the_decay_at_most():
    past = replace(prior(1), confidence=torch.tensor([[0.9, 0.9, 0.0]]))
    now = torch.tensor([[0.1, 0.8, 0.3, 0.7, 0.05]])
    logits = torch.stack([torch.logit(now), torch.full_like(now, -20)], -1).requires_grad_()
    confidence = memory_ops.fading_confidence(logits, past, decay=0.6)
    assert_close(confidence, torch.tensor([[0.54, 0.8, 0.3, 0.7, 0.05]]))
    assert not confidence.requires_grad


def test_track_ids_count_per_stream():
    past = replace(prior(), track_id=torch.tensor([[10, 11, 12], [-1, -1, -1]]), next_id=torch.tensor([20, 0]))
    track_id, next_id = memory_ops.assign_track_ids(past, 5, OURS)
    assert track_id.tolist() == [[10, 11, 12, 20, 21], [0, 1, 2, 3, 4]]
    assert next_id.tolist() == [22, 5]


def test_parity_track_ids_share_one_counter():
    past = replace(prior(), track_id=torch.tensor([[10, 11, 12], [-1, -1, -1]]), next_id=torch.tensor([20, 20]))
    track_id, next_id = memory_ops.assign_track_ids(past, 5, ParityOptions(shared_track_ids=True))
    assert track_id.tolist() == [[10, 11, 12, 20, 21], [22, 23, 24, 25, 26]]
    assert next_id.tolist() == [27, 27]


def test_remember_keeps_the_most_confident_in_order_and_detached():
    confidence = torch.tensor([[0.2, 0.1, 0.9, 0.5, 0.7]])
    step = DecoderStep(
        class_logits=torch.logit(confidence)[..., None].requires_grad_(),
        state=torch.randn(1, 5, 11, generator=rng(1)).requires_grad_(),
        quality=None,
    )
    feature = torch.randn(1, 5, 4, generator=rng(2)).requires_grad_()
    predictions = InstancePredictions(steps=[step], feature=feature, embed=feature, track_id=torch.tensor([[4, 5, 6, 7, 8]]))
    # row 1 was sure in the last frame: 0.95 * 0.6 = 0.57 puts it in front of row 3
    past = replace(prior(1), confidence=torch.tensor([[0.0, 0.95, 0.0]]))
    kept = memory_ops.remember(predictions, past, torch.tensor([9]), num_memory=4, decay=0.6)
    assert kept.track_id.tolist() == [[6, 8, 5, 7]] and kept.next_id.tolist() == [9]
    assert_close(kept.confidence, torch.tensor([[0.9, 0.7, 0.57, 0.5]]))
    assert torch.equal(kept.feature, feature[:, [2, 4, 1, 3]]) and torch.equal(kept.state, step.state[:, [2, 4, 1, 3]])
    assert not kept.feature.requires_grad and not kept.state.requires_grad and not kept.confidence.requires_grad
