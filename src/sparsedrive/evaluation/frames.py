"""Which frames a reader should look at: the worst ones and a good one, by what an `Evaluation` knows of every frame."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparsedrive.evaluation.hits import ScoredHits
from sparsedrive.evaluation.results import MODEL, Evaluation

WORST_EACH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenFrame:
    """Row of `Evaluation.frames`, and why it is shown."""

    row: int
    reason: str


def chosen_frames(evaluation: Evaluation, worst_each: int = WORST_EACH) -> list[ChosenFrame]:
    """The worst frames of plan, boxes and map lines, and the one with the best boxes: no frame twice, no two of a scene for one reason."""
    chosen: list[ChosenFrame] = []
    scene = evaluation.frames.scene
    if evaluation.planning is not None:
        error_m = plan_error_m(evaluation.planning.planner(MODEL).frame_l2_m)
        for row in _largest(error_m, scene, worst_each, chosen):
            chosen.append(ChosenFrame(row=row, reason=f"worst plan: {error_m[row]:.2f} m from the driven path on average"))
    if evaluation.detection is not None:
        section = evaluation.detection
        counts = best_counts(section.hits, section.distances_m.index(section.tp_distance_m))
        wrong = counts[:, 1:].sum(1).astype(float)
        for row in _largest(wrong, scene, worst_each, chosen):
            chosen.append(ChosenFrame(row=row, reason=f"worst boxes: {_said(counts[row])}"))
        full = np.where(counts[:, 0] >= max(np.median(counts[:, 0]), 1), -wrong, np.nan)
        for row in _largest(full, scene, 1, chosen):
            chosen.append(ChosenFrame(row=row, reason=f"good boxes: {_said(counts[row])}"))
    if evaluation.map is not None:
        counts = best_counts(evaluation.map.hits, len(evaluation.map.thresholds_m) - 1)
        for row in _largest(counts[:, 1:].sum(1).astype(float), scene, worst_each, chosen):
            chosen.append(ChosenFrame(row=row, reason=f"worst map: {_said(counts[row])}"))
    return chosen


def plan_error_m(frame_l2_m: Float[np.ndarray, "F T"]) -> Float[np.ndarray, "F"]:
    """Mean distance to the driven path over all known steps; NaN without any."""
    known = np.isfinite(frame_l2_m)
    return np.where(known.any(1), np.nansum(frame_l2_m, 1) / np.maximum(known.sum(1), 1), np.nan)


def best_counts(hits: ScoredHits, threshold: int) -> np.ndarray:
    """[F, 3] true positives, false positives and misses over all classes, each class cut at its best score."""
    return hits.counts(threshold, hits.best_score(threshold)).sum(1)


def _largest(values: np.ndarray, scene: np.ndarray, count: int, taken: list[ChosenFrame]) -> list[int]:
    """Rows of the largest known values, each of another scene, none that is taken."""
    rows: list[int] = []
    for row in np.argsort(-values, kind="stable").tolist():
        if len(rows) == count or not np.isfinite(values[row]):
            break
        if all(row != frame.row for frame in taken) and scene[row] not in scene[rows]:
            rows.append(row)
    return rows


def _said(counts: np.ndarray) -> str:
    return f"{counts[0]} right, {counts[1]} too many, {counts[2]} missed"
