"""Charts as SVG text, to be set into a page as they are: lines, histograms, spreads. No script, and no font but the reader's own.

Every chart is `WIDTH_PX` wide, in user units; hovering over a line or a bar names it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

from sparsedrive.viz.style import Colour, mix

WIDTH_PX, HEIGHT_PX = 380, 250
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 52, 14, 30, 42
LEGEND_ROW_PX, CHAR_PX, NAMED_ROW_PX, NAMES_PX, STRIP_PX = 15, 6.1, 21, 122, 38
FEW_BINS, MANY_BINS, MANY_VALUES = 12, 25, 2000
PATH_HEIGHT_PX, PATH_MARGIN = 360, 1.0
INK, FAINT, FRAME = "#1d2430", "#e6e9ef", "#9aa4b2"
BLACK: Colour = (0, 0, 0)
PALETTE: tuple[Colour, ...] = (
    (31, 102, 199), (214, 84, 30), (34, 139, 90), (146, 70, 180), (170, 122, 10), (190, 40, 90), (20, 135, 150), (110, 110, 110),
)  # fmt: skip
"""Tells apart up to eight lines on white."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is along an axis, unit included, and its ends; None: as the values ask."""

    label: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A curve; NaN breaks it. One with a single value is a dot."""

    name: str
    x: Float[np.ndarray, "N"]
    y: Float[np.ndarray, "N"]
    colour: Colour
    dashed: bool = False


def on_white(colour: Colour) -> Colour:
    """A colour of the dark pictures, dark enough for a white page."""
    return mix(colour, BLACK, 0.74)


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, *, height_px: int = HEIGHT_PX) -> str:
    """Curves over a common axis, with a legend below when there is more than one. Values that are not finite are left out."""
    known = [(line, np.isfinite(line.x) & np.isfinite(line.y)) for line in lines]
    plot = _Plot.around(x, y, [line.x[ok] for line, ok in known], [line.y[ok] for line, ok in known], height_px=height_px)
    parts = [_drawn_line(plot, line, ok) for line, ok in known]
    legend = [(line.name, line.colour, line.dashed) for line in lines] if len(lines) > 1 else []
    return _svg(title, plot, x.label, y.label, "".join(parts), legend)


def path_chart(title: str, lines: Sequence[Line], x: str, y: str) -> str:
    """Paths on the ground, with a metre as long along `x` as along `y` (labels of the axes). Expects at least one known point."""
    every = np.concatenate([np.stack([line.x, line.y], 1) for line in lines])
    low, high = np.nanmin(every, 0) - PATH_MARGIN, np.nanmax(every, 0) + PATH_MARGIN
    across_per_along = (WIDTH_PX - LEFT_PX - RIGHT_PX) / (PATH_HEIGHT_PX - TOP_PX - BOTTOM_PX)
    wide = max(high[0] - low[0], (high[1] - low[1]) * across_per_along)
    middle = (low[0] + high[0]) / 2
    across = Axis(label=x, low=middle - wide / 2, high=middle + wide / 2)
    along = Axis(label=y, low=low[1], high=low[1] + wide / across_per_along)
    return line_chart(title, lines, across, along, height_px=PATH_HEIGHT_PX)


def histogram(title: str, groups: Mapping[str, Float[np.ndarray, "N"]], colours: Sequence[Colour], x: Axis) -> str:
    """A strip a group, one above the other: share of the group's values in every bin, to one scale. Unknown values do not count.

    The axis ends where 98 % of all values have ended, unless `x.high` says otherwise; the last bin holds all that is larger. Beside a
    strip stands its number of values; groups without any are left out.
    """
    groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
    drawn = [(name, values, colour) for (name, values), colour in zip(groups.items(), colours, strict=False) if len(values)]
    every = np.concatenate([*groups.values(), np.zeros(0)])
    low = 0.0 if x.low is None else x.low
    high = x.high if x.high is not None else (float(np.percentile(every, 98)) if len(every) else 1.0)
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, (FEW_BINS if len(every) < MANY_VALUES else MANY_BINS) + 1)
    shares = [100.0 * np.histogram(np.clip(values, low, high), edges)[0] / len(values) for _, values, _ in drawn]
    top = 1.08 * max((float(share.max()) for share in shares), default=1.0)
    rows = max(len(drawn), 1)
    height_px = TOP_PX + BOTTOM_PX + STRIP_PX * rows
    across, strips = Axis(label=x.label, low=low, high=high), Axis(label="", low=0.0, high=float(rows))
    plot = _Plot.around(across, strips, [], [], left_px=NAMES_PX, height_px=height_px)
    parts = [
        _strip(plot, Line(name=f"{name} ({len(values)})", x=edges, y=share / top, colour=colour), rows - row - 1, (name, f"{len(values)}"))
        for row, ((name, values, colour), share) in enumerate(zip(drawn, shares, strict=True))
    ]
    scale = _share_mark(plot, top, rows) if drawn else ""
    return _svg(title, plot, x.label, "", scale + "".join(parts), [], rows_named=True)


def spread_chart(title: str, groups: Mapping[str, Float[np.ndarray, "N"]], colours: Sequence[Colour], x: Axis) -> str:
    """A row a group: thin from 5 to 95 %, thick from 25 to 75 % of its values, a mark at the median. Groups without values stay empty."""
    groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
    quantiles = {name: np.percentile(values, (5, 25, 50, 75, 95)) for name, values in groups.items() if len(values)}
    rows = len(groups)
    axis = Axis(label=x.label, low=0.0 if x.low is None else x.low, high=x.high)
    height_px = TOP_PX + BOTTOM_PX + NAMED_ROW_PX * max(rows, 1)
    rest = Axis(label="", low=0.0, high=float(max(rows, 1)))
    plot = _Plot.around(axis, rest, list(quantiles.values()), [], left_px=NAMES_PX, height_px=height_px)
    parts = []
    for row, (name, colour) in enumerate(zip(groups, colours, strict=False)):
        y = float(plot.y_px(rows - row - 0.5))
        parts.append(_text(plot.left_px - 8, y + 4, name, anchor="end"))
        if name in quantiles:
            at, fill = plot.x_px(quantiles[name]), _hex(colour)
            label = f"{name}: median {quantiles[name][2]:.3g}, 5 to 95 %: {quantiles[name][0]:.3g} to {quantiles[name][4]:.3g}"
            parts.append(
                f"<g><title>{escape(label)}, {len(groups[name])} values</title>"
                f'<line x1="{at[0]:.1f}" x2="{at[4]:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{fill}" stroke-width="1.5"/>'
                f'<rect x="{at[1]:.1f}" y="{y - 4:.1f}" width="{max(at[3] - at[1], 1.0):.1f}" height="8" '
                f'fill="{fill}" fill-opacity="0.55"/>'
                f'<line x1="{at[2]:.1f}" x2="{at[2]:.1f}" y1="{y - 6:.1f}" y2="{y + 6:.1f}" stroke="{INK}" stroke-width="2"/></g>'
            )
    return _svg(title, plot, x.label, "", "".join(parts), [], rows_named=True)


def ticks(low: float, high: float, about: int = 5) -> Float[np.ndarray, "K"]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) between `low` and `high`."""
    span = (high - low) / max(about, 1)
    power = 10.0 ** np.floor(np.log10(span))
    step = next(step for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= span * (1 - 1e-9)) * power
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return np.arange(int(first), int(last) + 1) * step


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """The rectangle that curves are drawn in, and which values its sides stand for."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    left_px: int
    height_px: int

    @classmethod
    def around(
        cls, x: Axis, y: Axis, all_x: list[np.ndarray], all_y: list[np.ndarray], *, left_px: int = LEFT_PX, height_px: int = HEIGHT_PX
    ) -> "_Plot":
        low_x, high_x = _ends(x, all_x, margin=0.04 if y.label == "" else 0.0)
        low_y, high_y = _ends(y, all_y, margin=0.06)
        return cls(low_x=low_x, high_x=high_x, low_y=low_y, high_y=high_y, left_px=left_px, height_px=height_px)

    def x_px(self, values: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.interp(values, [self.low_x, self.high_x], [self.left_px, WIDTH_PX - RIGHT_PX]))

    def y_px(self, values: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.interp(values, [self.low_y, self.high_y], [self.height_px - BOTTOM_PX, TOP_PX]))


def _ends(axis: Axis, values: list[np.ndarray], margin: float) -> tuple[float, float]:
    every = np.concatenate([*values, np.zeros(0)])
    low = axis.low if axis.low is not None else float(every.min(initial=np.inf)) if len(every) else 0.0
    high = axis.high if axis.high is not None else low + (float(every.max()) - low) * (1 + margin) if len(every) else low + 1.0
    return low, high if high > low else low + 1.0


def _drawn_line(plot: _Plot, line: Line, known: np.ndarray) -> str:
    """The pieces between unknown values."""
    style = f'stroke="{_hex(line.colour)}"' + (' stroke-dasharray="5 4"' if line.dashed else "")
    x, y = plot.x_px(line.x), plot.y_px(line.y)
    pieces = []
    for rows in np.split(np.arange(len(known)), np.flatnonzero(~known)):
        rows = rows[known[rows]]
        if len(rows) == 1:
            pieces.append(f'<circle cx="{x[rows[0]]:.1f}" cy="{y[rows[0]]:.1f}" r="2.5" fill="{_hex(line.colour)}"/>')
        elif len(rows):
            points = " ".join(f"{x[row]:.1f},{y[row]:.1f}" for row in rows)
            pieces.append(f'<polyline points="{points}" fill="none" stroke-width="1.8" stroke-linejoin="round" {style}/>')
    return f"<g><title>{escape(line.name)}</title>{''.join(pieces)}</g>" if pieces else ""


def _strip(plot: _Plot, bars: Line, base: int, label: tuple[str, str]) -> str:
    """Bars of heights `y` between edges `x`, on the line `base`, with two lines of text at the left."""
    outline = Line(name=bars.name, x=np.repeat(bars.x, 2)[1:-1], y=base + np.repeat(bars.y, 2), colour=bars.colour)
    corners = " ".join(f"L{x:.1f},{y:.1f}" for x, y in zip(plot.x_px(outline.x), plot.y_px(outline.y), strict=True))
    left, right, bottom = plot.left_px, WIDTH_PX - RIGHT_PX, float(plot.y_px(base))
    fill = f'<path d="M{left},{bottom:.1f} {corners} L{right},{bottom:.1f} Z" fill="{_hex(bars.colour)}" fill-opacity="0.35"/>'
    floor = f'<line x1="{left}" x2="{right}" y1="{bottom:.1f}" y2="{bottom:.1f}" stroke="{FRAME}"/>'
    middle = float(plot.y_px(base + 0.5))
    names = "".join(_text(left - 8, middle + y, text, anchor="end") for y, text in zip((-3, 11), label, strict=True))
    return fill + floor + _drawn_line(plot, outline, np.full(len(outline.x), True)) + names


def _share_mark(plot: _Plot, top: float, rows: int) -> str:
    """A round share of the strips' scale, as a line across each of them, named at the top left."""
    share, right = float(ticks(0.0, top, 2)[-1]), WIDTH_PX - RIGHT_PX
    heights = [float(plot.y_px(row + share / top)) for row in range(rows)]
    lines = [f'<line x1="{plot.left_px}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FRAME}" stroke-dasharray="2 3"/>' for y in heights]
    return "".join(lines) + _text(plot.left_px - 8, 18, f"dotted: {share:g} %", anchor="end")


def _svg(
    title: str, plot: _Plot, x_label: str, y_label: str, body: str, legend: list[tuple[str, Colour, bool]], *, rows_named: bool = False
) -> str:
    """Title, grid, ticks and labels around what was drawn."""
    bottom, right = plot.height_px - BOTTOM_PX, WIDTH_PX - RIGHT_PX
    parts = []
    for value in ticks(plot.low_x, plot.high_x):
        at = float(plot.x_px(value))
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP_PX}" y2="{bottom}" stroke="{FAINT}"/>')
        parts.append(_text(at, bottom + 14, f"{value:g}", anchor="middle"))
    for value in [] if rows_named else ticks(plot.low_y, plot.high_y):
        at = float(plot.y_px(value))
        parts.append(f'<line x1="{plot.left_px}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{FAINT}"/>')
        parts.append(_text(plot.left_px - 6, at + 4, f"{value:g}", anchor="end"))
    parts.append(
        f'<rect x="{plot.left_px}" y="{TOP_PX}" width="{right - plot.left_px}" height="{bottom - TOP_PX}" fill="none" stroke="{FRAME}"/>'
    )
    middle_y = (TOP_PX + bottom) / 2
    parts += [body, _text((plot.left_px + right) / 2, bottom + 31, x_label, anchor="middle")]
    if y_label:
        parts.append(f'<g transform="rotate(-90 12 {middle_y})">{_text(12, middle_y + 3, y_label, anchor="middle")}</g>')
    drawn_legend, legend_px = _legend(legend, plot.height_px)
    height_px = plot.height_px + legend_px
    return (
        f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH_PX} {height_px}" '
        f'width="{WIDTH_PX}" height="{height_px}" font-family="system-ui, sans-serif" font-size="11" fill="{INK}">'
        f'<text x="{plot.left_px}" y="18" font-size="13" font-weight="600">{escape(title)}</text>{"".join(parts)}{drawn_legend}</svg>'
    )


def _legend(entries: list[tuple[str, Colour, bool]], top_px: int) -> tuple[str, int]:
    """Rows of names below the chart, and their height."""
    parts, x, row = [], float(LEFT_PX), 0
    for name, colour, dashed in entries:
        wide = 22 + CHAR_PX * len(name) + 12
        if x > LEFT_PX and x + wide > WIDTH_PX:
            x, row = float(LEFT_PX), row + 1
        y = top_px + LEGEND_ROW_PX * row + 4
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(f'<line x1="{x:.1f}" x2="{x + 16:.1f}" y1="{y}" y2="{y}" stroke="{_hex(colour)}" stroke-width="2.5"{dash}/>')
        parts.append(_text(x + 20, y + 4, name))
        x += wide
    return "".join(parts), LEGEND_ROW_PX * (row + 1) if entries else 0


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
