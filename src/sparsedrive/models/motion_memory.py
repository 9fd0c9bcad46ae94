"""The instance queue behind forecasts and plan, as pure functions: recall what each instance and the ego vehicle did, remember it.

Source: instance memory queue of SparseDrive (arXiv:2405.19620, section 3.3).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.geometry import box_state
from sparsedrive.models.memory_ops import Tick
from sparsedrive.structures import InstancePredictions, MotionMemory, take_rows
from sparsedrive.structures._structure import structure


@structure
class History:
    """The last H frames of N agents and, as row N, the ego vehicle; oldest first, this frame last, in the current ego frame.

    `period` counts the real entries at the end of each row.
    """

    feature: Float[Tensor, "B N1 H D"]
    state: Float[Tensor, "B N1 H 11"]
    period: Int[Tensor, "B N1"]

    def allowed(self) -> Bool[Tensor, "B N1 H"]:
        """Which entries are real."""
        length = self.state.shape[2]
        age = torch.arange(length, 0, -1, device=self.period.device)
        return age <= self.period[..., None]


def recall(
    memory: MotionMemory, detection: InstancePredictions, ego_feature: Float[Tensor, "B D"], ego_state: Float[Tensor, "B 11"], now: Tick,
    *, min_confidence: float,
) -> History:  # fmt: skip
    """History of every current instance: last frame's rows with the same track id, moved to this frame, plus this frame.

    Past positions are moved by the ego motion only. An instance that was not confident, is new, or whose stream is cold has no past.
    """
    same = detection.track_id[:, :, None] == memory.track_id[:, None]
    same = same & (memory.confidence > min_confidence)[:, None] & now.warm[:, None, None]
    known, row = same.any(-1), same.int().argmax(-1)
    length = memory.state.shape[2]

    def moved(state: Tensor) -> Tensor:
        return box_state.transform(state.flatten(1, 2), now.now_T_then).unflatten(1, state.shape[1:3])

    def append(past: Tensor, current: Tensor) -> Tensor:
        return torch.cat([past[:, :, 1:], current[:, :, None]], dim=2)

    mask = known[..., None, None]
    feature = append(torch.where(mask, take_rows(memory.feature, row), 0.0), detection.feature.detach())
    state = append(torch.where(mask, take_rows(moved(memory.state), row), 0.0), detection.last.state.detach())
    # Hidden by the period either way; a cold stream also forgets it (the published code keeps it, see `Tick.attends`).
    attends = now.attends[:, None, None, None]
    ego_past = (torch.where(attends, memory.ego_feature[:, None], 0.0), torch.where(attends, moved(memory.ego_state[:, None]), 0.0))
    ego = (append(ego_past[0], ego_feature.detach()[:, None]), append(ego_past[1], ego_state.detach()[:, None]))
    period = torch.where(known, memory.period.gather(1, row), 0)
    ego_period = torch.where(now.warm, memory.ego_period, 0)
    return History(
        feature=torch.cat([feature, ego[0]], dim=1),
        state=torch.cat([state, ego[1]], dim=1),
        period=(torch.cat([period, ego_period[:, None]], dim=1) + 1).clamp(max=length),
    )


def remember(
    history: History, detection: InstancePredictions, refined_ego_feature: Float[Tensor, "B D"], ego_status: Float[Tensor, "B 10"]
) -> MotionMemory:
    """The queue for the next frame. Agents keep their detection features, the ego vehicle its refined one (as published)."""
    ego_feature = torch.cat([history.feature[:, -1, :-1], refined_ego_feature.detach()[:, None]], dim=1)
    return MotionMemory(
        # Contiguous like the initial memory: a compiled step is specialised on strides.
        feature=history.feature[:, :-1].contiguous(),
        state=history.state[:, :-1].contiguous(),
        period=history.period[:, :-1].contiguous(),
        track_id=detection.track_id,
        confidence=detection.last.class_logits.detach().amax(-1).sigmoid(),
        ego_feature=ego_feature,
        ego_state=history.state[:, -1].contiguous(),
        ego_period=history.period[:, -1].contiguous(),
        ego_status=ego_status.detach(),
    )


def initial(batch_size: int, num_agents: int, length: int, dim: int, dtype: torch.dtype, device: torch.device | str) -> MotionMemory:
    """Memory of streams that have seen nothing."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(batch_size, *shape, dtype=dtype, device=device)

    def counts(*shape: int) -> Tensor:
        return torch.zeros(batch_size, *shape, dtype=torch.int64, device=device)

    return MotionMemory(
        feature=zeros(num_agents, length, dim),
        state=zeros(num_agents, length, box_state.STATE_DIM),
        period=counts(num_agents),
        track_id=counts(num_agents) - 1,
        confidence=zeros(num_agents),
        ego_feature=zeros(length, dim),
        ego_state=zeros(length, box_state.STATE_DIM),
        ego_period=counts(),
        ego_status=zeros(10),
    )
