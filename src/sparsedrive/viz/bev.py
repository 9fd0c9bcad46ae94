"""Bird's-eye view: ego forward up, metres to scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsedrive.structures import MAP_CLASSES
from sparsedrive.viz.canvas import Picture, draw_dashed, draw_disc, draw_line, draw_text, fill_polygon
from sparsedrive.viz.shown import Shown, ShownBox, ShownLine, ShownPlan, smooth_path
from sparsedrive.viz.style import COLLIDES, EGO, GRID, MUTED, PANEL, PLAN, WHITE, class_colour, map_colour, mix, track_colour

Array = NDArray[np.floating]

EGO_LENGTH_M, EGO_WIDTH_M = 4.08, 1.73
EGO_CENTRE_M = (0.0, 0.5)
"""Middle of the nuScenes car in its LIDAR_TOP frame (x right, y forward)."""
STEP_S = 0.5
_STILL_MPS = 0.5


@dataclass(frozen=True, kw_only=True)
class BevView:
    """Which part of the ground is shown, in ego metres (x right, y forward), and at which scale."""

    right_m: float = 30.0
    back_m: float = 30.0
    forward_m: float = 50.0
    px_per_m: float = 8.0

    def __post_init__(self) -> None:
        for name in ("right_m", "back_m", "forward_m", "px_per_m"):
            if getattr(self, name) <= 0:
                raise ValueError(f"BevView.{name}: expected a positive number, got {getattr(self, name)}")

    @property
    def wh_px(self) -> tuple[int, int]:
        """Size of the picture."""
        return round(2 * self.right_m * self.px_per_m), round((self.back_m + self.forward_m) * self.px_per_m)

    def to_pixels(self, points_m: Array) -> Array:
        """Ego (x, y) [..., 2] -> pixels [..., 2]."""
        points_m = np.asarray(points_m, np.float64)
        return np.stack([(points_m[..., 0] + self.right_m), (self.forward_m - points_m[..., 1])], -1) * self.px_per_m


def draw_bev(shown: Shown, view: BevView | None = None, *, annotation_corners_m: Array | None = None) -> Picture:
    """A new RGB picture of the scene from above; `annotation_corners_m` [N, 8, 3] are true boxes, drawn as thin white outlines."""
    view = view or BevView()
    width, height = view.wh_px
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = PANEL
    _draw_ground(picture, view)
    for line in shown.lines:
        _draw_map_line(picture, view, line)
    for item in shown.boxes:
        _draw_futures(picture, view, item)
    if shown.plan is not None:
        _draw_plan(picture, view, shown.plan)
    for corners_m in () if annotation_corners_m is None else annotation_corners_m:
        draw_line(picture, view.to_pixels(corners_m[:4, :2]), WHITE, 1, closed=True)
    for item in reversed(shown.boxes):
        _draw_box(picture, view, item)
    _draw_ego(picture, view)
    for item in shown.boxes:
        _draw_track_id(picture, view, item)
    _draw_scale(picture, view)
    return picture


def _draw_ground(picture: Picture, view: BevView) -> None:
    """Range rings every 10 m, every second one with its radius."""
    centre = view.to_pixels(np.zeros(2))
    reach_m = float(np.hypot(view.right_m, max(view.back_m, view.forward_m)))
    for radius_m in np.arange(10.0, reach_m, 10.0):
        draw_disc(picture, centre, radius_m * view.px_per_m, GRID, 1)
        for sign, limit_m in ((1, view.forward_m), (-1, view.back_m)):
            if radius_m % 20 == 0 and radius_m < limit_m:
                x, y = view.to_pixels(np.array([0.0, sign * radius_m]))
                draw_text(picture, f"{radius_m:.0f} m", (x, y + 4), 9, MUTED, align="centre", plate=PANEL)


def _draw_map_line(picture: Picture, view: BevView, line: ShownLine) -> None:
    pixels, colour = view.to_pixels(line.points_m), map_colour(line.label)
    if MAP_CLASSES[line.label] == "divider":
        draw_dashed(picture, pixels, colour, 1)
    else:
        draw_line(picture, pixels, colour, 2)


def _draw_futures(picture: Picture, view: BevView, item: ShownBox) -> None:
    """Forecast modes of one agent: the likelier, the brighter; each fades with time."""
    if not len(item.futures_m) or np.hypot(item.box[7], item.box[8]) < _STILL_MPS:
        return  # every mode of a standing agent is a dot under its box
    colour = class_colour(item.label)
    relative = item.future_score / max(float(item.future_score.max()), 1e-6)
    for rank in reversed(range(len(item.futures_m))):
        path = view.to_pixels(np.concatenate([item.box[None, :2], item.futures_m[rank]]))
        for index in range(len(path) - 1):
            share = float(relative[rank]) * (0.95 - 0.7 * index / len(path))
            draw_line(picture, path[index : index + 2], mix(colour, PANEL, max(share, 0.15)), 2 if rank == 0 else 1)


def _draw_plan(picture: Picture, view: BevView, plan: ShownPlan) -> None:
    """Every mode of the command thin (dashed red if it hits something), the selected one thick with a mark every second."""
    for mode_m, collides in zip(plan.modes_m, plan.mode_collides, strict=True):
        path = view.to_pixels(smooth_path(mode_m))
        if collides:
            draw_dashed(picture, path, mix(COLLIDES, PANEL, 0.8), 1, dash_px=4.0)
        else:
            draw_line(picture, path, mix(PLAN, PANEL, 0.5), 1)
    draw_line(picture, view.to_pixels(smooth_path(plan.path_m)), PLAN, 3)
    for point in view.to_pixels(plan.path_m[round(1 / STEP_S) - 1 :: round(1 / STEP_S)]):
        draw_disc(picture, point, 3.2, PLAN)
        draw_disc(picture, point, 1.6, PANEL)


def _draw_box(picture: Picture, view: BevView, item: ShownBox) -> None:
    """Outline, tinted; a bar from the middle to the front shows the heading, an arrow one second of velocity."""
    colour = class_colour(item.label)
    corners = view.to_pixels(item.corners_m[:4, :2])
    fill_polygon(picture, corners, colour, 0.30)
    draw_line(picture, corners, colour, 1, closed=True)
    draw_line(picture, corners[[0, 3]], colour, 2)
    middle = corners.mean(0)
    draw_line(picture, [middle, corners[[0, 3]].mean(0)], colour, 1)
    velocity_px = np.array([item.box[7], -item.box[8]]) * view.px_per_m
    if np.hypot(item.box[7], item.box[8]) >= _STILL_MPS:
        _draw_arrow(picture, middle, middle + velocity_px, mix(WHITE, colour, 0.55))


def _draw_arrow(picture: Picture, start: Array, tip: Array, colour: tuple[int, int, int]) -> None:
    draw_line(picture, [start, tip], colour, 1)
    along = (tip - start) / max(float(np.linalg.norm(tip - start)), 1e-6)
    across = np.array([-along[1], along[0]])
    fill_polygon(picture, np.stack([tip, tip - 5 * along + 2.5 * across, tip - 5 * along - 2.5 * across]), colour)


def _draw_track_id(picture: Picture, view: BevView, item: ShownBox) -> None:
    if item.track_id < 0:
        return
    corners = view.to_pixels(item.corners_m[:4, :2])
    inside = (corners >= 0).all() and (corners < (picture.shape[1], picture.shape[0])).all()
    if inside:
        at = (corners[:, 0].max() + 3, corners[:, 1].min() + 6)
        draw_text(picture, str(item.track_id), at, 9, track_colour(item.track_id))


def _draw_ego(picture: Picture, view: BevView) -> None:
    x, y = EGO_CENTRE_M
    half_length, half_width = EGO_LENGTH_M / 2, EGO_WIDTH_M / 2
    outline = np.array(
        [
            [x - half_width, y - half_length],
            [x - half_width, y + half_length - 0.7],
            [x - half_width + 0.4, y + half_length],
            [x + half_width - 0.4, y + half_length],
            [x + half_width, y + half_length - 0.7],
            [x + half_width, y - half_length],
        ]
    )
    screen = np.array([[x - 0.65, y + 0.5], [x - 0.5, y + 1.15], [x + 0.5, y + 1.15], [x + 0.65, y + 0.5]])
    fill_polygon(picture, view.to_pixels(outline), EGO)
    fill_polygon(picture, view.to_pixels(screen), mix(PANEL, EGO, 0.75))


def _draw_scale(picture: Picture, view: BevView) -> None:
    """A bar of 10 m in the lower right corner."""
    height, width = picture.shape[:2]
    stop, y = width - 12, height - 14
    start = stop - 10 * view.px_per_m
    draw_line(picture, [[start, y], [stop, y]], MUTED, 1)
    for x in (start, stop):
        draw_line(picture, [[x, y - 3], [x, y + 3]], MUTED, 1)
    draw_text(picture, "10 m", [(start + stop) / 2, y - 5], 9, MUTED, align="centre")
