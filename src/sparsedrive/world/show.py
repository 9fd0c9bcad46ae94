"""Pictures that show a person what a world is: the contact sheet of its scenes, and a drive seen from above."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sparsedrive.world.state import EGO_CENTRE_AHEAD_M, EGO_SIZE_LWH_M, Cast, WorldState
from sparsedrive.world.town import Crossing, Town

Rgb = tuple[int, int, int]
Picture = UInt8[np.ndarray, "H W 3"]

INK, PAPER = (235, 238, 242), (30, 33, 38)
GRASS, PAVEMENT, ROAD, BUILDING, TREE = (58, 70, 56), (104, 106, 110), (62, 64, 70), (84, 80, 78), (70, 98, 66)
LANE_LINE, ROAD_LINE, CROSSING, BOUNDARY = (224, 226, 230), (240, 196, 80), (170, 176, 190), (150, 152, 158)
EGO, TRAIL, AHEAD = (90, 200, 255), (60, 130, 170), (120, 255, 190)
COLOURS: dict[str, Rgb] = {
    "vehicle.car": (235, 94, 84),
    "vehicle.truck": (240, 150, 60),
    "vehicle.bus": (250, 200, 70),
    "vehicle.trailer": (200, 130, 90),
    "vehicle.construction": (220, 190, 40),
    "vehicle.motorcycle": (230, 110, 210),
    "vehicle.bicycle": (190, 140, 250),
    "human.pedestrian": (120, 220, 120),
    "movable_object.trafficcone": (255, 120, 30),
    "movable_object.barrier": (160, 220, 230),
}
"""Colour of each of the ten detection classes, by how its categories begin."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
SHIFT = 4
PANEL_PX = 300
STRIPE_M = 0.6


def contact_sheet(rows: Sequence[tuple[str, Sequence[Picture]]], names: Sequence[str], width_px: int = 1800) -> Picture:
    """One row a moment: its title and one RGB picture a camera (all of one size), scaled so that the sheet is `width_px` wide."""
    gap_px, title_px = 4, 22
    cell_w = (width_px - gap_px) // len(names) - gap_px
    height_px, source_w = rows[0][1][0].shape[:2]
    cell_h = round(height_px * cell_w / source_w)
    sheet = np.full((title_px + len(rows) * (cell_h + title_px + gap_px), width_px, 3), PAPER, np.uint8)
    for column, name in enumerate(names):
        _text(sheet, name, (gap_px + column * (cell_w + gap_px), 16), INK)
    for row, (title, pictures) in enumerate(rows):
        top = title_px + row * (cell_h + title_px + gap_px)
        _text(sheet, title, (gap_px, top + 16), AHEAD)
        for column, picture in enumerate(pictures):
            left = gap_px + column * (cell_w + gap_px)
            sheet[top + title_px : top + title_px + cell_h, left : left + cell_w] = cv2.resize(
                picture, (cell_w, cell_h), interpolation=cv2.INTER_AREA
            )
    return sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class BevView:
    """What a view from above shows: a square of `side_m` with the ego vehicle in the middle, driving upwards."""

    side_px: int = 720
    side_m: float = 90.0

    def pixels(self, points_m: Float[np.ndarray, "P 2"], ego_m: np.ndarray, yaw_rad: float) -> Float[np.ndarray, "P 2"]:
        """Global points -> pixels."""
        x, y = (points_m - ego_m).T
        forward_m, left_m = np.cos(yaw_rad) * x + np.sin(yaw_rad) * y, np.cos(yaw_rad) * y - np.sin(yaw_rad) * x
        return np.column_stack([self.side_m / 2 - left_m, self.side_m / 2 - forward_m]) * (self.side_px / self.side_m)


def draw_bev(
    town: Town, cast: Cast, drive: Sequence[WorldState], index: int, title: str, ahead_rgb: Picture, view: BevView | None = None
) -> Picture:
    """State `index` of a drive from above: RGB, with where the ego vehicle was and will be.

    At the right: `title`, numbers, what the colours mean, and the picture `ahead_rgb` of the front camera.
    """
    view, state = view or BevView(), drive[index]
    brush = _Brush(view, state)
    _draw_town(brush, town)
    path_m = np.array([s.ego.position_m for s in drive])
    brush.line(path_m[: index + 1], TRAIL, 3)
    brush.line(path_m[index:], AHEAD, 3)
    for actor in range(len(cast)):
        colour = colour_of(cast.categories[actor])
        brush.box(state.pose[actor], cast.size_lwh_m[actor], colour, moving=bool(abs(state.speed_mps[actor]) > 0.2))
    heading = np.array([np.cos(state.ego.yaw_rad), np.sin(state.ego.yaw_rad)])
    middle = state.ego.position_m + EGO_CENTRE_AHEAD_M * heading
    brush.box(np.array([*middle, state.ego.yaw_rad]), np.array(EGO_SIZE_LWH_M), EGO, moving=True)
    return np.hstack([brush.rgb, _panel(view.side_px, title, state, ahead_rgb)])


def colour_of(category: str) -> Rgb:
    """Colour of an actor of that category."""
    return next((colour for start, colour in COLOURS.items() if category.startswith(start)), INK)


class _Brush:
    """One picture in the making; everything is given in global metres and left out when it is far from the view."""

    def __init__(self, view: BevView, state: WorldState) -> None:
        self.view, self.ego_m, self.yaw_rad = view, state.ego.position_m, state.ego.yaw_rad
        self.rgb = np.full((view.side_px, view.side_px, 3), GRASS, np.uint8)

    def fill(self, ring_m: np.ndarray, colour: Rgb) -> None:
        if (pixels := self._near(ring_m)) is not None:
            cv2.fillPoly(self.rgb, [pixels], colour, cv2.LINE_AA, SHIFT)

    def line(self, points_m: np.ndarray, colour: Rgb, thickness: int, closed: bool = False) -> None:
        if (pixels := self._near(points_m)) is not None:
            cv2.polylines(self.rgb, [pixels], closed, colour, thickness, cv2.LINE_AA, SHIFT)

    def disc(self, middle_m: np.ndarray, radius_m: float, colour: Rgb) -> None:
        if (pixels := self._near(middle_m[None])) is not None:
            radius = round(radius_m * self.view.side_px / self.view.side_m * 2**SHIFT)
            cv2.circle(self.rgb, pixels[0].tolist(), radius, colour, -1, cv2.LINE_AA, SHIFT)

    def box(self, pose: np.ndarray, size_lwh_m: np.ndarray, colour: Rgb, moving: bool) -> None:
        """A rectangle with its front half lighter; standing things are darker."""
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        rotation, half_m = np.array([[cos, -sin], [sin, cos]]), np.maximum(size_lwh_m[:2], 0.5) / 2
        corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * half_m
        self.fill(corners @ rotation.T + pose[:2], colour if moving else tuple(round(0.65 * c) for c in colour))  # type: ignore[arg-type]
        if size_lwh_m[0] > 1.2:
            front = np.array([(0.9, 0.8), (0.9, -0.8), (0.45, -0.8), (0.45, 0.8)]) * half_m
            self.fill(front @ rotation.T + pose[:2], PAPER)

    def _near(self, points_m: np.ndarray) -> np.ndarray | None:
        pixels = self.view.pixels(points_m, self.ego_m, self.yaw_rad)
        side = self.view.side_px
        if (pixels.max(0) < -0.2 * side).any() or (pixels.min(0) > 1.2 * side).any():
            return None
        return np.round(pixels * 2**SHIFT).astype(np.int32)


def _draw_town(brush: _Brush, town: Town) -> None:
    for ring_m in town.pavements:
        brush.fill(ring_m, PAVEMENT)
    for ring_m in town.roads:
        brush.fill(ring_m, ROAD)
    for ring_m in town.boundaries:
        brush.line(ring_m, BOUNDARY, 2, closed=True)
    for crossing in town.crossings:
        for stripe_m in _stripes(crossing):
            brush.fill(stripe_m, CROSSING)
    for divider in town.dividers:
        brush.line(divider.points_m, ROAD_LINE if divider.kind == "road" else LANE_LINE, 2)
    for building in town.buildings:
        brush.fill(building.outline_m, BUILDING)
    for tree in town.trees:
        brush.disc(tree.position_m, tree.crown_radius_m, TREE)


def _stripes(crossing: Crossing) -> list[Float[np.ndarray, "4 2"]]:
    """Zebra stripes: pieces of the outline, as long as it is wide, one after the other in the direction in which people walk."""
    walk = crossing.walk_m[1] - crossing.walk_m[0]
    along = walk / np.linalg.norm(walk)
    across = np.array([-along[1], along[0]])
    middle_m = crossing.outline_m.mean(0)
    long_m, wide_m = (np.ptp((crossing.outline_m - middle_m) @ axis) for axis in (along, across))
    starts_m = np.arange(-long_m / 2 + STRIPE_M / 2, long_m / 2 - STRIPE_M, 2 * STRIPE_M)
    corners = np.array([(0, -wide_m / 2), (STRIPE_M, -wide_m / 2), (STRIPE_M, wide_m / 2), (0, wide_m / 2)])
    return [middle_m + np.outer(corners[:, 0] + start_m, along) + np.outer(corners[:, 1], across) for start_m in starts_m]


def _panel(side_px: int, title: str, state: WorldState, ahead_rgb: Picture) -> Picture:
    panel = np.full((side_px, PANEL_PX, 3), PAPER, np.uint8)
    facts = [
        title,
        f"t = {state.time_s:5.1f} s",
        f"{3.6 * state.ego.speed_mps:3.0f} km/h",
        f"wheels {np.degrees(state.ego.steering_rad):+.1f} deg",
    ]
    for row, text in enumerate(facts):
        _text(panel, text, (12, 26 + 22 * row), INK)
    entries: dict[str, Rgb] = {"ego": EGO, "where it goes": AHEAD, "where it was": TRAIL}
    entries |= {name.split(".")[1].replace("trafficcone", "traffic cone"): colour for name, colour in COLOURS.items()}
    entries |= {"boundary": BOUNDARY, "road divider": ROAD_LINE, "lane divider": LANE_LINE, "crossing": CROSSING}
    for row, (text, colour) in enumerate(entries.items()):
        top = 140 + 24 * row
        cv2.rectangle(panel, (12, top - 11), (28, top + 1), colour, -1)
        _text(panel, text, (38, top), INK)
    height_px = round(PANEL_PX * ahead_rgb.shape[0] / ahead_rgb.shape[1])
    panel[side_px - height_px :] = cv2.resize(ahead_rgb, (PANEL_PX, height_px), interpolation=cv2.INTER_AREA)
    return panel


def _text(rgb: np.ndarray, text: str, place_px: tuple[int, int], colour: Rgb) -> None:
    cv2.putText(rgb, text, place_px, FONT, 0.46, colour, 1, cv2.LINE_AA)
