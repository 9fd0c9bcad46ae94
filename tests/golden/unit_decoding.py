"""Our decoders and depth branch on the published unit inputs, under the golden keys."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sources import input_rules
from sparsedrive.decoding import corners_inside, decode_boxes, decode_polylines, select_plan
from sparsedrive.decoding.plan_selection import rescored_logits
from sparsedrive.losses.depth import dense_depth_loss
from sparsedrive.models.depth_head import DepthHeadConfig
from sparsedrive.models.image_encoder import pack_levels
from sparsedrive.structures import DecoderStep, MotionPredictions, ParityOptions, PlanPredictions

GROUPS = ("decoder", "map_decoder", "plan_decode", "check_collision", "depth")
DEPTH_LOSS_WEIGHT = 0.2


def build(golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output array of `GROUPS`; `golden` is unit.npz."""
    ours = _boxes(golden) | _polylines(golden) | _plan(golden) | _collisions(golden) | _depth(golden)
    return {key: value.detach().numpy() for key, value in ours.items()}


def _boxes(golden: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    step = DecoderStep(
        class_logits=torch.from_numpy(golden["decoder/classification"]),
        state=torch.from_numpy(golden["decoder/prediction"]),
        quality=torch.from_numpy(golden["decoder/quality"]),
    )
    no_quality = DecoderStep(class_logits=step.class_logits, state=step.state, quality=None)
    cases = {
        "id_quality": (step, None, True),
        "noid_quality": (step, None, False),
        "id_noquality": (no_quality, None, True),
        "id_quality_thr0.5": (step, 0.5, True),
    }
    track_id = torch.from_numpy(golden["decoder/instance_id"])
    ours = {}
    for name, (given, threshold, with_ids) in cases.items():
        found = decode_boxes(given, track_id, score_threshold=threshold, with_track_ids=with_ids, parity=ParityOptions.published())
        for stream, valid in enumerate(found.valid):
            rows = {"boxes_3d": found.box, "scores_3d": found.score, "labels_3d": found.label}
            if given.quality is not None:
                rows["cls_scores"] = found.class_score
            if with_ids:
                rows["instance_ids"] = found.track_id
            ours |= {f"decoder/{name}/s{stream}/{key}": value[stream][valid] for key, value in rows.items()}
    return ours


def _polylines(golden: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    step = DecoderStep(
        class_logits=torch.from_numpy(golden["map_target/cls_pred"]), state=torch.from_numpy(golden["map_target/pts_pred"]), quality=None
    )
    found = decode_polylines(step)
    ours = {}
    for stream in range(len(found.score)):
        ours[f"map_decoder/s{stream}/vectors"] = found.points_m[stream]
        ours[f"map_decoder/s{stream}/scores"] = found.score[stream]
        ours[f"map_decoder/s{stream}/labels"] = found.label[stream]
    return ours


def _plan(golden: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    given = {key: torch.from_numpy(golden[f"plan_decode/{key}"]) for key in _PLAN_INPUTS}
    batch, agents = given["det_prediction"].shape[:2]
    mode_logits = given["plan_classification"].reshape(batch, 3, 6)
    plan = PlanPredictions(
        mode_logits=mode_logits,
        step_offsets_m=given["plan_prediction"].reshape(batch, 3, 6, 6, 2),
        ego_status=torch.zeros(batch, 10),
        history_state=torch.zeros(batch, 1, 11),
        period=torch.ones(batch, dtype=torch.long),
    )
    motion = MotionPredictions(
        mode_logits=given["motion_classification"],
        step_offsets_m=given["motion_prediction"],
        history_state=torch.zeros(batch, agents, 1, 11),
        period=torch.ones(batch, agents, dtype=torch.long),
    )
    detection = DecoderStep(class_logits=given["det_classification"], state=given["det_prediction"], quality=None)
    command = given["cmd"].argmax(-1)
    selected = select_plan(plan, command, detection, motion, parity=ParityOptions.published())
    collides = selected.mode_collides
    return {
        "plan_decode/planning_score": selected.mode_score,
        "plan_decode/planning": selected.all_trajectories_m,
        "plan_decode/final_planning": selected.trajectory_m,
        # published after "all collide" has been cleared; ours says what is hit
        "plan_decode/collision_mask": collides & ~collides.all(-1, keepdim=True),
        "plan_decode/rescored_logits": rescored_logits(mode_logits, command, collides)[torch.arange(batch), command],
    }


def _collisions(golden: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    first, second = (torch.from_numpy(golden[f"check_collision/boxes{which}"])[:, [0, 1, 3, 4, 6]] for which in (1, 2))
    return {"check_collision/collision": corners_inside(first, second)}


def _depth(golden: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    weight_value = input_rules().weight_value
    head = DepthHeadConfig().build(256)
    for index, conv in enumerate(head.convs):
        for name, parameter in conv.named_parameters():
            value = weight_value(f"unit.depth.depth_layers.{index}.{name}", tuple(parameter.shape))
            parameter.data.copy_(torch.from_numpy(value))
    features = pack_levels([torch.from_numpy(golden[f"depth/feat{index}"]) for index in range(3)])
    depth_m = head(features, torch.from_numpy(golden["depth/focal"]))
    target_m = [torch.from_numpy(golden[f"depth/gt{index}"]) for index in range(3)]
    ours = {f"depth/pred{index}": depth for index, depth in enumerate(depth_m)}
    ours["depth/loss"] = dense_depth_loss(depth_m, target_m, weight=DEPTH_LOSS_WEIGHT)
    return ours


_PLAN_INPUTS = (
    "det_classification", "det_prediction", "motion_classification", "motion_prediction", "plan_classification", "plan_prediction", "cmd",
)  # fmt: skip
