"""Random and hand-made predictions for the decoding tests."""

import math

import torch

from sparsedrive.structures import DecoderStep, InstancePredictions, MotionPredictions, PlanPredictions, Predictions

NUM_CLASSES, MODES, FUTURE, PLAN_STEPS, HISTORY = 10, 6, 12, 6, 4
LIKELY, UNLIKELY = 3.0, -3.0  # logits


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(batch: int, queries: int, classes: int = NUM_CLASSES, width: int = 11, quality: bool = True, seed: int = 0) -> DecoderStep:
    draw = rng(seed)
    return DecoderStep(
        class_logits=torch.randn(batch, queries, classes, generator=draw),
        state=torch.randn(batch, queries, width, generator=draw),
        quality=torch.randn(batch, queries, 2, generator=draw) if quality else None,
    )


def motion(batch: int, queries: int, seed: int = 1) -> MotionPredictions:
    draw = rng(seed)
    return MotionPredictions(
        mode_logits=torch.randn(batch, queries, MODES, generator=draw),
        step_offsets_m=torch.randn(batch, queries, MODES, FUTURE, 2, generator=draw),
        history_state=torch.randn(batch, queries, HISTORY, 11, generator=draw),
        period=torch.randint(1, HISTORY + 1, (batch, queries), generator=draw),
    )


def plan(batch: int, seed: int = 2) -> PlanPredictions:
    draw = rng(seed)
    return PlanPredictions(
        mode_logits=torch.randn(batch, 3, MODES, generator=draw),
        step_offsets_m=torch.randn(batch, 3, MODES, PLAN_STEPS, 2, generator=draw),
        ego_status=torch.randn(batch, 10, generator=draw),
        history_state=torch.randn(batch, HISTORY, 11, generator=draw),
        period=torch.full((batch,), HISTORY),
    )


def predictions(batch: int = 2, queries: int = 40, seed: int = 0) -> Predictions:
    draw = rng(seed)

    def instances(last: DecoderStep, count: int) -> InstancePredictions:
        feature = torch.randn(batch, count, 8, generator=draw)
        track_id = torch.stack([torch.randperm(1000, generator=draw)[:count] for _ in range(batch)])
        return InstancePredictions(steps=[last], feature=feature, embed=feature, track_id=track_id)

    return Predictions(
        detection=instances(step(batch, queries, seed=seed), queries),
        map=instances(step(batch, 12, classes=3, width=40, quality=False, seed=seed + 1), 12),
        motion=motion(batch, queries, seed=seed + 2),
        plan=plan(batch, seed=seed + 3),
        depth_m=None,
    )


def straight_plan(step_m: float = 2.0, spread_m: float = 8.0) -> PlanPredictions:
    """One stream; mode m of every command drives forward (+y) in a lane of its own at x = (m - 2.5) * spread; mode 3 scores best."""
    offsets = torch.zeros(1, 3, MODES, PLAN_STEPS, 2)
    offsets[..., 1] = step_m
    offsets[..., 0, 0] = (torch.arange(MODES) - 2.5) * spread_m
    logits = torch.tensor([0.0, 0.2, 0.4, 2.0, 1.0, -1.0]).expand(1, 3, MODES)
    return PlanPredictions(
        mode_logits=logits,
        step_offsets_m=offsets,
        ego_status=torch.zeros(1, 10),
        history_state=torch.zeros(1, 1, 11),
        period=torch.ones(1, dtype=torch.long),
    )


def standing_agents(boxes: list[tuple[float, float, float, float, float, float]]) -> tuple[DecoderStep, MotionPredictions]:
    """One stream of agents that stay where they are: rows x y length width yaw_rad class_logit."""
    count = len(boxes)
    state = torch.zeros(1, count, 11)
    logits = torch.full((1, count, NUM_CLASSES), -8.0)
    for row, (x, y, length, width, yaw, logit) in enumerate(boxes):
        state[0, row, :2] = torch.tensor([x, y])
        state[0, row, 3:5] = torch.tensor([length, width]).log()
        state[0, row, 6:8] = torch.tensor([math.sin(yaw), math.cos(yaw)])
        logits[0, row, row % NUM_CLASSES] = logit
    detection = DecoderStep(class_logits=logits, state=state, quality=None)
    still = MotionPredictions(
        mode_logits=torch.zeros(1, count, MODES),
        step_offsets_m=torch.zeros(1, count, MODES, FUTURE, 2),
        history_state=torch.zeros(1, count, 1, 11),
        period=torch.ones(1, count, dtype=torch.long),
    )
    return detection, still
