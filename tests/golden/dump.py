"""Our arrays under the keys of a golden file: `python tests/golden/dump.py GOLDEN.npz OUT.npz`, judged by `compare.py GOLDEN.npz OUT.npz`.

Weights, anchors and images are rebuilt from the seeds described in the golden folder's MANIFEST (by its `golden_inputs.py`);
everything else comes from the file's own `in/` arrays where it has them. The published behaviour is switched on (`ParityOptions`).
"""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

import sparsedrive
from sparsedrive.convert.checkpoint import from_official_names, to_official_names
from sparsedrive.decoding import decode
from sparsedrive.models import memory_ops
from sparsedrive.models.image_encoder import ImageEncoder
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.ops.published_order import published_order
from sparsedrive.structures import NUSCENES_CAMERAS, CameraRig, Frame, ParityOptions, Predictions, Scene, StreamState

sys.path.insert(0, str(Path(__file__).parent))
import sparse4d
import sparse4d_train
from sources import input_rules
from train import build_train

THREADS = 2  # of the golden run: convolutions add in another order with another number
Arrays = dict[str, np.ndarray]
ROWS_OF_60 = 60  # the golden files store long decoded arrays only this far


def golden_weights(model: SparseDrive, folder: Path, rules: ModuleType) -> dict[str, torch.Tensor]:
    """Official state dict filled by the golden rules; entries they leave alone keep our construction, anchors come from the folder."""
    config = model.config
    official = to_official_names(model.state_dict(), config)
    for key, value in official.items():
        made = rules.weight_value(key, value.shape, value.is_floating_point())
        if made is not None:
            official[key] = torch.from_numpy(made)
    anchors = {
        "head.det_head.instance_bank.anchor": "kmeans_det_900",
        "head.map_head.instance_bank.anchor": "kmeans_map_100",
        "head.motion_plan_head.motion_anchor": "kmeans_motion_6",
        "head.motion_plan_head.plan_anchor": "kmeans_plan_6",
    }
    for key, name in anchors.items():
        if key in official:
            official[key] = torch.from_numpy(np.load(folder / f"{name}.npy")).float().reshape(official[key].shape)
    return official


def golden_model(config: SparseDriveConfig, folder: Path, rules: ModuleType) -> SparseDrive:
    """The model with the golden weights, through the checkpoint converter."""
    model = config.build()
    state, _ = from_official_names(golden_weights(model, folder, rules), config)
    model.load_state_dict(state)
    return model.eval()


def golden_frame(golden: Arrays, folder: Path, rules: ModuleType, case: str, index: int, batch: int) -> Frame:
    """Frame `index` of a case: pictures by seed, the rest from the file (from the rules where the file lacks it)."""
    stored = {key.rsplit("/", 1)[1]: golden[key] for key in golden if key.startswith(f"f{index}/in/")}
    with np.load(folder / "calib.npz") as calib:
        inputs = rules.frame_inputs(calib, case, index, batch) | stored
    images = torch.from_numpy(inputs["img"])
    if "img_head" in stored and not np.array_equal(inputs["img"].reshape(-1)[:16], stored["img_head"]):
        raise ValueError(f"frame {index}: rebuilt pictures differ from the golden run's; is {case!r} the case the file was made with?")
    rig = CameraRig(
        image_T_ego=torch.from_numpy(inputs["projection_mat"]),
        image_wh_px=torch.from_numpy(inputs["image_wh"]),
        focal_px=torch.from_numpy(inputs["focal"]),
        available=torch.ones(images.shape[:2], dtype=torch.bool),
        names=NUSCENES_CAMERAS,
    )
    return Frame(
        images=images,
        rig=rig,
        global_T_ego=torch.from_numpy(inputs["T_global"]),
        time_s=torch.from_numpy(inputs["timestamp"]),
        sequence_id=torch.zeros(batch, dtype=torch.int64),
        ego_status=torch.from_numpy(inputs["ego_status"]),
        command=torch.from_numpy(inputs["gt_ego_fut_cmd"]).argmax(-1),
    )


def fpn_arrays(encoder: ImageEncoder, pictures: torch.Tensor, available: torch.Tensor) -> Arrays:
    """Statistics and slices of the image features."""
    images, out = encoder(pictures, available), {}
    for i in range(images.num_levels):
        level = images.level(i)
        flat = level.flatten(2)
        stats = [flat.mean(-1), flat.std(-1), flat.abs().amax(-1)]
        stride = max(1, level.shape[-2] // 8)
        out[f"fpn/level{i}_stats"] = torch.stack(stats, -1)
        out[f"fpn/level{i}_slice"] = level[:, ::3, ::32, :: 2 * stride, :: 4 * stride].permute(0, 1, 3, 4, 2)
    return out


def head_arrays(predictions: Predictions) -> Arrays:
    """Raw outputs of the detection and map decoders."""
    det, elements = predictions.detection, predictions.map
    logits = torch.stack([step.class_logits for step in det.steps])
    states, quality = torch.stack([step.state for step in det.steps]), torch.stack([step.quality for step in det.steps])
    return {
        "det/classification_sub": logits[:, :, ::6],
        "det/classification_last": logits[-1],
        "det/prediction_sub": states[:, :, ::6],
        "det/prediction_last": states[-1],
        "det/quality_sub": quality[:, :, ::6],
        "det/quality_last": quality[-1],
        "det/instance_feature_sub": det.feature[:, ::20],
        "det/anchor_embed_sub": det.embed[:, ::20],
        "det/instance_id": det.track_id,
        "map/classification": torch.stack([step.class_logits for step in elements.steps]),
        "map/prediction": torch.stack([step.state for step in elements.steps]),
        "map/instance_feature_sub": elements.feature[:, ::10],
        "map/anchor_embed_sub": elements.embed[:, ::10],
    }


def bank_arrays(model: SparseDrive, predictions: Predictions, before: StreamState, after: StreamState, frame: Frame) -> Arrays:
    """The instance memories after the frame."""
    config, out = model.config, {}
    now = memory_ops.tick(before.clock, frame, max_gap_s=config.max_gap_s, default_step_s=config.default_step_s, parity=config.parity)
    heads = {"bank_det": (model.detection, before.detection, after.detection, predictions.detection, 20)}
    if config.map.num_memory:
        heads["bank_map"] = (model.map, before.map, after.map, predictions.map, 4)
    for name, (decoder, was, memory, instances, stride) in heads.items():
        prior = memory_ops.align(was, now, decoder.config.kind.transform, config.parity)
        out |= {
            f"{name}/cached_feature_sub": memory.feature[:, ::stride],
            f"{name}/cached_anchor": memory.state,
            f"{name}/confidence": memory.confidence,
            f"{name}/temp_confidence": memory_ops.fading_confidence(instances.last.class_logits, prior, decoder.config.confidence_decay),
        }
        if bool(before.clock.started.all()):
            out[f"{name}/mask"] = now.warm
    padding = config.detection.num_anchors - config.detection.num_memory
    out["bank_det/instance_id"] = torch.nn.functional.pad(after.detection.track_id, (0, padding), value=-1)
    out["bank_det/prev_id"] = after.detection.next_id[0]
    return out


def motion_arrays(predictions: Predictions, after: StreamState, length: int) -> Arrays:
    """Forecasts, plan and the motion queue; the published queue grows with the frames, so ours is cut to `length` entries."""
    motion, plan, queue = predictions.motion, predictions.plan, after.motion
    return {
        "motion/classification": motion.mode_logits,
        "motion/prediction_sub": motion.step_offsets_m[:, ::6],
        "motion/period": motion.period,
        "plan/classification": plan.mode_logits.flatten(1)[:, None],
        "plan/prediction": plan.step_offsets_m.flatten(1, 2)[:, None],
        "plan/status": plan.ego_status[:, None],
        "queue/instance_feature_sub": queue.feature[:, ::90, -length:],
        "queue/anchor_sub": queue.state[:, ::20, -length:],
        "queue/ego_feature": queue.ego_feature[:, None, -length:],
        "queue/ego_anchor": queue.ego_state[:, None, -length:],
        "queue/ego_period": queue.ego_period[:, None],
        "queue/prev_confidence": queue.confidence,
        "queue/prev_ego_status": queue.ego_status[:, None],
    }


def decoded_arrays(scene: Scene, b: int, length: int) -> Arrays:
    """Decoded result of sample b."""
    det, elements = scene.detections, scene.map
    out = {
        "boxes_3d": det.box[b],
        "scores_3d": det.score[b],
        "labels_3d": det.label[b],
        "cls_scores": det.class_score[b],
        "instance_ids": det.track_id[b],
        "map_vectors": elements.points_m[b],
        "map_scores": elements.score[b],
        "map_labels": elements.label[b],
    }
    if scene.forecasts is not None and scene.plan is not None:
        out |= {
            "trajs_3d": scene.forecasts.trajectory_m[b, :ROWS_OF_60],
            "anchor_queue": scene.forecasts.history_box[b, :ROWS_OF_60, -length:],
            "trajs_score": scene.forecasts.mode_score[b],
            "period": scene.forecasts.period[b],
            "planning": scene.plan.all_trajectories_m[b],
            "planning_score": scene.plan.mode_score[b],
            "final_planning": scene.plan.trajectory_m[b],
            "ego_period": scene.plan.period[b : b + 1],
            "ego_anchor_queue": scene.plan.history_box[b : b + 1, -length:],
        }
    return {f"post{b}/{name}": value for name, value in out.items()}


@torch.no_grad()
def build_eval(path: Path) -> Arrays:
    """All arrays of an `eval_stage{1,2}_*` file."""
    folder = path.parent
    torch.set_num_threads(THREADS)
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    stage, case = re.search(r"stage(\d)_(.+)\.npz$", path.name).groups()
    case = str(golden["case"]) if "case" in golden else case
    rules = input_rules(folder)
    config = sparsedrive.preset(f"sparsedrive_small_stage{stage}")
    # The golden run's memory layout: its convolutions are then equal to the last bit, which near-tied ranks hang on.
    config = replace(config, parity=ParityOptions.published(), encoder=replace(config.encoder, channels_last=False))
    model = golden_model(config, folder, rules)
    out, state = {}, None
    for index in range(1 + max(int(match.group(1)) for match in map(re.compile(r"f(\d+)/").match, golden) if match)):
        frame = golden_frame(golden, folder, rules, case, index, golden[f"f{index}/det/instance_id"].shape[0])
        before = model.initial_state(frame.batch_size) if state is None else state
        with published_order():
            predictions, state = model(frame, before)
        arrays = (
            fpn_arrays(model.image_encoder, frame.images, frame.rig.available)
            | head_arrays(predictions)
            | bank_arrays(model, predictions, before, state, frame)
        )
        length = 0
        if config.planner is not None:
            length = min(index + 1, config.planner.history_length)
            arrays |= motion_arrays(predictions, state, length)
        scene = decode(predictions, frame.command, parity=config.parity)
        for b in range(frame.batch_size):
            arrays |= decoded_arrays(scene, b, length)
        out |= {f"f{index}/{key}": value.numpy() for key, value in arrays.items()}
    return out


def build_unit(path: Path) -> Arrays:
    """The output arrays of a `unit` file: every `unit_*.py` beside this one adds its groups."""
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    out = {}
    for module_path in sorted(Path(__file__).parent.glob("unit_*.py")):
        out |= importlib.import_module(module_path.stem).build(golden)
    return out


def build(path: Path) -> Arrays:
    """Our arrays for a golden file."""
    if path.name.startswith("eval_"):
        return build_eval(path)
    if path.name.startswith("train_"):
        return build_train(path, golden_model, golden_frame, input_rules(path.parent))
    if path.name.startswith("unit"):
        return build_unit(path)
    if re.match(r"v\d.*_eval", path.name):
        return sparse4d.build_eval(path)
    if re.match(r"v\d_train_", path.name):
        arrays, losses = sparse4d_train.build_train(path)
        worst, name = sparse4d_train.worst_loss(path, losses)
        print(f"{path.stem}: largest relative difference of a loss {worst:.1e} ({name}), bound {sparse4d_train.RELATIVE:.0e}")
        if worst > sparse4d_train.RELATIVE:
            raise ValueError(f"{path.stem}: the losses DO NOT AGREE")
        return arrays
    raise ValueError(
        f"{path}: expected a file named eval_stage{{1,2}}_CASE.npz, train_stage{{1,2}}*.npz, unit*.npz, v*_eval.npz or v3_train_*dn.npz"
    )


def main() -> None:
    """Command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    arrays = build(Path(sys.argv[1]))
    np.savez_compressed(sys.argv[2], **arrays)
    print(f"{len(arrays)} arrays written to {sys.argv[2]}")


if __name__ == "__main__":
    main()
