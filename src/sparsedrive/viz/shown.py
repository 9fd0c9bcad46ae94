"""What of a `Scene` is drawn: the rows above the threshold, as NumPy arrays, best first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sparsedrive.geometry import box_state
from sparsedrive.structures import Command, Detections, Forecasts, MapElements, Plan, Scene

Array = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class ShownBox:
    """One detection in ego metres: `box` x y z l w h yaw_rad vx vy vz; `corners_m` [8, 3] as `box_state.corners`.

    `futures_m` [M, T, 2] and `future_score` [M], best mode first, are empty without a forecast.
    """

    box: Array
    corners_m: Array
    label: int
    score: float
    track_id: int
    futures_m: Array
    future_score: Array


@dataclass(frozen=True, kw_only=True)
class ShownLine:
    """One map element, `points_m` [P, 2]."""

    points_m: Array
    label: int
    score: float


@dataclass(frozen=True, kw_only=True)
class ShownPlan:
    """The selected path [T, 2] and every mode [M, T, 2] of the given command; which of them hit a forecast [M]."""

    path_m: Array
    modes_m: Array
    mode_collides: NDArray[np.bool_]
    command: Command


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Everything a picture of one scene shows."""

    boxes: list[ShownBox]
    lines: list[ShownLine]
    plan: ShownPlan | None


def select(scene: Scene, *, score_threshold: float = 0.3, max_boxes: int = 100, max_lines: int = 60, max_futures: int = 3) -> Shown:
    """The drawable part of a scene with a batch of one."""
    batch = scene.detections.box.shape[0]
    if batch != 1:
        raise ValueError(f"drawing: expected a scene with a batch of 1, got {batch}; pick a stream with scene.stream(index)")
    plan = None if scene.plan is None else _shown_plan(scene.plan)
    boxes = _shown_boxes(scene.detections, scene.forecasts, score_threshold, max_boxes, max_futures)
    lines = [] if scene.map is None else _shown_lines(scene.map, score_threshold, max_lines)
    return Shown(boxes=boxes, lines=lines, plan=plan)


def _array(tensor: Tensor) -> NDArray:
    return tensor[0].detach().cpu().numpy()


def _rows(score: Tensor, valid: Tensor, threshold: float, limit: int) -> list[int]:
    return np.flatnonzero((_array(score) >= threshold) & _array(valid)).tolist()[:limit]


def _shown_boxes(detections: Detections, forecasts: Forecasts | None, threshold: float, max_boxes: int, max_futures: int) -> list[ShownBox]:
    box, corners = _array(detections.box), _array(box_state.corners(detections.box))
    label, score, track_id = _array(detections.label), _array(detections.score), _array(detections.track_id)
    shown = []
    for row in _rows(detections.score, detections.valid, threshold, max_boxes):
        futures_m, future_score = np.zeros((0, 0, 2)), np.zeros(0)
        if forecasts is not None:
            mode_score = _array(forecasts.mode_score)[row]
            best = np.argsort(-mode_score, kind="stable")[:max_futures]
            futures_m, future_score = _array(forecasts.trajectory_m)[row][best], mode_score[best]
        shown.append(
            ShownBox(
                box=box[row],
                corners_m=corners[row],
                label=int(label[row]),
                score=float(score[row]),
                track_id=int(track_id[row]),
                futures_m=futures_m,
                future_score=future_score,
            )
        )
    return shown


def _shown_lines(elements: MapElements, threshold: float, max_lines: int) -> list[ShownLine]:
    points, label, score = _array(elements.points_m), _array(elements.label), _array(elements.score)
    rows = _rows(elements.score, elements.valid, threshold, max_lines)
    return [ShownLine(points_m=points[row], label=int(label[row]), score=float(score[row])) for row in rows]


def _shown_plan(plan: Plan) -> ShownPlan:
    command = Command(int(_array(plan.command)))
    modes_m = _array(plan.all_trajectories_m)[command]
    return ShownPlan(path_m=_array(plan.trajectory_m), modes_m=modes_m, mode_collides=_array(plan.mode_collides), command=command)


def smooth_path(points_m: Array, *, steps: int = 8) -> Array:
    """Way points [T, 2] after the origin -> a curve [T * steps + 1, 2] from the origin through all of them (Catmull-Rom)."""
    knots = np.concatenate([np.zeros((1, 2)), points_m])
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.arange(steps)[:, None] / steps
    pieces = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        bend = (2 * p0 - 5 * p1 + 4 * p2 - p3) * at**2 + (3 * p1 - p0 - 3 * p2 + p3) * at**3
        pieces.append((2 * p1 + (p2 - p0) * at + bend) / 2)
    return np.concatenate([*pieces, knots[-1:]])
