"""Our arrays for the golden files of Sparse4D v1, v2 and v3 (the folder `sparse4d`, whose MANIFEST states the rules used here)."""

import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import sparsedrive
from sparsedrive.convert.checkpoint import from_official_names, to_official_names
from sparsedrive.decoding import decode
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.ops.published_order import published_order
from sparsedrive.structures import (
    NUSCENES_CAMERAS,
    CameraRig,
    Frame,
    ImageFeatures,
    InstanceMemory,
    ParityOptions,
    Predictions,
    StreamState,
)

Arrays = dict[str, np.ndarray]
PRESETS = {"v1_H1": "sparse4d_v1_r101_h1", "v1_H4": "sparse4d_v1_r101_h4", "v2": "sparse4d_v2_r50", "v3": "sparse4d_v3_r50"}
IMAGE_WH_PX, STEP_S, FOCAL_PX = (704, 256), 0.5, 1266.4 * 0.44
IMAGE_SEED = 1000
EXACT = "donot_use_mm_for_euclid_dist"
TIED = 1e-4  # as TIE_MARGIN of compare.py
STD_RGB = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


def weight_value(name: str, shape: torch.Size) -> Tensor:
    """The golden value of a floating-point entry."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) >= 2:
        drawn = drawn / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        drawn = 1 + 0.1 * drawn
    elif name.endswith("running_var"):
        drawn = 1 + 0.1 * np.abs(drawn)
    else:
        drawn = 0.02 * drawn
    return torch.from_numpy(np.asarray(drawn)).float()


def golden_model(config: SparseDriveConfig, folder: Path) -> SparseDrive:
    """The model with the golden weights, through the checkpoint converter."""
    model = config.build()
    official = to_official_names(model.state_dict(), config)
    for name, value in official.items():
        if value.is_floating_point() and not name.endswith(".fix_scale"):
            official[name] = weight_value(name, value.shape)
    official["head.instance_bank.anchor"] = torch.from_numpy(np.load(folder / "anchors_900x11.npy")).float()
    state, _ = from_official_names(official, config)
    model.load_state_dict(state)
    return model.eval()


def golden_config(version: str) -> SparseDriveConfig:
    """The preset at the golden picture size, published behaviour on; memory layout as in the golden run."""
    config = sparsedrive.preset(PRESETS[version])
    return replace(
        config,
        image_wh_px=IMAGE_WH_PX,
        parity=ParityOptions.published(),
        encoder=replace(config.encoder, channels_last=False, grid_mask=None),
    )


def golden_frame(golden: Arrays, projection: np.ndarray, index: int, batch: int, *, bgr: bool) -> Frame:
    """Frame `index`: pictures by seed. `bgr`: drawn as v1 takes them (BGR, not divided by a deviation), and turned into ours."""
    seed = int(golden.get("image_seed", IMAGE_SEED))
    shape = (len(NUSCENES_CAMERAS), 3, IMAGE_WH_PX[1], IMAGE_WH_PX[0])
    drawn = [np.random.default_rng(seed + 10 * b + index).standard_normal(shape, dtype=np.float32) for b in range(batch)]
    images = torch.from_numpy(np.stack(drawn))
    if f"img_probe_{index}" in golden and not np.array_equal(drawn[0][:, 0, ::64, ::64], golden[f"img_probe_{index}"]):
        raise ValueError(f"frame {index}: rebuilt pictures differ from the golden run's")
    if bgr:
        images = images.flip(2) / STD_RGB
    poses = [
        golden[f"T_global_f{index}_b{b}"] if f"T_global_f{index}_b{b}" in golden else golden[f"T_global_{index}"] for b in range(batch)
    ]
    time_s = golden.get(f"timestamp_{index}", np.full(batch, index * STEP_S))
    rig = CameraRig(
        image_T_ego=torch.from_numpy(projection).repeat(batch, 1, 1, 1),
        image_wh_px=torch.tensor(IMAGE_WH_PX).float().repeat(batch, len(NUSCENES_CAMERAS), 1),
        focal_px=torch.full((batch, len(NUSCENES_CAMERAS)), FOCAL_PX),
        available=torch.ones(batch, len(NUSCENES_CAMERAS), dtype=torch.bool),
        names=NUSCENES_CAMERAS,
    )
    return Frame(
        images=images,
        rig=rig,
        global_T_ego=torch.from_numpy(np.stack(poses)),
        time_s=torch.from_numpy(time_s),
        sequence_id=torch.zeros(batch, dtype=torch.int64),
        ego_status=torch.zeros(batch, 10),
        command=torch.zeros(batch, dtype=torch.int64),
    )


def recorded_features(model: SparseDrive) -> list[ImageFeatures]:
    """A list that gets the image features of every frame from now on."""
    found: list[ImageFeatures] = []
    model.image_encoder.register_forward_hook(lambda module, inputs, output: found.append(output))
    return found


def feature_arrays(images: ImageFeatures, version: str, index: int) -> Arrays:
    """The probe of the image features, and the sizes of the levels as each version stores them."""
    sizes = np.array(images.level_hw).reshape(-1, 2)
    starts = np.concatenate([[0], np.cumsum(sizes.prod(1))])
    cameras = images.packed.shape[1]
    if version == "v3":
        probe = {f"feat_probe_{index}": images.packed[0].flatten(0, 1)[::997, ::8]}
        shapes = np.tile(sizes, (cameras, 1, 1)), starts[:-1] + starts[-1] * np.arange(cameras)[:, None]
    elif version == "v2":
        probe, shapes = {f"feat_probe_{index}": images.packed[0, :, ::499, ::16]}, (sizes, starts[:-1])
    else:
        probe = {f"feat_probe_{index}_l{i}": images.level(i)[0, :, ::16, ::4, ::8] for i in range(images.num_levels)}
        return {key: value.numpy() for key, value in probe.items()}
    return {key: value.numpy() for key, value in probe.items()} | {"spatial_shape": shapes[0], "scale_start_index": shapes[1]}


def head_arrays(predictions: Predictions, index: int) -> Arrays:
    """All boxes; classes and quality of the two layers that the published code asks for at test time."""
    steps = predictions.detection.steps
    out = {f"pred_{index}": torch.stack([step.state[0] for step in steps])}
    for layer in (0, len(steps) - 1):
        out[f"cls_{index}_layer{layer}"] = steps[layer].class_logits[0]
        if steps[layer].quality is not None:
            out[f"quality_{index}_layer{layer}"] = steps[layer].quality[0]
    return {key: value.numpy() for key, value in out.items()}


def memory_arrays(model: SparseDrive, predictions: Predictions, state: StreamState, index: int) -> Arrays:
    """What the stream remembers after the frame."""
    memory, out = state.detection, {}
    if model.config.detection.num_memory:
        out = {f"cached_{name}_{index}": getattr(memory, ours)[0] for name, ours in
               (("anchor", "state"), ("confidence", "confidence"), ("feature", "feature"))}  # fmt: skip
    if memory.history is not None:
        out[f"queue_len_{index}"] = memory.history.valid[0].sum()
    if model.config.tracks:
        spare = model.config.detection.num_anchors - model.config.detection.num_memory
        out[f"instance_id_{index}"] = predictions.detection.track_id[0]
        out[f"bank_instance_id_{index}"] = torch.nn.functional.pad(memory.track_id[0], (0, spare), value=-1)
        out[f"prev_id_{index}"] = memory.next_id[0]
    return {key: value.numpy() for key, value in out.items()}


def golden_rows(wanted: Tensor, rows: Tensor, confidence: Tensor, what: str) -> Tensor | None:
    """Which of our rows is which golden one, where some change places; None where all stay.

    Rounding decides between confidences that are nearly equal, and these files store no margins. A row only moves to the place of one
    that is as confident but for `TIED`, and every such row is counted out loud.
    """
    row = torch.cdist(wanted, rows, compute_mode=EXACT).argmin(-1)
    moved = row != torch.arange(len(row))
    if not moved.any():
        return None
    tied = (confidence[row] - confidence).abs() < TIED
    if not bool(tied.all()) or row.unique().numel() != len(row):
        print(f"{what}: rows differ by more than tied ranks")
        return None
    print(f"{what}: {int(moved.sum())} of {len(row)} rows change places, confidences less than {TIED:.0e} apart")
    return row


def in_golden_order(memory: InstanceMemory, golden: Arrays, index: int) -> InstanceMemory:
    """Remembered instances with tied ranks in the order of the golden run, so that the frames after can be compared row by row."""
    if f"cached_anchor_{index}" not in golden:
        return memory
    wanted = torch.from_numpy(golden[f"cached_anchor_{index}"])
    row = golden_rows(wanted, memory.state[0], memory.confidence[0], f"memory of frame {index}")
    if row is None:
        return memory
    return replace(memory, **{name: getattr(memory, name)[:, row] for name in ("feature", "state", "confidence", "track_id")})


def decoded_arrays(model: SparseDrive, predictions: Predictions, frame: Frame, golden: Arrays, index: int) -> Arrays:
    """The 300 best boxes, tied ranks in the golden order."""
    found = decode(predictions, frame.command, with_track_ids=model.config.tracks, parity=model.config.parity).detections
    out = {"boxes_3d": found.box[0], "scores_3d": found.score[0], "labels_3d": found.label[0]}
    if model.config.tracks:
        out["instance_ids"] = found.track_id[0]
    # A query may stand for several classes: the class tells its rows apart.
    wanted, rows = (
        torch.cat([box, 1e3 * label[:, None]], dim=-1)
        for box, label in (
            (torch.from_numpy(golden[f"det_boxes_3d_{index}"]), torch.from_numpy(golden[f"det_labels_3d_{index}"])),
            (out["boxes_3d"], out["labels_3d"]),
        )
    )
    row = golden_rows(wanted, rows, found.score[0], f"boxes of frame {index}")
    out = out if row is None else {name: value[row] for name, value in out.items()}
    if model.config.tracks:
        out["cls_scores"] = found.class_score[0]  # published in another order anyway
    return {f"det_{name}_{index}": value.numpy() for name, value in out.items()}


@torch.no_grad()
def build_eval(path: Path) -> Arrays:
    """All arrays of a `v*_eval.npz`."""
    torch.set_num_threads(2)
    with np.load(path, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    version = path.name.removesuffix("_eval.npz")
    model = golden_model(golden_config(version), path.parent)
    features = recorded_features(model)
    out: Arrays = {}
    state = None
    for index in range(sum(bool(re.fullmatch(r"pred_\d+", key)) for key in golden)):
        frame = golden_frame(golden, golden["projection_mat"], index, 1, bgr=version.startswith("v1"))
        with published_order():
            predictions, state = model(frame, state)
        state = replace(state, detection=in_golden_order(state.detection, golden, index))
        out |= feature_arrays(features.pop(), version, index)
        out |= head_arrays(predictions, index)
        out |= memory_arrays(model, predictions, state, index)
        out |= decoded_arrays(model, predictions, frame, golden, index)
    return out
