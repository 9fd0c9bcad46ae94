"""Our matching and losses on the published unit inputs, under the golden keys."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sparsedrive.geometry import box_state
from sparsedrive.losses import elementwise, futures, matching
from sparsedrive.losses.detection import BoxLossConfig, box_terms
from sparsedrive.structures import BoxTargets, DecoderStep, MapTargets

GROUPS = ("losses", "box_loss", "det_target", "det_target_nanvel", "map_target", "motion_target", "plan_target")
ROI_M = (30.0, 60.0)
BOX_LOSS_COUNT, L1_WEIGHT = 4.0, 0.25  # as the golden file was made


def build(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output array of `GROUPS`; `golden` is unit.npz."""
    given = {key: torch.from_numpy(golden[key]) for key in golden if key.split("/")[0] in GROUPS}
    ours = _elementwise(given) | _box_loss(given) | _map_target(given) | _motion_target(given) | _plan_target(given)
    for group in ("det_target", "det_target_nanvel"):
        ours |= _det_target(given, group)
    return {key: value.detach().numpy() for key, value in ours.items()}


def targets_of(boxes: list[Tensor], labels: list[Tensor]) -> BoxTargets:
    """Padded targets from lists of boxes [n, 9] (x y z l w h yaw vx vy) and labels [n]."""
    most = max(1, *(len(box) for box in boxes))
    padded = torch.ones(len(boxes), most, 10)
    label, valid = torch.zeros(len(boxes), most, dtype=torch.int64), torch.zeros(len(boxes), most, dtype=torch.bool)
    for stream, (box, classes) in enumerate(zip(boxes, labels, strict=True)):
        padded[stream, : len(box), :9], padded[stream, : len(box), 9] = box, 0.0
        label[stream, : len(box)], valid[stream, : len(box)] = classes, True
    return BoxTargets(box=padded, label=label, instance=torch.zeros_like(label), lidar_returns=torch.zeros_like(label), valid=valid)


def map_targets_of(points_m: list[Tensor], labels: list[Tensor]) -> MapTargets:
    """Padded targets from lists of all orders of lines [n, 38, 20, 2] (1e5 where an open line has no such order) and labels [n]."""
    most = max(1, *(len(lines) for lines in points_m))
    padded = torch.zeros(len(points_m), most, *points_m[0].shape[1:])
    order_valid = torch.zeros(padded.shape[:3], dtype=torch.bool)
    label, valid = torch.zeros(padded.shape[:2], dtype=torch.int64), torch.zeros(padded.shape[:2], dtype=torch.bool)
    for stream, (lines, classes) in enumerate(zip(points_m, labels, strict=True)):
        padded[stream, : len(lines)], order_valid[stream, : len(lines)] = lines, lines[..., 0, 0] < 1e4
        label[stream, : len(lines)], valid[stream, : len(lines)] = classes, True
    return MapTargets(points_m=padded, order_valid=order_valid, label=label, valid=valid)


def pairs(match: matching.Match, stream: int) -> tuple[Tensor, Tensor]:
    """Prediction and target rows of one stream, in the order of the predictions."""
    rows = match.positive[stream].nonzero()[:, 0]
    return rows, match.target[stream, rows]


def _elementwise(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    a, b, weight, logit, soft = (given[f"losses/{name}"] for name in ("a", "b", "w", "logit", "soft"))
    gaussian = elementwise.gaussian_focal(a, b)
    lines = elementwise.smooth_line_distance(given["losses/p40"], given["losses/t40"], 0.01) * given["losses/w40"]
    return {
        "losses/gaussian_focal_avg5": elementwise.averaged(gaussian, count=5.0),
        "losses/gaussian_focal_mean": elementwise.averaged(gaussian),
        "losses/l1_w_avg5": elementwise.averaged(elementwise.l1(a, b), weight, 5.0) * L1_WEIGHT,
        "losses/l1_mean": elementwise.averaged(elementwise.l1(a, b)) * L1_WEIGHT,
        "losses/l1_empty": elementwise.averaged(elementwise.l1(a[:0], b[:0])),
        "losses/bce_soft_avg5": elementwise.averaged(elementwise.soft_cross_entropy(logit, soft), count=5.0),
        "losses/lines_l1_avg3": elementwise.averaged(lines, count=3.0) * 10.0,
    }


def _box_loss(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state, quality = (given[f"box_loss/{name}"].clone().requires_grad_() for name in ("pred", "quality"))
    target, weight, label = (given[f"box_loss/{name}"] for name in ("target", "weight", "cls_target"))
    box, centerness, yawness = box_terms(state, target, weight, quality, label, BOX_LOSS_COUNT, BoxLossConfig())
    (box + centerness + yawness).backward()
    return {
        "box_loss/loss_box": box, "box_loss/loss_cns": centerness, "box_loss/loss_yns": yawness,
        "box_loss/grad_pred": state.grad, "box_loss/grad_quality": quality.grad,
    }  # fmt: skip


def _det_target(given: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    boxes, labels = ([given[f"{group}/s{b}/{name}"] for b in range(2)] for name in ("gt_boxes", "gt_labels"))
    targets = targets_of(boxes, labels)
    logits, state = given[f"{group}/cls_pred"], given[f"{group}/box_pred"]
    step = DecoderStep(class_logits=logits, state=torch.nn.functional.pad(state, (0, 1)), quality=None)
    cost = matching.BoxCost()
    match = matching.match_boxes(step, targets, cost, poisoned=True)
    label = match.labels(targets.label, logits.shape[-1])
    found = matching.gather_rows(targets.box, match.target)
    chosen = match.positive[..., None]
    ours = {
        f"{group}/cls_target": label,
        f"{group}/box_target": torch.where(chosen, box_state.encode(found)[..., :10], 0.0),
        f"{group}/reg_weights": torch.where(chosen, matching.box_weights(found, label, poisoned=True), 0.0),
    }
    for b in range(2):
        box = targets.box[b][targets.valid[b]]
        ours[f"{group}/s{b}/encoded"] = box_state.encode(box)[:, :10]
        ours[f"{group}/s{b}/cls_cost"] = matching.class_cost(logits[b], labels[b]) * cost.class_weight
        ours[f"{group}/s{b}/box_cost"] = matching.box_cost(step.state[b], box, labels[b], cost, poisoned=True)
        ours[f"{group}/s{b}/pred_idx"], ours[f"{group}/s{b}/gt_idx"] = pairs(match, b)
    return ours


def _map_target(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    lines, labels = ([given[f"map_target/s{b}/{name}"] for b in range(2)] for name in ("gt_pts", "gt_labels"))
    targets = map_targets_of(lines, labels)
    logits, state = given["map_target/cls_pred"], given["map_target/pts_pred"]
    cost = matching.LineCost()
    match = matching.match_lines(DecoderStep(class_logits=logits, state=state, quality=None), targets, ROI_M, cost)
    orders = matching.gather_rows(targets.points_m, match.target)
    found = orders.gather(2, match.order[..., None, None, None].expand(*match.order.shape, 1, *orders.shape[3:]))[:, :, 0].flatten(2)
    chosen = match.positive[..., None]
    ours = {
        "map_target/cls_target": match.labels(targets.label, logits.shape[-1]),
        "map_target/pts_target": torch.where(chosen, found, 0.0),
        "map_target/reg_weights": chosen.float().expand_as(found),
    }
    for b in range(2):
        valid = targets.valid[b]
        distance, order = matching.line_cost(state[b], targets.points_m[b, valid], targets.order_valid[b, valid], ROI_M, cost)
        classes = matching.class_cost(logits[b], labels[b])
        ours |= {f"map_target/s{b}/cost": distance + classes, f"map_target/s{b}/cls_cost": classes, f"map_target/s{b}/permute_idx": order}
        ours[f"map_target/s{b}/pred_idx"], ours[f"map_target/s{b}/gt_idx"] = pairs(match, b)
    return ours


def _motion_target(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    offsets_m = given["motion_target/reg_pred"]
    target_m, known = torch.zeros(offsets_m.shape[:2] + offsets_m.shape[3:]), torch.zeros(*offsets_m.shape[:2], 12)
    count = 0
    for b in range(2):
        prediction, target = given[f"motion_target/pred_idx{b}"], given[f"motion_target/gt_idx{b}"]
        target_m[b, prediction] = given[f"motion_target/s{b}/gt_fut_trajs"][target]
        known[b, prediction] = given[f"motion_target/s{b}/gt_fut_masks"][target]
        count += len(prediction)
    mode = futures.best_mode(offsets_m, target_m.cumsum(-2), known.bool())
    return {
        "motion_target/cls_target": mode,
        "motion_target/cls_weight": known.any(-1),
        "motion_target/best_reg": futures.take_mode(offsets_m, mode),
        "motion_target/reg_target": futures.steps_of(target_m.cumsum(-2)),
        "motion_target/reg_weight": known,
        "motion_target/num_pos": torch.tensor([float(count)]),
    }


def _plan_target(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    target_m, known = given["plan_target/gt_trajs"][:, None], given["plan_target/gt_masks"][:, None]
    return {
        "plan_target/cls_weight": known.any(-1),
        "plan_target/reg_target": futures.steps_of(target_m.cumsum(-2)),
        "plan_target/reg_weight": known,
    }
