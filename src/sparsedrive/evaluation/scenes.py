"""Saved predictions of one frame, as the `Scene` that pictures are drawn from, and the picture."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sparsedrive.data import read_pictures
from sparsedrive.data.prepared import PreparedData, PreparedScene
from sparsedrive.data.records import to_record
from sparsedrive.evaluation.predictions import PredictedLines, PredictionSet
from sparsedrive.structures import EGO_FORWARD_SPEED, Command, Detections, Forecasts, MapElements, Plan, Scene
from sparsedrive.viz import render_scene


def predicted_scene(predictions: PredictionSet, row: int, command: Command) -> Scene:
    """What was predicted for frame `row`, as a batch of one. Modes of a plan are not kept: every mode is the selected path."""
    boxes, lines = predictions.boxes, predictions.lines
    of_frame = slice(int(boxes.splits[row]), int(boxes.splits[row + 1]))
    score = _tensor(boxes.score[of_frame])
    found = Detections(
        box=_tensor(boxes.box[of_frame]),
        score=score,
        class_score=score,
        label=_tensor(boxes.label[of_frame]),
        track_id=_tensor(boxes.track_id[of_frame]),
        query_index=torch.arange(score.shape[1])[None],
        valid=torch.ones_like(score, dtype=torch.bool),
    )
    return Scene(
        detections=found,
        map=None if lines is None else _map(lines, row),
        forecasts=_forecasts(predictions, of_frame),
        plan=None if predictions.plan_m is None else _plan(_tensor(predictions.plan_m[row]), command),
    )


def empty_scene() -> Scene:
    """One in which nothing was predicted: only annotations are drawn."""
    found = Detections(
        box=torch.zeros(1, 0, 10),
        score=torch.zeros(1, 0),
        class_score=torch.zeros(1, 0),
        label=torch.zeros(1, 0, dtype=torch.long),
        track_id=torch.zeros(1, 0, dtype=torch.long),
        query_index=torch.zeros(1, 0, dtype=torch.long),
        valid=torch.zeros(1, 0, dtype=torch.bool),
    )
    lines = MapElements(points_m=torch.zeros(1, 0, 2, 2), score=found.score, label=found.label, valid=found.valid)
    return Scene(detections=found, map=lines, forecasts=None, plan=None)


def frame_picture(
    data: PreparedData,
    scene: PreparedScene,
    number: int,
    predicted: Scene,
    *,
    title: str,
    score_threshold: float = 0.3,
    width_px: int = 1920,
) -> UInt8[np.ndarray, "H W 3"]:
    """All cameras and the view from above, predictions and annotated boxes; cameras without a picture on disk stay empty."""
    record = to_record(data, scene, number)
    pictures = read_pictures(record, scene.camera_names, allow_missing=True)
    assert record.annotations is not None, "prepared scenes are annotated"
    speed_known = bool(record.ego_status_known[EGO_FORWARD_SPEED])
    return render_scene(
        [rgb if there else None for rgb, there in zip(pictures.rgb, pictures.available, strict=True)],
        pictures.image_T_ego,
        pictures.names,
        predicted,
        score_threshold=score_threshold,
        title=title,
        time_s=1e-6 * float(scene.timestamp_us[number] - scene.timestamp_us[0]),
        speed_mps=float(record.ego_status[EGO_FORWARD_SPEED]) if speed_known else None,
        annotation_boxes=record.annotations.box,
        width_px=width_px,
    )


def _map(lines: PredictedLines, row: int) -> MapElements:
    of_frame = slice(int(lines.splits[row]), int(lines.splits[row + 1]))
    score = _tensor(lines.score[of_frame])
    return MapElements(
        points_m=_tensor(lines.points_m[of_frame]),
        score=score,
        label=_tensor(lines.label[of_frame]),
        valid=torch.ones_like(score, dtype=torch.bool),
    )


def _forecasts(predictions: PredictionSet, of_frame: slice) -> Forecasts | None:
    """Futures by box; a box without any has one of score 0 that stays where it is."""
    futures = predictions.forecasts
    if futures is None:
        return None
    box = predictions.boxes.box[of_frame]
    modes, steps = futures.trajectory_m.shape[1:3]
    trajectory_m = np.tile(box[:, None, None, :2], (1, modes, steps, 1))
    mode_score = np.zeros((len(box), modes))
    rows = np.flatnonzero((futures.row >= of_frame.start) & (futures.row < of_frame.stop))
    trajectory_m[futures.row[rows] - of_frame.start] = futures.trajectory_m[rows]
    mode_score[futures.row[rows] - of_frame.start] = futures.mode_score[rows]
    return Forecasts(
        trajectory_m=_tensor(trajectory_m),
        mode_score=_tensor(mode_score),
        history_box=torch.zeros(1, len(box), 0, 10),
        period=torch.zeros(1, len(box), dtype=torch.long),
    )


def _plan(path_m: Tensor, command: Command) -> Plan:
    commands = len(Command)
    return Plan(
        trajectory_m=path_m,
        all_trajectories_m=path_m[:, None, None].expand(1, commands, 1, -1, 2),
        mode_score=torch.zeros(1, commands, 1),
        mode_collides=torch.zeros(1, 1, dtype=torch.bool),
        command=torch.tensor([int(command)]),
        history_box=torch.zeros(1, 0, 10),
        period=torch.zeros(1, dtype=torch.long),
        ego_status=torch.zeros(1, 10),
    )


def _tensor(values: np.ndarray) -> Tensor:
    """With a batch of one in front; numbers as the model gives them."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return (tensor.float() if tensor.is_floating_point() else tensor.long())[None]
