"""Official nuScenes result files: {"meta": {...}, "results": {sample token: [box, ...]}}, for detection and for tracking.

A box has sample_token, translation, size (w l h), rotation (w x y z) and velocity in the global frame; a detection detection_name,
detection_score and attribute_name ('' for none), a track tracking_name, tracking_score and tracking_id.
The file must name every key frame (with an empty list where nothing was found) and no other, and at most 500 boxes for each.
Source: nuscenes.org, result formats of the detection and tracking tasks; checks as in nuscenes-devkit 1.2.0, which ends with an
AssertionError or KeyError where this ends with a sentence. Stricter: numbers must be finite (a velocity may be NaN), scores must be there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from sparsedrive.metrics.json_file import flat_table, no_cycle_search, read_json
from sparsedrive.metrics.nuscenes_truth import yaw_of
from sparsedrive.metrics.records import ATTRIBUTES, BoxRecords, KeyFrames
from sparsedrive.metrics.tracking import TRACKING_CLASSES
from sparsedrive.structures import DETECTION_CLASSES

MAX_BOXES_PER_FRAME = 500
CAMERA_ONLY = {"use_camera": True, "use_lidar": False, "use_radar": False, "use_map": False, "use_external": False}


@no_cycle_search()
def read_detections(path: Path, frames: KeyFrames) -> BoxRecords:
    """Boxes of a detection result file, in the order of the file. `ValueError` says which box of which sample breaks which rule."""
    boxes, frame = _read(path, frames, "detection")
    return _records(path, boxes, frame, "detection", DETECTION_CLASSES)


@no_cycle_search()
def read_tracks(path: Path, frames: KeyFrames) -> BoxRecords:
    """Boxes of a tracking result file, in the order of the file. `ValueError` says which box of which sample breaks which rule."""
    boxes, frame = _read(path, frames, "tracking")
    return _records(path, boxes, frame, "tracking", TRACKING_CLASSES)


def write_detections(path: Path, boxes: BoxRecords, frames: KeyFrames, meta: Mapping[str, bool] = CAMERA_ONLY) -> None:
    """Write a detection result file; every key frame is named. `meta` says which sensors were used."""

    def own(row: int) -> dict[str, Any]:
        attribute = int(boxes.attribute[row])
        return {
            "detection_name": DETECTION_CLASSES[boxes.label[row]],
            "detection_score": float(boxes.score[row]),
            "attribute_name": ATTRIBUTES[attribute] if attribute >= 0 else "",
        }

    _write(path, boxes, frames, meta, own)


def write_tracks(path: Path, boxes: BoxRecords, frames: KeyFrames, meta: Mapping[str, bool] = CAMERA_ONLY) -> None:
    """Write a tracking result file; boxes of classes that are not tracked (cones, barriers, construction vehicles) are left out."""
    boxes = boxes[np.isin(boxes.label, [DETECTION_CLASSES.index(name) for name in TRACKING_CLASSES])]
    if (boxes.track_id == "").any():
        raise ValueError(f"{path}: {(boxes.track_id == '').sum()} boxes have no track_id; a tracking file needs one for every box")

    def own(row: int) -> dict[str, Any]:
        return {
            "tracking_name": DETECTION_CLASSES[boxes.label[row]],
            "tracking_score": float(boxes.score[row]),
            "tracking_id": str(boxes.track_id[row]),
        }

    _write(path, boxes, frames, meta, own)


def _read(path: Path, frames: KeyFrames, task: str) -> tuple[list[dict], np.ndarray]:
    """All boxes of the file and the key frame of each."""
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error}); expected a nuScenes {task} result file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: malformed JSON ({error}); the file may be truncated") from error
    for field in ("results", "meta"):
        if not isinstance(content, dict) or not isinstance(content.get(field), dict):
            raise ValueError(f'{path}: expected {{"meta": {{...}}, "results": {{sample token: [box, ...]}}}}, found no object {field!r}')
    results = content["results"]
    number = {token: index for index, token in enumerate(frames.tokens)}
    unknown = [token for token in results if token not in number]
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} sample tokens are none of the {len(number)} key frames, such as {unknown[0]!r}; wrong split?"
        )
    missing = [token for token in number if token not in results]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(number)} key frames are missing, such as {missing[0]!r}; "
            "name every frame, with an empty list where nothing was found"
        )
    for token, boxes in results.items():
        if not isinstance(boxes, list) or not all(isinstance(box, dict) for box in boxes):
            raise ValueError(f"{path}: sample {token!r}: expected a list of boxes, got {boxes!r:.80}")
        if len(boxes) > MAX_BOXES_PER_FRAME:
            raise ValueError(f"{path}: sample {token!r} has {len(boxes)} boxes; at most {MAX_BOXES_PER_FRAME} are allowed, keep the best")
        for index, box in enumerate(boxes):
            if box.get("sample_token") != token:
                raise ValueError(
                    f"{path}: sample {token!r}, box {index}: its sample_token is {box.get('sample_token')!r}; expected the same"
                )
    frame = np.repeat([number[token] for token in results], [len(boxes) for boxes in results.values()]).astype(int)
    return [box for boxes in results.values() for box in boxes], frame


def _records(path: Path, boxes: list[dict], frame: np.ndarray, task: str, classes: Sequence[str]) -> BoxRecords:
    table = _Table(path, boxes)
    rotation = table.numbers("rotation", 4)
    table.refuse(np.abs(rotation).max(-1) == 0, "rotation", "a quaternion w x y z that is not 0")
    size_m = table.numbers("size", 3)
    table.refuse(size_m.min(-1) <= 0, "size", "a positive width, length and height")
    name = table.choices(f"{task}_name", classes)
    tracked = task == "tracking"
    return BoxRecords(
        frame=frame,
        center_m=table.numbers("translation", 3),
        size_wlh_m=size_m,
        yaw_rad=yaw_of(rotation),
        velocity_mps=table.numbers("velocity", 2, nan_is_unknown=True),
        label=np.array([DETECTION_CLASSES.index(classes[index]) for index in name], int),
        score=table.numbers(f"{task}_score", 1)[:, 0],
        attribute=np.full(len(boxes), -1) if tracked else table.choices("attribute_name", ATTRIBUTES, none=""),
        track_id=table.names("tracking_id") if tracked else np.full(len(boxes), "", np.str_),
        num_points=np.full(len(boxes), -1),
    )


class _Table:
    """Columns of a list of boxes; the first box that breaks a rule is named."""

    def __init__(self, path: Path, boxes: list[dict]) -> None:
        self._path = path
        self._boxes = boxes

    def numbers(self, field: str, width: int, *, nan_is_unknown: bool = False) -> np.ndarray:
        """[N, width] floats; a plain number where `width` is 1."""
        values = self._values(field)
        expected = f"{width} finite numbers" if width > 1 else "a finite number"
        try:
            column = np.array(values) if width == 1 else flat_table(values, width)
        except (ValueError, TypeError):  # lists of different lengths, or no lists
            column = np.array([], object)
        if len(values) and (column.dtype.kind not in "iuf" or column.shape != ((len(values), width) if width > 1 else (len(values),))):
            wrong = [np.array(value).dtype.kind not in "iuf" or np.shape(value) != ((width,) if width > 1 else ()) for value in values]
            self.refuse(np.array(wrong), field, expected)
        column = column.astype(float).reshape(-1, width)
        broken = np.isinf(column) if nan_is_unknown else ~np.isfinite(column)
        self.refuse(broken.any(-1), field, expected)
        return column

    def choices(self, field: str, allowed: Sequence[str], none: str | None = None) -> np.ndarray:
        """[N] index into `allowed`; -1 where the value is `none`."""
        values = self._values(field)
        index = {name: number for number, name in enumerate(allowed)} | ({} if none is None else {none: -1})
        wrong = np.array([type(value) is not str or value not in index for value in values], bool)
        close = get_close_matches(str(values[int(np.argmax(wrong))]), allowed, n=1) if wrong.any() else []
        self.refuse(wrong, field, f"one of {list(allowed)}" + (f", perhaps {close[0]!r}" if close else ""))
        return np.array([index[value] for value in values], int)

    def names(self, field: str) -> np.ndarray:
        """[N] text; whole numbers are taken as names."""
        values = self._values(field)
        self.refuse(np.array([type(value) not in (str, int) or value == "" for value in values], bool), field, "a text")
        return np.array([str(value) for value in values], np.str_)

    def refuse(self, wrong: np.ndarray, field: str, expected: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self._error(row, f"{field} is {self._boxes[row][field]!r:.80}; expected {expected}")

    def _values(self, field: str) -> list:
        try:
            return [box[field] for box in self._boxes]
        except KeyError:
            row = next(row for row, box in enumerate(self._boxes) if field not in box)
            raise self._error(row, f"no field {field!r}; it has {sorted(self._boxes[row])}") from None

    def _error(self, row: int, problem: str) -> ValueError:
        token = self._boxes[row]["sample_token"]
        index = next(number for number, box in enumerate(b for b in self._boxes if b["sample_token"] == token) if box is self._boxes[row])
        return ValueError(f"{self._path}: sample {token!r}, box {index}: {problem}")


def _write(path: Path, boxes: BoxRecords, frames: KeyFrames, meta: Mapping[str, bool], own: Callable[[int], dict[str, Any]]) -> None:
    unknown = sorted(set(meta) ^ set(CAMERA_ONLY))
    if unknown:
        raise ValueError(f"{path}: meta must have exactly the fields {list(CAMERA_ONLY)}; differs in {unknown}")
    counts = np.bincount(boxes.frame, minlength=len(frames))
    if len(boxes) and counts.max() > MAX_BOXES_PER_FRAME:
        token = frames.tokens[int(counts.argmax())]
        raise ValueError(f"{path}: sample {token!r} has {counts.max()} boxes; at most {MAX_BOXES_PER_FRAME} are allowed, keep the best")
    results: dict[str, list[dict]] = {token: [] for token in frames.tokens}
    half_rad = boxes.yaw_rad / 2
    columns = (boxes.frame, boxes.center_m, boxes.size_wlh_m, np.cos(half_rad), np.sin(half_rad), boxes.velocity_mps)
    for row, (frame, center_m, size_m, cos, sin, velocity_mps) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        token = frames.tokens[frame]
        common = {
            "sample_token": token,
            "translation": center_m,
            "size": size_m,
            "rotation": [cos, 0.0, 0.0, sin],
            "velocity": velocity_mps,
        }
        results[token].append(common | own(row))
    Path(path).write_text(json.dumps({"meta": dict(meta), "results": results}), encoding="utf-8")
