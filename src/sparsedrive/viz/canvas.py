"""Anti-aliased primitives on a uint8 RGB picture, changed in place. Coordinates are float pixels (x right, y down)."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsedrive.viz.style import FONT, Colour

Picture = NDArray[np.uint8]
Points = NDArray[np.floating]

_SHIFT = 4  # OpenCV takes fixed-point coordinates: 1/16 pixel
_FAR_PX = 2.0**20  # keeps fixed-point coordinates inside 32 bits


def _fixed(points_px: ArrayLike) -> NDArray[np.int32]:
    return np.round(np.clip(np.asarray(points_px, np.float64), -_FAR_PX, _FAR_PX) * 2**_SHIFT).astype(np.int32)


def draw_line(picture: Picture, points_px: ArrayLike, colour: Colour, thickness: int = 1, *, closed: bool = False) -> None:
    """Polyline through `points_px` [N, 2]."""
    cv2.polylines(picture, [_fixed(points_px).reshape(-1, 1, 2)], closed, colour, thickness, cv2.LINE_AA, _SHIFT)


def draw_dashed(picture: Picture, points_px: ArrayLike, colour: Colour, thickness: int = 1, *, dash_px: float = 7.0) -> None:
    """Polyline as dashes with gaps of equal length."""
    points = np.asarray(points_px, np.float64)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    for start in np.arange(0.0, along[-1], 2 * dash_px):
        stop = min(start + dash_px, along[-1])
        inside = along[(along > start) & (along < stop)]
        where = np.concatenate([[start], inside, [stop]])
        draw_line(picture, np.stack([np.interp(where, along, points[:, axis]) for axis in (0, 1)], -1), colour, thickness)


def draw_disc(picture: Picture, centre_px: ArrayLike, radius_px: float, colour: Colour, thickness: int = cv2.FILLED) -> None:
    """Filled disc, or a circle of the given line thickness."""
    x, y = _fixed(centre_px)
    cv2.circle(picture, (int(x), int(y)), round(radius_px * 2**_SHIFT), colour, thickness, cv2.LINE_AA, _SHIFT)


def fill_polygon(picture: Picture, points_px: ArrayLike, colour: Colour, opacity: float = 1.0) -> None:
    """Filled polygon [N, 2], blended over the picture."""
    fill_polygons(picture, [np.asarray(points_px, np.float64)], colour, [opacity])


def fill_polygons(picture: Picture, polygons_px: list[Points], colour: Colour, opacities: list[float]) -> None:
    """Polygons [N, 2] each with its opacity, blended over the picture at once: no seam where neighbours touch."""
    pairs = [(points, opacity) for points, opacity in zip(polygons_px, opacities, strict=True) if len(points) >= 3]
    if not pairs:
        return
    height, width = picture.shape[:2]
    every = np.concatenate([points for points, _ in pairs])
    low = np.clip(np.floor(every.min(0)) - 1, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(every.max(0)) + 2, 0, (width, height)).astype(int)
    if (high <= low).any():
        return
    region = picture[low[1] : high[1], low[0] : high[0]]
    cover = np.zeros(region.shape[:2], np.uint8)
    for points, opacity in pairs:
        cv2.fillPoly(cover, [_fixed(points - low).reshape(-1, 1, 2)], (round(255 * opacity),), cv2.LINE_AA, _SHIFT)
    share = cover[..., None] / np.float32(255)
    region[:] = np.round(region * (1 - share) + np.asarray(colour, np.float32) * share).astype(np.uint8)


def text_wh_px(text: str, height_px: float, thickness: int = 1) -> tuple[int, int]:
    """Width and cap height of a line of text."""
    (width, height), _ = cv2.getTextSize(text, FONT, _font_scale(height_px), thickness)
    return width, height


def draw_text(
    picture: Picture,
    text: str,
    corner_px: ArrayLike,
    height_px: float,
    colour: Colour,
    *,
    align: Literal["left", "centre", "right"] = "left",
    bold: bool = False,
    plate: Colour | None = None,
) -> int:
    """One line of text whose baseline starts, is centred or ends at `corner_px`, on a filled `plate` if given. Returns its width."""
    thickness = 2 if bold else 1
    width, height = text_wh_px(text, height_px, thickness)
    x, y = (round(float(value)) for value in np.asarray(corner_px))
    x -= {"left": 0, "centre": width // 2, "right": width}[align]
    if plate is not None:
        edges = np.array([[x - 2, y - height - 2], [x + width + 2, y - height - 2], [x + width + 2, y + 3], [x - 2, y + 3]])
        fill_polygon(picture, edges, plate, 0.82)
    cv2.putText(picture, text, (x, y), FONT, _font_scale(height_px), colour, thickness, cv2.LINE_AA)
    return width


def _font_scale(height_px: float) -> float:
    return cv2.getFontScaleFromHeight(FONT, 100, 1) * height_px / 100


def scale_to_fit(image: Picture, width_px: int, height_px: int) -> tuple[Picture, NDArray[np.float64]]:
    """The image scaled to fit into a tile, and the 4x4 that takes (x * d, y * d, d, 1) of the original to that of the scaled one."""
    height, width = image.shape[:2]
    factor = min(width_px / width, height_px / height)
    wh_px = max(round(width * factor), 1), max(round(height * factor), 1)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled_T_image = np.diag([wh_px[0] / width, wh_px[1] / height, 1.0, 1.0])
    return cv2.resize(image, wh_px, interpolation=method).astype(np.uint8, copy=False), scaled_T_image
