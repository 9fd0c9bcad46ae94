"""Anchors from above: boxes and map lines around the ego vehicle, future paths of every class and command."""

import numpy as np
from numpy.typing import NDArray

from sparsedrive.structures import DETECTION_CLASSES, Command
from sparsedrive.structures.anchors import Anchors
from sparsedrive.viz.bev import BevView, draw_bev
from sparsedrive.viz.canvas import Picture, draw_disc, draw_line, draw_text
from sparsedrive.viz.shown import Shown
from sparsedrive.viz.style import BACKGROUND, GRID, MUTED, PANEL, PLAN, TEXT, class_colour, map_colour

_GAP_PX, _TITLE_PX, _TILE_PX = 8, 24, 220
_VIEW_PX = 3 * _TILE_PX + 2 * _TITLE_PX  # as high as the plans of three commands
_MARGIN_M = 2.0


def render_anchors(anchors: Anchors) -> Picture:
    """RGB picture: detection, map, plan for each command above; forecasts for each class below. Grey ones are not from data."""
    from_data = {group.name: group.from_data for group in anchors.groups}
    top = [_boxes(anchors, from_data.get("detection")), _lines(anchors, from_data.get("map")), _plans(anchors, from_data)]
    motion = [
        _paths(name.replace("_", " "), paths_m, class_colour(label), from_data.get(f"motion {name}"), forward_axis=0)
        for label, (name, paths_m) in enumerate(zip(DETECTION_CLASSES, anchors.motion_m, strict=True))
    ]
    rows = [_side_by_side(top), _side_by_side(motion[:5]), _side_by_side(motion[5:])]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.concatenate([row, _blank(width - row.shape[1], row.shape[0])], 1) for row in rows])


def _side_by_side(tiles: list[Picture]) -> Picture:
    height = max(tile.shape[0] for tile in tiles)
    padded = [np.concatenate([tile, _blank(tile.shape[1], height - tile.shape[0])]) for tile in tiles]
    row = np.concatenate([part for tile in padded for part in (_blank(_GAP_PX, height), tile)], 1)
    return np.concatenate([_blank(row.shape[1], _GAP_PX), row])


def _blank(width_px: int, height_px: int) -> Picture:
    return np.full((height_px, width_px, 3), BACKGROUND, np.uint8)


def _titled(picture: Picture, title: str, note: str) -> Picture:
    strip = _blank(picture.shape[1], _TITLE_PX)
    used = draw_text(strip, title, (2, 17), 11, TEXT)
    draw_text(strip, note, (used + 12, 17), 10, MUTED)
    return np.concatenate([strip, picture])


def _boxes(anchors: Anchors, from_data: int | None) -> Picture:
    reach_m = float(np.abs(anchors.detection[:, :2]).max()) + _MARGIN_M
    view = BevView(right_m=reach_m, back_m=reach_m, forward_m=reach_m, px_per_m=_VIEW_PX / (2 * reach_m))
    picture = draw_bev(Shown(boxes=[], lines=[], plan=None), view)
    for row, at in enumerate(view.to_pixels(anchors.detection[:, :2])):
        draw_disc(picture, at, 2.6, _colour(class_colour(0), row, from_data))
    return _titled(picture, "detection", _note(len(anchors.detection), from_data))


def _lines(anchors: Anchors, from_data: int | None) -> Picture:
    right_m, reach_m = np.abs(anchors.map_lines_m).max((0, 1)) + _MARGIN_M
    view = BevView(right_m=float(right_m), back_m=float(reach_m), forward_m=float(reach_m), px_per_m=_VIEW_PX / (2 * reach_m))
    picture = draw_bev(Shown(boxes=[], lines=[], plan=None), view)
    for row, line in enumerate(view.to_pixels(anchors.map_lines_m)):
        draw_line(picture, line, _colour(map_colour(0), row, from_data), 2)
    return _titled(picture, "map", _note(len(anchors.map_lines_m), from_data))


def _plans(anchors: Anchors, from_data: dict[str, int]) -> Picture:
    tiles = []
    for command in Command:
        name = command.name.lower()
        tiles.append(_paths(f"plan {name}", anchors.plan_m[command], PLAN, from_data.get(f"plan {name}"), forward_axis=1))
    return np.concatenate(tiles)


def _paths(title: str, paths_m: NDArray[np.floating], colour: tuple[int, int, int], from_data: int | None, *, forward_axis: int) -> Picture:
    """Paths [M, T, 2] from the middle of the lower edge, forward up, with a mark every step."""
    ahead_m = paths_m[..., forward_axis]
    right_m = paths_m[..., 0] if forward_axis else -paths_m[..., 1]
    reach_m = max(float(ahead_m.max() - min(ahead_m.min(), 0.0)), 2 * float(np.abs(right_m).max()), 1.0) * 1.15
    px_per_m, low_m = _TILE_PX / reach_m, min(float(ahead_m.min()), 0.0) - 0.06 * reach_m
    picture = np.full((_TILE_PX, _TILE_PX, 3), PANEL, np.uint8)
    every_m = 10.0 if reach_m > 15 else 1.0
    for distance_m in np.arange(0.0, reach_m, every_m):
        y = _TILE_PX - (distance_m - low_m) * px_per_m
        draw_line(picture, [[0, y], [_TILE_PX, y]], GRID)
    for row in reversed(range(len(paths_m))):
        pixels = np.stack([_TILE_PX / 2 + right_m[row] * px_per_m, _TILE_PX - (ahead_m[row] - low_m) * px_per_m], -1)
        start = np.array([[_TILE_PX / 2, _TILE_PX + low_m * px_per_m]])
        draw_line(picture, np.concatenate([start, pixels]), _colour(colour, row, from_data), 1)
        for at in pixels:
            draw_disc(picture, at, 1.8, _colour(colour, row, from_data))
    note = f"{from_data} of {len(paths_m)} from data" if from_data is not None and from_data < len(paths_m) else ""
    return _titled(picture, title, ", ".join(filter(None, [f"grid {every_m:.0f} m", note])))


def _colour(colour: tuple[int, int, int], row: int, from_data: int | None) -> tuple[int, int, int]:
    return colour if from_data is None or row < from_data else MUTED


def _note(count: int, from_data: int | None) -> str:
    return f"{count}" if from_data is None else f"{from_data} of {count} from data"
