"""The map-expansion JSON of a nuScenes city -> the map lines around a pose: pedestrian crossings, dividers, boundaries.

Source of the schema: nuscenes.org, map expansion v1.3. Which layers make which class: StreamMapNet (arXiv:2308.12570) and SparseDrive
(arXiv:2405.19620). The published converters unite roads in every frame's patch, here it is done once for the city. Heights are not in
the map: the world is flat here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float
from shapely import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from sparsedrive.data.map_lines import cut
from sparsedrive.data.nuscenes.tables import read_json
from sparsedrive.data.prepared import MAP_HALF_SIZE_M
from sparsedrive.structures import MAP_CLASSES

CROSSING, DIVIDER, BOUNDARY = (MAP_CLASSES.index(name) for name in ("ped_crossing", "divider", "boundary"))
LINE_LAYERS = ("lane_divider", "road_divider")
AREA_LAYERS = ("road_segment", "lane")


@dataclass(frozen=True, slots=True, eq=False)
class CityMap:
    """Map lines of a city in the global frame, indexed by place. `invalid_polygons` counts self-crossing polygons that were left out."""

    location: str
    labels: np.ndarray
    lines_m: np.ndarray
    tree: shapely.STRtree
    invalid_polygons: int

    def lines(self, global_T_ego: Float[np.ndarray, "4 4"]) -> list[tuple[int, Float[np.ndarray, "P 2"]]]:
        """(index into `MAP_CLASSES`, vertices in the ego frame) of all lines in the square |x|, |y| <= `MAP_HALF_SIZE_M`.

        Crossings are counter-clockwise rings closed along the square's sides, each as it is in the map: `clip_to_roi` unites those that
        belong together. Boundaries have the road on their right and, like dividers, end at the square; a line that leaves it and comes
        back is several. Only the heading and place of the pose count.
        `ValueError` for a pose that is not finite.
        """
        if not np.isfinite(global_T_ego).all():
            raise ValueError(f"CityMap.lines: the pose holds {np.asarray(global_T_ego).tolist()}, expected finite numbers; check ego_pose")
        yaw_rad = np.arctan2(global_T_ego[1, 0], global_T_ego[0, 0])
        global_R_ego = np.array([[np.cos(yaw_rad), -np.sin(yaw_rad)], [np.sin(yaw_rad), np.cos(yaw_rad)]])
        place_m = np.asarray(global_T_ego[:2, 3], np.float64)
        square = shapely.box(-MAP_HALF_SIZE_M, -MAP_HALF_SIZE_M, MAP_HALF_SIZE_M, MAP_HALF_SIZE_M)
        outline = shapely.transform(square, lambda points: points @ global_R_ego.T + place_m)
        found = np.sort(self.tree.query(outline, predicate="intersects"))
        near = [(int(self.labels[i]), (shapely.get_coordinates(self.lines_m[i]) - place_m) @ global_R_ego) for i in found]
        return cut(near, square, square)


def load_city_map(root: Path, location: str) -> CityMap:
    """Read `<root>/maps/expansion/<location>.json`, check its foreign keys, unite its roads.

    `ValueError`: missing or malformed file, missing layer, row without a field, broken token (layer, row and token are named).
    """
    path = Path(root) / "maps" / "expansion" / f"{location}.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; unpack nuScenes-map-expansion-v1.3.zip into {path.parents[1]}")
    layers = _Layers(path)
    dividers = [line for layer in LINE_LAYERS for line in layers.lines(layer)]
    crossings = list(layers.polygons("ped_crossing"))
    areas = [polygon for layer in AREA_LAYERS for polygon in layers.polygons(layer)]

    outlines = [_ring(crossing.exterior, counter_clockwise=True) for crossing in _valid(crossings)]
    boundaries = road_outlines(_valid(areas))
    lines = np.array([*outlines, *dividers, *boundaries], dtype=object)
    labels = np.repeat([CROSSING, DIVIDER, BOUNDARY], [len(outlines), len(dividers), len(boundaries)])
    invalid = sum(not polygon.is_valid for polygon in crossings + areas)
    return CityMap(location, labels, lines, shapely.STRtree(lines), invalid)


def road_outlines(areas: Sequence[Polygon]) -> list[LineString]:
    """Outlines of the union of areas, holes too, such that the road is on the right."""
    parts = _polygons(shapely.union_all(areas))
    outer = [_ring(part.exterior, counter_clockwise=False) for part in parts]
    return outer + [_ring(hole, counter_clockwise=True) for part in parts for hole in part.interiors]


class _Layers:
    """Layers of an expansion file, tokens looked up with errors that name the place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = read_json(path)
        if not isinstance(self.content, dict):
            raise ValueError(f"{path}: expected a JSON object of layers, got {type(self.content).__name__}; unpack the map expansion again")
        self.nodes = self._by_token("node", _place_m)
        self.node_tokens = self._by_token("line", lambda row: row["node_tokens"])
        self.rings = self._by_token("polygon", lambda row: [row["exterior_node_tokens"], *(hole["node_tokens"] for hole in row["holes"])])

    def lines(self, layer: str) -> Iterator[LineString]:
        """Geometry of a layer of lines. Lines of less than two nodes are nothing to draw."""
        for token, key in self._by_token(layer, lambda row: row["line_token"]).items():
            nodes = self._follow(layer, token, "line", key, self.node_tokens)
            if len(nodes) >= 2:
                yield LineString(self._points("line", key, nodes))

    def polygons(self, layer: str) -> Iterator[Polygon]:
        """Geometry of a layer of polygons."""
        for token, key in self._by_token(layer, lambda row: row["polygon_token"]).items():
            exterior, *holes = self._follow(layer, token, "polygon", key, self.rings)
            if len(exterior) >= 3:
                yield Polygon(self._points("polygon", key, exterior), [self._points("polygon", key, hole) for hole in holes if hole])

    def _points(self, layer: str, token: str, nodes: Sequence[str]) -> list[tuple[float, float]]:
        return [self._follow(layer, token, "node", node, self.nodes) for node in nodes]

    def _follow(self, layer: str, token: str, parent: str, key: str, rows: Mapping[str, Any]) -> Any:
        if key not in rows:
            raise ValueError(
                f"{self.path}: layer {layer!r}, row {token!r}: {key!r} is in no row of layer {parent!r}; "
                "the file is incomplete, unpack the map expansion again"
            )
        return rows[key]

    def _by_token(self, layer: str, read: Callable[[dict], Any]) -> dict[str, Any]:
        rows = self.content.get(layer)
        if not isinstance(rows, list):
            raise ValueError(f"{self.path}: expected a list {layer!r}, got layers {sorted(self.content)}; the map expansion v1.3 has it")
        read_rows = {}
        for row in rows:
            try:
                read_rows[row["token"]] = read(row)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{self.path}: layer {layer!r}: expected a row of schema v1.3, got {row}: {error!r}") from error
        return read_rows


def _place_m(node: dict) -> tuple[float, float]:
    x_m, y_m = float(node["x"]), float(node["y"])
    if not (isfinite(x_m) and isfinite(y_m)):
        raise ValueError("a node must have finite x and y")
    return x_m, y_m


def _valid(polygons: Sequence[Polygon]) -> list[Polygon]:
    """The polygons that do not cross themselves; as in the devkit others do not count."""
    return [polygon for polygon in polygons if polygon.is_valid]


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    return [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon) and not part.is_empty]


def _ring(ring: BaseGeometry, *, counter_clockwise: bool) -> LineString:
    points = shapely.get_coordinates(ring)
    return LineString(points if shapely.is_ccw(ring) == counter_clockwise else points[::-1])
