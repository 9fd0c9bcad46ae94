"""Writes `devkit_cases.json`: small crowded worlds of random boxes, and what the official nuScenes evaluation says of them.

    pip install nuscenes-devkit==1.2.0 motmetrics==1.4.0 pandas && python tests/metrics/make_devkit_cases.py

The worlds are made to be awkward: objects cross within the matching distance, predicted tracks switch objects, share names between classes
and skip frames, annotations have holes, unknown velocities and no attributes, some worlds have many equal scores.
"""

import json
from pathlib import Path

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.tracking.data_classes import TrackingBox
from nuscenes.eval.tracking.evaluate import TrackingEval
from nuscenes.eval.tracking.loaders import create_tracks

CLASSES = {0: "car", 3: "bus", 7: "bicycle", 8: "pedestrian"}
ATTRIBUTES = ("pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing", "cycle.with_rider", "cycle.without_rider",
              "vehicle.moving", "vehicle.parked", "vehicle.stopped", "")  # fmt: skip
SCENES, FRAMES, OBJECTS = ("scene-0103", "scene-0916"), 12, 14


def make_world(seed: int) -> dict:
    """Key frames, and columns of annotations and predictions sorted by frame."""
    rng = np.random.default_rng(seed)
    truth, said = [], {}
    for scene in range(len(SCENES)):
        for number in range(OBJECTS):
            begin, end = sorted(rng.choice(FRAMES + 1, 2, replace=False))
            start, velocity = rng.uniform(-6, 6, 2), rng.normal(0, 0.8, 2)
            label, track = int(rng.choice([0, 7, 8])), rng.integers(30)
            for step in range(begin, end):
                frame, place = scene * FRAMES + step, start + velocity * step * 0.5
                track = rng.integers(30) if rng.random() < 0.1 else track
                score = round(rng.beta(3, 2), 1 if seed % 2 else 4)
                if rng.random() < 0.85:
                    truth.append((frame, label, f"g{number}", -1.0, place))
                if rng.random() < 0.8:
                    said.setdefault((frame, label, str(track)), (score, place + rng.normal(0, 0.7, 2)))
                if rng.random() < 0.15:
                    other = (frame, int(rng.choice(list(CLASSES))), str(rng.integers(30)))
                    said.setdefault(other, (round(rng.random(), 4), place + rng.normal(0, 2, 2)))
    return {
        "scene": np.repeat(np.arange(len(SCENES)), FRAMES).tolist(),
        "timestamp_us": (10**15 + np.tile(np.arange(FRAMES) * 500_000, len(SCENES)) + rng.integers(0, 50_000, 2 * FRAMES)).tolist(),
        "truth": columns(sorted(truth, key=lambda row: row[0]), rng),
        "predictions": columns(sorted([(*key, *value) for key, value in said.items()], key=lambda row: row[0]), rng),
    }


def columns(rows: list[tuple], rng: np.random.Generator) -> dict:
    count = len(rows)
    velocity = np.where(rng.random((count, 1)) < 0.1, np.nan, rng.normal(0, 1, (count, 2)).round(3))
    return {
        "frame": [int(row[0]) for row in rows],
        "label": [row[1] for row in rows],
        "track_id": [row[2] for row in rows],
        "score": [row[3] for row in rows],
        "center_m": [[*row[4].round(3).tolist(), 0.0] for row in rows],
        "size_wlh_m": rng.uniform(1, 4, (count, 3)).round(3).tolist(),
        "yaw_rad": rng.uniform(-3, 3, count).round(3).tolist(),
        "velocity_mps": velocity.tolist(),
        "attribute": rng.integers(-1, 8, count).tolist(),
    }


class Tables:
    """The two look-ups the devkit makes to find out the order of the frames."""

    def __init__(self, world: dict) -> None:
        self._world = world

    def get(self, table: str, token: str) -> dict:
        index = int(token)
        if table == "scene":
            return {"name": SCENES[index], "first_sample_token": str(index * FRAMES), "last_sample_token": str((index + 1) * FRAMES - 1)}
        scene = str(self._world["scene"][index])
        return {"scene_token": scene, "timestamp": self._world["timestamp_us"][index], "next": str(index + 1)}


def boxes_of(world: dict, side: str, tracking: bool) -> EvalBoxes:
    """Boxes of one side as the devkit wants them."""
    boxes = EvalBoxes()
    for frame in range(len(world["scene"])):
        boxes.add_boxes(str(frame), [])
    rows = world[side]
    for row, frame in enumerate(rows["frame"]):
        half = rows["yaw_rad"][row] / 2
        common = {
            "sample_token": str(frame),
            "translation": rows["center_m"][row],
            "size": rows["size_wlh_m"][row],
            "rotation": [float(np.cos(half)), 0.0, 0.0, float(np.sin(half))],
            "velocity": rows["velocity_mps"][row],
        }
        name, score = CLASSES[rows["label"][row]], rows["score"][row]
        if tracking:
            box = TrackingBox(**common, tracking_id=rows["track_id"][row], tracking_name=name, tracking_score=score)
        else:
            attribute = ATTRIBUTES[rows["attribute"][row]]
            box = DetectionBox(**common, detection_name=name, detection_score=score, attribute_name=attribute)
        boxes.add_boxes(str(frame), [box])
    return boxes


def official(world: dict) -> dict:
    """What the devkit says; its constructors want files, so they are passed by."""
    detection = DetectionEval.__new__(DetectionEval)
    detection.cfg, detection.verbose = config_factory("detection_cvpr_2019"), False
    detection.gt_boxes, detection.pred_boxes = boxes_of(world, "truth", False), boxes_of(world, "predictions", False)
    tracking = TrackingEval.__new__(TrackingEval)
    tracking.cfg, tracking.verbose, tracking.output_dir, tracking.render_classes = config_factory("tracking_nips_2019"), False, None, None
    tracking.tracks_gt = create_tracks(boxes_of(world, "truth", True), Tables(world), "mini_val", True)
    tracking.tracks_pred = create_tracks(boxes_of(world, "predictions", True), Tables(world), "mini_val", False)
    results = {"detection": detection.evaluate()[0].serialize(), "tracking": tracking.evaluate()[0].serialize()}
    return {task: {name: value for name, value in result.items() if name not in ("cfg", "eval_time")} for task, result in results.items()}


if __name__ == "__main__":
    worlds = [make_world(seed) for seed in range(4)]
    cases = [world | {"official": official(world)} for world in worlds]
    Path(__file__).with_name("devkit_cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")
