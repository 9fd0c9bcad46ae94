"""All losses of one frame: match every layer, then sum. Matches travel as values."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsedrive.losses.completion import CompletionLossConfig, CompletionTeacher, completion_losses
from sparsedrive.losses.denoising import denoising_losses
from sparsedrive.losses.depth import dense_depth_loss, depth_fit_loss
from sparsedrive.losses.detection import BoxLossConfig, detection_losses
from sparsedrive.losses.futures import FutureLossConfig, motion_losses, plan_losses
from sparsedrive.losses.mapping import LineLossConfig, map_losses
from sparsedrive.losses.matching import Match, match_boxes, match_lines
from sparsedrive.losses.objects import ObjectLossConfig, object_losses
from sparsedrive.structures import Frame, FrameTargets, Predictions


@dataclass(frozen=True, kw_only=True)
class CriterionConfig:
    """What is trained and how much. The defaults are those of both published SparseDrive stages."""

    detection: BoxLossConfig = field(default_factory=BoxLossConfig)
    map: LineLossConfig = field(default_factory=LineLossConfig)
    futures: FutureLossConfig = field(default_factory=FutureLossConfig)
    completion: CompletionLossConfig = field(default_factory=CompletionLossConfig)
    depth_weight: float = 0.2
    objects: ObjectLossConfig = field(default_factory=ObjectLossConfig)
    roi_m: tuple[float, float] = (30.0, 60.0)


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Every loss by name, weighted (`detection.5.box`, `plan.path`, ...), and the matches of all detection and map layers."""

    by_name: dict[str, Tensor]
    detection_matches: tuple[Match, ...]
    map_matches: tuple[Match, ...]

    @property
    def total(self) -> Tensor:
        """Plain sum."""
        return torch.stack([loss.reshape(()) for loss in self.by_name.values()]).sum()


def compute_losses(
    predictions: Predictions,
    frame: Frame,
    targets: FrameTargets,
    config: CriterionConfig,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda value: value,
    *,
    teacher: CompletionTeacher | None = None,
    poisoned_match: bool = False,
) -> Losses:
    """Losses of one step of B streams.

    `mean_over_processes` averages the number of positives (and of known depths and ego status) over all processes, so that many GPUs
    give the gradient of one big batch.
    `teacher`: what failed cameras would have given, for the completion. `poisoned_match`: see `matching.box_cost`.
    """
    named: dict[str, Tensor] = {}

    def positives(match: Match) -> Tensor:
        return mean_over_processes(match.positive.sum().float()).clamp(min=1.0)

    box_matches = [match_boxes(step, targets.boxes, config.detection.cost, poisoned=poisoned_match) for step in predictions.detection.steps]
    for layer, (step, match) in enumerate(zip(predictions.detection.steps, box_matches, strict=True)):
        boxes = detection_losses(step, targets.boxes, match, positives(match), config.detection)
        named |= {f"detection.{layer}.class": boxes.classification, f"detection.{layer}.box": boxes.box}
        if step.quality is not None:
            named |= {f"detection.{layer}.centerness": boxes.centerness, f"detection.{layer}.yawness": boxes.yawness}
    denoising = predictions.detection.denoising
    for layer, (step, wanted) in enumerate(zip(denoising.steps, denoising.targets, strict=True) if denoising else ()):
        count = mean_over_processes(wanted.valid.sum().float()).clamp(min=1.0)
        answers = denoising_losses(step, wanted, count, config.detection)
        named |= {f"detection.{layer}.denoise_class": answers.classification, f"detection.{layer}.denoise_box": answers.box}
    if predictions.detection.true_fit is not None:
        named["detection.depth_fit"] = depth_fit_loss(predictions.detection.true_fit, targets.boxes.valid, positives(box_matches[-1]))
    map_steps = [] if predictions.map is None else predictions.map.steps
    line_matches = [match_lines(step, targets.map, config.roi_m, config.map.cost) for step in map_steps]
    for layer, (step, match) in enumerate(zip(map_steps, line_matches, strict=True)):
        lines = map_losses(step, targets.map, match, positives(match), config.roi_m, config.map)
        named |= {f"map.{layer}.class": lines.classification, f"map.{layer}.line": lines.line}
    if predictions.motion is not None:
        last = box_matches[-1]
        motion = motion_losses(predictions.motion, targets, last, positives(last), config.futures)
        named |= {"motion.class": motion.classification, "motion.path": motion.path}
    if predictions.plan is not None:
        plan = plan_losses(predictions.plan, frame, targets, config.futures, mean_over_processes)
        named |= {"plan.class": plan.classification, "plan.path": plan.path, "plan.ego_status": plan.ego_status}
    if predictions.depth_m is not None:
        named["depth"] = dense_depth_loss(
            predictions.depth_m, list(targets.depth_m), weight=config.depth_weight, mean_over_processes=mean_over_processes
        )
    if predictions.objects is not None:
        classes, geometry = object_losses(predictions.objects, targets.boxes, frame.rig, config.objects, mean_over_processes)
        named |= {"objects.class": classes, "objects.geometry": geometry}
    if predictions.completion is not None:
        named |= completion_losses(predictions.completion, teacher, frame.rig.names, config.completion)
    return Losses(named, tuple(box_matches), tuple(line_matches))
