"""The parts of the report, task by task: tables and charts of a section of an `Evaluation`, as HTML."""

from collections.abc import Sequence

import numpy as np

from sparsedrive.evaluation.html import Row, charts, details, heading, number, paragraph, percent, section, table
from sparsedrive.evaluation.plots import (
    detection_curves,
    detection_errors,
    forecast_curves,
    map_curves,
    map_errors,
    plan_curves,
    spoken,
    tracking_curves,
)
from sparsedrive.evaluation.results import (
    FORECAST_NUMBERS,
    GROUND_TRUTH,
    MODEL,
    DetectionSection,
    ForecastSection,
    MapSection,
    PlannerResult,
    PlanNumbers,
    PlanSection,
    TrackingSection,
)

ERROR_HEADS = {"trans_err": "ATE [m]", "scale_err": "ASE", "orient_err": "AOE [rad]", "vel_err": "AVE [m/s]", "attr_err": "AAE"}
TRACK_HEADS = {"motp": "MOTP [m]", "tid": "TID [s]", "lgd": "LGD [s]"}
TRACK_COUNTS = ("gt", "mt", "ml", "tp", "fp", "fn", "ids", "frag")
FORECAST_HEADS = ("minADE [m]", "minFDE [m]", "miss rate [%]", "EPA")
PROTOCOL_NAMES = {"uniad": "UniAD", "st-p3": "ST-P3 / VAD", "sparsedrive": "SparseDrive", "plain": "plain"}
PLAN_PROTOCOLS = """L2 at t s is the error at that instant in UniAD's and the plain protocol, the mean up to t in the others': about half as
large. Collisions: UniAD and ST-P3 paint vehicles (ST-P3 also people) on a grid and do not turn the car; all but plain forgive collisions of
the driven path, and plain counts every plan that has collided by t. Compare numbers within a protocol only."""


def detection_section(found: DetectionSection) -> str:
    """Average precisions and errors by class, precision over recall, errors by distance and class."""
    columns = ["class", "truth", "found", "AP", *(f"{distance_m:g} m" for distance_m in found.distances_m)]
    columns += [ERROR_HEADS.get(name, name) for name in found.error_names]
    rows = []
    for row, name in enumerate(found.classes):
        ap = [float(found.ap[row].mean()), *found.ap[row].tolist()]
        cells = [spoken(name), str(found.num_truth[row]), str(found.num_predictions[row]), *(percent(value) for value in ap)]
        kind = "" if found.num_truth[row] else "muted"
        rows.append(Row(cells=[*cells, *(number(value) for value in found.error[row])], kind=kind, shades=[None, None, None, *ap]))
    mean = [str(found.num_truth.sum()), str(found.num_predictions.sum()), percent(found.mean_ap)]
    mean += [percent(value) for value in found.ap.mean(0)] + [number(value) for value in found.mean_error]
    rows.append(Row(cells=["mean", *mean], kind="strong"))
    groups = [("boxes", 2), ("average precision [%]", 1 + len(found.distances_m)), ("errors of true positives", len(found.error_names))]
    by_distance, by_class = detection_errors(found)
    return section(
        "det",
        "Detection",
        paragraph(f"Protocol {found.protocol}; {found.truth}. NDS {number(found.nds, 4)}, mAP {number(found.mean_ap, 4)}."),
        table(columns, rows, groups),
        paragraph("Classes in grey are not annotated in this data; officially they count as AP 0 in the mean."),
        heading("Precision over recall"),
        charts(detection_curves(found)),
        heading(
            f"Errors of true positives (within {found.tp_distance_m:g} m) by distance from the car; the last bar holds all larger ones"
        ),
        charts(by_distance),
        heading("The same by class: 5 to 95 %, 25 to 75 %, median"),
        charts(by_class),
    )


def tracking_section(found: TrackingSection) -> str:
    """AMOTA and the CLEAR MOT family by class, and over recall."""
    names = [name for name in found.score_names if name not in ("motar",)]
    heads = ["class", "AMOTA", "AMOTP [m]", *(TRACK_HEADS.get(name, name.upper() if len(name) < 5 else name) for name in names)]
    rows = []
    for row, name in enumerate(found.classes):
        best = dict(zip(found.score_names, found.best[row], strict=True))
        cells = [spoken(name), number(found.amota[row]), number(found.amotp_m[row]), *(_track_cell(key, best[key]) for key in names)]
        rows.append(Row(cells=cells, kind="" if best["gt"] > 0 else "muted", shades=[None, float(found.amota[row])]))
    mean = dict(zip(found.score_names, found.mean, strict=True))
    cells = ["all", number(found.mean_amota), number(found.mean_amotp_m), *(_track_cell(key, mean[key]) for key in names)]
    rows.append(Row(cells=cells, kind="strong"))
    return section(
        "track",
        "Tracking",
        paragraph(
            f"Protocol {found.protocol}; {found.truth}. Beside AMOTA and AMOTP every number is that at the score of the highest MOTA. "
            "In the last row counts are summed and all else, GT too, is averaged, as officially."
        ),
        table(heads, rows),
        charts(tracking_curves(found)),
    )


def map_section(found: MapSection) -> str:
    """Chamfer AP by class and threshold."""
    rows = []
    for row, name in enumerate(found.classes):
        ap = [float(found.ap[row].mean()), *found.ap[row].tolist()]
        cells = [spoken(name), str(found.num_truth[row]), str(found.num_predictions[row]), *(percent(value) for value in ap)]
        rows.append(Row(cells=cells, shades=[None, None, None, *ap]))
    total = [str(found.num_truth.sum()), str(found.num_predictions.sum()), percent(found.mean_ap)]
    rows.append(Row(cells=["mean", *total, *(percent(value) for value in found.ap.mean(0))], kind="strong"))
    columns = ["class", "truth", "found", "AP", *(f"{threshold_m:g} m" for threshold_m in found.thresholds_m)]
    return section(
        "map",
        "Online map",
        paragraph(f"Protocol {found.protocol}: average precision of lines under the chamfer distance."),
        table(columns, rows, [("lines", 2), ("average precision [%]", 1 + len(found.thresholds_m))]),
        charts([*map_curves(found), *map_errors(found)]),
    )


def forecast_section(found: ForecastSection) -> str:
    """Both definitions side by side."""
    rows = []
    for row, name in enumerate(found.classes):
        both = [*_forecast_cells(found.published[row]), *_forecast_cells(found.plain[row])]
        rows.append(Row(cells=[spoken(name), str(found.num_truth[row]), str(found.num_predictions[row]), *both], kind="strong"))
        both = [*_forecast_cells(found.baseline_published[row]), *_forecast_cells(found.baseline_plain[row])]
        rows.append(Row(cells=["constant velocity", "", "", *both], kind="muted"))
    groups = [("boxes", 2), *((name.split(":")[0], len(FORECAST_HEADS)) for name in found.protocols)]
    return section(
        "motion",
        "Forecasts",
        paragraph(
            f"Up to {found.horizon_s:g} s, boxes with a score of at least {found.min_score:g}; “car” is all vehicles. "
            + " ".join(f"{name[0].upper()}{name[1:]}." for name in found.protocols)
            + " Constant velocity: the same boxes, each going straight on at the velocity it is said to have, in one mode."
        ),
        *(f"<p><b>{text}</b></p>" for text in _as_good_as_going_on(found)),
        table(["class", "truth", "found", *FORECAST_HEADS, *FORECAST_HEADS], rows, groups),
        charts(forecast_curves(found)),
    )


def plan_section(found: PlanSection) -> str:
    """Every protocol side by side, the baselines below the model; subsets and other horizons folded away."""
    sets = dict.fromkeys((numbers.subset, numbers.horizon_s) for numbers in found.planners[0].numbers)
    first, *others = sets
    parts = [_plan_tables(found, *first)]
    for subset, horizon_s in others:
        count = found.planners[0].get(found.protocols[-1], subset, horizon_s).num_plans
        parts.append(details(f"{_set_name(subset, horizon_s)} ({count} plans)", _plan_tables(found, subset, horizon_s)))
    steady = [
        Row(cells=[spoken(planner.name), number(planner.mean_change_m)], kind="strong" if planner.name == MODEL else "")
        for planner in found.planners
    ]
    return section(
        "plan",
        "Planning (open loop)",
        paragraph(" ".join(PLAN_PROTOCOLS.split())),
        *(f"<p><b>{text}</b></p>" for text in _beaten(found)),
        heading(_set_name(*first)),
        *parts,
        charts(plan_curves(found)),
        heading("Steadiness"),
        paragraph("Mean distance between the plans of one frame and the next at the instants both speak of; 0: carried out as planned."),
        table(["planner", "change [m]"], steady),
    )


def usual_numbers(planner: PlannerResult, protocol: str) -> PlanNumbers:
    """Those of all frames at the usual horizon, which come first."""
    first = planner.numbers[0]
    return planner.get(protocol, first.subset, first.horizon_s)


def _plan_tables(found: PlanSection, subset: str, horizon_s: float) -> str:
    """L2, collisions and kerbs: a row a planner, protocols side by side."""
    parts = []
    for title, values, mean, cell in (
        ("L2 to the driven path [m]", "l2_m", "mean_l2_m", number),
        ("Collisions with objects [%]", "collision_rate", "mean_collision_rate", percent),
        ("Across a kerb [%]", "boundary_rate", "mean_boundary_rate", percent),
    ):
        numbers = {planner.name: [_of(planner, protocol, subset, horizon_s) for protocol in found.protocols] for planner in found.planners}
        shown = [name for name in numbers if not (name == GROUND_TRUTH and values == "l2_m")]
        if any(getattr(one, values) is None for one in numbers[shown[0]]):
            continue
        rows = [
            Row(
                cells=[
                    spoken(name),
                    *(cell(value) for one in numbers[name] for value in _at_seconds(getattr(one, values), getattr(one, mean))),
                ],
                kind={MODEL: "strong", GROUND_TRUTH: "muted"}.get(name, ""),
            )
            for name in shown
        ]
        seconds = [f"{second} s" for second in range(1, round(horizon_s) + 1)] + ["avg"]
        groups = [(f"{PROTOCOL_NAMES.get(one.protocol, one.protocol)} ({one.num_plans})", len(seconds)) for one in numbers[shown[0]]]
        parts += [heading(title), table(["planner (plans)", *seconds * len(groups)], rows, groups)]
    return "".join(parts)


def _of(planner: PlannerResult, protocol: str, subset: str, horizon_s: float) -> PlanNumbers:
    return planner.get(protocol, subset, horizon_s)


def _at_seconds(values: np.ndarray, mean: float) -> Sequence[float]:
    """At whole seconds, and their mean."""
    return [*values[1::2].tolist(), mean]


def _set_name(subset: str, horizon_s: float) -> str:
    return f"{'All frames' if subset == 'all' else f'Frames of the subset “{subset}”'}, {horizon_s:g} s"


def _beaten(found: PlanSection) -> list[str]:
    """Baselines that do as well as the model: the one thing nobody may miss."""
    model, *others = found.planners
    lines = []
    for planner in others:
        rivals = [
            PROTOCOL_NAMES.get(protocol, protocol)
            for protocol in found.protocols
            if planner.name != GROUND_TRUTH and usual_numbers(planner, protocol).mean_l2_m <= usual_numbers(model, protocol).mean_l2_m
        ]
        if rivals:
            lines.append(
                f"The baseline {spoken(planner.name)}, which sees no picture, has an L2 no larger than the model's: {', '.join(rivals)}."
            )
    return lines


def _as_good_as_going_on(found: ForecastSection) -> list[str]:
    """Classes whose forecasts are no better than a straight line."""
    column = FORECAST_NUMBERS.index("min_ade_m")
    beaten = [spoken(name) for row, name in enumerate(found.classes) if found.baseline_plain[row, column] <= found.plain[row, column]]
    return [f"Going straight on has a minADE (plain) no larger than the model's forecasts: {', '.join(beaten)}."] if beaten else []


def _forecast_cells(numbers: np.ndarray) -> list[str]:
    ade_m, fde_m, miss, epa = numbers
    return [number(ade_m), number(fde_m), percent(miss), number(epa)]


def _track_cell(name: str, value: float) -> str:
    return number(value, 0 if name in TRACK_COUNTS else 3)
