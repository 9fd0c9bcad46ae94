"""Our arrays and losses for `v3_train_nodn.npz` and `v3_train_dn.npz`: two frames of two streams, with the stored random draws."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparse4d import EXACT, Arrays, golden_config, golden_frame, golden_model, recorded_features
from sparsedrive.geometry import box_state
from sparsedrive.losses.criterion import CriterionConfig, compute_losses
from sparsedrive.losses.denoising import DenoisingDraws, noised_queries
from sparsedrive.models import denoising as denoising_ops
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.ops.published_order import published_order
from sparsedrive.structures import (
    BoxTargets,
    DecoderStep,
    DenoisingConfig,
    DenoisingMemory,
    DenoisingPredictions,
    DenoisingQueries,
    DenoisingTargets,
    FrameTargets,
    FutureTargets,
    MapTargets,
    ParityOptions,
    take_rows,
)
from unit_losses import targets_of

BATCH, FRAMES, CAMERAS = 2, 2, 6
LEVEL_HW = ((64, 176), (32, 88), (16, 44))
NEGATIVE, PADDING = -3, -1  # published labels of queries without an object
RELATIVE = 2e-4
LOSS_NAMES = {
    r"detection\.(\d)\.class": r"loss_cls_\1", r"detection\.(\d)\.box": r"loss_box_\1",
    r"detection\.(\d)\.centerness": r"loss_cns_\1", r"detection\.(\d)\.yawness": r"loss_yns_\1",
    r"detection\.(\d)\.denoise_class": r"loss_cls_dn_\1", r"detection\.(\d)\.denoise_box": r"loss_box_dn_\1", "depth": "loss_dense_depth",
}  # fmt: skip


def training_config(*, denoising: bool) -> SparseDriveConfig:
    """The preset without anything random."""
    config = golden_config("v3")
    layer = replace(config.detection.layer, dropout=0.0, sampling_dropout=0.0)
    return replace(config, detection=replace(config.detection, layer=layer, denoising=config.detection.denoising if denoising else None))


def targets_from(golden: Arrays, index: int) -> FrameTargets:
    """The ground truth of a frame; map and futures are empty."""
    stored = {name: [torch.from_numpy(golden[f"gt_{name}_f{index}_b{b}"]) for b in range(BATCH)] for name in ("boxes", "labels", "ids")}
    boxes = targets_of(stored["boxes"], stored["labels"])
    instance = torch.zeros_like(boxes.label)
    for stream, ids in enumerate(stored["ids"]):
        instance[stream, : len(ids)] = ids
    depth_m = []
    for level, (height, width) in enumerate(LEVEL_HW):
        rows = torch.from_numpy(golden[f"gt_depth_f{index}_l{level}_idx"]).long()
        depth_m.append(torch.full((BATCH, CAMERAS, height, width), -1.0))
        depth_m[-1][tuple(rows.T)] = torch.from_numpy(golden[f"gt_depth_f{index}_l{level}_val"])
    none = torch.zeros(BATCH, 0, dtype=torch.bool)
    steps = torch.zeros(*boxes.label.shape, 12, 2)
    return FrameTargets(
        boxes=replace(boxes, instance=instance),
        map=MapTargets(points_m=torch.zeros(BATCH, 0, 1, 20, 2), order_valid=none[..., None], label=none.long(), valid=none),
        futures=FutureTargets(agent_m=steps, agent_valid=steps[..., 0] > 0, ego_m=steps[:, 0, :6], ego_valid=steps[:, 0, :6, 0] > 0),
        depth_m=tuple(depth_m),
        ego_status_known=torch.zeros(BATCH, 10, dtype=torch.bool),
    )


def truth_arrays(golden: Arrays, targets: FrameTargets, index: int) -> Arrays:
    """The ground truth back from our structures: that it went in as it is."""
    out: Arrays = {}
    for b, valid in enumerate(targets.boxes.valid):
        out[f"gt_boxes_f{index}_b{b}"] = targets.boxes.box[b, valid, :9].numpy()
        out[f"gt_labels_f{index}_b{b}"], out[f"gt_ids_f{index}_b{b}"] = (
            values[b, valid].numpy() for values in (targets.boxes.label, targets.boxes.instance)
        )
    for level, depth_m in enumerate(targets.depth_m):
        rows = np.argwhere(depth_m.numpy() >= 0).astype(np.int16)
        out[f"gt_depth_f{index}_l{level}_idx"], out[f"gt_depth_f{index}_l{level}_val"] = rows, depth_m[depth_m >= 0].numpy()
    return out


def stored_draws(golden: Arrays, index: int, config: DenoisingConfig) -> DenoisingDraws:
    """The random numbers of the golden run; its rows are group after group."""
    positive, negative, sign = (
        torch.from_numpy(golden[f"rand_f{index}_{i}_rand_like"]).unflatten(0, (config.num_groups, BATCH)) for i in range(3)
    )
    return DenoisingDraws(positive, negative, sign, torch.from_numpy(golden[f"rand_f{index}_3_randperm"]))


def padding_of(boxes: BoxTargets, size: int) -> Tensor:
    """Which of the `size` queries of a group are positives that only pad [B, size]."""
    there = boxes.valid[:, : int(boxes.valid.sum(1).max())]
    return torch.cat([~there, torch.zeros_like(there)], dim=1)[:, :size]


def published_targets(targets: DenoisingTargets, padded: Tensor) -> tuple[Tensor, Tensor]:
    """Encoded box and label as published: 0 and -3 without an object; a positive that only pads has the label -1."""
    answers = targets.label >= 0
    encoded = torch.where(answers[..., None], box_state.encode(torch.where(answers[..., None], targets.box, 1.0))[..., :10], 0.0)
    return encoded, torch.where(answers, targets.label, torch.where(padded.flatten(1), PADDING, NEGATIVE))


def query_arrays(queries: DenoisingQueries, boxes: BoxTargets, config: DenoisingConfig, index: int) -> Arrays:
    """The queries as they were made."""
    padded = padding_of(boxes, queries.state.shape[1] // config.num_groups)
    box, label = published_targets(queries.targets, padded.repeat(1, config.num_groups))
    apart = ~denoising_ops.visible(queries.targets.valid, config.num_groups, ParityOptions.published())
    return {
        f"dn_anchor_f{index}": queries.state[..., :10].numpy(),
        f"dn_reg_target_f{index}": box.numpy(),
        f"dn_cls_target_f{index}": label.numpy(),
        f"dn_id_target_f{index}": queries.targets.instance.numpy(),
        f"dn_valid_mask_f{index}": queries.targets.valid.numpy(),
        f"dn_attn_mask_f{index}": apart[0].numpy(),
    }


def answer_arrays(found: DenoisingPredictions, boxes: list[BoxTargets], config: DenoisingConfig, index: int) -> Arrays:
    """Answers of the last layer, and the targets after the temporal groups were swapped in; `boxes` of all frames up to this one."""
    targets = found.targets[-1]
    size, kept = targets.label.shape[1] // config.num_groups, config.num_temporal_groups
    groups = [padding_of(boxes[max(0, index - (group < kept))], size) for group in range(config.num_groups)]
    box, label = published_targets(targets, torch.cat(groups, dim=1))
    gone = (targets.label < 0) & (targets.instance >= 0)
    return {
        f"dn_pred_last_f{index}": found.steps[-1].state.numpy(),
        f"dn_cls_last_f{index}": found.steps[-1].class_logits.numpy(),
        f"temp_dn_reg_target_f{index}": box.numpy(),
        f"temp_dn_cls_target_f{index}": torch.where(gone, PADDING, label).numpy(),
        f"temp_dn_valid_mask_f{index}": targets.valid.numpy(),
    }


def memory_arrays(memory: DenoisingMemory, label: np.ndarray, queries: DenoisingQueries, config: DenoisingConfig, index: int) -> Arrays:
    """What is remembered of the groups that live on, cut to the size of this frame's groups; `label` as published, of all groups."""
    size = queries.state.shape[1] // config.num_groups
    lives_on = queries.propagated[0].numpy()
    return {
        f"cached_dn_dn_anchor_f{index}": memory.state[:, :, :size].numpy(),
        f"cached_dn_dn_cls_target_f{index}": label.reshape(BATCH, config.num_groups, -1)[:, lives_on],
        f"cached_dn_valid_mask_f{index}": memory.valid[:, :, :size].numpy(),
        f"cached_dn_dn_id_target_f{index}": memory.instance[:, :, :size].numpy(),
    }


@torch.no_grad()
def build_train(path: Path) -> tuple[Arrays, dict[str, dict[str, float]]]:
    """All arrays of a file, and the losses of every frame under their published names."""
    torch.set_num_threads(2)
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    with np.load(path.parent / "v3_eval.npz", allow_pickle=False) as file:
        projection = file["projection_mat"]
    model = golden_model(training_config(denoising=path.stem.endswith("_dn")), path.parent).train()
    config, criterion = model.config.detection.denoising, CriterionConfig()
    features = recorded_features(model)
    seen: list[BoxTargets] = []
    out: Arrays = {}
    losses: dict[str, dict[str, float]] = {}
    state = model.initial_state(BATCH, denoising=config is not None)
    for index in range(FRAMES):
        frame, targets = golden_frame(golden, projection, index, BATCH, bgr=False), targets_from(golden, index)
        queries = None
        if config is not None:
            queries = noised_queries(targets.boxes, config, criterion.detection.cost, stored_draws(golden, index, config))
        with published_order():
            predictions, state = model(frame, state, denoising=queries)
        found = compute_losses(predictions, frame, targets, criterion, poisoned_match=True)
        losses[f"frame{index}"] = {published_name(name): float(value) for name, value in found.by_name.items()}
        seen.append(targets.boxes)
        out |= truth_arrays(golden, targets, index)
        out[f"feat_probe_f{index}"] = features.pop().packed.flatten(1, 2)[:, ::1994, ::16].numpy()
        last = in_golden_order(predictions.detection.last, golden, index)
        for name, step in (("first", predictions.detection.steps[0]), ("last", last)):
            out |= {f"pred_{name}_f{index}": step.state.numpy(), f"cls_{name}_f{index}": step.class_logits.numpy()}
        if queries is not None and config is not None:
            answers, memory = predictions.detection.denoising, state.detection.denoising
            out |= query_arrays(queries, targets.boxes, config, index)
            out |= answer_arrays(answers, seen, config, index)
            out |= memory_arrays(memory, out[f"temp_dn_cls_target_f{index}"], queries, config, index)
    return out, losses


def in_golden_order(step: DecoderStep, golden: Arrays, index: int) -> DecoderStep:
    """The rows of a layer in the order of the golden run, where that is another: nearly equal confidences decided it in the frame before.

    The files store neither, so rows only move where they are a permutation of the golden ones, and the number is said.
    """
    wanted = torch.from_numpy(golden[f"pred_last_f{index}"])
    row = torch.cdist(wanted, step.state, compute_mode=EXACT).argmin(-1)
    moved = row != torch.arange(row.shape[1])
    if not moved.any() or not bool((row.sort(1).values == torch.arange(row.shape[1])).all()):
        return step
    print(f"frame {index}: {int(moved.sum())} of {moved.numel()} instances change places")
    return replace(step, state=take_rows(step.state, row), class_logits=take_rows(step.class_logits, row))


def published_name(ours: str) -> str:
    """Of one of our losses."""
    return next(re.sub(f"^{pattern}$", theirs, ours) for pattern, theirs in LOSS_NAMES.items() if re.fullmatch(pattern, ours))


def worst_loss(path: Path, losses: dict[str, dict[str, float]]) -> tuple[float, str]:
    """The largest relative difference to the losses stored beside a training file, and which it is; all names must be the same."""
    golden = json.loads(path.with_name(f"{path.stem}_losses.json").read_text(encoding="utf-8"))
    names = {frame: set(values) for frame, values in golden.items()}
    if names != {frame: set(values) for frame, values in losses.items()}:
        raise ValueError(f"{path.stem}: the losses have other names: {names} instead of {losses}")
    apart = [(abs(losses[f][name] / value - 1), f"{f} {name}") for f, values in golden.items() for name, value in values.items()]
    return max(apart)
