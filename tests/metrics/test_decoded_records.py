"""Model outputs as records in the global frame: the published result file from its raw outputs, and small cases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_boxes import golden_metrics, unpack_golden
from scipy.spatial.transform import Rotation

from sparsedrive.metrics.decoded import records_of
from sparsedrive.metrics.detection import DetectionConfig
from sparsedrive.metrics.nuscenes_truth import read_ground_truth
from sparsedrive.metrics.records import ATTRIBUTES, counted
from sparsedrive.metrics.submission import read_detections
from sparsedrive.structures import DETECTION_CLASSES, Detections


def detections(box: np.ndarray, label: np.ndarray, score: np.ndarray, track: np.ndarray, valid: np.ndarray) -> Detections:
    columns = [torch.from_numpy(np.ascontiguousarray(column)) for column in (box, score, score, label, track, label, valid)]
    return Detections(**dict(zip(("box", "score", "class_score", "label", "track_id", "query_index", "valid"), columns, strict=True)))


def poses(translation_m: np.ndarray, rotation_wxyz: np.ndarray) -> np.ndarray:
    result = np.tile(np.eye(4), (len(translation_m), 1, 1))
    result[:, :3, :3] = Rotation.from_quat(rotation_wxyz[:, [1, 2, 3, 0]]).as_matrix()
    result[:, :3, 3] = translation_m
    return result


def test_the_published_file_from_its_raw_outputs(tmp_path: Path):
    raw = np.load(golden_metrics() / "raw_inputs.npz")
    tables, files = unpack_golden(tmp_path)
    truth = read_ground_truth(tables)
    assert tuple(raw["class_names"]) == DETECTION_CLASSES
    counts = np.bincount(raw["pred_frame"])
    valid = np.arange(counts.max())[None] < counts[:, None]
    padded = []
    for name in ("boxes_3d", "labels_3d", "scores_3d", "instance_ids"):
        rows = raw[f"pred_{name}"]
        padded.append(np.ones((*valid.shape, *rows.shape[1:]), rows.dtype))
        padded[-1][valid] = rows
    pose = poses(raw["ego2global_translation"], raw["ego2global_rotation"]) @ poses(raw["lidar2ego_translation"], raw["lidar2ego_rotation"])
    frame = np.array([truth.frames.tokens.index(token) for token in raw["frame_token"]])
    found = [records_of(detections(*padded, valid), torch.from_numpy(pose), frame), read_detections(files["detection"], truth.frames)]
    # The published code leaves out boxes beyond the range before it writes the file.
    found = [boxes[counted(truth, boxes, DetectionConfig().range_of_class_m)] for boxes in found]
    ours, published = (boxes[np.lexsort((boxes.score, boxes.frame))] for boxes in found)
    assert len(ours) == len(published) > 1000
    for name in ("frame", "label", "attribute", "score", "size_wlh_m"):
        assert np.array_equal(getattr(ours, name), getattr(published, name)), name
    for name in ("center_m", "velocity_mps", "yaw_rad"):
        assert getattr(ours, name) == pytest.approx(getattr(published, name), abs=1e-9), name


def test_attributes_follow_from_class_and_speed():
    box = np.zeros((2, 10, 10))
    box[..., 3:6] = 1
    box[1, :, 7] = 0.3
    label = np.tile(np.arange(10), (2, 1))
    found = records_of(
        detections(box, label, np.full((2, 10), 0.5), np.full((2, 10), -1), np.ones((2, 10), bool)),
        torch.eye(4).repeat(2, 1, 1),
        np.array([4, 3]),
    )
    assert found.frame.tolist() == [4] * 10 + [3] * 10 and (found.track_id == "").all() and (found.num_points == -1).all()
    names = [ATTRIBUTES[index] if index >= 0 else "" for index in found.attribute]
    slow, fast = (dict(zip(DETECTION_CLASSES, part, strict=True)) for part in (names[:10], names[10:]))
    assert slow["car"] == "vehicle.parked" and slow["bus"] == "vehicle.stopped" and slow["bicycle"] == "cycle.without_rider"
    assert slow["pedestrian"] == "pedestrian.standing" and fast["pedestrian"] == "pedestrian.moving"
    assert fast["car"] == fast["bus"] == "vehicle.moving" and fast["motorcycle"] == "cycle.with_rider"
    assert {side[name] for side in (slow, fast) for name in ("barrier", "traffic_cone")} == {""}


def test_turned_frames_and_rows_that_are_not_valid():
    box = np.array([[[1.0, 2, 3, 4, 2, 1.5, 0.1, 5, 0, 9], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]]])
    arguments = detections(box, np.array([[0, 0]]), np.array([[0.9, 0.1]]), np.array([[12, 3]]), np.array([[True, False]]))
    pose = poses(np.array([[100.0, 200, 1]]), np.array([[0.5**0.5, 0, 0, 0.5**0.5]]))  # a quarter to the left
    found = records_of(arguments, torch.from_numpy(pose), np.array([0]))
    assert found.center_m == pytest.approx(np.array([[98.0, 201, 4]])) and found.size_wlh_m.tolist() == [[2, 4, 1.5]]
    assert found.yaw_rad == pytest.approx([np.pi / 2 + 0.1]) and found.velocity_mps == pytest.approx(np.array([[0.0, 5]]))
    assert found.track_id.tolist() == ["12"] and found.score.tolist() == [0.9]
    with pytest.raises(ValueError, match="1 frames of detections, 1 poses and 2 indices"):
        records_of(arguments, torch.from_numpy(pose), np.array([0, 1]))
    assert len(records_of(replace(arguments, valid=torch.zeros(1, 2, dtype=torch.bool)), torch.from_numpy(pose), np.array([0]))) == 0
