"""A page in one file: tables, charts and pictures, with the style inside. No script, nothing is loaded from anywhere."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
from jaxtyping import UInt8

JPEG_QUALITY = 84
SHADE = "31,102,199"

STYLE = """
:root{--ink:#1d2430;--soft:#5b6677;--line:#dfe3ea;--wash:#f5f7fa;--accent:#1f66c7}
*{box-sizing:border-box}
body{margin:0;background:var(--wash);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header>div,nav>div{max-width:1280px;margin:0 auto;padding:0 28px}
header{background:#10131a;color:#e8ecf2;padding:26px 0 22px}
header h1{margin:0 0 2px;font-size:24px}
header p{margin:0;color:#9aa5b8}
dl.facts{display:flex;flex-wrap:wrap;gap:6px 30px;margin:16px 0 0}
dl.facts div{min-width:90px}
dl.facts dt{color:#8b97ab;font-size:12px}
dl.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
nav{background:#fff;border-bottom:1px solid var(--line)}
nav a{display:inline-block;padding:9px 18px 9px 0;color:var(--accent);text-decoration:none;font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:12px;margin:20px 0}
.tile{background:#fff;border:1px solid var(--line);border-radius:8px;padding:12px 16px}
.tile b{display:block;font-size:24px;font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--soft);font-size:12px}
.tile .name{color:var(--ink);font-weight:600;font-size:13px}
section{background:#fff;border:1px solid var(--line);border-radius:8px;padding:8px 24px 20px;margin:20px 0}
h2{font-size:19px;margin:14px 0 2px}
h3{font-size:15px;margin:22px 0 6px}
p{margin:6px 0;max-width:88ch}
.soft{color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:8px 0 4px;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{font-size:12px;color:var(--soft);font-weight:600;vertical-align:bottom}
thead tr:first-child th.group{text-align:center;color:var(--ink)}
th.first,td.first{text-align:left}
.edge{border-left:2px solid var(--line)}
tr.strong td{font-weight:650;background:#eef3fb}
tr.muted td{color:var(--soft)}
.notes{background:#fff7e0;border:1px solid #ecd9a0;border-radius:8px;padding:8px 20px;margin:20px 0}
.notes ul{margin:4px 0;padding-left:20px}
.charts{display:flex;flex-wrap:wrap;align-items:flex-start;gap:10px 14px;margin:10px 0}
.chart{background:#fff;max-width:100%;height:auto}
figure{margin:14px 0}
figure img{display:block;max-width:100%;border-radius:6px}
figcaption{color:var(--soft);margin-top:4px}
details{margin:10px 0}
summary{cursor:pointer;color:var(--accent);font-weight:600}
footer{color:var(--soft);padding:6px 0 40px}
@media print{body{background:#fff}section{break-inside:auto}details{display:block}}
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Cells of a table row; `kind` "strong" stands out, "muted" stands back. `shades` 0 .. 1 tint cells, None leaves them white."""

    cells: Sequence[str]
    kind: str = ""
    shades: Sequence[float | None] = ()


def page(title: str, body: str) -> str:
    """The whole document. `body` is HTML, `title` text."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Row], groups: Sequence[tuple[str, int]] = ()) -> str:
    """A table of text; the first column is to the left. `groups` (name, number of columns) head the columns after the first."""
    starts = set(np.cumsum([1, *(size for _, size in groups)]).tolist()) if groups else set()

    def attributes(column: int) -> str:
        names = ["first"] * (column == 0) + ["edge"] * (column in starts)
        return f' class="{" ".join(names)}"' if names else ""

    over = "".join(f'<th class="group edge" colspan="{size}">{escape(name)}</th>' for name, size in groups)
    head = (f"<tr><th></th>{over}</tr>" if groups else "") + (
        "<tr>" + "".join(f"<th{attributes(index)}>{escape(name)}</th>" for index, name in enumerate(columns)) + "</tr>"
    )
    body = []
    for row in rows:
        shades = [*row.shades, *[None] * (len(row.cells) - len(row.shades))]
        cells = (
            f"<td{attributes(index)}{_tint(shade)}>{escape(cell)}</td>"
            for index, (cell, shade) in enumerate(zip(row.cells, shades, strict=True))
        )
        body.append(f'<tr class="{row.kind}">' + "".join(cells) + "</tr>" if row.kind else "<tr>" + "".join(cells) + "</tr>")
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(body)}</tbody></table></div>\n'


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page under its own heading."""
    return f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>\n{"".join(parts)}</section>\n'


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def paragraph(text: str) -> str:
    """Explaining text."""
    return f'<p class="soft">{escape(text)}</p>\n'


def charts(drawn: Sequence[str]) -> str:
    """Charts side by side, as many as fit."""
    return f'<div class="charts">{"".join(drawn)}</div>\n' if drawn else ""


def details(title: str, *parts: str) -> str:
    """Folded away until asked for."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>\n"


def picture(rgb: UInt8[np.ndarray, "H W 3"], caption: str) -> str:
    """A picture inside the page, as JPEG."""
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok, "OpenCV always has JPEG"
    data, text = base64.b64encode(encoded.tobytes()).decode(), escape(caption)
    return f'<figure><img src="data:image/jpeg;base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>\n'


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point; an en dash where it is not defined."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a percentage, without the sign."""
    return number(None if value is None else 100.0 * value, digits)


def _tint(shade: float | None) -> str:
    return "" if shade is None or not np.isfinite(shade) else f' style="background:rgba({SHADE},{0.42 * min(max(shade, 0.0), 1.0):.2f})"'
