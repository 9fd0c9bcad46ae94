from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from sparsedrive.geometry import box_state, se3
from sparsedrive.models import motion_memory
from sparsedrive.models.memory_ops import Tick
from sparsedrive.models.motion_memory import History
from sparsedrive.structures import DecoderStep, InstancePredictions, MotionMemory

AGENTS, LENGTH, DIM = 3, 4, 2
NEVER_CONFIDENT = 0.2


def instances(ids: list[int], confidence: list[float], seed: int) -> InstancePredictions:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.logit(torch.tensor([confidence]))[..., None]
    step = DecoderStep(class_logits=torch.cat([logits, logits - 5], -1), state=torch.randn(1, AGENTS, 11, generator=draw), quality=None)
    feature = torch.randn(1, AGENTS, DIM, generator=draw)
    return InstancePredictions(steps=[step], feature=feature, embed=feature, track_id=torch.tensor([ids]))


def now(warm: bool = True, now_T_then: torch.Tensor | None = None) -> Tick:
    flag, half = torch.tensor([warm]), torch.tensor([0.5])
    return Tick(warm=flag, attends=flag, now_T_then=torch.eye(4)[None] if now_T_then is None else now_T_then, elapsed_s=half, step_s=half)


def ego(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(100 + seed)
    return torch.randn(1, DIM, generator=draw), torch.randn(1, 11, generator=draw)


def step(memory: MotionMemory, seen: InstancePredictions, seed: int, tick: Tick | None = None) -> tuple[History, MotionMemory]:
    history = motion_memory.recall(memory, seen, *ego(seed), tick or now(), min_confidence=NEVER_CONFIDENT)
    return history, motion_memory.remember(history, seen, refined_ego_feature=torch.full((1, DIM), 7.0), ego_status=torch.zeros(1, 10))


def nothing() -> MotionMemory:
    return motion_memory.initial(1, AGENTS, LENGTH, DIM, torch.float32, "cpu")


def test_the_first_frame_has_itself_as_history():
    seen = instances([0, 1, 2], [0.9, 0.9, 0.9], seed=0)
    history, kept = step(nothing(), seen, seed=0)
    assert history.period.tolist() == [[1, 1, 1, 1]]  # three agents and the ego vehicle
    assert history.allowed().tolist() == [[[False, False, False, True]] * 4]
    assert (history.state[:, :AGENTS, :-1] == 0).all() and (history.feature[:, :AGENTS, :-1] == 0).all()
    assert torch.equal(history.state[:, :AGENTS, -1], seen.last.state) and torch.equal(history.feature[:, :AGENTS, -1], seen.feature)
    assert torch.equal(history.state[:, -1, -1], ego(0)[1]) and torch.equal(history.feature[:, -1, -1], ego(0)[0])
    assert kept.track_id.tolist() == [[0, 1, 2]] and kept.ego_period.tolist() == [1]
    assert_close(kept.confidence, torch.tensor([[0.9, 0.9, 0.9]]))


def test_the_period_grows_to_the_length_and_no_further():
    memory, periods = nothing(), []
    for index in range(6):
        history, memory = step(memory, instances([0, 1, 2], [0.9] * 3, seed=index), seed=index)
        periods.append(history.period.tolist()[0])
    assert periods == [[min(n, LENGTH)] * 4 for n in range(1, 7)]
    for age in range(LENGTH):  # oldest first
        seen = instances([0, 1, 2], [0.9] * 3, seed=5 - age)
        assert_close(history.state[:, :AGENTS, -1 - age], seen.last.state)
        assert torch.equal(history.feature[:, :AGENTS, -1 - age], seen.feature)
    assert torch.equal(memory.period, history.period[:, :-1]) and memory.ego_period.tolist() == [LENGTH]


def test_histories_follow_track_ids_not_rows():
    first = instances([7, 8, 9], [0.9] * 3, seed=0)
    _, memory = step(nothing(), first, seed=0)
    history, _ = step(memory, instances([9, 20, 7], [0.9] * 3, seed=1), seed=1)
    assert history.period.tolist() == [[2, 1, 2, 2]]
    assert_close(history.state[0, [0, 2], -2], first.last.state[0, [2, 0]])
    assert torch.equal(history.feature[0, [0, 2], -2], first.feature[0, [2, 0]])
    assert (history.state[0, 1, :-1] == 0).all() and (history.feature[0, 1, :-1] == 0).all()


@pytest.mark.parametrize(("confidence", "period"), [(0.19, 1), (0.21, 2)])
def test_an_instance_that_was_not_confident_has_no_past(confidence, period):
    _, memory = step(nothing(), instances([0, 1, 2], [0.9, confidence, 0.9], seed=0), seed=0)
    # what counts is the confidence it had then, not the one it has now
    history, _ = step(memory, instances([0, 1, 2], [0.9, 0.5, 0.01], seed=1), seed=1)
    assert history.period.tolist() == [[2, period, 2, 2]]
    assert (history.state[0, 1, -2] == 0).all().item() == (period == 1)


def test_exactly_the_least_confidence_is_too_little():
    _, memory = step(nothing(), instances([0, 1, 2], [0.9] * 3, seed=0), seed=0)
    memory = replace(memory, confidence=torch.tensor([[NEVER_CONFIDENT, 0.9, 0.9]]))
    history, _ = step(memory, instances([0, 1, 2], [0.9] * 3, seed=1), seed=1)
    assert history.period.tolist() == [[1, 2, 2, 2]]


def test_the_past_moves_with_the_ego_motion_only():
    first = instances([0, 1, 2], [0.9] * 3, seed=0)
    _, memory = step(nothing(), first, seed=0)
    now_T_then = se3.from_yaw(torch.tensor([4.0]), torch.tensor([-2.0]), torch.tensor([0.8]))
    history, _ = step(memory, instances([0, 1, 2], [0.9] * 3, seed=1), seed=1, tick=now(now_T_then=now_T_then))
    assert_close(history.state[:, :AGENTS, -2], box_state.transform(first.last.state, now_T_then))
    assert_close(history.state[:, -1:, -2], box_state.transform(ego(0)[1][:, None], now_T_then))


def test_a_cold_stream_has_no_past():
    _, memory = step(nothing(), instances([0, 1, 2], [0.9] * 3, seed=0), seed=0)
    seen = instances([0, 1, 2], [0.9] * 3, seed=1)
    cold, _ = step(memory, seen, seed=1, tick=now(warm=False))
    fresh, _ = step(nothing(), seen, seed=1)
    assert cold.period.tolist() == [[1, 1, 1, 1]]
    assert torch.equal(cold.state[:, :AGENTS], fresh.state[:, :AGENTS]) and torch.equal(cold.feature[:, :AGENTS], fresh.feature[:, :AGENTS])


def test_a_cold_stream_has_no_past_of_the_ego_vehicle():
    _, memory = step(nothing(), instances([0, 1, 2], [0.9] * 3, seed=0), seed=0)
    seen = instances([0, 1, 2], [0.9] * 3, seed=1)
    cold, _ = step(memory, seen, seed=1, tick=now(warm=False))
    fresh, _ = step(nothing(), seen, seed=1)
    assert torch.equal(cold.state[:, -1], fresh.state[:, -1]) and torch.equal(cold.feature[:, -1], fresh.feature[:, -1])


def test_the_ego_vehicle_remembers_its_refined_feature():
    _, memory = step(nothing(), instances([0, 1, 2], [0.9] * 3, seed=0), seed=0)
    assert memory.ego_feature[0, -1].tolist() == [7.0, 7.0]
    history, _ = step(memory, instances([0, 1, 2], [0.9] * 3, seed=1), seed=1)
    assert history.feature[0, -1, -2].tolist() == [7.0, 7.0] and torch.equal(history.feature[0, -1, -1:], ego(1)[0])


def test_nothing_remembered_holds_the_graph():
    seen = instances([0, 1, 2], [0.9] * 3, seed=0)
    last = replace(seen.last, state=seen.last.state.requires_grad_(), class_logits=seen.last.class_logits.requires_grad_())
    seen = replace(seen, steps=[last], feature=seen.feature.clone().requires_grad_())
    ego_feature = torch.zeros(1, DIM, requires_grad=True)
    history = motion_memory.recall(nothing(), seen, ego_feature, ego(0)[1], now(), min_confidence=0.2)
    kept = motion_memory.remember(history, seen, ego_feature, torch.zeros(1, 10, requires_grad=True))
    assert not any(leaf.requires_grad for leaf in torch.utils._pytree.tree_leaves((history, kept)))
