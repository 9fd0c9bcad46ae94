"""Stops a run at the first number that is none, and says where it came from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparsedrive.structures import Frame, FrameTargets


class TrainingError(RuntimeError):
    """The run cannot go on. The last checkpoint is intact."""


@dataclass(frozen=True, kw_only=True)
class Culprit:
    """What was found when a loss was not finite, or, with `losses` empty, before that in the data.

    `module` is the first whose output was not finite, None where all outputs were. `frames`: those with bad inputs, else all of the part.
    """

    step: int
    losses: tuple[str, ...]
    module: str | None
    inputs: tuple[str, ...]
    frames: tuple[str, ...]

    def message(self) -> str:
        """For people."""
        if self.inputs:
            cause = f"the data are not finite: {', '.join(self.inputs)}"
        elif self.module:
            cause = f"the first module whose output is not finite is {self.module!r}"
        else:
            cause = "every module's output is finite: the loss itself diverged"
        losses = f"{', '.join(self.losses)} not finite; " if self.losses else ""
        return (
            f"step {self.step}: {losses}{cause}; frames {', '.join(self.frames)}. "
            "Lower the rate, use precision 'bf16' or 'no', or leave these frames out; resume from the last checkpoint"
        )


def bad_losses(losses: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the losses that are not finite (one wait for the device)."""
    finite = torch.stack([loss.detach().reshape(()) for loss in losses.values()]).isfinite().tolist()
    return tuple(name for name, good in zip(losses, finite, strict=True) if not good)


def bad_truth(frame: Frame, targets: FrameTargets) -> tuple[str, ...]:
    """Names of the small tensors of a batch that are not finite; unknown velocities (NaN) are as they should be. Cheap on the CPU."""
    named = {
        "CameraRig.image_T_ego": frame.rig.image_T_ego, "Frame.global_T_ego": frame.global_T_ego, "Frame.time_s": frame.time_s,
        "Frame.ego_status": frame.ego_status,
        "BoxTargets.box": targets.boxes.box[..., :7][targets.boxes.valid],
        "MapTargets.points_m": targets.map.points_m[targets.map.order_valid],
        "FutureTargets.agent_m": targets.futures.agent_m[targets.futures.agent_valid],
        "FutureTargets.ego_m": targets.futures.ego_m[targets.futures.ego_valid],
    }  # fmt: skip
    return _not_finite(named)


def bad_inputs(frame: Frame, targets: FrameTargets) -> tuple[str, ...]:
    """As `bad_truth`, with pictures and depth maps."""
    depth_m = {f"FrameTargets.depth_m[{level}]": depth_m for level, depth_m in enumerate(targets.depth_m)}
    return _not_finite({"Frame.images": frame.images} | depth_m) + bad_truth(frame, targets)


def _not_finite(named: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(name for name, value in named.items() if not bool(value.isfinite().all()))


@contextmanager
def first_bad_module(model: nn.Module) -> Iterator[list[str]]:
    """While open, the first module whose output is not finite is put into the list."""
    found: list[str] = []

    def hook(name: str):
        def look(module: nn.Module, inputs: object, output: object) -> None:
            tensors: Sequence[object] = pytree.tree_leaves(output)
            bad = any(isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()) for value in tensors)
            if bad and not found:
                found.append(name)

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
