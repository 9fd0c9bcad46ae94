"""Map lines as targets: cut to the region of interest, turned, resampled, and in all orders that mean the same element.

A line is (index into `MAP_CLASSES`, vertices [P, 2] in the ego frame, x right, y forward, metres). A ring repeats its first point.
Source of the conventions: SparseDrive (arXiv:2405.19620).
"""

from collections.abc import Sequence

import numpy as np
import shapely
from jaxtyping import Float
from shapely import LineString, MultiLineString, Polygon
from shapely.geometry.base import BaseGeometry

from sparsedrive.structures import MAP_CLASSES

MapLine = tuple[int, Float[np.ndarray, "P 2"]]

BOUNDARY_MARGIN_M = 0.2
"""Boundaries end this far inside the region, as published: there the roads were cut, and the cut was not to become a boundary."""

MIN_LENGTH_M = RING_GAP_M = 1e-3
"""Shorter lines are no targets; a line whose ends are this close is a ring."""

PARALLEL_COSINE = 0.99
"""Touching crossings are one when the cosine between their long sides is above this (8 degrees)."""

CROSSING, BOUNDARY = MAP_CLASSES.index("ped_crossing"), MAP_CLASSES.index("boundary")


def clip_to_roi(lines: Sequence[MapLine], roi_wh_m: tuple[float, float] = (30.0, 60.0)) -> list[MapLine]:
    """The parts of lines inside |x| <= w / 2, |y| <= h / 2, as targets.

    Crossings are areas: they stay rings, counter-clockwise, closed along the region's sides; pieces of one crossing are united. Dividers
    end at the region, boundaries `BOUNDARY_MARGIN_M` inside. A line that leaves and comes back becomes several. Directions are kept;
    where a ring starts is arbitrary.
    """
    corner = np.array(roi_wh_m) / 2
    inner = corner - BOUNDARY_MARGIN_M
    clipped = cut(lines, shapely.box(*-corner, *corner), shapely.box(*-inner, *inner))
    rings = [points for label, points in clipped if label == CROSSING and is_ring(points)]
    others = [(label, points) for label, points in clipped if label != CROSSING or not is_ring(points)]
    return [(CROSSING, ring) for ring in unite_crossings(rings)] + others


def cut(lines: Sequence[MapLine], region: Polygon, boundary_region: Polygon) -> list[MapLine]:
    """The parts of lines inside a region, of boundaries inside `boundary_region`; conventions of `clip_to_roi`, crossings not united."""
    parts: list[MapLine] = []
    for label, points in lines:
        if label == CROSSING and is_ring(points):
            parts += [(label, part) for part in _cut_area(points, region)]
        elif label == BOUNDARY:
            parts += [(label, part) for part in _cut_line(points, boundary_region, join=True)]
        else:
            parts += [(label, part) for part in _cut_line(points, region, join=False)]
    return parts


def unite_crossings(rings: Sequence[Float[np.ndarray, "P 2"]]) -> list[Float[np.ndarray, "P 2"]]:
    """Outlines of crossings, where those that touch and have near parallel long sides are one: long crossings are drawn in pieces.

    As published: a crossing takes the later ones that are next to it, not the next of those. Candidates are found by their extent
    along x and y, so a piece at the far end of a chain is taken or not depending on the heading.
    """
    if len(rings) < 2:
        return list(rings)
    areas = np.array([Polygon(ring) for ring in rings], dtype=object)
    direction = np.stack([_long_side(ring) for ring in rings])
    parallel = np.abs(direction @ direction.T) > PARALLEL_COSINE
    tree = shapely.STRtree(areas)
    left = np.ones(len(areas), bool)
    united = []
    for first in range(len(areas)):
        if left[first]:
            near = np.sort(tree.query(areas[first]))
            group = near[left[near] & (parallel[first, near] | (near == first))]
            left[group] = False
            united += _outlines(shapely.union_all(areas[group])) if len(group) > 1 else [rings[first]]
    return united


def turn(lines: Sequence[MapLine], yaw_rad: float) -> list[MapLine]:
    """Lines turned counter-clockwise by `yaw_rad` about the origin."""
    return [(label, turn_points(points, yaw_rad)) for label, points in lines]


def turn_points(points_m: Float[np.ndarray, "*batch 2"], yaw_rad: float) -> Float[np.ndarray, "*batch 2"]:
    """Points or vectors in x and y turned counter-clockwise by `yaw_rad` about the origin."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return points_m @ np.array([[cos, sin], [-sin, cos]])


def is_ring(points: Float[np.ndarray, "P 2"]) -> bool:
    """Whether a line ends where it starts."""
    return len(points) > 2 and bool(np.linalg.norm(points[0] - points[-1]) <= RING_GAP_M)


def resample(points: Float[np.ndarray, "P 2"], num: int = 20) -> Float[np.ndarray, "num 2"]:
    """`num` points at equal distances along a line, both ends kept; a ring stays a ring."""
    along_m = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=-1))])
    at_m = np.linspace(0.0, along_m[-1], num)
    return np.stack([np.interp(at_m, along_m, points[:, axis]) for axis in (0, 1)], -1)


def orders(points: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "V P 2"]:
    """All orders of the points that trace the same element: of an open line V = 2, of a ring every start in both directions.

    A ring of P points, the last the first again, has V = 2 * (P - 1) orders, each of which repeats its own first point.
    """
    if not is_ring(points):
        return np.stack([points, points[::-1]])
    starts = len(points) - 1
    forward = (np.arange(starts + 1) - np.arange(starts)[:, None]) % starts
    return points[:-1][np.concatenate([forward, starts - 1 - forward])]


def _cut_area(points: np.ndarray, region: Polygon) -> list[np.ndarray]:
    """Outlines of what is left of the area inside a ring."""
    area = Polygon(points)
    return _outlines((area if area.is_valid else shapely.make_valid(area)).intersection(region))


def _outlines(areas: BaseGeometry) -> list[np.ndarray]:
    """Counter-clockwise rings around areas; what is no area is left out."""
    rings = [part.exterior for part in shapely.get_parts(areas) if isinstance(part, Polygon) and part.length >= MIN_LENGTH_M]
    return [shapely.get_coordinates(ring)[:: 1 if ring.is_ccw else -1] for ring in rings]


def _cut_line(points: np.ndarray, region: Polygon, *, join: bool) -> list[np.ndarray]:
    """Parts of a line inside a region; `join` makes one of parts that touch (a ring's at its start)."""
    inside: BaseGeometry = LineString(points).intersection(region)
    if join and isinstance(inside, MultiLineString):
        inside = shapely.line_merge(inside)
    lines = [part for part in shapely.get_parts(inside) if isinstance(part, LineString) and part.length >= MIN_LENGTH_M]
    return [shapely.get_coordinates(line) for line in lines]


def _long_side(ring: np.ndarray) -> np.ndarray:
    """Unit vector [2] along the long side of the smallest rectangle around a ring."""
    corners = shapely.get_coordinates(shapely.minimum_rotated_rectangle(LineString(ring)))
    sides = np.diff(corners[:3], axis=0)
    length = np.linalg.norm(sides, axis=-1)
    return sides[length.argmax()] / length.max()
