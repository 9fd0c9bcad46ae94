"""Results of an evaluation as tables for a terminal, every one under the name of its protocol."""

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from sparsedrive.evaluation.official import Comparison, largest_difference
from sparsedrive.evaluation.results import (
    DetectionSection,
    Evaluation,
    ForecastSection,
    MapSection,
    PlanNumbers,
    PlanSection,
    TrackingSection,
)

TRACKING_COLUMNS = ("recall", "mota", "motp", "mt", "ml", "fp", "fn", "ids", "frag")
TEXT_COLUMNS = ("class", "forecast", "number", "planner", "protocol")
COUNTS = ("mt", "ml", "fp", "fn", "ids", "frag")


def show(result: Evaluation) -> Iterator[Table | str]:
    """What to print, one after the other."""
    header = result.header
    weights = header.weights or "random weights"
    parity = f", parity: {', '.join(header.parity)}" if header.parity else ""
    size = f"{header.num_scenes} scenes, {header.num_frames} frames"
    yield f"{header.preset} ({weights}{parity}) on {header.data}, split {header.split!r}: {size}"
    if result.detection is not None:
        yield _detection(result.detection)
    if result.tracking is not None:
        yield _tracking(result.tracking)
    if result.map is not None:
        yield _map(result.map)
    if result.forecasting is not None:
        yield _forecasts(result.forecasting)
    if result.planning is not None:
        yield _plan(result.planning)
        if result.planning.turning.any():
            yield _plan_turning(result.planning)


def headline(result: Evaluation) -> Iterator[str]:
    """The few numbers to look at first, a line a task."""
    yield f"measured  {result.header.num_frames} frames of {result.header.num_scenes} drives"
    if (boxes := result.detection) is not None:
        car, near = boxes.classes.index("car"), boxes.distances_m.index(2.0)
        yield f"boxes     mAP {_number(boxes.mean_ap)}, NDS {_number(boxes.nds)}, cars within 2 m AP {_number(boxes.ap[car, near])}"
    if (tracks := result.tracking) is not None:
        yield f"tracks    AMOTA {_number(tracks.mean_amota)}"
    if (lines := result.map) is not None:
        wide = lines.thresholds_m.index(max(lines.thresholds_m))
        parts = (f"{name} {_number(lines.ap[row, wide])}" for row, name in enumerate(lines.classes))
        yield f"map       mAP {_number(lines.mean_ap)}, within {lines.thresholds_m[wide]:g} m: {', '.join(parts)}"
    if (plans := result.planning) is not None:
        parts = (f"{planner.name} {_number(planner.get('plain').l2_m[3], 2)} m" for planner in plans.planners)
        yield f"plan      distance to the driven path after 2 s: {', '.join(parts)}"


def comparison(pairs: Sequence[Comparison]) -> Table:
    """Our numbers and the devkit's."""
    table = _table(f"official devkit (largest difference {largest_difference(list(pairs)):.1e})", "number", "ours", "devkit")
    for pair in pairs:
        table.add_row(pair.name, _number(pair.ours, 6), _number(pair.official, 6))
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, caption_style="")
    for column in (first, *columns):
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", no_wrap=True)
    return table


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return _number(100 * value, 2)


def _detection(found: DetectionSection) -> Table:
    heads = [*(f"AP {m:g} m" for m in found.distances_m), "ATE m", "ASE", "AOE rad", "AVE m/s", "AAE", "truth", "said"]
    table = _table(f"detection: {found.protocol}; truth: {found.truth}", "class", "AP", *heads)
    for row, name in enumerate(found.classes):
        numbers = [found.ap[row].mean(), *found.ap[row], *found.error[row]]
        table.add_row(name, *map(_number, numbers), str(found.num_truth[row]), str(found.num_predictions[row]))
    table.add_section()
    numbers = [found.mean_ap, *found.ap.mean(0), *found.mean_error]
    table.add_row("mean", *map(_number, numbers), str(found.num_truth.sum()), str(found.num_predictions.sum()))
    table.caption, table.caption_justify = f"mAP {found.mean_ap:.4f}   NDS {found.nds:.4f}", "left"
    return table


def _tracking(found: TrackingSection) -> Table:
    names = {"recall": "recall", "motp": "MOTP m"}
    heads = [names.get(name, name.upper()) for name in TRACKING_COLUMNS]
    table = _table(f"tracking: {found.protocol}; truth: {found.truth}", "class", "AMOTA", "AMOTP m", *heads)

    def cells(values: Sequence[float]) -> list[str]:
        of_name = dict(zip(found.score_names, values, strict=True))
        return [_number(of_name[name], 0 if name in COUNTS else 3) for name in TRACKING_COLUMNS]

    for row, name in enumerate(found.classes):
        table.add_row(name, _number(found.amota[row]), _number(found.amotp_m[row]), *cells(found.best[row].tolist()))
    table.add_section()
    table.add_row("all", _number(found.mean_amota), _number(found.mean_amotp_m), *cells(found.mean.tolist()))
    return table


def _map(found: MapSection) -> Table:
    table = _table(f"map: {found.protocol}", "class", "AP", *(f"AP {m:g} m" for m in found.thresholds_m), "truth", "said")
    for row, name in enumerate(found.classes):
        numbers = [found.ap[row].mean(), *found.ap[row]]
        table.add_row(name, *map(_number, numbers), str(found.num_truth[row]), str(found.num_predictions[row]))
    table.add_section()
    table.add_row(
        "mean", _number(found.mean_ap), *map(_number, found.ap.mean(0)), str(found.num_truth.sum()), str(found.num_predictions.sum())
    )  # fmt: skip
    return table


def _forecasts(found: ForecastSection) -> Table:
    title = f"forecasts: {found.horizon_s:g} s, boxes with score >= {found.min_score:g}"
    table = _table(title, "protocol", "class", "forecast", "minADE m", "minFDE m", "miss %", "EPA", "truth", "said")
    both = zip(found.protocols, (found.published, found.plain), (found.baseline_published, found.baseline_plain), strict=True)
    for protocol, model, baseline in both:
        for row, name in enumerate(found.classes):
            counts = str(found.num_truth[row]), str(found.num_predictions[row])
            for forecast, numbers in (("model", model), ("constant velocity", baseline)):
                ade_m, fde_m, miss, epa = numbers[row].tolist()
                cells = _number(ade_m), _number(fde_m), _percent(miss), _number(epa)
                table.add_row(protocol.split(":")[0], name, forecast, *cells, *counts)
        table.add_section()
    table.caption = "\n".join([*found.protocols, "constant velocity: the model's own boxes, each going straight on, in one mode"])
    table.caption_justify = "left"
    return table


def _plan(found: PlanSection) -> Table:
    """Every protocol and planner at whole seconds."""
    usual = [one for one in found.planners[0].numbers if one.subset == "all"]
    seconds = range(1, round(max(one.horizon_s for one in usual)) + 1)
    heads = [*(f"L2 {s} s m" for s in seconds), "avg", *(f"hit {s} s %" for s in seconds), "avg", "kerb avg %", "plans"]
    table = _table("plan: all frames, every protocol (metrics.planning says what each counts)", "protocol", "planner", *heads)
    for key in usual:
        for planner in found.planners:
            numbers = planner.get(key.protocol, "all", key.horizon_s)
            table.add_row(f"{key.protocol}, {key.horizon_s:g} s", planner.name, *_plan_cells(numbers, len(seconds)))
        table.add_section()
    changes = ", ".join(f"{planner.name} {_number(planner.mean_change_m)} m" for planner in found.planners)
    table.caption, table.caption_justify = f"change from the plan of the frame before: {changes}", "left"
    return table


def _plan_cells(numbers: PlanNumbers, seconds: int) -> list[str]:
    known = round(numbers.horizon_s)
    l2_m = [_number(value) for value in numbers.l2_m[1::2]] + [""] * (seconds - known)
    hits = [_percent(value) for value in numbers.collision_rate[1::2]] + [""] * (seconds - known)
    averages = _number(numbers.mean_l2_m), _percent(numbers.mean_collision_rate), _percent(numbers.mean_boundary_rate)
    return [*l2_m, averages[0], *hits, averages[1], averages[2], str(numbers.num_plans)]


def _plan_turning(found: PlanSection) -> Table:
    """The frames where the vehicle turns, by protocol: where going straight on is not enough."""
    keys = [one for one in found.planners[0].numbers if one.subset == "turning"]
    heads = [f"{key.protocol} {key.horizon_s:g} s" for key in keys]
    count = int(found.turning.sum())
    table = _table(f"plan: the {count} of {len(found.turning)} frames in which the vehicle turns; mean L2 m / hit %", "planner", *heads)
    for planner in found.planners:
        numbers = [planner.get(key.protocol, key.subset, key.horizon_s) for key in keys]
        table.add_row(planner.name, *(f"{_number(one.mean_l2_m)} / {_percent(one.mean_collision_rate)}" for one in numbers))
    return table
