"""One picture of one instant: all cameras, the bird's-eye view, a header and a legend."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sparsedrive.geometry import box_state
from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES, Command, Scene
from sparsedrive.viz.bev import BevView, draw_bev
from sparsedrive.viz.camera_view import GROUND_Z_M, draw_camera_view
from sparsedrive.viz.canvas import Picture, draw_dashed, draw_line, draw_text, fill_polygon, scale_to_fit, text_wh_px
from sparsedrive.viz.shown import Shown, select
from sparsedrive.viz.style import BACKGROUND, MUTED, PANEL, PLAN, TEXT, WHITE, Colour, class_colour, map_colour

_NUSCENES_ORDER = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
_GAP_PX, _HEADER_PX, _LEGEND_PX = 8, 44, 60
_TILE_ASPECT = 16 / 9


def render_scene(
    images_rgb: Mapping[str, NDArray[np.uint8] | None] | Sequence[NDArray[np.uint8] | None],
    image_T_ego: Float[Tensor, "C 4 4"],
    names: Sequence[str],
    scene: Scene,
    *,
    score_threshold: float = 0.3,
    max_boxes: int = 100,
    title: str = "",
    time_s: float | None = None,
    speed_mps: float | None = None,
    annotation_boxes: Float[Tensor, "N 10"] | None = None,
    ground_z_m: float = GROUND_Z_M,
    view: BevView | None = None,
    width_px: int = 1920,
) -> NDArray[np.uint8]:
    """RGB picture of a scene (batch of 1), `width_px` wide, about 0.36 times as high.

    `images_rgb` are the cameras' original pictures [H, W, 3] uint8, by name or in the order of `names`; None for a camera without
    a picture. `image_T_ego` takes ego metres to (x * depth, y * depth, depth, 1) in pixels of those pictures. `annotation_boxes` are
    true boxes (x y z l w h yaw_rad vx vy vz, ego metres), drawn as thin white wires. `ground_z_m` is the road's height in the ego frame.
    `view` sets the range of the bird's-eye view; its scale follows from the picture's size. ValueError when images, transforms and
    names do not match.
    """
    images = _check_cameras(images_rgb, image_T_ego, names)
    shown = select(scene, score_threshold=score_threshold, max_boxes=max_boxes)
    corners_m = None if annotation_boxes is None else box_state.corners(annotation_boxes.detach().cpu()).numpy()
    transforms = image_T_ego.detach().cpu().numpy().astype(np.float64)

    view = view or BevView()
    span_x_m, span_y_m = 2 * view.right_m, view.back_m + view.forward_m
    columns, rows, order = _camera_grid(list(names))
    body_px, tile_px = _solve_layout(width_px, columns, rows, span_x_m / span_y_m)
    scaled = BevView(right_m=view.right_m, back_m=view.back_m, forward_m=view.forward_m, px_per_m=body_px / span_y_m)
    bev = draw_bev(shown, scaled, annotation_corners_m=corners_m)

    picture = np.empty((_HEADER_PX + body_px + _GAP_PX, width_px, 3), np.uint8)
    picture[:] = BACKGROUND
    for slot, camera in enumerate(order):
        x = _GAP_PX + (slot % columns) * (tile_px[0] + _GAP_PX)
        y = _HEADER_PX + (slot // columns) * (tile_px[1] + _GAP_PX)
        tile = _camera_tile(images[camera], transforms[camera], names[camera], shown, tile_px, ground_z_m, corners_m)
        picture[y : y + tile_px[1], x : x + tile_px[0]] = tile
    cameras_width = columns * (tile_px[0] + _GAP_PX) - _GAP_PX
    paste_x = width_px - _GAP_PX - bev.shape[1]
    picture[_HEADER_PX : _HEADER_PX + bev.shape[0], paste_x : width_px - _GAP_PX] = bev[:body_px]
    legend_top = _HEADER_PX + rows * (tile_px[1] + _GAP_PX)
    _draw_legend(picture[legend_top : _HEADER_PX + body_px, _GAP_PX : _GAP_PX + cameras_width], annotations=corners_m is not None)
    _draw_header(picture[:_HEADER_PX], title, time_s, speed_mps, shown)
    return picture


def _check_cameras(
    images_rgb: Mapping[str, NDArray[np.uint8] | None] | Sequence[NDArray[np.uint8] | None], image_T_ego: Tensor, names: Sequence[str]
) -> list[NDArray[np.uint8] | None]:
    images = [images_rgb.get(name) for name in names] if isinstance(images_rgb, Mapping) else list(images_rgb)
    if len(images) != len(names) or tuple(image_T_ego.shape) != (len(names), 4, 4):
        raise ValueError(
            f"render_scene: expected one image and one 4x4 transform for each of {len(names)} cameras {tuple(names)}, "
            f"got {len(images)} images and image_T_ego of shape {tuple(image_T_ego.shape)}"
        )
    for name, image in zip(names, images, strict=True):
        if image is not None and (image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8):
            raise ValueError(f"render_scene: {name}: expected an RGB picture [H, W, 3] uint8, got {image.shape} {image.dtype}")
    return images


def _camera_grid(names: list[str]) -> tuple[int, int, list[int]]:
    """Columns, rows, and the camera of each slot. nuScenes rigs stand as seen from above: front row, back row."""
    if set(names) == set(_NUSCENES_ORDER):
        return 3, 2, [names.index(name) for name in _NUSCENES_ORDER]
    columns = max(1, int(np.ceil(np.sqrt(len(names) * 1.5))))
    return columns, max(1, -(-len(names) // columns)), list(range(len(names)))


def _solve_layout(width_px: int, columns: int, rows: int, bev_aspect: float) -> tuple[int, tuple[int, int]]:
    """Height of the body and size of a camera tile, so that tiles with the legend below them and the bird's-eye view fill the width."""
    free = width_px - _GAP_PX * (columns + 2) - bev_aspect * (rows * _GAP_PX + _LEGEND_PX)
    tile_width = free / (columns + bev_aspect * rows / _TILE_ASPECT)
    if tile_width < 80:
        raise ValueError(f"render_scene: width_px {width_px} is too small for {columns} columns of cameras; give at least 1000")
    tile_height = round(tile_width / _TILE_ASPECT)
    body = rows * (tile_height + _GAP_PX) + _LEGEND_PX
    return body + body % 2, (int(tile_width), tile_height)


def _camera_tile(
    image: NDArray[np.uint8] | None,
    image_T_ego: NDArray[np.floating],
    name: str,
    shown: Shown,
    tile_px: tuple[int, int],
    ground_z_m: float,
    annotation_corners_m: NDArray[np.floating] | None,
) -> Picture:
    tile = np.empty((tile_px[1], tile_px[0], 3), np.uint8)
    tile[:] = PANEL
    if image is None:
        draw_text(tile, "no picture", (tile_px[0] / 2, tile_px[1] / 2 + 5), 12, MUTED, align="centre")
    else:
        view, view_T_image = scale_to_fit(image, *tile_px)
        draw_camera_view(view, view_T_image @ image_T_ego, shown, ground_z_m=ground_z_m, annotation_corners_m=annotation_corners_m)
        top, left = (tile_px[1] - view.shape[0]) // 2, (tile_px[0] - view.shape[1]) // 2
        tile[top : top + view.shape[0], left : left + view.shape[1]] = view
    label = name.removeprefix("CAM_").replace("_", " ").lower()
    draw_text(tile, label, (8, tile_px[1] - 9), 11, TEXT, plate=BACKGROUND)
    return tile


def _draw_header(strip: Picture, title: str, time_s: float | None, speed_mps: float | None, shown: Shown) -> None:
    """Name on the left; time, command, speed and counts on the right."""
    draw_text(strip, title or "sparsedrive", (_GAP_PX + 2, 28), 14, TEXT, bold=True)
    facts = [] if time_s is None else [("time", f"{time_s:.2f} s")]
    if shown.plan is not None:
        command = shown.plan.command
        facts.append(("command", "straight on" if command == Command.STRAIGHT else f"turn {command.name.lower()}"))
    if speed_mps is not None:
        facts.append(("speed", f"{speed_mps:.1f} m/s"))
    facts += [("boxes", str(len(shown.boxes))), ("map lines", str(len(shown.lines)))]
    x = strip.shape[1] - _GAP_PX - 2
    for name, value in reversed(facts):
        x -= draw_text(strip, value, (x, 28), 12, TEXT, align="right") + 8
        x -= draw_text(strip, name, (x, 28), 12, MUTED, align="right") + 24


def _draw_legend(strip: Picture, *, annotations: bool) -> None:
    """Two rows: detection classes; map classes and lines."""
    strip[:] = PANEL
    size_px = 11
    first = [(name.replace("_", " "), class_colour(index), "box") for index, name in enumerate(DETECTION_CLASSES)]
    second = [
        (name.replace("_", " "), map_colour(index), "dash" if name == "divider" else "line") for index, name in enumerate(MAP_CLASSES)
    ]
    second += [("plan", PLAN, "thick"), ("velocity and forecasts", MUTED, "line")]
    if annotations:
        second.append(("annotated box", WHITE, "wire"))
    for row, entries in enumerate((first, second)):
        y = strip.shape[0] / 2 + (row - 0.5) * 26 + size_px / 2
        free = strip.shape[1] - 24 - sum(text_wh_px(name, size_px)[0] + 22 for name, _, _ in entries)
        gap = float(np.clip(free / max(len(entries) - 1, 1), 4, 44))
        x = 12.0
        for name, colour, mark in entries:
            _draw_mark(strip, (x, y - size_px / 2), colour, mark)
            x += 22 + draw_text(strip, name, (x + 22, y), size_px, TEXT) + gap


def _draw_mark(strip: Picture, left_px: tuple[float, float], colour: Colour, mark: str) -> None:
    x, y = left_px
    ends = np.array([[x, y], [x + 16, y]])
    if mark in ("box", "wire"):
        outline = np.array([[x + 2, y - 4.5], [x + 15, y - 4.5], [x + 15, y + 4.5], [x + 2, y + 4.5]])
        fill_polygon(strip, outline, colour, 0.4 if mark == "box" else 0.0)
        draw_line(strip, outline, colour, 1, closed=True)
    elif mark == "dash":
        draw_dashed(strip, ends, colour, 1, dash_px=4.0)
    else:
        draw_line(strip, ends, colour, 4 if mark == "thick" else 2)
