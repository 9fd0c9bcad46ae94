"""Losses of agent forecasts and of the ego plan: the best of several modes learns, and which mode is best.

Source: SparseDrive (arXiv:2405.19620), section 3.4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.losses.elementwise import averaged, l1
from sparsedrive.losses.matching import Match, gather_rows
from sparsedrive.ops.sigmoid_focal_loss import sigmoid_focal_loss
from sparsedrive.structures import BoxTargets, Frame, FrameTargets, MotionPredictions, PlanPredictions


@dataclass(frozen=True, kw_only=True)
class FutureLossConfig:
    """Weights as published for SparseDrive."""

    motion_class_weight: float = 0.2
    motion_path_weight: float = 0.2
    plan_class_weight: float = 0.5
    plan_path_weight: float = 1.0
    ego_status_weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class MotionLosses:
    """The two terms, weighted."""

    classification: Float[Tensor, ""]
    path: Float[Tensor, ""]


@dataclass(frozen=True, slots=True, eq=False)
class PlanLosses:
    """The three terms, weighted."""

    classification: Float[Tensor, ""]
    path: Float[Tensor, ""]
    ego_status: Float[Tensor, ""]


def best_mode(step_offsets_m: Float[Tensor, "*N M T 2"], path_m: Float[Tensor, "*N T 2"], valid: Bool[Tensor, "*N T"]) -> Int[Tensor, "*N"]:
    """The mode whose path is nearest on average over all T steps, where steps that are not valid count 0. (Nothing valid: mode 0.)"""
    distance_m = torch.linalg.vector_norm(path_m.unsqueeze(-3) - step_offsets_m.cumsum(-2), dim=-1)
    return (distance_m * valid.unsqueeze(-2)).mean(-1).argmin(-1)


def take_mode(step_offsets_m: Float[Tensor, "*N M T 2"], mode: Int[Tensor, "*N"]) -> Float[Tensor, "*N T 2"]:
    """The offsets of one mode each."""
    index = mode[..., None, None, None].expand(*mode.shape, 1, *step_offsets_m.shape[-2:])
    return step_offsets_m.gather(-3, index).squeeze(-3)


def steps_of(path_m: Float[Tensor, "*N T 2"]) -> Float[Tensor, "*N T 2"]:
    """Positions relative to now -> offsets from step to step."""
    return torch.diff(path_m, dim=-2, prepend=torch.zeros_like(path_m[..., :1, :]))


def motion_targets(targets: FrameTargets, match: Match) -> tuple[Float[Tensor, "B N T 2"], Bool[Tensor, "B N T"]]:
    """Paths relative to the matched box's place now, and which steps are known; nothing is known where nothing matched."""
    boxes: BoxTargets = targets.boxes
    relative_m = targets.futures.agent_m - boxes.box[:, :, None, :2]
    known = gather_rows(targets.futures.agent_valid, match.target) & match.positive[..., None]
    path_m = torch.where(known[..., None], gather_rows(relative_m, match.target), 0.0)
    return path_m, known


def motion_losses(motion: MotionPredictions, targets: FrameTargets, match: Match, count: Tensor, config: FutureLossConfig) -> MotionLosses:
    """Losses of the agents' forecasts; `match` is that of the last detection layer, `count` its positives."""
    path_m, known = motion_targets(targets, match)
    path_m = path_m.to(motion.step_offsets_m.dtype)
    mode = best_mode(motion.step_offsets_m, path_m, known)
    focal = sigmoid_focal_loss(motion.mode_logits.flatten(0, 1), mode.flatten())
    error_m = l1(take_mode(motion.step_offsets_m, mode).cumsum(-2), path_m)
    return MotionLosses(
        averaged(focal, known.any(-1).flatten()[:, None], count) * config.motion_class_weight,
        averaged(error_m, known[..., None], count) * config.motion_path_weight,
    )


def plan_losses(
    plan: PlanPredictions,
    frame: Frame,
    targets: FrameTargets,
    config: FutureLossConfig,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda value: value,
) -> PlanLosses:
    """Losses of the ego plan: only the modes of the given command learn. Paths are compared step by step, not as positions."""
    stream = torch.arange(len(frame.command), device=frame.command.device)
    logits, offsets_m = plan.mode_logits[stream, frame.command], plan.step_offsets_m[stream, frame.command]
    known = targets.futures.ego_valid
    path_m = targets.futures.ego_m.to(offsets_m.dtype)
    mode = best_mode(offsets_m, path_m, known)
    focal = sigmoid_focal_loss(logits, mode)
    error_m = l1(take_mode(offsets_m, mode), steps_of(path_m))
    status_known = targets.ego_status_known
    status = averaged(l1(plan.ego_status, frame.ego_status), status_known, mean_over_processes(status_known.sum().float()))
    return PlanLosses(
        averaged(focal, known.any(-1)[:, None]) * config.plan_class_weight,
        averaged(error_m, known[..., None]) * config.plan_path_weight,
        status * config.ego_status_weight,
    )
