"""Detection and tracking metrics against the official nuScenes devkit: the same tables and result files, made up here, in one run.

    python benchmarks/metrics.py [--samples N ...] [--boxes N] [--devkit-detection-up-to N] [--devkit-tracking-up-to N] [--seed N]

"read" is from the files on disk (nuScenes tables and result file) to boxes in memory, "judge" from there to the numbers. The numbers are
held against the devkit's before a time is printed. Larger sizes than the devkit is given are judged by ours alone, to see how it grows:
the devkit needs more than an hour for the tracks of 6,000 samples. Without the devkit (`pip install --no-deps -r requirements-oracle.txt`)
all are.
"""

import contextlib
import importlib.util
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from sparsedrive.metrics.detection import evaluate_detection
from sparsedrive.metrics.nuscenes_truth import CLASS_OF_CATEGORY, read_ground_truth
from sparsedrive.metrics.records import ATTRIBUTES, BoxRecords, KeyFrames
from sparsedrive.metrics.submission import read_detections, read_tracks, write_detections, write_tracks
from sparsedrive.metrics.tracking import evaluate_tracking
from sparsedrive.structures import DETECTION_CLASSES

SCENE_FRAMES, OBJECTS = 40, 60
VERSION, SPLIT, MAP_FILE = "v1.0-generated", "generated", "map.png"
CAR_MPS, REACH_M = 8.0, 48.0
SHARES = np.array([0.35, 0.08, 0.02, 0.03, 0.02, 0.12, 0.03, 0.03, 0.22, 0.10])  # of DETECTION_CLASSES, about as in nuScenes
TOLERANCE = 1e-6
LEVEL = [1.0, 0.0, 0.0, 0.0]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much to judge."""

    samples: tuple[int, ...] = (120, 480, 6000)
    boxes: int = 100
    """Predictions a sample, annotated objects found again and made-up ones."""
    devkit_detection_up_to: int = 6000
    devkit_tracking_up_to: int = 480
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Lives:
    """Boxes of objects that go straight on for a while: sample, object, class, place and velocity."""

    frame: np.ndarray
    thing: np.ndarray
    label: np.ndarray
    xy_m: np.ndarray
    velocity_mps: np.ndarray


def make_lives(scenes: int, count: int, longest: int, rng: np.random.Generator) -> Lives:
    """`count` objects in each scene; they pass the car somewhere in the middle of their life."""
    total = scenes * count
    length = rng.integers(2, longest + 1, total)
    begin = rng.integers(0, SCENE_FRAMES - 1, total)
    length = np.minimum(length, SCENE_FRAMES - begin)
    label = rng.choice(len(DETECTION_CLASSES), total, p=SHARES / SHARES.sum())
    velocity_mps = np.stack([np.full(total, CAR_MPS), np.zeros(total)], 1) + rng.normal(0, 2, (total, 2))
    middle = begin + length / 2
    passes_m = rng.uniform(-REACH_M, REACH_M, (total, 2)) + np.stack([CAR_MPS * 0.5 * middle, np.zeros(total)], 1)
    thing = np.repeat(np.arange(total), length)
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - begin, length)
    xy_m = passes_m[thing] + velocity_mps[thing] * 0.5 * (step - middle[thing])[:, None]
    return Lives(frame=thing // count * SCENE_FRAMES + step, thing=thing, label=label[thing], xy_m=xy_m, velocity_mps=velocity_mps[thing])


def records(lives: Lives, score: np.ndarray, names: np.ndarray, rng: np.random.Generator, *, points: np.ndarray) -> BoxRecords:
    """The boxes of lives, with sizes, headings and attributes that do not matter for time."""
    count = len(lives.frame)
    return BoxRecords(
        frame=lives.frame,
        center_m=np.concatenate([lives.xy_m, np.ones((count, 1))], 1),
        size_wlh_m=rng.uniform(1.5, 2.5, (count, 3)),
        yaw_rad=np.arctan2(lives.velocity_mps[:, 1], lives.velocity_mps[:, 0]),
        velocity_mps=lives.velocity_mps,
        label=lives.label,
        score=score,
        attribute=np.full(count, ATTRIBUTES.index("vehicle.moving")),
        track_id=names,
        num_points=points,
    )


def make_world(samples: int, boxes: int, seed: int) -> tuple[KeyFrames, BoxRecords, BoxRecords]:
    """Key frames, annotations, and predictions: most objects found with some noise and now and then a new name, and made-up ones."""
    rng = np.random.default_rng(seed)
    scenes = max(samples // SCENE_FRAMES, 1)
    step = np.tile(np.arange(SCENE_FRAMES), scenes)
    frames = KeyFrames(
        tokens=tuple(f"sample{index}" for index in range(scenes * SCENE_FRAMES)),
        scene=np.repeat(np.arange(scenes), SCENE_FRAMES),
        timestamp_us=10**15 + 500_000 * np.arange(scenes * SCENE_FRAMES),
        car_xy_m=np.stack([CAR_MPS * 0.5 * step, np.zeros(len(step))], 1),
    )
    there = make_lives(scenes, OBJECTS, SCENE_FRAMES, rng)
    names = np.char.add("object", there.thing.astype(np.str_))
    truth = records(there, np.full(len(names), -1.0), names, rng, points=rng.poisson(6, len(names)))

    seen = np.flatnonzero(rng.random(len(names)) < 0.85)
    renamed = np.cumsum(rng.random(len(seen)) < 0.02)
    found = Lives(
        frame=there.frame[seen],
        thing=there.thing[seen] * len(names) + renamed,
        label=there.label[seen],
        xy_m=there.xy_m[seen] + rng.normal(0, 0.4, (len(seen), 2)),
        velocity_mps=there.velocity_mps[seen] + rng.normal(0, 0.3, (len(seen), 2)),
    )
    more = max(boxes * len(frames) - len(seen), scenes)
    made_up = make_lives(scenes, round(more / scenes / 4.5), 8, rng)
    both = Lives(**{name: np.concatenate([getattr(found, name), getattr(made_up, name)]) for name in Lives.__dataclass_fields__})
    names = np.concatenate([np.char.add(kind, part.thing.astype(np.str_)) for kind, part in (("found", found), ("made_up", made_up))])
    score = np.concatenate([rng.beta(4, 2, len(seen)), rng.beta(1, 4, len(made_up.frame))]).round(4)
    return frames, truth, records(both, score, names, rng, points=np.full(len(score), -1))


def write_tables(folder: Path, frames: KeyFrames, truth: BoxRecords) -> None:
    """The nuScenes tables, with a lidar as the only sensor and a map file that nobody opens."""
    last_of_scene = np.append(np.diff(frames.scene) != 0, True)
    first_of_scene = np.append(True, last_of_scene[:-1])
    scene_ends = zip(np.flatnonzero(first_of_scene), np.flatnonzero(last_of_scene), strict=True)
    category_of = {name: category for category, name in CLASS_OF_CATEGORY.items()}
    tables: dict[str, list[dict]] = {name: [] for name in ("visibility", "log")}
    tables["map"] = [{"token": "map", "log_tokens": [], "category": "", "filename": MAP_FILE}]
    tables["attribute"] = [{"token": name, "name": name} for name in ATTRIBUTES]
    tables["category"] = [{"token": name, "name": name} for name in category_of.values()]
    tables["sensor"] = [{"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"}]
    tables["calibrated_sensor"] = [{"token": "mount", "sensor_token": "lidar", "translation": [0.0, 0.0, 0.0], "rotation": LEVEL}]
    tables["scene"] = [
        {"token": f"scene{index}", "name": f"scene-{index:04}", "first_sample_token": frames.tokens[first],
         "last_sample_token": frames.tokens[last], "log_token": "", "nbr_samples": int(last - first + 1)}
        for index, (first, last) in enumerate(scene_ends)
    ]  # fmt: skip
    for name in ("sample", "sample_data", "ego_pose"):
        tables[name] = []
    for index, token in enumerate(frames.tokens):
        time_us, pose = int(frames.timestamp_us[index]), f"pose{index}"
        before = "" if first_of_scene[index] else frames.tokens[index - 1]
        after = "" if last_of_scene[index] else frames.tokens[index + 1]
        row = {"token": token, "timestamp": time_us, "scene_token": f"scene{frames.scene[index]}", "prev": before, "next": after}
        tables["sample"].append(row)
        tables["ego_pose"].append(
            {"token": pose, "timestamp": time_us, "translation": [*frames.car_xy_m[index].tolist(), 0.0], "rotation": LEVEL}
        )
        tables["sample_data"].append(
            {"token": f"sweep{index}", "sample_token": token, "ego_pose_token": pose, "calibrated_sensor_token": "mount",
             "timestamp": time_us, "is_key_frame": True, "filename": "", "fileformat": "pcd", "prev": "", "next": ""}
        )  # fmt: skip
    tables["sample_annotation"] = annotation_rows(frames, truth)
    of_name = dict(zip(truth.track_id.tolist(), truth.label.tolist(), strict=True))
    tables["instance"] = [{"token": name, "category_token": category_of[DETECTION_CLASSES[label]]} for name, label in of_name.items()]
    folder.mkdir()
    (folder.parent / MAP_FILE).touch()
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    scene_names = [row["name"] for row in tables["scene"]]
    (folder / "splits.json").write_text(json.dumps({SPLIT: scene_names}), encoding="utf-8")


def annotation_rows(frames: KeyFrames, truth: BoxRecords) -> list[dict]:
    """Rows of sample_annotation, linked along each object."""
    joined = (truth.track_id[1:] == truth.track_id[:-1]).tolist()
    half_rad = truth.yaw_rad / 2
    columns = (truth.frame, truth.track_id, truth.center_m, truth.size_wlh_m, np.cos(half_rad), np.sin(half_rad), truth.num_points)
    return [
        {
            "token": f"box{row}", "sample_token": frames.tokens[frame], "instance_token": name, "attribute_tokens": ["vehicle.moving"],
            "visibility_token": "", "translation": center_m, "size": size_m, "rotation": [cos, 0.0, 0.0, sin],
            "num_lidar_pts": points, "num_radar_pts": 0, "prev": f"box{row - 1}" if row and joined[row - 1] else "",
            "next": f"box{row + 1}" if row < len(joined) and joined[row] else "",
        }
        for row, (frame, name, center_m, size_m, cos, sin, points) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds, and the numbers found."""

    read_s: float
    judge_s: float
    numbers: dict


def timed(read: Callable[[], object], judge: Callable[[object], dict]) -> Timing:
    """`read`, then `judge` what it returned."""
    begin_s = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        content = read()
        read_s = time.perf_counter()
        numbers = judge(content)
    return Timing(read_s=read_s - begin_s, judge_s=time.perf_counter() - read_s, numbers=numbers)


def ours(task: str, root: Path, file: Path) -> Timing:
    """This library."""
    reader, judge = (read_detections, evaluate_detection) if task == "detection" else (read_tracks, evaluate_tracking)

    def read() -> tuple:
        truth = read_ground_truth(root / VERSION)
        return truth, reader(file, truth.frames)

    return timed(read, lambda content: judge(*content).summary())


def devkit(task: str, root: Path, file: Path) -> Timing:
    """The official devkit on the same files."""
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from nuscenes.eval.tracking.evaluate import TrackingEval

    def read() -> DetectionEval | TrackingEval:
        if task == "tracking":
            return TrackingEval(
                config_factory("tracking_nips_2019"), str(file), SPLIT, str(root / "out"), VERSION, str(root), verbose=False
            )
        nusc = NuScenes(version=VERSION, dataroot=str(root), verbose=False)
        return DetectionEval(nusc, config_factory("detection_cvpr_2019"), str(file), SPLIT, str(root / "out"), verbose=False)

    return timed(read, lambda run: run.evaluate()[0].serialize())


def largest_difference(found: object, wanted: object) -> float:
    """Over all numbers of `found`; infinite where only one of the two is known."""
    if isinstance(found, dict):
        assert isinstance(wanted, dict)
        keys = {str(key): key for key in wanted}  # the devkit's distances are numbers
        return max(largest_difference(value, wanted[keys[name]]) for name, value in found.items())
    pair = np.array([found, wanted], float)
    return float(abs(pair[0] - pair[1])) if np.isfinite(pair).all() else (0.0 if np.isnan(pair).all() else np.inf)


def main(options: Options) -> None:
    """Print the table."""
    installed = all(importlib.util.find_spec(name) is not None for name in ("nuscenes", "motmetrics"))
    table = Table(title=f"nuScenes metrics, {options.boxes} predictions a sample; seconds on one core")
    heads = ("task", "samples", "boxes", "ours read", "ours judge", "devkit read", "devkit judge", "judge", "all", "difference")
    for name in heads:
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    for samples in options.samples:
        frames, truth, said = make_world(samples, options.boxes, options.seed)
        with TemporaryDirectory() as temporary:
            root = Path(temporary)
            write_tables(root / VERSION, frames, truth)
            for task, write, devkit_up_to in (
                ("detection", write_detections, options.devkit_detection_up_to),
                ("tracking", write_tracks, options.devkit_tracking_up_to),
            ):
                file = root / f"{task}.json"
                write(file, said, frames)
                mine = ours(task, root, file)
                cells = [task, str(len(frames)), str(len(said)), f"{mine.read_s:.2f}", f"{mine.judge_s:.2f}"]
                if installed and samples <= devkit_up_to:
                    theirs = devkit(task, root, file)
                    difference = largest_difference(mine.numbers, theirs.numbers)
                    if not difference <= TOLERANCE:
                        raise SystemExit(
                            f"{task}, {samples} samples: ours differs from the devkit by {difference:.1e}; no time is worth it"
                        )
                    whole = (theirs.read_s + theirs.judge_s) / (mine.read_s + mine.judge_s)
                    cells += [f"{theirs.read_s:.2f}", f"{theirs.judge_s:.2f}", f"{theirs.judge_s / mine.judge_s:.0f}x", f"{whole:.1f}x"]
                    cells.append(f"{difference:.0e}")
                table.add_row(*cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
