"""One HTML file that says all an evaluation found out: self-contained, without scripts, to be mailed and printed."""

from html import escape
from pathlib import Path

import numpy as np

from sparsedrive.data.prepared import PreparedData, whole_file
from sparsedrive.evaluation.frames import ChosenFrame, best_counts, chosen_frames, plan_error_m
from sparsedrive.evaluation.html import Row, charts, heading, number, page, paragraph, percent, picture, section, table
from sparsedrive.evaluation.plots import plan_overlay
from sparsedrive.evaluation.predictions import PredictionSet
from sparsedrive.evaluation.report_sections import (
    PROTOCOL_NAMES,
    detection_section,
    forecast_section,
    map_section,
    plan_section,
    tracking_section,
    usual_numbers,
)
from sparsedrive.evaluation.results import MODEL, Evaluation
from sparsedrive.evaluation.scenes import frame_picture, predicted_scene
from sparsedrive.structures import Command

NOT_NUSCENES = (
    "Only numbers on nuScenes' own split, with the nuScenes tables as truth, are nuScenes numbers. Scores on the generated world are not "
    "nuScenes scores and cannot be compared with those of papers."
)
OPEN_LOOP = "Plans are judged open loop: nobody reacts to them, and a small L2 is no proof of driving well. The baselines see no picture."
PICTURE_WIDTH_PX = 1600


def write_report(
    evaluation: Evaluation, path: Path | str, *, data: PreparedData | None = None, predictions: PredictionSet | None = None
) -> Path:
    """Write the report; with the data and the predictions it shows the worst frames as pictures. `ValueError`: they are of other frames."""
    path = Path(path)
    text = report_html(evaluation, data=data, predictions=predictions)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def report_html(evaluation: Evaluation, *, data: PreparedData | None = None, predictions: PredictionSet | None = None) -> str:
    """The report as text; see `write_report`."""
    if predictions is not None and predictions.frames.tokens != evaluation.frames.tokens:
        raise ValueError("report: expected predictions of the frames of the evaluation, got those of others; give the files of one run")
    sections = []
    if evaluation.detection is not None:
        sections.append(("det", "Detection", detection_section(evaluation.detection)))
    if evaluation.tracking is not None:
        sections.append(("track", "Tracking", tracking_section(evaluation.tracking)))
    if evaluation.map is not None:
        sections.append(("map", "Map", map_section(evaluation.map)))
    if evaluation.forecasting is not None:
        sections.append(("motion", "Forecasts", forecast_section(evaluation.forecasting)))
    if evaluation.planning is not None:
        sections.append(("plan", "Planning", plan_section(evaluation.planning)))
    sections.append(("scenes", "Scenes", _scene_section(evaluation)))
    sections.append(("frames", "Frames to look at", _frame_section(evaluation, data, predictions)))
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in sections)
    header = evaluation.header
    title = f"{header.preset} on {header.version} / {header.split}"
    body = f"{_head(evaluation)}<nav><div>{links}</div></nav>\n<main>{_tiles(evaluation)}{_notes(evaluation)}"
    body += "".join(text for *_, text in sections)
    return page(title, f"{body}<footer>sparsedrive {escape(header.library)}</footer></main>")


def _head(evaluation: Evaluation) -> str:
    header = evaluation.header
    facts = {
        "data": header.data,
        "version": header.version,
        "split": header.split,
        "scenes": str(header.num_scenes),
        "frames": str(header.num_frames),
        "weights": header.weights or "none (random)",
        "parity options": ", ".join(header.parity) or "none",
        "sparsedrive": header.library,
        "date": header.date,
    }
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return (
        f"<header><div><h1>{escape(header.preset)}</h1><p>Evaluation of detection, tracking, map, forecasts and plan</p>"
        f'<dl class="facts">{items}</dl></div></header>\n'
    )


def _tiles(evaluation: Evaluation) -> str:
    """The numbers asked for first, each with its protocol."""
    tiles = []
    if evaluation.detection is not None:
        found = evaluation.detection
        tiles += [("NDS", number(found.nds), found.protocol), ("mAP, boxes", number(found.mean_ap), found.protocol)]
    if evaluation.tracking is not None:
        tiles.append(("AMOTA", number(evaluation.tracking.mean_amota), evaluation.tracking.protocol))
    if evaluation.map is not None:
        tiles.append(("mAP, map lines", number(evaluation.map.mean_ap), evaluation.map.protocol))
    if evaluation.forecasting is not None:
        forecasts = evaluation.forecasting
        for row, name in enumerate(forecasts.classes):
            beside = f"{_short(forecasts.protocols[0])}; going straight on {number(forecasts.baseline_published[row, 0])} m"
            tiles.append((f"minADE, {name}", f"{number(forecasts.published[row, 0])} m", beside))
    if evaluation.planning is not None:
        for protocol in evaluation.planning.protocols:
            plans = usual_numbers(evaluation.planning.planner(MODEL), protocol)
            collide = f"{percent(plans.mean_collision_rate)} % collide"
            tiles.append(("L2, avg", f"{number(plans.mean_l2_m)} m", f"{PROTOCOL_NAMES.get(protocol, protocol)}; {collide}"))
    drawn = (
        f'<div class="tile"><span class="name">{escape(name)}</span><b>{escape(value)}</b><span>{escape(_short(protocol))}</span></div>'
        for name, value, protocol in tiles
    )
    return f'<div class="tiles">{"".join(drawn)}</div>\n'


def _short(protocol: str) -> str:
    """The first words, up to a bracket or a comma; the section says it all."""
    return protocol.split(" (")[0].split(",")[0]


def _notes(evaluation: Evaluation) -> str:
    """What to know before believing a number."""
    limits = [NOT_NUSCENES] + [OPEN_LOOP] * (evaluation.planning is not None)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*evaluation.header.notes, *limits))
    return f'<div class="notes"><b>Before believing a number</b><ul>{notes}</ul></div>\n'


def _scene_section(evaluation: Evaluation) -> str:
    """A row a scene."""
    frames = evaluation.frames
    columns: dict[str, list[str]] = {"frames": [str((frames.scene == row).sum()) for row in range(len(frames.scene_names))]}

    def by_scene(values: np.ndarray) -> list[float]:
        rows = [values[(frames.scene == row) & np.isfinite(values)] for row in range(len(frames.scene_names))]
        return [float(some.mean()) if len(some) else np.nan for some in rows]

    if evaluation.detection is not None:
        found = evaluation.detection
        right, many, missed = best_counts(found.hits, found.distances_m.index(found.tp_distance_m)).T.astype(float)
        for name, counts in (("boxes right a frame", right), ("too many", many), ("missed", missed)):
            columns[name] = [number(value, 1) for value in by_scene(counts)]
    if evaluation.tracking is not None:
        columns["AMOTA"] = [number(value) for value in evaluation.tracking.scene_amota]
        columns["AMOTP [m]"] = [number(value) for value in evaluation.tracking.scene_amotp_m]
    if evaluation.planning is not None:
        for planner in evaluation.planning.planners[:2]:
            columns[f"mean L2, {planner.name.replace('_', ' ')} [m]"] = [number(v) for v in by_scene(plan_error_m(planner.frame_l2_m))]
    rows = [Row(cells=[name, *(column[row] for column in columns.values())]) for row, name in enumerate(frames.scene_names)]
    text = "Each scene by itself; boxes at the score of the best F1 of their class."
    text += " L2 is the mean over all steps of the plan." * (evaluation.planning is not None)
    return section("scenes", "Scenes", paragraph(text), table(["scene", *columns], rows))


def _frame_section(evaluation: Evaluation, data: PreparedData | None, predictions: PredictionSet | None) -> str:
    """The chosen frames: pictures if there are data and predictions, plans from above if there are plans."""
    chosen = chosen_frames(evaluation)
    text = "The worst frames of each task and one where boxes are good."
    if data is not None and predictions is not None:
        text += " Predictions in colour, annotated boxes as thin white wires."
        parts = [_frame_picture(evaluation, frame, data, predictions) for frame in chosen]
    else:
        parts = [paragraph(_caption(evaluation, frame)) for frame in chosen]
    if evaluation.planning is not None:
        parts.append(heading("Plans from above"))
        parts.append(charts([plan_overlay(evaluation.planning, frame.row, _name(evaluation, frame)) for frame in chosen]))
    return section("frames", "Frames to look at", paragraph(text), *parts)


def _frame_picture(evaluation: Evaluation, chosen: ChosenFrame, data: PreparedData, predictions: PredictionSet) -> str:
    frames = evaluation.frames
    frame = int(frames.number[chosen.row])
    scene = data.scene(frames.scene_names[frames.scene[chosen.row]])
    predicted = predicted_scene(predictions, chosen.row, Command(int(scene.command[frame])))
    rgb = frame_picture(data, scene, frame, predicted, title=_name(evaluation, chosen), width_px=PICTURE_WIDTH_PX)
    return picture(rgb, _caption(evaluation, chosen))


def _caption(evaluation: Evaluation, chosen: ChosenFrame) -> str:
    return f"{_name(evaluation, chosen)}: {chosen.reason} (sample {evaluation.frames.tokens[chosen.row]})"


def _name(evaluation: Evaluation, chosen: ChosenFrame) -> str:
    frames = evaluation.frames
    return f"{frames.scene_names[frames.scene[chosen.row]]}, frame {frames.number[chosen.row]}"
