"""The cascade's memory as pure functions: what a stream that starts has, bring it to now, add this frame."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsedrive.geometry import se3
from sparsedrive.models.memory_ops import Tick
from sparsedrive.structures import CameraRig, CompletionMemory, ImageFeatures, PlanPredictions


def initial(
    batch_size: int, num_cameras: int, queue_length: int, num_pixels: int, dim: int, plan_steps: int, dtype: torch.dtype,
    device: torch.device | str,
) -> CompletionMemory:  # fmt: skip
    """Memory of streams that have seen nothing."""
    shape = (batch_size, queue_length, num_cameras)
    return CompletionMemory(
        packed=[torch.zeros(batch_size, num_cameras, num_pixels, dim, dtype=dtype, device=device) for _ in range(queue_length)],
        image_T_last=torch.zeros(*shape, 4, 4, dtype=dtype, device=device),
        image_wh_px=torch.zeros(*shape, 2, dtype=dtype, device=device),
        age_s=torch.zeros(shape, dtype=dtype, device=device),
        valid=torch.zeros(shape, dtype=torch.bool, device=device),
        plan_m=torch.zeros(batch_size, plan_steps, 2, dtype=dtype, device=device),
        plan_valid=torch.zeros(batch_size, dtype=torch.bool, device=device),
    )


def advance(memory: CompletionMemory, now: Tick, max_age_s: float) -> CompletionMemory:
    """The memory relative to this frame, checked before anybody reads it: that of a stream that starts cold (other sequence, long gap,
    time running backwards) and pictures older than `max_age_s` are not valid."""
    age_s = memory.age_s + now.elapsed_s[:, None, None]
    valid = memory.valid & now.warm[:, None, None] & (age_s <= max_age_s)
    last_T_now = se3.invert(now.now_T_then.double())[:, None, None]  # double precision: never halved by autocast
    image_T_now = (memory.image_T_last.double() @ last_T_now).to(memory.image_T_last.dtype)
    rotation, translation = now.now_T_then[:, None, :2, :2], now.now_T_then[:, None, :2, 3]
    return replace(
        memory,
        # What must not be read again may hold anything: numbers without end must not reach a gradient.
        image_T_last=torch.where(valid[..., None, None], image_T_now, 0.0),
        age_s=torch.where(valid, age_s, 0.0),
        valid=valid,
        plan_m=se3.rotate(rotation, memory.plan_m) + translation,
        plan_valid=memory.plan_valid & now.warm,
    )


def remember(
    memory: CompletionMemory, images: ImageFeatures, rig: CameraRig, seen: Bool[Tensor, "B C"], *, all_seen: bool
) -> CompletionMemory:
    """An advanced memory with this frame's pictures, outside the graph, the oldest of each `seen` camera gone.

    `all_seen`: it is known on the host that every camera delivered, so that nothing has to be copied.
    """

    def push(rows: Tensor, new: Tensor) -> Tensor:
        shifted = torch.cat([rows[:, 1:], new[:, None]], dim=1)
        return torch.where(seen.reshape(seen.shape[0], 1, -1, *[1] * (rows.dim() - 3)), shifted, rows)

    if not memory.packed:
        return memory
    entries = [*memory.packed, images.packed.detach().to(memory.packed[-1].dtype)]
    if all_seen:
        packed = entries[1:]
    else:
        packed = [torch.where(seen[:, :, None, None], new, old) for old, new in zip(memory.packed, entries[1:], strict=True)]
    return replace(
        memory,
        packed=packed,
        image_T_last=push(memory.image_T_last, rig.image_T_ego),
        image_wh_px=push(memory.image_wh_px, rig.image_wh_px),
        age_s=push(memory.age_s, torch.zeros_like(memory.age_s[:, 0])),
        valid=push(memory.valid, torch.ones_like(seen)),
    )


def remember_plan(memory: CompletionMemory, plan: PlanPredictions, command: Tensor) -> CompletionMemory:
    """With the most likely plan for the command given, outside the graph."""
    row = torch.arange(command.shape[0], device=command.device)
    best = plan.mode_logits[row, command].argmax(-1)
    path_m = plan.step_offsets_m[row, command, best].detach().cumsum(dim=1)
    return replace(memory, plan_m=path_m.to(memory.plan_m.dtype), plan_valid=torch.ones_like(memory.plan_valid))


def along(path_m: Float[Tensor, "B T 2"], points_between: int) -> Float[Tensor, "B P 2"]:
    """A path from the ego frame's origin through its points, `points_between` + 1 points a step."""
    start = torch.cat([torch.zeros_like(path_m[:, :1]), path_m[:, :-1]], dim=1)
    share = torch.arange(1, points_between + 2, dtype=path_m.dtype, device=path_m.device) / (points_between + 1)
    return (start[:, :, None] + share[:, None] * (path_m - start)[:, :, None]).flatten(1, 2)
