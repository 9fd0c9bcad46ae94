"""The ground: asphalt, grass, pavements and lane paint as pictures seen from above, and how a camera sees them.

Pictures are made around the ego vehicle at several resolutions ("levels"), each a square of texels on a global grid, so that a
place looks the same whichever window it is cut from, and a town of any size needs the same memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from sparsedrive.world.foliage import crown_centre_m
from sparsedrive.world.looks import Look
from sparsedrive.world.town import Town

LEVEL_TEXEL_M = (0.03, 0.06, 0.2)
LEVEL_SIZE = 2048
SNAP = 2
"""A window is cut anew when the ego vehicle has moved on by 1 / SNAP of its side."""
TILE = 512
GRASS_RGB, ASPHALT_RGB, PAVEMENT_RGB = (96, 120, 64), (84, 85, 88), (158, 154, 148)
KERB_RGB, WHITE_RGB, YELLOW_RGB = np.array((186, 184, 178)), np.array((232, 232, 228)), np.array((232, 186, 60))
KERB_M, LINE_M, EDGE_M, STOP_M, DASH_M, GAP_M, ZEBRA_M = 0.22, 0.15, 0.12, 0.42, 3.0, 4.5, 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paint:
    """A polygon [K, 2] in the global frame with its colour."""

    outline_m: Float[np.ndarray, "K 2"]
    rgb: Float[np.ndarray, "3"]


def lane_paint(town: Town) -> list[Paint]:
    """All lines on the roads: kerbs, edge lines, dividers, zebra crossings and stop lines."""
    paint = []
    for ring in town.boundaries:
        paint += [Paint(outline_m=quad, rgb=KERB_RGB) for quad in line(ring, KERB_M)]
    for divider in town.dividers:
        rgb = YELLOW_RGB if divider.kind == "road" else WHITE_RGB
        dashes = line(divider.points_m, LINE_M) if divider.paint == "solid" else []
        if divider.paint == "dashed":
            dashes = line(divider.points_m, LINE_M, DASH_M, GAP_M)
        elif divider.paint == "double":
            dashes = [quad for side in (-1, 1) for quad in line(beside(divider.points_m, side * LINE_M), LINE_M)]
        paint += [Paint(outline_m=quad, rgb=rgb) for quad in dashes]
    for crossing in town.crossings:
        paint += [Paint(outline_m=quad, rgb=WHITE_RGB) for quad in zebra(crossing.outline_m, crossing.walk_m)]
    paint += [Paint(outline_m=quad, rgb=WHITE_RGB) for quad in stop_lines(town)]
    return paint


def line(points_m: np.ndarray, width_m: float, dash_m: float = 0.0, gap_m: float = 0.0) -> list[np.ndarray]:
    """Quads [4, 2] along a polyline [P, 2]; with `dash_m` only dashes of that length with gaps between them."""
    along_m = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_m, axis=0), axis=1))])
    if dash_m:
        starts = np.arange(0.5 * gap_m, along_m[-1] - 0.5 * dash_m, dash_m + gap_m)
        pieces = [np.stack([np.interp([s, s + dash_m], along_m, points_m[:, i]) for i in (0, 1)], axis=1) for s in starts]
    else:
        pieces = [points_m]
    return [quad for piece in pieces for quad in _quads(piece, width_m)]


def _quads(points_m: np.ndarray, width_m: float) -> np.ndarray:
    left, right = beside(points_m, width_m / 2), beside(points_m, -width_m / 2)
    return np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)


def beside(points_m: Float[np.ndarray, "P 2"], left_m: float) -> Float[np.ndarray, "P 2"]:
    """A polyline moved to its left."""
    ahead = np.gradient(points_m, axis=0)
    if np.array_equal(points_m[0], points_m[-1]):
        ahead[0] = ahead[-1] = points_m[1] - points_m[-2]
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    return points_m + left_m * np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)


def zebra(outline_m: np.ndarray, walk_m: np.ndarray) -> list[np.ndarray]:
    """The bars of a crossing: across the way people walk, as long as the crossing is wide."""
    walk = walk_m[1] - walk_m[0]
    walk = walk / np.linalg.norm(walk)
    side = np.array([-walk[1], walk[0]])
    middle, centred = outline_m.mean(0), outline_m - outline_m.mean(0)
    half_walk_m, half_side_m = np.abs(centred @ walk).max(), np.abs(centred @ side).max()
    starts = np.arange(-half_walk_m + ZEBRA_M / 2, half_walk_m - ZEBRA_M, 2 * ZEBRA_M)
    corners = np.array([(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)]) * (ZEBRA_M, half_side_m)
    return [middle + (start + corners[:, :1]) * walk + corners[:, 1:] * side for start in starts]


def stop_lines(town: Town) -> list[np.ndarray]:
    """A bar across every lane that ends at a junction, before the crossing if there is one."""
    bars = []
    for lane in town.lanes:
        if lane.junction is not None or not any(town.lane(other).junction is not None for other in lane.successors):
            continue
        points, at = lane.centre_m, len(lane.centre_m) - 1
        for crossing in town.crossings:
            near = np.flatnonzero(_distance_m(points[-20:], crossing.outline_m) < 1.2)
            if len(near):
                at = min(at, len(points) - len(points[-20:]) + int(near[0]) - 1)
        at = max(at, 1)
        ahead = points[at] - points[at - 1]
        ahead = ahead / np.linalg.norm(ahead)
        across = np.array([-ahead[1], ahead[0]]) * (lane.width_m / 2 - 0.2)
        back = ahead * STOP_M
        bars.append(np.array([points[at] + across, points[at] - across, points[at] - across - back, points[at] + across - back]))
    return bars


def _distance_m(points_m: np.ndarray, outline_m: np.ndarray) -> np.ndarray:
    """Distance of points from a polygon, 0 inside."""
    outline = outline_m.astype(np.float32)
    return np.array([max(0.0, -cv2.pointPolygonTest(outline, point, True)) for point in points_m.astype(np.float32).tolist()])


def static_shadows(town: Town, look: Look) -> list[np.ndarray]:
    """What buildings and trees shade [K, 2], in the sun."""
    shift = -look.sun[:2] / look.sun[2]
    shadows = []
    for building in town.buildings:
        both = np.concatenate([building.outline_m, building.outline_m + building.height_m * shift])
        shadows.append(hull(both))
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for tree in town.trees:
        wobble = 1 + 0.12 * np.sin(3 * turn + tree.height_m) + 0.08 * np.sin(5 * turn)
        ring = (0.92 * tree.crown_radius_m * wobble)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        shadows.append(tree.position_m + crown_centre_m(tree) * shift + ring)
        shadows += list(_quads(np.stack([tree.position_m, tree.position_m + crown_centre_m(tree) * shift]), 0.3))
    return shadows


def hull(points_m: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "K 2"]:
    """Corners of the convex hull."""
    keep = cv2.convexHull((points_m - points_m[0]).astype(np.float32), returnPoints=False)
    return points_m[np.sort(keep[:, 0])] if len(keep) < 3 else points_m[keep[:, 0]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Window:
    """A square of texels on the global grid; `first` is the column and row of its first texel (rows grow to the north)."""

    texel_m: float
    first: Int[np.ndarray, "2"]

    def touched(self, boxes_m: Float[np.ndarray, "N 4"]) -> list[int]:
        """Numbers of the boxes (low x, low y, high x, high y) that reach into the window."""
        low_m, high_m = self.first * self.texel_m, (self.first + LEVEL_SIZE) * self.texel_m
        return np.flatnonzero((boxes_m[:, 2:] > low_m).all(1) & (boxes_m[:, :2] < high_m).all(1)).tolist()

    def texels(self, points_m: Float[np.ndarray, "P 2"], finer: int = 1) -> Int[np.ndarray, "P 2"]:
        """Points as OpenCV takes them with shift 4; (0, 0) is the middle of the first texel. `finer`: in parts of a texel."""
        return np.round(((points_m / self.texel_m - self.first) * finer - 0.5) * 16).astype(np.int32)

    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """`window_T_global`: from metres on the ground (x, y, 1) to texels."""
        scale = 1 / self.texel_m
        return np.array([[scale, 0, -self.first[0] - 0.5], [0, scale, -self.first[1] - 0.5], [0, 0, 1]])


def _boxes(rings_m: Sequence[np.ndarray]) -> Float[np.ndarray, "N 4"]:
    return np.array([(*ring.min(0), *ring.max(0)) for ring in rings_m]).reshape(-1, 4)


class Ground:
    """Pictures of the ground of one town in one look."""

    def __init__(self, town: Town, look: Look, seed: int) -> None:
        self._town, self._paint = town, lane_paint(town)
        self._shadows = static_shadows(town, look) if look.shadow > 0.3 else []
        self._shade = 1 - look.shadow
        self._light = look.ground_light() * (1 - 0.45 * look.wet)
        colours = [np.array(rgb) * self._light for rgb, _ in MATERIALS]
        self._tiles = [
            [np.clip(noise[..., None] * rgb, 0, 255).astype(np.uint8) for noise, rgb in zip(level, colours, strict=True)]
            for level in _textures(seed)
        ]
        self._boxes = _boxes([paint.outline_m for paint in self._paint])
        self._shadow_boxes = _boxes(self._shadows)
        self.mean_rgb = np.array(GRASS_RGB) * self._light
        self.window = lru_cache(maxsize=6)(self._window)

    def window_at(self, level: int, position_m: Float[np.ndarray, "2"]) -> tuple[np.ndarray, np.ndarray]:
        """The picture of a level around a place, and `window_T_global` [3, 3] from metres to its texels."""
        snap_m = LEVEL_TEXEL_M[level] * LEVEL_SIZE / SNAP
        column, row = np.round(np.asarray(position_m) / snap_m).astype(int).tolist()
        return self.window(level, column, row)

    def _window(self, level: int, column: int, row: int) -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "3 3"]]:
        grid = LEVEL_SIZE // SNAP
        first = np.array([column * grid - LEVEL_SIZE // 2, row * grid - LEVEL_SIZE // 2])
        window = _Window(texel_m=LEVEL_TEXEL_M[level], first=first)
        image, asphalt, pavement = (_tiled(tile, first) for tile in self._tiles[level])
        for rings, material in ((self._town.pavements, pavement), (self._town.roads, asphalt)):
            mask = np.zeros((LEVEL_SIZE, LEVEL_SIZE), np.uint8)
            for number in window.touched(_boxes(rings)):
                cv2.fillPoly(mask, [window.texels(rings[number])], 255, cv2.LINE_8, 4)
            cv2.copyTo(material, mask, image)
        self._draw_paint(image, window)
        self._draw_shadows(image, window)
        return image, window.matrix()

    def _draw_paint(self, image: np.ndarray, window: "_Window") -> None:
        """Lines thinner than a texel are fainter instead. Paint is worn where the asphalt is rough."""
        fine, colour = np.zeros((2 * LEVEL_SIZE, 2 * LEVEL_SIZE), np.uint8), np.zeros_like(image)
        for number in window.touched(self._boxes):
            paint = self._paint[number]
            cv2.fillConvexPoly(fine, window.texels(paint.outline_m, finer=2), 235, cv2.LINE_8, 4)
            polygon, rgb = window.texels(paint.outline_m), (paint.rgb * self._light).tolist()
            cv2.polylines(colour, [polygon], True, rgb, 3, cv2.LINE_8, 4)
            cv2.fillConvexPoly(colour, polygon, rgb, cv2.LINE_8, 4)
        cover = cv2.resize(fine, (LEVEL_SIZE, LEVEL_SIZE), interpolation=cv2.INTER_AREA)
        painted = cv2.findNonZero(cover)  # several times as fast as np.nonzero
        if painted is not None:
            columns, rows = painted.reshape(-1, 2).T
            part = cover[rows, columns, None].astype(np.float32) / 255
            rough = image[rows, columns].astype(np.float32)
            worn = colour[rows, columns] * (0.82 + 0.18 * rough / max(float(rough.mean()), 1.0))
            image[rows, columns] = np.clip(rough * (1 - part) + worn * part, 0, 255)

    def _draw_shadows(self, image: np.ndarray, window: "_Window") -> None:
        if len(self._shadows):
            mask = np.zeros(image.shape[:2], np.uint8)
            for number in window.touched(self._shadow_boxes):
                cv2.fillPoly(mask, [window.texels(self._shadows[number])], 255, cv2.LINE_8, 4)
            shade = np.array([self._shade * 0.96, self._shade, self._shade * 1.08])
            dark = np.clip(np.arange(256)[:, None] * shade, 0, 255).astype(np.uint8)[None]
            cv2.copyTo(cv2.LUT(image, dark), mask, image)


MATERIALS = ((GRASS_RGB, 0.16), (ASPHALT_RGB, 0.085), (PAVEMENT_RGB, 0.05))
"""Colour, and how far its brightness wanders."""


@lru_cache(maxsize=4)
def _textures(seed: int) -> list[list[Float[np.ndarray, "T T"]]]:
    """Brightness around 1 of every material at every level."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    return [[_texture(rng, rough, texel_m) for _, rough in MATERIALS] for texel_m in LEVEL_TEXEL_M]


def _texture(rng: np.random.Generator, rough: float, texel_m: float) -> Float[np.ndarray, "T T"]:
    """A tile that repeats: grain as fine as a texel, and patches of half a metre and of metres."""
    brightness = np.ones((TILE, TILE), np.float32)
    for size_m, part in ((0.0, 0.7), (0.15, 0.8), (0.8, 0.55), (4.0, 0.55)):
        if 0 < size_m < texel_m:
            continue
        cells = int(np.clip(TILE * texel_m / size_m, 2, TILE)) if size_m else TILE
        noise = np.pad(rng.normal(size=(cells, cells)).astype(np.float32), 1, mode="wrap")
        large = cv2.resize(noise, None, fx=TILE / cells, fy=TILE / cells, interpolation=cv2.INTER_LINEAR)
        margin = (large.shape[0] - TILE) // 2
        brightness += part * rough * large[margin : margin + TILE, margin : margin + TILE]
    return brightness / brightness.mean()


def _tiled(tile: np.ndarray, first: np.ndarray) -> np.ndarray:
    """A window of an endless plane of tiles; `first` is the column and row of its first texel."""
    rolled = np.roll(tile, (-(first[1] % TILE), -(first[0] % TILE)), axis=(0, 1))
    return np.tile(rolled, (LEVEL_SIZE // TILE, LEVEL_SIZE // TILE, 1))
