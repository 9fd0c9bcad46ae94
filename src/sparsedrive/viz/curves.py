"""Curves over training steps as a picture, so that a run can be judged at a glance."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

PANEL_WH_PX, MARGIN_PX, COLUMNS = (420, 260), 46, 3
INK, FAINT, LINE, SMOOTH = (60, 60, 60), (225, 225, 225), (200, 205, 235), (40, 70, 190)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_curves(steps: Sequence[float], curves: Mapping[str, Sequence[float]]) -> UInt8[np.ndarray, "H W 3"]:
    """One panel a curve: the values, and a running mean in dark. RGB."""
    panels = [_panel(name, np.asarray(steps, float), np.asarray(values, float)) for name, values in curves.items()]
    empty = np.full((PANEL_WH_PX[1], PANEL_WH_PX[0], 3), 255, np.uint8)
    panels += [empty] * (-len(panels) % COLUMNS)
    return np.vstack([np.hstack(panels[row : row + COLUMNS]) for row in range(0, len(panels), COLUMNS)])


def _panel(name: str, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    (width, height), picture = PANEL_WH_PX, np.full((PANEL_WH_PX[1], PANEL_WH_PX[0], 3), 255, np.uint8)
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    cv2.putText(picture, name, (MARGIN_PX, 22), FONT, 0.5, INK, 1, cv2.LINE_AA)
    if len(values) == 0:
        return picture
    low, high = min(0.0, values.min()), max(np.percentile(values, 98) * 1.05, values.min() + 1e-9)
    x_of = np.interp(steps, [steps[0], max(steps[-1], steps[0] + 1)], [MARGIN_PX, width - 12])

    def y_of(value: np.ndarray) -> np.ndarray:
        return np.interp(value, [low, high], [height - 30, 34])

    for value in np.linspace(low, high, 5):
        y = int(y_of(value))
        cv2.line(picture, (MARGIN_PX, y), (width - 12, y), FAINT, 1)
        cv2.putText(picture, f"{value:.3g}", (4, y + 4), FONT, 0.34, INK, 1, cv2.LINE_AA)
    for value, x in ((steps[0], MARGIN_PX), (steps[-1], width - 52)):
        cv2.putText(picture, f"{value:g}", (x, height - 10), FONT, 0.36, INK, 1, cv2.LINE_AA)
    for shown, colour in ((values, LINE), (_running_mean(values), SMOOTH)):
        points = np.round(np.stack([x_of, y_of(shown)], 1) * 16).astype(np.int32)
        cv2.polylines(picture, [points], False, colour, 1, cv2.LINE_AA, shift=4)
    return picture


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred, over about a twentieth of the curve."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)
