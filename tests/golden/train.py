"""Our losses, gradients, matches and running statistics for a golden training file."""

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

import sparsedrive
from sparsedrive.convert.sparsedrive import key_table, official_name
from sparsedrive.losses.criterion import CriterionConfig, Losses, compute_losses
from sparsedrive.models.resnet import Bottleneck
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.ops.published_order import published_order
from sparsedrive.structures import FrameTargets, FutureTargets, ParityOptions
from unit_losses import map_targets_of, pairs, targets_of

Arrays = dict[str, np.ndarray]
LOSS_NAMES = {
    r"detection\.(\d)\.class": r"det_loss_cls_\1", r"detection\.(\d)\.box": r"det_loss_box_\1",
    r"detection\.(\d)\.centerness": r"det_loss_cns_\1", r"detection\.(\d)\.yawness": r"det_loss_yns_\1",
    r"map\.(\d)\.class": r"map_loss_cls_\1", r"map\.(\d)\.line": r"map_loss_line_\1",
    "motion.class": "motion_loss_cls_0", "motion.path": "motion_loss_reg_0", "plan.class": "planning_loss_cls_0",
    "plan.path": "planning_loss_reg_0", "plan.ego_status": "planning_loss_status_0", "depth": "loss_dense_depth",
}  # fmt: skip
SHAPE_OF_ONE = ("motion_loss_cls_0", "motion_loss_reg_0")  # the golden run kept them as [1]


def training_config(stage: str) -> SparseDriveConfig:
    """The published preset without anything random."""
    config = sparsedrive.preset(f"sparsedrive_small_stage{stage}")

    def quiet(head):
        return replace(head, layer=replace(head.layer, dropout=0.0, sampling_dropout=0.0))

    planner = replace(config.planner, dropout=0.0) if config.planner else None
    encoder = replace(config.encoder, channels_last=False, grid_mask=None)
    return replace(
        config, encoder=encoder, detection=quiet(config.detection), map=quiet(config.map), planner=planner, parity=ParityOptions.published()
    )


def targets_from(gt: dict, known: Tensor) -> FrameTargets:
    """Golden ground truth (lists of one array a sample) as our padded targets."""
    lists = {name: [torch.from_numpy(value) for value in values] for name, values in gt.items() if isinstance(values, list)}
    boxes = targets_of(lists["gt_bboxes_3d"], lists["gt_labels_3d"])
    agent_m = torch.zeros(*boxes.label.shape, 12, 2)
    agent_valid = torch.zeros(*boxes.label.shape, 12, dtype=torch.bool)
    for stream, (offsets_m, mask) in enumerate(zip(lists["gt_agent_fut_trajs"], lists["gt_agent_fut_masks"], strict=True)):
        agent_m[stream, : len(mask)] = offsets_m.cumsum(-2) + boxes.box[stream, : len(mask), None, :2]
        agent_valid[stream, : len(mask)] = mask.bool()
    futures = FutureTargets(
        agent_m=agent_m,
        agent_valid=agent_valid,
        ego_m=torch.from_numpy(gt["gt_ego_fut_trajs"]).cumsum(-2),
        ego_valid=torch.from_numpy(gt["gt_ego_fut_masks"]).bool(),
    )
    return FrameTargets(
        boxes=boxes,
        map=map_targets_of(lists["gt_map_pts"], lists["gt_map_labels"]),
        futures=futures,
        depth_m=tuple(lists["gt_depth"]),
        ego_status_known=known,
    )


def ground_truth(golden: Arrays, rules: ModuleType, case: str, index: int, batch: int) -> dict:
    """From the rules; what the file holds takes precedence."""
    samples = range(batch)
    stored = {
        name: [golden[f"f{index}/gt/{name}/s{b}"] for b in samples]
        for name in ("gt_bboxes_3d", "gt_labels_3d", "gt_map_labels", "gt_map_pts", "gt_agent_fut_trajs", "gt_agent_fut_masks")
    }
    empty = tuple(b for b in samples if len(stored["gt_labels_3d"][b]) == 0)
    made = rules.frame_gt(case, index, batch, empty)
    for level, depth in enumerate(made["gt_depth"]):
        total = float(depth[depth > 0].astype(np.float64).sum()), float(depth.astype(np.float64).sum())
        if not np.isclose(golden[f"f{index}/gt/gt_depth{level}_sum"], total, rtol=1e-9).any():
            raise ValueError(f"frame {index}: rebuilt depth maps differ from the golden run's; is {case!r} the case of the file?")
    made |= stored
    for name in ("gt_ego_fut_trajs", "gt_ego_fut_masks"):
        made[name] = golden[f"f{index}/gt/{name}"]
    return made


def recompute_twice(model: SparseDrive) -> None:
    """The golden run's activation checkpoints updated the running statistics of the backbone's blocks twice a step."""
    for block in model.modules():
        if isinstance(block, Bottleneck):
            for norm in block.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.momentum = 1 - (1 - norm.momentum) ** 2


def loss_arrays(losses: Losses, batch: int) -> Arrays:
    """Losses under their published names, and the matches of the last detection layer."""
    out = {"total_loss": losses.total.detach()}
    for name, value in losses.by_name.items():
        published = next(re.sub(f"^{ours}$", theirs, name) for ours, theirs in LOSS_NAMES.items() if re.fullmatch(ours, name))
        out[f"loss/{published}"] = value.detach().reshape(1) if published in SHAPE_OF_ONE else value.detach()
    for b in range(batch):
        rows = torch.stack(pairs(losses.detection_matches[-1], b))
        if rows.shape[1]:
            out[f"det_match_last/s{b}"] = rows
    return {key: value.numpy() for key, value in out.items()}


def gradient_arrays(model: SparseDrive, golden: Arrays, index: int) -> Arrays:
    """Norms by module and parameter, and slices."""
    table = key_table(model.config)
    gradients = {official_name(name, table): parameter.grad for name, parameter in model.named_parameters()}
    names = [str(name) for name in golden["param_names"]]
    norms = {name: float(gradients[name].double().norm()) if gradients.get(name) is not None else np.nan for name in names}
    out = {"grad_norm_per_param": np.array([norms[name] for name in names], np.float32)}

    def norm_of(prefix: str) -> np.ndarray:
        inside = [norms[name] for name in names if f"{name}.".startswith(prefix) and not np.isnan(norms[name])]
        return np.float32(np.linalg.norm(inside))

    out["grad_norm_total"] = norm_of("")
    for key in (key for key in golden if key.startswith(f"f{index}/grad_norm/")):
        module = key.split("/", 2)[2]
        out[f"grad_norm/{module}"] = norm_of(f"{module}.")
    for key in (key for key in golden if key.startswith(f"f{index}/grad_slice/")):
        name = key.split("/", 2)[2]
        flat = gradients[name].flatten()
        out[f"grad_slice/{name}"] = flat[:: max(1, flat.numel() // 64)][:64].numpy()
    return out


def build_train(path: Path, golden_model, golden_frame, rules: ModuleType) -> Arrays:
    """All arrays of a `train_stage{1,2}*` file."""
    torch.set_num_threads(2)
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    stage = re.search(r"stage(\d)", path.name).group(1)
    case = str(golden["case"]) if "case" in golden else f"train_s{stage}"
    model = golden_model(training_config(stage), path.parent, rules).train()
    recompute_twice(model)
    table = key_table(model.config)
    out, state = {}, None
    for index in range(1 + max(int(key[1 : key.index("/")]) for key in golden if re.match(r"f\d+/", key))):
        batch = golden[f"f{index}/in/ego_status"].shape[0]
        frame = golden_frame(golden, path.parent, rules, case, index, batch)
        targets = targets_from(ground_truth(golden, rules, case, index, batch), torch.ones_like(frame.ego_status, dtype=torch.bool))
        model.zero_grad(set_to_none=True)
        with published_order():
            predictions, state = model(frame, state)
        state = state.detach()
        losses = compute_losses(predictions, frame, targets, CriterionConfig(), poisoned_match=True)
        losses.total.backward()
        arrays = loss_arrays(losses, batch) | gradient_arrays(model, golden, index)
        buffers = {official_name(name, table): value for name, value in model.state_dict().items()}
        for key in (key for key in golden if key.startswith(f"f{index}/bn/")):
            arrays[key.split("/", 1)[1]] = buffers[key.split("/", 2)[2]].numpy().copy()
        out |= {f"f{index}/{key}": value for key, value in arrays.items()}
    return out
