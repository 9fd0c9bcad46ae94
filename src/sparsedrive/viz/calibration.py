"""The calibration check picture: what a person has to see to believe that cameras, lidar and boxes fit together.

Every camera shows the horizon, rings on the road, the ego axes, lidar returns coloured by distance and boxes; beside them, from above,
where each camera stands and looks. Cameras stand in the order in which the calibration says they look, so a swapped pair is out of place.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from sparsedrive.geometry import box_state
from sparsedrive.viz.bev import BevView, draw_bev
from sparsedrive.viz.camera_view import GROUND_Z_M
from sparsedrive.viz.canvas import Picture, draw_disc, draw_line, draw_text, fill_polygon, scale_to_fit
from sparsedrive.viz.clip import clip_segment, to_image, to_pixels, view_planes
from sparsedrive.viz.shown import Shown, ShownBox
from sparsedrive.viz.style import BACKGROUND, MUTED, PANEL, TEXT, WHITE, Colour, class_colour, mix, track_colour

Array = NDArray[np.floating]

RING_RADII_M = (5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0)
NEAREST_M, FARTHEST_M = 2.0, 60.0
"""Ends of the colour scale of lidar returns, red to blue."""
HORIZON: Colour = (255, 64, 200)
RING: Colour = (250, 250, 120)
AXIS_RIGHT: Colour = (255, 80, 80)
AXIS_FORWARD: Colour = (80, 255, 80)
AXIS_LENGTH_M = 15.0
_GAP_PX, _HEADER_PX, _MAX_COLUMNS, _MIN_BEV_SHARE = 8, 40, 4, 0.2
_FRUSTUM_M, _BEV_HALF_M, _NEAR_BOX_M = 14.0, 40.0, 12.0
_LOOPS = ((0, 1, 2, 3, 0, 4, 5, 6, 7, 4), (1, 5), (2, 6), (3, 7), (0, 7), (3, 4))
"""Corners of a box joined to wires; the cross marks its front."""


def render_calibration(
    images_rgb: Sequence[NDArray[np.uint8] | None],
    image_T_ego: Float[np.ndarray, "C 4 4"],
    names: Sequence[str],
    *,
    points_m: Float[np.ndarray, "P 3"] | None = None,
    boxes: Float[np.ndarray, "N 10"] | None = None,
    labels: Int[np.ndarray, "N"] | None = None,
    ground_z_m: float = GROUND_Z_M,
    title: str = "calibration",
    width_px: int = 2400,
) -> Picture:
    """RGB picture `width_px` wide of C cameras of any size and number.

    `image_T_ego` takes ego metres to (x * depth, y * depth, depth, 1) in pixels of the given pictures [H, W, 3] uint8, None for a camera
    without one. `points_m` are lidar returns, `boxes` x y z l w h yaw_rad vx vy vz, both in the ego frame (x right, y forward, z up);
    `labels` colours boxes by class. `ground_z_m` is the road's height in the ego frame. ValueError where numbers do not match.
    """
    image_T_ego = np.asarray(image_T_ego, np.float64)
    _check(images_rgb, image_T_ego, names)
    points_m = np.zeros((0, 3)) if points_m is None else np.asarray(points_m, np.float64)[:, :3]
    shown = shown_boxes(boxes, labels)
    rows = _arrange(image_T_ego)
    aspect = max((image.shape[0] / image.shape[1] for image in images_rgb if image is not None), default=9 / 16)
    tile_w, tile_h, side_px = _solve_layout(width_px, len(rows), max(map(len, rows)), aspect)
    body_h = max(len(rows) * (tile_h + _GAP_PX) - _GAP_PX, side_px)
    picture = np.full((_HEADER_PX + body_h + _GAP_PX, width_px, 3), BACKGROUND, np.uint8)
    for row, cameras in enumerate(rows):
        for column, camera in enumerate(cameras):
            tile = _camera_tile(images_rgb[camera], image_T_ego[camera], (tile_w, tile_h), points_m, shown, ground_z_m)
            draw_text(tile, names[camera], (8, 18), 12, camera_colour(camera), bold=True, plate=BACKGROUND)
            x, y = _GAP_PX + column * (tile_w + _GAP_PX), _HEADER_PX + row * (tile_h + _GAP_PX)
            picture[y : y + tile_h, x : x + tile_w] = tile
    bev = _bev((side_px, body_h), images_rgb, image_T_ego, names, points_m, shown)
    picture[_HEADER_PX : _HEADER_PX + body_h, width_px - _GAP_PX - side_px : width_px - _GAP_PX] = bev
    _draw_header(picture[:_HEADER_PX], title, len(points_m), len(shown))
    return picture


def camera_colour(index: int) -> Colour:
    """The colour of a camera's name and field of view."""
    return track_colour(index)


def horizon_px(image_T_ego: Float[np.ndarray, "4 4"], width_px: int, height_px: int) -> Float[np.ndarray, "2 2"] | None:
    """Both ends in the picture of the line where the ego frame's level plane vanishes; None where it is not in the picture."""
    a, b, c = np.cross(image_T_ego[:3, 0], image_T_ego[:3, 1])  # a x + b y + c = 0 holds the images of all level directions
    if np.hypot(a, b) < 1e-9 * abs(c):
        return None
    middle = -c * np.array([a, b]) / (a * a + b * b)
    along = np.array([-b, a]) / np.hypot(a, b) * 2.0 * (width_px + height_px + np.linalg.norm(middle))
    ends = np.stack([np.append(middle - along, 1.0), np.append(middle + along, 1.0)])
    inside = clip_segment(ends[0], ends[1], view_planes(width_px, height_px, margin_px=0.0))
    return None if inside is None else to_pixels(inside)


def draw_check(
    picture: Picture, image_T_ego: Float[np.ndarray, "4 4"], points_m: Array, shown: Sequence[ShownBox], ground_z_m: float = GROUND_Z_M
) -> None:
    """Everything one camera shows: lidar returns, rings, axes, horizon, and the boxes of `shown_boxes` as wires. In place."""
    draw_lidar(picture, image_T_ego, points_m)
    draw_ground(picture, image_T_ego, ground_z_m)
    for item in shown:
        thickness = 2 if np.hypot(*item.box[:2]) < _NEAR_BOX_M else 1
        for loop in _LOOPS:
            _draw_path(picture, image_T_ego, item.corners_m[list(loop)], class_colour(item.label), thickness)


def draw_ground(picture: Picture, image_T_ego: Float[np.ndarray, "4 4"], ground_z_m: float = GROUND_Z_M) -> None:
    """Rings on the road with their radius, the ego frame's axes on it (right red, forward green), and the horizon. In place."""
    height, width = picture.shape[:2]
    angle_rad, last_label_y = np.linspace(0, 2 * np.pi, 181), np.inf
    for radius_m in RING_RADII_M:
        ring = np.stack([radius_m * np.cos(angle_rad), radius_m * np.sin(angle_rad), np.full(len(angle_rad), ground_z_m)], axis=1)
        visible = _draw_path(picture, image_T_ego, ring, mix(RING, (0, 0, 0), 0.8), 1)
        if len(visible):
            x, y = visible[np.argmin(np.abs(visible[:, 0] - width / 2))]
            if last_label_y - y > 14:
                draw_text(picture, f"{radius_m:.0f} m", np.clip((x + 6, y - 3), (0, 12), (width - 40, height)), 9, RING, plate=BACKGROUND)
                last_label_y = y
    for direction, colour in (((1.0, 0.0), AXIS_RIGHT), ((0.0, 1.0), AXIS_FORWARD)):
        reach_m = np.linspace(0.0, AXIS_LENGTH_M, 16)[:, None]
        axis = np.concatenate([reach_m * np.array(direction), np.full((16, 1), ground_z_m)], axis=1)
        _draw_path(picture, image_T_ego, axis, colour, 2)
    horizon = horizon_px(image_T_ego, width, height)
    if horizon is not None:
        draw_line(picture, horizon, HORIZON, 1)
        x, y = horizon[np.argmin(horizon[:, 0])]
        draw_text(picture, "horizon", np.clip((x + 6, y - 4), (0, 12), (width, height)), 9, HORIZON, plate=BACKGROUND)


def draw_lidar(picture: Picture, image_T_ego: Float[np.ndarray, "4 4"], points_m: Float[np.ndarray, "P 3"]) -> None:
    """Lidar returns as dots, near ones red, far ones blue, near over far. In place."""
    height, width = picture.shape[:2]
    points = to_image(points_m, image_T_ego)
    points = points[points[:, 2] > NEAREST_M / 4]
    pixels, depth_m = np.floor(to_pixels(points)), points[:, 2]
    size = max(1, round(width / 350))
    inside = ((pixels >= 0) & (pixels < (width, height))).all(1)
    if not inside.any():
        return
    far_first = np.argsort(-depth_m[inside], kind="stable")
    x, y = pixels[inside][far_first].astype(int).T
    colours = distance_colours(depth_m[inside][far_first])
    for dx in range(size):
        for dy in range(size):
            picture[np.minimum(y + dy, height - 1), np.minimum(x + dx, width - 1)] = colours


def distance_colours(distance_m: Float[np.ndarray, "P"]) -> NDArray[np.uint8]:
    """RGB [P, 3] of distances: red near, blue far, in equal steps of the logarithm, as what matters is relative."""
    share = np.log(np.clip(distance_m, NEAREST_M, FARTHEST_M) / NEAREST_M) / np.log(FARTHEST_M / NEAREST_M)
    grey = np.round(235 - 205 * share).astype(np.uint8)
    return cv2.applyColorMap(grey.reshape(-1, 1), cv2.COLORMAP_TURBO).reshape(-1, 3)[:, ::-1].astype(np.uint8)


def field_of_view_m(image_T_ego: Float[np.ndarray, "4 4"], wh_px: tuple[int, int], reach_m: float) -> Float[np.ndarray, "3 2"]:
    """From above: where a camera stands, and the points `reach_m` away on the left and right edge of what it sees at mid height."""
    ego_R_image = np.linalg.inv(image_T_ego[:3, :3])
    place_m = -ego_R_image @ image_T_ego[:3, 3]
    rays = np.array([[0.0, wh_px[1] / 2, 1.0], [wh_px[0], wh_px[1] / 2, 1.0]]) @ ego_R_image.T
    rays = rays[:, :2] / np.maximum(np.linalg.norm(rays[:, :2], axis=1, keepdims=True), 1e-9)
    return np.concatenate([place_m[None, :2], place_m[:2] + reach_m * rays])


def _check(images_rgb: Sequence[NDArray[np.uint8] | None], image_T_ego: Array, names: Sequence[str]) -> None:
    if not names or len(images_rgb) != len(names) or image_T_ego.shape != (len(names), 4, 4):
        raise ValueError(
            f"render_calibration: expected one picture and one 4x4 transform for each of the cameras {tuple(names)}, got "
            f"{len(images_rgb)} pictures and image_T_ego of shape {image_T_ego.shape}"
        )
    for name, image in zip(names, images_rgb, strict=True):
        if image is not None and (image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8):
            raise ValueError(f"render_calibration: {name}: expected an RGB picture [H, W, 3] uint8, got {image.shape} {image.dtype}")


def shown_boxes(boxes: Array | None, labels: NDArray[np.integer] | None) -> list[ShownBox]:
    """Boxes x y z l w h yaw_rad vx vy vz in the ego frame as `draw_check` takes them."""
    if boxes is None or not len(boxes):
        return []
    corners_m = box_state.corners(torch.as_tensor(np.asarray(boxes, np.float64))).numpy()
    found = np.zeros(len(boxes), int) if labels is None else np.asarray(labels)
    if len(found) != len(boxes):
        raise ValueError(f"render_calibration: expected one label a box, got {len(found)} labels and {len(boxes)} boxes")
    return [
        ShownBox(
            box=np.asarray(box), corners_m=corners, label=int(label), score=1.0, track_id=-1,
            futures_m=np.zeros((0, 0, 2)), future_score=np.zeros(0),
        )
        for box, corners, label in zip(boxes, corners_m, found, strict=True)
    ]  # fmt: skip


def _arrange(image_T_ego: Array) -> list[list[int]]:
    """Rows of cameras: those that look ahead from left to right, then those that look back from left to right."""
    forward = image_T_ego[:, 2, :3]
    yaw_rad = np.arctan2(-forward[:, 0], forward[:, 1])  # 0 ahead, counter-clockwise
    ahead = np.abs(yaw_rad) <= np.pi / 2 + 0.1
    front = sorted(np.flatnonzero(ahead).tolist(), key=lambda camera: -yaw_rad[camera])
    back = sorted(np.flatnonzero(~ahead).tolist(), key=lambda camera: yaw_rad[camera] % (2 * np.pi))
    return [row[start : start + _MAX_COLUMNS] for row in (front, back) for start in range(0, len(row), _MAX_COLUMNS)]


def _solve_layout(width_px: int, rows: int, columns: int, aspect: float) -> tuple[int, int, int]:
    """Width and height of a camera's tile, and the side of the view from above: as high as the tiles, but not tiny."""
    free = width_px - (columns + 2) * _GAP_PX
    tile_w = int((free - (rows - 1) * _GAP_PX) / (columns + rows * aspect))
    if rows * tile_w * aspect < width_px * _MIN_BEV_SHARE:
        tile_w = int((free - width_px * _MIN_BEV_SHARE) / columns)
    if tile_w < 100:
        raise ValueError(f"render_calibration: width_px {width_px} is too small for {columns} columns of cameras; give at least 1200")
    return tile_w, round(tile_w * aspect), free - columns * tile_w


def _camera_tile(
    image: NDArray[np.uint8] | None,
    image_T_ego: Array,
    tile_wh_px: tuple[int, int],
    points_m: Array,
    shown: list[ShownBox],
    ground_z_m: float,
) -> Picture:
    tile = np.full((tile_wh_px[1], tile_wh_px[0], 3), PANEL, np.uint8)
    if image is None:
        draw_text(tile, "no picture", (tile_wh_px[0] / 2, tile_wh_px[1] / 2), 12, MUTED, align="centre")
        return tile
    view, view_T_image = scale_to_fit(image, *tile_wh_px)
    view_T_ego = view_T_image @ image_T_ego
    draw_check(view, view_T_ego, points_m, shown, ground_z_m)
    top, left = (tile.shape[0] - view.shape[0]) // 2, (tile.shape[1] - view.shape[1]) // 2
    tile[top : top + view.shape[0], left : left + view.shape[1]] = view
    return tile


def _draw_path(picture: Picture, image_T_ego: Array, path_m: Array, colour: Colour, thickness: int) -> Array:
    """The part of a path that is in the picture; returns the pixels [N, 2] at which its pieces start."""
    height, width = picture.shape[:2]
    planes = view_planes(width, height, margin_px=0.0)
    starts = []
    for start, stop in pairwise(to_image(path_m, image_T_ego)):
        segment = clip_segment(start, stop, planes)
        if segment is not None:
            pixels = to_pixels(segment)
            starts.append(pixels[0])
            draw_line(picture, pixels, colour, thickness)
    return np.array(starts).reshape(-1, 2)


def _bev(
    wh_px: tuple[int, int],
    images_rgb: Sequence[NDArray[np.uint8] | None],
    image_T_ego: Array,
    names: Sequence[str],
    points_m: Array,
    shown: list[ShownBox],
) -> Picture:
    """Rings and ego vehicle, lidar, what each camera sees, boxes."""
    px_per_m = min(wh_px) / (2 * _BEV_HALF_M)
    view = BevView(right_m=wh_px[0] / 2 / px_per_m, back_m=wh_px[1] / 2 / px_per_m, forward_m=wh_px[1] / 2 / px_per_m, px_per_m=px_per_m)
    picture = cv2.resize(draw_bev(Shown(boxes=[], lines=[], plan=None), view), wh_px).astype(np.uint8)
    inside = np.abs(points_m[:, :2]).max(1, initial=0.0) < max(view.right_m, view.forward_m)
    near = points_m[inside]
    pixels = np.floor(view.to_pixels(near[:, :2])).astype(int)
    within = ((pixels >= 0) & (pixels < wh_px)).all(1)
    if within.any():
        colours = distance_colours(np.linalg.norm(near[within], axis=1))
        picture[pixels[within, 1], pixels[within, 0]] = (0.75 * colours).astype(np.uint8)
    for item in shown:
        corners = view.to_pixels(item.corners_m[:4, :2])
        draw_line(picture, corners, class_colour(item.label), 1, closed=True)
        draw_line(picture, [corners.mean(0), corners[[0, 3]].mean(0)], class_colour(item.label), 1)
    for camera, image in enumerate(images_rgb):
        wh = (1600, 900) if image is None else (image.shape[1], image.shape[0])
        place, left, right = view.to_pixels(field_of_view_m(image_T_ego[camera], wh, _FRUSTUM_M))
        fill_polygon(picture, np.stack([place, left, right]), camera_colour(camera), 0.10)
        draw_line(picture, [left, place, right], camera_colour(camera), 1)
        draw_disc(picture, place, 3.0, camera_colour(camera))
        at = place + 1.2 * ((left + right) / 2 - place)
        draw_text(picture, names[camera], np.clip(at, (40, 12), np.array(wh_px) - (40, 6)), 9, camera_colour(camera), align="centre")
    return picture


def _draw_header(strip: Picture, title: str, num_points: int, num_boxes: int) -> None:
    draw_text(strip, title, (_GAP_PX + 2, 26), 14, TEXT, bold=True)
    x = strip.shape[1] - _GAP_PX - 2
    entries = [(f"{num_boxes} boxes, crossed at the front", WHITE), (f"{num_points:,} lidar returns, red near, blue far", MUTED)]
    entries += [("right", AXIS_RIGHT), ("forward", AXIS_FORWARD), ("rings on the road", RING), ("horizon", HORIZON)]
    for text, colour in entries:
        x -= draw_text(strip, text, (x, 26), 11, colour, align="right") + 22
