"""The picture of a robustness test: scenarios down, measures across, every cell how much of the clean score is kept."""

from html import escape

import numpy as np

from sparsedrive.evaluation.robustness_results import MEASURES, RobustnessResult
from sparsedrive.viz.style import Colour, mix

NAMES_PX, CELL_WIDTH_PX, CELL_HEIGHT_PX, HEAD_PX, GAP_PX, FOOT_PX = 190, 74, 22, 66, 10, 46
LOST: Colour = (178, 70, 20)
MORE: Colour = (31, 102, 199)
PAPER: Colour = (255, 255, 255)
INK, SOFT, EMPTY = "#1d2430", "#5b6677", "#eef0f4"
HALF = 0.5
MOST = 10.0
"""Beyond, the clean score was next to nothing."""


def matrix_picture(result: RobustnessResult, reference: RobustnessResult | None = None) -> str:
    """SVG text of the matrix; `reference` is the model whose clean scores are to be kept (None: the result's own)."""
    reference = reference or result
    parts, y, group = [], float(HEAD_PX), ""
    for row in result.scenarios[1:]:
        y += GAP_PX * (row.group != group and bool(group))
        group = row.group
        parts.append(_text(NAMES_PX - 10, y + 15, row.name, anchor="end", title=row.text))
        for column, measure in enumerate(MEASURES):
            kept = measure.retention(row, reference)
            hint = f"{row.name}, {measure.title}: {measure.value(row):.3f}, clean {measure.clean(row, reference):.3f}"
            parts.append(_cell(_left(column), y, kept, hint))
        y += CELL_HEIGHT_PX
    width, height = _left(len(MEASURES)) + 8, y + FOOT_PX
    title = f"{result.label}: how much of the clean score {'of ' + reference.label + ' ' if reference is not result else ''}is kept [%]"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="8" y="20" font-size="14" font-weight="600">{escape(title)}</text>'
        f"{_head()}{''.join(parts)}{_legend(y + 16)}</svg>"
    )


def _left(column: int) -> float:
    """Left edge of a column; those of the blind sector stand apart."""
    return NAMES_PX + column * CELL_WIDTH_PX + GAP_PX * (column > 0 and MEASURES[min(column, len(MEASURES) - 1)].blind)


def _head() -> str:
    parts, middle = [], CELL_WIDTH_PX / 2
    for blind, name in ((False, "whole scene"), (True, "blind sector")):
        columns = [column for column, measure in enumerate(MEASURES) if measure.blind == blind]
        parts.append(_text((_left(columns[0]) + _left(columns[-1]) + CELL_WIDTH_PX) / 2, 42, name, anchor="middle", colour=SOFT))
        parts += [_text(_left(column) + middle, 59, MEASURES[column].title, anchor="middle") for column in columns]
    return "".join(parts)


def _cell(x: float, y: float, kept: float, hint: str) -> str:
    colour = _hex(_colour(kept)) if np.isfinite(kept) else EMPTY
    ink = "#fff" if np.isfinite(kept) and kept < HALF else INK
    text = "–" if not np.isfinite(kept) else f"{100 * kept:.0f}" if kept < MOST else f"> {100 * MOST:.0f}"
    return (
        f"<g><title>{escape(hint)}</title>"
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{CELL_WIDTH_PX - 2}" height="{CELL_HEIGHT_PX - 2}" rx="2" fill="{colour}"/>'
        f"{_text(x + CELL_WIDTH_PX / 2 - 1, y + 15, text, anchor='middle', colour=ink)}</g>"
    )


def _colour(kept: float) -> Colour:
    """Paper where all is kept, towards one colour for less, towards another for more than all."""
    return mix(LOST, PAPER, float(np.clip(1 - kept, 0, 1))) if kept <= 1 else mix(MORE, PAPER, float(np.clip(kept - 1, 0, 0.6)))


def _legend(y: float) -> str:
    parts, x = [], float(NAMES_PX)
    for kept in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25):
        parts.append(_cell(x, y, kept, "legend"))
        x += CELL_WIDTH_PX
    return "".join(parts) + _text(NAMES_PX - 10, y + 15, "kept, errors inverted", anchor="end", colour=SOFT)


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{inside}{escape(text)}</text>'


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
