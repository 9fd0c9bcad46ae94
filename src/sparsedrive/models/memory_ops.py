"""What happens to a stream's memory around a decoder, as pure functions: tick, align, merge, remember.

Source: the instance bank of Sparse4D v2 (arXiv:2305.14018, section 3.2), with the state passed in and out as a value.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.geometry import se3
from sparsedrive.structures import Frame, InstanceMemory, InstancePredictions, ParityOptions, StreamClock, take_rows
from sparsedrive.structures._structure import structure

Transform = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(state [B,K,S], now_T_then [B,4,4], elapsed_s [B]) -> state moved to now."""


@structure
class Tick:
    """What passed between a stream's memory and this frame.

    `warm`: the memory belongs to this frame's recent past. `attends`: decoders may look at it (the same, unless
    `ParityOptions.stale_memory_attention`). `elapsed_s` is signed and raw; `step_s` is what velocities are divided by.
    """

    warm: Bool[Tensor, "B"]
    attends: Bool[Tensor, "B"]
    now_T_then: Float[Tensor, "B 4 4"]
    elapsed_s: Float[Tensor, "B"]
    step_s: Float[Tensor, "B"]


@structure
class Prior:
    """Memory brought to the current frame. `next_id` restarts at 0 for a cold stream."""

    feature: Float[Tensor, "B K D"]
    state: Float[Tensor, "B K S"]
    confidence: Float[Tensor, "B K"]
    track_id: Int[Tensor, "B K"]
    next_id: Int[Tensor, "B"]


def tick(clock: StreamClock, frame: Frame, *, max_gap_s: float, default_step_s: float, parity: ParityOptions) -> Tick:
    """Decides per stream whether its memory still counts: same sequence, not older than `max_gap_s`, time not running backwards.

    Times and poses are compared in float64 and only then cast.
    """
    dtype = frame.images.dtype
    elapsed_s = (frame.time_s - clock.time_s).to(dtype)
    warm = clock.started & (elapsed_s.abs() <= max_gap_s)
    if not parity.backward_time_is_warm:
        warm = warm & (elapsed_s >= 0) & (frame.sequence_id == clock.sequence_id)
    attends = clock.started if parity.stale_memory_attention else warm
    now_T_then = se3.relative(frame.global_T_ego, clock.global_T_ego).to(dtype)
    identity = torch.eye(4, dtype=dtype, device=now_T_then.device)
    return Tick(
        warm=warm,
        attends=attends,
        # A memory nobody may look at stays where it is: moving it by the gap's displacement could overflow.
        now_T_then=torch.where(attends[:, None, None], now_T_then, identity),
        elapsed_s=torch.where(attends, elapsed_s, 0.0),
        step_s=torch.where(warm & (elapsed_s != 0), elapsed_s, default_step_s),
    )


def align(memory: InstanceMemory, now: Tick, transform: Transform, parity: ParityOptions) -> Prior:
    """Memory in the current ego frame; what a cold stream must not inherit is blanked."""
    return Prior(
        feature=memory.feature,
        state=transform(memory.state, now.now_T_then, now.elapsed_s),
        confidence=torch.where(now.warm[:, None], memory.confidence, 0.0),
        track_id=torch.where(now.warm[:, None], memory.track_id, -1),
        next_id=memory.next_id if parity.shared_track_ids else torch.where(now.warm, memory.next_id, 0),
    )


def merge(feature: Tensor, state: Tensor, class_logits: Tensor, prior: Prior, now: Tick) -> tuple[Tensor, Tensor]:
    """Keeps the past and refills with the best new instances: K from memory, then the N - K most confident of this frame.

    Cold streams keep their N instances. Returns (feature [B,N,D], state [B,N,S]).
    """
    num_new = feature.shape[1] - prior.feature.shape[1]
    best = class_logits.amax(-1).topk(num_new, dim=1).indices
    warm = now.warm[:, None, None]
    merged_feature = torch.cat([prior.feature, take_rows(feature, best)], dim=1)
    merged_state = torch.cat([prior.state, take_rows(state, best)], dim=1)
    return torch.where(warm, merged_feature, feature), torch.where(warm, merged_state, state)


def fading_confidence(class_logits: Float[Tensor, "B N C"], prior: Prior, decay: float) -> Float[Tensor, "B N"]:
    """Confidence that falls by at most `decay` a frame for propagated instances, so that a short occlusion is survived."""
    confidence = class_logits.detach().amax(-1).sigmoid()
    num_memory = prior.confidence.shape[1]
    kept = torch.maximum(prior.confidence * decay, confidence[:, :num_memory])
    return torch.cat([kept, confidence[:, num_memory:]], dim=1)


def assign_track_ids(prior: Prior, num_instances: int, parity: ParityOptions) -> tuple[Int[Tensor, "B N"], Int[Tensor, "B"]]:
    """Propagated instances keep their id, all others get the stream's next ones. Returns (ids [B,N], next_id [B])."""
    batch, num_memory = prior.track_id.shape
    unnamed = prior.track_id.new_full((batch, num_instances - num_memory), -1)
    track_id = torch.cat([prior.track_id, unnamed], dim=1)
    new = track_id < 0
    if parity.shared_track_ids:
        numbers = new.flatten().cumsum(0).unflatten(0, new.shape)
        total = new.sum().expand(batch)
    else:
        numbers, total = new.cumsum(1), new.sum(1)
    return torch.where(new, prior.next_id[:, None] + numbers - 1, track_id), prior.next_id + total


def remember(predictions: InstancePredictions, prior: Prior, next_id: Int[Tensor, "B"], *, num_memory: int, decay: float) -> InstanceMemory:
    """The `num_memory` most confident instances, detached from the graph."""
    confidence, best = fading_confidence(predictions.last.class_logits, prior, decay).topk(num_memory, dim=1)
    return InstanceMemory(
        feature=take_rows(predictions.feature.detach(), best),
        state=take_rows(predictions.last.state.detach(), best),
        confidence=confidence,
        track_id=predictions.track_id.gather(1, best),
        next_id=next_id,
    )
