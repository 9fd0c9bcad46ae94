"""Charts of an evaluation, as SVG."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sparsedrive.evaluation.results import (
    GROUND_TRUTH,
    MODEL,
    DetectionSection,
    ForecastSection,
    MapSection,
    PlanSection,
    TrackingSection,
)
from sparsedrive.metrics.planning import STEP_S
from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES
from sparsedrive.viz.charts import PALETTE, Axis, Line, histogram, line_chart, on_white, path_chart, spread_chart
from sparsedrive.viz.style import Colour, class_colour, map_colour

RECALLS = np.linspace(0.0, 1.0, 101)
RINGS_M = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
ERROR_AXES = {
    "trans_err": ("Translation", "translation error [m]"),
    "scale_err": ("Scale", "scale error [1 - IoU]"),
    "orient_err": ("Orientation", "orientation error [rad]"),
    "vel_err": ("Velocity", "velocity error [m/s]"),
}
"""Errors that are drawn; that of the attribute is yes or no."""
TOP = 1.04
"""So that a line along 1 is not hidden by the frame."""
RECALL = Axis(label="recall", low=0.0, high=1.0)


def spoken(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ").replace("ego status mlp", "ego-status MLP")


def detection_curves(section: DetectionSection) -> list[str]:
    """Precision over recall of every annotated class, a line a distance."""
    return [
        _precision_chart(name, section.precision[row], section.ap[row], section.distances_m)
        for row, name in enumerate(section.classes)
        if section.num_truth[row]
    ]


def map_curves(section: MapSection) -> list[str]:
    """Precision over recall of every class, a line a chamfer distance."""
    return [
        _precision_chart(name, section.precision[row], section.ap[row], section.thresholds_m) for row, name in enumerate(section.classes)
    ]


def detection_errors(section: DetectionSection) -> tuple[list[str], list[str]]:
    """Errors of true positives: histograms by distance, and spreads by class."""
    matches, by_distance, by_class = section.matches, [], []
    for column, name in enumerate(section.error_names):
        if name in ERROR_AXES:
            title, label = ERROR_AXES[name]
            values = matches.errors[:, column]
            by_distance.append(histogram(title, by_ring(values, matches.distance_m), PALETTE, Axis(label=label, low=0.0)))
            groups = {
                spoken(kind): values[matches.label == row]
                for row, kind in enumerate(section.classes)
                if section.num_truth[row] and np.isfinite(section.error[row, column])
            }
            colours = [on_white(_box_colour(spoken_name)) for spoken_name in groups]
            by_class.append(spread_chart(title, groups, colours, Axis(label=label)))
    return by_distance, by_class


def map_errors(section: MapSection) -> list[str]:
    """Chamfer distance of the predicted lines to their nearest true one."""
    hits, threshold_m = section.hits, max(section.thresholds_m)
    groups = {}
    for row, name in enumerate(section.classes):
        chamfer_m = section.chamfer_m[hits.label == row]
        groups[spoken(name)] = chamfer_m[chamfer_m <= 2 * threshold_m]
    colours = [on_white(map_colour(MAP_CLASSES.index(name))) for name in section.classes]
    return [histogram("Lines near a true one", groups, colours, Axis(label="chamfer distance [m]", low=0.0))]


def tracking_curves(section: TrackingSection) -> list[str]:
    """MOTA and localisation over recall, a line a class."""
    drawn = []
    for score, title, label in (
        ("motar", "MOTAR over recall", "MOTAR"),
        ("mota", "MOTA over recall", "MOTA"),
        ("motp", "MOTP over recall", "MOTP [m]"),
    ):
        column = section.score_names.index(score)
        lines = [
            Line(name=spoken(name), x=section.recall_target, y=section.curves[row, :, column], colour=on_white(_box_colour(name)))
            for row, name in enumerate(section.classes)
            if np.isfinite(section.curves[row, :, column]).any()
        ]
        high = None if score == "motp" else TOP
        drawn.append(line_chart(title, lines, RECALL, Axis(label=label, low=0.0, high=high)))
    return drawn


def forecast_curves(section: ForecastSection) -> list[str]:
    """Errors over recall (published definition), and the plain errors by distance."""
    drawn = []
    for row, (label, scale) in enumerate((("minADE [m]", 1.0), ("minFDE [m]", 1.0), ("miss rate [%]", 100.0))):
        lines = [
            Line(name=spoken(name), x=RECALLS, y=scale * section.curve[index, row], colour=PALETTE[index])
            for index, name in enumerate(section.classes)
            if np.isfinite(section.curve[index, row]).any()
        ]
        drawn.append(line_chart(f"{label} over recall", lines, RECALL, Axis(label=label, low=0.0)))
    matches = section.matches
    known = matches.steps > 0
    for column, title in enumerate(("minADE", "minFDE")):
        rings = by_ring(matches.errors[known, column], matches.distance_m[known])
        drawn.append(histogram(f"{title} by distance", rings, PALETTE, Axis(label=f"{title} [m]", low=0.0)))
    return drawn


def plan_curves(section: PlanSection) -> list[str]:
    """Of every planner over the horizon: distance, collisions (protocol "plain"), and how the distances at the end spread."""
    steps_s = STEP_S * np.arange(1, section.truth_m.shape[1] + 1)
    ahead = Axis(label="time ahead [s]", low=0.0, high=float(steps_s[-1]))
    drawn = []
    for title, label, attribute, scale in (
        ("Distance to the driven path", "L2 [m]", "frame_l2_m", 1.0),
        ("Collided by then (plain)", "plans [%]", "frame_collides", 100.0),
    ):
        lines = []
        for planner, colour in zip(section.planners, PALETTE, strict=False):
            if not (attribute == "frame_l2_m" and planner.name == GROUND_TRUTH):
                mean = scale * mean_of_known(getattr(planner, attribute))
                lines.append(Line(name=spoken(planner.name), x=steps_s, y=mean, colour=colour, dashed=planner.name != MODEL))
        drawn.append(line_chart(title, lines, ahead, Axis(label=label, low=0.0)))
    last = min(round(3.0 / STEP_S), len(steps_s)) - 1
    groups = {spoken(planner.name): planner.frame_l2_m[:, last] for planner in section.planners if planner.name != GROUND_TRUTH}
    drawn.append(spread_chart(f"Distance after {steps_s[last]:g} s", groups, PALETTE, Axis(label="L2 [m]")))
    return drawn


def plan_overlay(section: PlanSection, frame: int, title: str) -> str:
    """All plans of a frame and the driven path from above, to scale: ego forward is up."""
    driven_m = section.truth_m[frame][section.truth_valid[frame]]
    lines = [_path("driven", driven_m, (20, 20, 20), dashed=False)]
    for planner, colour in zip(section.planners, PALETTE, strict=False):
        if planner.name != GROUND_TRUTH:
            lines.append(_path(spoken(planner.name), planner.plan_m[frame], colour, dashed=planner.name != MODEL))
    return path_chart(title, lines, "to the right [m]", "forward [m]")


def by_ring(values: np.ndarray, distance_m: np.ndarray) -> dict[str, np.ndarray]:
    """Values by distance to the car."""
    ring = np.digitize(distance_m, RINGS_M[1:-1])
    return {f"{low:.0f}-{high:.0f} m": values[ring == row] for row, (low, high) in enumerate(pairwise(RINGS_M))}


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """[F, T] -> [T], over what is not NaN."""
    count = np.isfinite(values).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)


def _precision_chart(name: str, precision: np.ndarray, ap: np.ndarray, distances_m: Sequence[float]) -> str:
    lines = [
        Line(name=f"{distance_m:g} m (AP {ap[row]:.3f})", x=RECALLS, y=np.where(precision[row] > 0, precision[row], np.nan), colour=colour)
        for row, (distance_m, colour) in enumerate(zip(distances_m, PALETTE, strict=False))
    ]
    return line_chart(spoken(name), lines, RECALL, Axis(label="precision", low=0.0, high=TOP))


def _box_colour(name: str) -> Colour:
    return class_colour(DETECTION_CLASSES.index(name.replace(" ", "_")))


def _path(name: str, path_m: np.ndarray, colour: Colour, *, dashed: bool) -> Line:
    """From the car on."""
    return Line(name=name, x=np.append(0.0, path_m[:, 0]), y=np.append(0.0, path_m[:, 1]), colour=colour, dashed=dashed)
