"""Boxes, map and plan projected onto the picture of one camera."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparsedrive.structures import DETECTION_CLASSES
from sparsedrive.viz.canvas import Picture, draw_line, draw_text, fill_polygon, fill_polygons, text_wh_px
from sparsedrive.viz.clip import clip_polygon, clip_segment, to_image, to_pixels, view_planes
from sparsedrive.viz.shown import Shown, ShownBox, ShownLine, ShownPlan, smooth_path
from sparsedrive.viz.style import BACKGROUND, PLAN, WHITE, Colour, class_colour, map_colour, mix

GROUND_Z_M = -1.84
"""Height of the road in the nuScenes LIDAR_TOP frame: the lidar stands 1.84 m above it."""
PLAN_WIDTH_M = 1.73
"""Width of the nuScenes car."""

Array = NDArray[np.floating]

_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_FRONT_FACE = (0, 3, 7, 4)
_MIN_LABEL_HEIGHT_PX = 14


def draw_camera_view(
    picture: Picture, image_T_ego: Array, shown: Shown, *, ground_z_m: float = GROUND_Z_M, annotation_corners_m: Array | None = None
) -> None:
    """Draws onto `picture` (RGB, in place), for which `image_T_ego` [4, 4] gives (x * depth, y * depth, depth, 1).

    `annotation_corners_m` [N, 8, 3] are true boxes, drawn as thin white wires.
    """
    image_T_ego = np.asarray(image_T_ego, np.float64)
    for line in shown.lines:
        draw_map_line(picture, image_T_ego, line, ground_z_m)
    if shown.plan is not None:
        draw_plan_ribbon(picture, image_T_ego, shown.plan, ground_z_m)
    for corners_m in () if annotation_corners_m is None else annotation_corners_m:
        _draw_wires(picture, to_image(corners_m, image_T_ego), WHITE, 1)
    far_first = sorted(shown.boxes, key=lambda item: -float(to_image(item.box[None, :3], image_T_ego)[0, 2]))
    corners_px = [draw_box(picture, image_T_ego, item) for item in far_first]
    _draw_labels(picture, [(item, at) for item, at in zip(far_first, corners_px, strict=True) if at is not None][::-1])


def draw_box(picture: Picture, image_T_ego: Array, item: ShownBox) -> Array | None:
    """A wire box with a tinted front face. Returns where its label goes (pixels), None when the box is not in view or tiny."""
    corners = to_image(item.corners_m, image_T_ego)
    height, width = picture.shape[:2]
    colour = class_colour(item.label)
    front = clip_polygon(corners[list(_FRONT_FACE)], view_planes(width, height))
    if len(front):
        fill_polygon(picture, to_pixels(front), colour, 0.28)
    drawn = _draw_wires(picture, corners, colour, 2 if height > 600 else 1)
    if drawn is None:
        return None
    low, high = np.clip(drawn.min(0), 0, (width, height)), np.clip(drawn.max(0), 0, (width, height))
    big_enough = high[1] - low[1] >= _MIN_LABEL_HEIGHT_PX and high[0] - low[0] >= 6
    return np.array([low[0], low[1]]) if big_enough else None


def _draw_wires(picture: Picture, corners: Array, colour: Colour, thickness: int) -> Array | None:
    """The box edges inside the picture; returns their end pixels [E, 2], None when no edge is."""
    height, width = picture.shape[:2]
    planes = view_planes(width, height, margin_px=0.0)
    ends = []
    for start, stop in _EDGES:
        segment = clip_segment(corners[start], corners[stop], planes)
        if segment is not None:
            ends.append(to_pixels(segment))
            draw_line(picture, ends[-1], colour, thickness)
    return np.concatenate(ends) if ends else None


def _draw_labels(picture: Picture, near_first: list[tuple[ShownBox, Array]]) -> None:
    """Class name and track id above each box; where two would overlap, the nearer box keeps its label."""
    size_px = max(9.0, picture.shape[0] / 30)
    taken: list[tuple[float, float, float, float]] = []
    for item, corner_px in near_first:
        name = DETECTION_CLASSES[item.label].replace("_", " ")
        text = name if item.track_id < 0 else f"{name} {item.track_id}"
        width, height = text_wh_px(text, size_px)
        x = min(corner_px[0], picture.shape[1] - width - 3)
        y = max(corner_px[1] - 4, height + 4)
        left, top, right, bottom = x - 2, y - height - 2, x + width + 2, y + 3
        if all(right < a or c < left or bottom < b or d < top for a, b, c, d in taken):
            draw_text(picture, text, np.array([x, y]), size_px, class_colour(item.label), plate=BACKGROUND)
            taken.append((left, top, right, bottom))


def draw_map_line(picture: Picture, image_T_ego: Array, line: ShownLine, ground_z_m: float = GROUND_Z_M) -> None:
    """A map element, on the ground plane."""
    height, width = picture.shape[:2]
    planes = view_planes(width, height)
    points_m = np.concatenate([line.points_m, np.full((len(line.points_m), 1), ground_z_m)], 1)
    points = to_image(points_m, image_T_ego)
    for start, stop in pairwise(points):
        segment = clip_segment(start, stop, planes)
        if segment is not None:
            draw_line(picture, to_pixels(segment), map_colour(line.label), 2)


def draw_plan_ribbon(picture: Picture, image_T_ego: Array, plan: ShownPlan, ground_z_m: float = GROUND_Z_M) -> None:
    """The selected path as a ribbon as wide as the car, on the ground, fading with time."""
    height, width = picture.shape[:2]
    planes = view_planes(width, height)
    middle = smooth_path(plan.path_m)
    along = np.gradient(middle, axis=0)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    if length.max() < 0.05:  # standing: a ribbon without length
        return
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(length, 1e-6)
    edges = []
    for side in (-0.5, 0.5):
        flat = middle + side * PLAN_WIDTH_M * normal
        edges.append(to_image(np.concatenate([flat, np.full((len(flat), 1), ground_z_m)], 1), image_T_ego))
    left, right = edges
    quads = [clip_polygon(np.stack([left[i], left[i + 1], right[i + 1], right[i]]), planes) for i in range(len(middle) - 1)]
    opacities = [0.18 + 0.34 * (1 - index / len(middle)) for index in range(len(quads))]
    fill_polygons(picture, [to_pixels(quad) for quad in quads], PLAN, opacities)
    for edge in edges:
        for start, stop in pairwise(edge):
            segment = clip_segment(start, stop, planes)
            if segment is not None:
                draw_line(picture, to_pixels(segment), mix(PLAN, WHITE, 0.85), 1)
