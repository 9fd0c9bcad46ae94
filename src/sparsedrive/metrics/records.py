"""What detection and tracking are judged on: key frames, and boxes of all of them as columns, in the global frame.

A box counts (nuScenes detection and tracking task) when
- its centre is nearer to the car, in the horizontal plane, than the range of its class,
- it is a prediction or holds at least one lidar or radar point, and
- it is not a bicycle or motorcycle whose centre lies in an annotated bicycle rack.
Ground truth and predictions are filtered by the same rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.metrics.pairs import same_frame_pairs
from sparsedrive.structures import DETECTION_CLASSES

ATTRIBUTES = (
    "pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing", "cycle.with_rider", "cycle.without_rider",
    "vehicle.moving", "vehicle.parked", "vehicle.stopped",
)  # fmt: skip
CLASSES_IN_RACKS = ("bicycle", "motorcycle")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyFrames:
    """The F key frames to evaluate, in any order.

    Attributes:
        tokens: [F] names of the frames, unique.
        scene: [F] number of the scene a frame belongs to.
        timestamp_us: [F] time stamps, unique within a scene.
        car_xy_m: [F, 2] origin of the vehicle frame (not of the lidar) in the global frame.
    """

    tokens: tuple[str, ...]
    scene: Int[np.ndarray, "F"]
    timestamp_us: Int[np.ndarray, "F"]
    car_xy_m: Float[np.ndarray, "F 2"]

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.scene) == len(self.timestamp_us) == len(self.car_xy_m):
            raise ValueError(
                f"KeyFrames: expected one row a frame everywhere, got {len(self.tokens)} tokens, {len(self.scene)} scenes, "
                f"{len(self.timestamp_us)} time stamps and {len(self.car_xy_m)} positions"
            )
        if len(set(self.tokens)) != len(self.tokens):
            raise ValueError("KeyFrames: a token stands for two frames; give every frame its own")

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxRecords:
    """N boxes of all frames, global frame, in any order. Equal scores are ranked by their order, as in the nuScenes devkit.

    Attributes:
        frame: [N] index into the key frames.
        center_m: [N, 3] centre.
        size_wlh_m: [N, 3] width, length, height.
        yaw_rad: [N] heading about the global z axis; 0 looks along x.
        velocity_mps: [N, 2]; NaN where not known.
        label: [N] index into `DETECTION_CLASSES`.
        score: [N]; of no meaning for ground truth.
        attribute: [N] index into `ATTRIBUTES`, -1 for none.
        track_id: [N] text, unique in a scene; '' where boxes are not tracked.
        num_points: [N] lidar and radar points inside; -1 for predictions.
    """

    frame: Int[np.ndarray, "N"]
    center_m: Float[np.ndarray, "N 3"]
    size_wlh_m: Float[np.ndarray, "N 3"]
    yaw_rad: Float[np.ndarray, "N"]
    velocity_mps: Float[np.ndarray, "N 2"]
    label: Int[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]
    attribute: Int[np.ndarray, "N"]
    track_id: np.ndarray
    num_points: Int[np.ndarray, "N"]

    def __post_init__(self) -> None:
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        tails = {"center_m": (3,), "size_wlh_m": (3,), "velocity_mps": (2,)}
        wrong = {name: shape for name, shape in shapes.items() if shape != (len(self.frame), *tails.get(name, ()))}
        if wrong:
            raise ValueError(f"BoxRecords: expected {len(self.frame)} rows (3 columns for centre and size, 2 for velocity), got {wrong}")
        if len(self.label) and not 0 <= self.label.min() <= self.label.max() < len(DETECTION_CLASSES):
            raise ValueError(
                f"BoxRecords.label: expected indices of the {len(DETECTION_CLASSES)} detection classes, got {np.unique(self.label)}"
            )
        for name in ("center_m", "size_wlh_m", "yaw_rad", "score"):
            if not np.isfinite(getattr(self, name)).all():
                row = int(np.flatnonzero(~np.isfinite(getattr(self, name)).reshape(len(self.frame), -1).all(1))[0])
                raise ValueError(f"BoxRecords.{name}: row {row} is {getattr(self, name)[row]}; expected finite numbers")

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: np.ndarray) -> "BoxRecords":
        """The boxes of a mask or of indices, in that order."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def cat_boxes(parts: Sequence[BoxRecords]) -> BoxRecords:
    """The boxes of all parts, one part after the other."""
    return BoxRecords(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(BoxRecords)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BikeRacks:
    """R annotated bicycle racks: key frame, centre, size w l h and rotation (columns are the rack's axes), global frame."""

    frame: Int[np.ndarray, "R"]
    center_m: Float[np.ndarray, "R 3"]
    size_wlh_m: Float[np.ndarray, "R 3"]
    rotation: Float[np.ndarray, "R 3 3"]


NO_RACKS = BikeRacks(frame=np.zeros(0, int), center_m=np.zeros((0, 3)), size_wlh_m=np.zeros((0, 3)), rotation=np.zeros((0, 3, 3)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroundTruth:
    """What was there: key frames, annotated boxes of the detection classes, bicycle racks. Nothing is filtered yet."""

    frames: KeyFrames
    boxes: BoxRecords
    racks: BikeRacks = NO_RACKS

    def __post_init__(self) -> None:
        check_frames(self.boxes, self.frames, "ground truth")


def check_frames(boxes: BoxRecords, frames: KeyFrames, name: str) -> None:
    """`ValueError` when a box names a frame that is none of the key frames."""
    if len(boxes) and not 0 <= boxes.frame.min() <= boxes.frame.max() < len(frames):
        raise ValueError(f"{name}: boxes lie in frames {boxes.frame.min()}..{boxes.frame.max()}, expected 0..{len(frames) - 1}")


def counted(truth: GroundTruth, boxes: BoxRecords, range_of_class_m: Mapping[str, float]) -> Bool[np.ndarray, "N"]:
    """Which boxes (ground truth or predictions) are judged, by the rule of this module. Classes without a range are not."""
    range_m = np.array([range_of_class_m.get(name, 0.0) for name in DETECTION_CLASSES])
    away_m = np.sqrt(((boxes.center_m[:, :2] - truth.frames.car_xy_m[boxes.frame]) ** 2).sum(-1))
    return (away_m < range_m[boxes.label]) & (boxes.num_points != 0) & ~_in_rack(boxes, truth.racks)


def _in_rack(boxes: BoxRecords, racks: BikeRacks) -> Bool[np.ndarray, "N"]:
    cycles = np.flatnonzero(np.isin(boxes.label, [DETECTION_CLASSES.index(name) for name in CLASSES_IN_RACKS]))
    cycle, rack = same_frame_pairs(boxes.frame[cycles], racks.frame)
    local_m = np.einsum("nji,nj->ni", racks.rotation[rack], boxes.center_m[cycles[cycle]] - racks.center_m[rack])
    inside = (np.abs(local_m) <= racks.size_wlh_m[rack][:, [1, 0, 2]] / 2).all(-1)
    found = np.zeros(len(boxes), bool)
    found[cycles[cycle[inside]]] = True
    return found
