"""The ego trajectory to drive: modes of the given command, those that would hit a forecast agent put last."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.decoding.rectangles import corners_inside, rectangles_overlap
from sparsedrive.geometry import box_state
from sparsedrive.structures import DecoderStep, MotionPredictions, ParityOptions, Plan, PlanPredictions

EGO_LENGTH_M, EGO_WIDTH_M = 4.08, 1.73
EGO_MARGIN = 1.1  # the ego box is this much larger than the vehicle
EGO_CENTRE_FORWARD_M = 0.5  # the ego frame's origin, the LiDAR, sits behind the vehicle's centre
EGO_YAW_RAD = math.pi / 2  # forward is +y
MIN_CONFIDENCE = 0.5  # agents below are not avoided
STATIC_M = 0.5  # a trajectory shorter than this, end to end, has no heading of its own
COLLISION_PENALTY = 999.0  # subtracted from the logit of a mode that collides


def select_plan(
    plan: PlanPredictions,
    command: Int[Tensor, "B"],
    detection: DecoderStep,
    motion: MotionPredictions,
    *,
    rescore: bool = True,
    parity: ParityOptions = ParityOptions(),  # noqa: B008 - frozen
) -> Plan:
    """The best mode of the given command, in ego metres.

    `detection` is the last step of the box decoder: the agents `motion` belongs to. With `rescore`, modes whose ego box touches
    an agent's most likely future are put behind all others, unless that holds for every mode of the command. Scores of the
    other commands stay as predicted.

    Errors: ValueError if `command` is not [B].
    Source: hierarchical planning selection of SparseDrive (arXiv:2405.19620, section 3.3).
    """
    batch, _, num_modes, num_steps, _ = plan.step_offsets_m.shape
    if command.shape != (batch,):
        raise ValueError(f"select_plan: expected command [{batch}], one Command a stream, got {list(command.shape)}; pass Frame.command")
    trajectories = plan.step_offsets_m.cumsum(dim=-2)
    of_command = command[:, None, None, None, None].expand(batch, 1, num_modes, num_steps, 2)
    modes = trajectories.gather(1, of_command).squeeze(1)
    collides = mode_collisions(modes, detection, motion, parity=parity)
    mode_logits = rescored_logits(plan.mode_logits, command, collides) if rescore else plan.mode_logits
    best = mode_logits.gather(1, command[:, None, None].expand(batch, 1, num_modes)).squeeze(1).argmax(dim=-1)
    return Plan(
        trajectory_m=modes.gather(1, best[:, None, None, None].expand(batch, 1, num_steps, 2)).squeeze(1),
        all_trajectories_m=trajectories,
        mode_score=mode_logits.sigmoid(),
        mode_collides=collides,
        command=command,
        history_box=box_state.decode(plan.history_state),
        period=plan.period,
        ego_status=plan.ego_status,
    )


def rescored_logits(
    mode_logits: Float[Tensor, "B 3 M"], command: Int[Tensor, "B"], collides: Bool[Tensor, "B M"]
) -> Float[Tensor, "B 3 M"]:
    """The logits with the colliding modes of the given command put behind all others; unchanged where all of them collide."""
    punished = collides & ~collides.all(dim=-1, keepdim=True)
    given = torch.arange(mode_logits.shape[1], device=command.device) == command[:, None]
    return torch.where(given[:, :, None] & punished[:, None], mode_logits - COLLISION_PENALTY, mode_logits)


def mode_collisions(
    modes_m: Float[Tensor, "B M T 2"], detection: DecoderStep, motion: MotionPredictions, *, parity: ParityOptions
) -> Bool[Tensor, "B M"]:
    """Which ego trajectories touch the most likely future of a confident agent at one of their steps; height is ignored."""
    ego = _ego_rectangles(modes_m)
    agents = _agent_rectangles(detection.state, motion, num_steps=modes_m.shape[2])
    shifted = ego if parity.ego_box_row_shift else _moved_forward(ego)
    touch = corners_inside if parity.corner_only_collisions else rectangles_overlap
    hits = touch(shifted[:, None], agents[:, :, None])  # [B, N, M, T]
    if parity.ego_box_row_shift:
        hits = _with_shifted_rows(hits, touch, ego, agents)
    confident = detection.class_logits.amax(dim=-1).sigmoid() >= MIN_CONFIDENCE
    return (hits.any(dim=-1) & confident[:, :, None]).any(dim=1)


def _ego_rectangles(modes_m: Tensor) -> Tensor:
    """[B, M, T, 5] around the origin of the ego frame."""
    yaw = _headings(modes_m, start=torch.zeros_like(modes_m[..., :1, :]), start_yaw=torch.full_like(modes_m[..., 0, 0], EGO_YAW_RAD))
    length, width = (torch.full_like(yaw, size_m * EGO_MARGIN) for size_m in (EGO_LENGTH_M, EGO_WIDTH_M))
    return torch.stack([*modes_m.unbind(-1), length, width, yaw], dim=-1)


def _agent_rectangles(state: Tensor, motion: MotionPredictions, num_steps: int) -> Tensor:
    """[B, N, T, 5] of every agent's most likely mode."""
    best = motion.mode_logits.argmax(dim=-1)[..., None, None, None]
    offsets = motion.step_offsets_m[..., :num_steps, :]
    offsets = offsets.gather(2, best.expand(*best.shape[:3], *offsets.shape[3:])).squeeze(2)
    centre = state[:, :, None, :2]
    positions = centre + offsets.cumsum(dim=-2)
    yaw = _headings(positions, start=centre, start_yaw=box_state.yaw_rad(state))
    size = state[:, :, None, box_state.LOG_LENGTH : box_state.LOG_HEIGHT].exp().expand_as(positions)
    return torch.cat([positions, size, yaw[..., None]], dim=-1)


def _headings(positions: Tensor, start: Tensor, start_yaw: Tensor) -> Tensor:
    """Yaw [..., T] at every step of [..., T, 2], from its two neighbours (the last: from the one before)."""
    path = torch.cat([start.expand_as(positions[..., :1, :]), positions], dim=-2)
    ahead = torch.cat([path[..., 2:, :], path[..., -1:, :]], dim=-2) - torch.cat([path[..., :-2, :], path[..., -2:-1, :]], dim=-2)
    static = torch.linalg.vector_norm(path[..., -1, :] - path[..., 0, :], dim=-1) < STATIC_M
    return torch.where(static[..., None], start_yaw[..., None], torch.atan2(ahead[..., 1], ahead[..., 0]))


def _moved_forward(ego: Tensor) -> Tensor:
    """From the ego frame's origin to the vehicle's centre."""
    yaw = ego[..., 4]
    forward = EGO_CENTRE_FORWARD_M * torch.stack([yaw.cos(), yaw.sin()], dim=-1)
    return torch.cat([ego[..., :2] + forward, ego[..., 2:]], dim=-1)


def _with_shifted_rows(hits: Tensor, touch: Callable[[Tensor, Tensor], Tensor], ego: Tensor, agents: Tensor) -> Tensor:
    """`hits` as published: the shift goes to rows instead of columns of the boxes flattened over (stream, agent, mode, step).

    So it reaches stream 0, agent 0, mode 0, steps 0 and 1 only, and all columns there, by the cosines and sines of row 6.
    """
    rows = ego[0].flatten(0, 1)
    moved = torch.stack([rows[0] + EGO_CENTRE_FORWARD_M * rows[6].cos(), rows[1] + EGO_CENTRE_FORWARD_M * rows[6].sin()])
    hits = hits.clone()
    hits[0, 0, 0, :2] = touch(moved, agents[0, 0, :2])
    return hits
