"""The page of a robustness test: the matrix, all numbers, metric over time since the failure, and comparisons. One file, no script."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from sparsedrive.data.prepared import whole_file
from sparsedrive.evaluation.html import Row, charts, details, number, page, paragraph, percent, section, table
from sparsedrive.evaluation.robustness_compare import Gains
from sparsedrive.evaluation.robustness_matrix import matrix_picture
from sparsedrive.evaluation.robustness_results import (
    MEASURES,
    PLAN_SECONDS,
    RobustnessResult,
    ScenarioResult,
    SectorScores,
    check_comparable,
    robobev,
)
from sparsedrive.viz.charts import PALETTE, Axis, Line, line_chart

ABOUT_RETENTION = (
    "Every cell is the score with failures as a percentage of the score on the clean pictures; of an error (L2) the other way round, "
    "so 100 is always: nothing lost. EPA counts forecasts that are right, less half of the boxes that are none, over all true ones. "
    "The blind sector is what only lost cameras would see; its clean score is of the same sector."
)
ABOUT_BLIND = (
    "Boxes and lines whose centre lies in the picture of a lost camera and of no working one. Clean: the same sector on the clean "
    "pictures. Recall and false alarms are those of believed boxes: within 2 m, with the score that has the best F1 on the clean pictures. "
    "Overconfidence is their mean score less the share of them that is right."
)
ABOUT_GAIN = (
    "Blind-sector mAP of boxes, mean over the scenarios of a group, with the 95 % interval of the difference over scenes. G is the share "
    "of what the failure cost the baseline that the model wins back: 0 is of no use, 1 as if nothing had failed. A gain counts where the "
    "interval excludes 0 and the clean score is not lower by more than half a point."
)
ABOUT_PLAN = (
    "Open-loop plans depend little on what is seen, so they say little about failures. Collisions are plans that touch an object by then "
    'in the future as it was (protocol "plain"), out of so many: at such rates look at the counts.'
)


def write_page(
    result: RobustnessResult, path: Path | str, *, plain: RobustnessResult | None = None, compared: Sequence[Gains] = ()
) -> Path:
    """Write the page.

    Args:
        plain: the model without any measure against failures; adds retention of its clean score, and mCE.
        compared: what the model gains over others.

    `ValueError`: `plain` is of other frames or other lists.
    """
    path = Path(path)
    text = page_html(result, plain=plain, compared=compared)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def page_html(result: RobustnessResult, *, plain: RobustnessResult | None = None, compared: Sequence[Gains] = ()) -> str:
    """The page as text; see `write_page`."""
    if plain is not None:
        check_comparable(result, plain)
    parts = [("matrix", "What is kept", _matrix_section(result, plain))]
    if compared:
        parts.append(("gain", "Gain", section("gain", "Gain", paragraph(ABOUT_GAIN), *map(gain_table, compared))))
    parts.append(("blind", "Blind sector", _blind_section(result)))
    if any(one.onset is not None for one in result.scenarios):
        parts.append(("onset", "Since the failure", _onset_section(result)))
    parts.append(("whole", "Whole scene", _whole_section(result)))
    parts.append(("lists", "Scenarios", _list_section(result)))
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in parts)
    body = f"{_head(result)}<nav><div>{links}</div></nav>\n<main>{_tiles(result, plain)}{_notes(result)}"
    return page(
        f"Camera failures: {result.label}",
        f"{body}{''.join(text for *_, text in parts)}<footer>sparsedrive {escape(result.header.library)}</footer></main>",
    )


def gain_table(found: Gains) -> str:
    """One comparison as a table."""
    rows = []
    for one in found.groups:
        blind = one.blind
        sure = "yes" if blind.low > 0 else "worse" if blind.high < 0 else "no"
        interval = f"{100 * blind.low:+.2f} .. {100 * blind.high:+.2f}"
        difference = f"{100 * blind.difference:+.2f}"
        values = [percent(blind.a), percent(blind.b), difference, interval, sure, percent(one.clean), number(one.gain, 2)]
        rows.append(Row(cells=[f"{one.group} ({len(one.names)})", *values], kind="strong" if "+" in one.group else ""))
    clean = found.clean
    interval = f"{100 * clean.low:+.2f} .. {100 * clean.high:+.2f}"
    rows.append(
        Row(
            cells=["clean, whole scene", percent(clean.a), percent(clean.b), f"{100 * clean.difference:+.2f}", interval, "", "", ""],
            kind="muted",
        )
    )
    columns = ["scenarios", found.baseline, found.method, "difference", "95 % interval", "sure", "baseline, clean", "G"]
    return table(columns, rows)


def _head(result: RobustnessResult) -> str:
    header = result.header
    facts = {
        "preset": header.preset,
        "weights": header.weights or "none (random)",
        "data": header.data,
        "split": header.split,
        "scenes": str(header.num_scenes),
        "frames": str(header.num_frames),
        "suite": f"{result.suite}, {len(result.scenarios)} scenarios, seed {result.seed}",
        "sparsedrive": header.library,
        "date": header.date,
    }
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return (
        f'<header><div><h1>{escape(result.label)}</h1><p>What is left when cameras fail</p><dl class="facts">{items}</dl></div></header>\n'
    )


def _tiles(result: RobustnessResult, plain: RobustnessResult | None) -> str:
    clean, retained = result.clean.whole, robobev(result, plain)
    tiles = [("mAP, boxes, clean", percent(clean.box_map), "%"), ("NDS, clean", percent(clean.nds), "%")]
    for group in ("S1", "S2a", "O", "I", "R"):
        rows = [one for one in result.scenarios if one.group == group]
        kept = [percent(_mean([measure.retention(one, result) for one in rows]), 0) for measure in (MEASURES[0], MEASURES[6])]
        if rows:
            tiles.append((f"kept in {group}", f"{kept[0]} % / {kept[1]} %", "boxes mAP: whole scene / blind sector"))
    if np.isfinite(retained[0]):
        tiles.append(("mRR", f"{percent(retained[0], 1)} %", "crash and lost frames of RoboBEV, NDS"))
    if np.isfinite(retained[1]):
        tiles.append(("mCE", f"{percent(retained[1], 1)} %", "the same, against the plain model"))
    drawn = (
        f'<div class="tile"><span class="name">{escape(name)}</span><b>{escape(value)}</b><span>{escape(beside)}</span></div>'
        for name, value, beside in tiles
    )
    return f'<div class="tiles">{"".join(drawn)}</div>\n'


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _notes(result: RobustnessResult) -> str:
    """What to know before believing a number."""
    notes = [*result.header.notes, "Only numbers on nuScenes' own split are nuScenes numbers; scores on the generated world are not."]
    if result.header.num_scenes < 10:
        few = f"With few scenes (here {result.header.num_scenes}) numbers of single scenarios swing, and intervals are too narrow."
        notes.append(few)
    return f'<div class="notes"><b>Before believing a number</b><ul>{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul></div>\n'


def _matrix_section(result: RobustnessResult, plain: RobustnessResult | None) -> str:
    parts = [paragraph(ABOUT_RETENTION), f'<div class="scroll">{matrix_picture(result)}</div>']
    if plain is not None:
        text = "The same, as a share of the plain model's clean score: a model cannot win by being worse when nothing fails."
        parts += [paragraph(text), f'<div class="scroll">{matrix_picture(result, plain)}</div>']
    return section("matrix", "What is kept", *parts)


def _blind_section(result: RobustnessResult) -> str:
    def cells(one: ScenarioResult, now: SectorScores, clean: SectorScores) -> list[str]:
        pairs = ((now.box_map, clean.box_map), (now.recall, clean.recall), (now.line_map, clean.line_map))
        values = [percent(value, 1) for pair in pairs for value in pair]
        values += [
            number(value, 2)
            for pair in ((now.false_alarms, clean.false_alarms), (now.overconfidence, clean.overconfidence))
            for value in pair
        ]
        return [one.name, str(now.num_boxes), str(now.num_lines), *values]

    columns = ["scenario", "boxes", "lines", *["failing", "clean"] * 5]
    groups = [("truth", 2), ("boxes mAP", 2), ("recall", 2), ("map mAP", 2), ("false alarms a frame", 2), ("overconfidence", 2)]
    blind = [Row(cells=cells(one, one.blind, one.clean_blind)) for one in result.scenarios[1:]]
    rest = [Row(cells=cells(one, one.rest, one.clean_rest)) for one in result.scenarios]
    beside = details("The rest of the scene: what a working camera sees, and what no camera does", table(columns, rest, groups))
    return section("blind", "Blind sector", paragraph(ABOUT_BLIND), table(columns, blind, groups), beside)


def _onset_section(result: RobustnessResult) -> str:
    drawn = []
    for one in result.scenarios:
        if one.onset is not None:
            frames = np.arange(len(one.onset.recall), dtype=float)
            lines = [
                Line(name="failing", x=frames, y=one.onset.recall, colour=PALETTE[1]),
                Line(name="clean", x=frames, y=one.onset.clean_recall, colour=PALETTE[0], dashed=True),
            ]
            ahead = Axis(label="frames since the failure", low=0.0, high=float(frames[-1]))
            drawn.append(line_chart(one.name, lines, ahead, Axis(label="recall, blind sector", low=0.0, high=1.0)))
    text = "What a model remembers: recall of boxes in the blind sector (within 2 m, believed ones) after a camera has died."
    return section("onset", "Since the failure", paragraph(text), charts(drawn))


def _whole_section(result: RobustnessResult) -> str:
    shares = ("box_map", "nds", "amota", "line_map", "miss_rate", "epa")
    metres = ("min_ade_m", "min_fde_m", "l2_m", "mean_l2_m")
    columns = ["scenario", "pictures lost", "boxes mAP", "NDS", "AMOTA", "map mAP", "car miss rate", "car EPA"]
    columns += ["car minADE", "car minFDE", "L2 at", "L2 up to", *(f"collided by {second} s" for second in PLAN_SECONDS)]
    rows = []
    for one in result.scenarios:
        values = [percent(getattr(one.whole, name), 1) for name in shares] + [number(getattr(one.whole, name), 2) for name in metres]
        counts = [f"{hit} / {judged}" for hit, judged in zip(one.collided, one.judged, strict=True)]
        rows.append(Row(cells=[one.name, percent(one.lost_share, 1), *values, *counts], kind="strong" if one is result.clean else ""))
    groups = [("%", 7), ("metres", 4), ("plans", 3)]
    classes = [Row(cells=[one.name, *(percent(value, 1) for value in one.ap)]) for one in result.scenarios]
    parts = [table(columns, rows, groups), details("AP of boxes by class", table(["scenario", *result.classes], classes))]
    return section("whole", "Whole scene", paragraph(ABOUT_PLAN), *parts)


def _list_section(result: RobustnessResult) -> str:
    rows = [Row(cells=[one.name, percent(one.lost_share, 1), one.digest[:12], one.text]) for one in result.scenarios]
    text = "Failed cameras are black and announced, unless said otherwise. Equal digests (SHA-256) are equal lists of failures."
    return section("lists", "Scenarios", paragraph(text), table(["scenario", "pictures lost [%]", "digest", "what happens"], rows))
