"""A town -> the JSON of the nuScenes map expansion 1.3, and the semantic-prior picture.

Layers are lists of records that name polygons and lines, which name nodes. Source of the format: nuscenes.org, "map expansion", and its
tutorial. Traffic lights and car parks beside the road do not exist in the world: their layers are empty.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from shapely import Point, Polygon

from sparsedrive.world.arcs import arcline_path
from sparsedrive.world.tables import Row, token
from sparsedrive.world.town import Lane, Town

VERSION = "1.3"
MASK_PX_PER_M = 10
STOP_LINE_M = 0.6
PAINT = {"solid": "SINGLE_SOLID_WHITE", "dashed": "DOUBLE_DASHED_WHITE", "double": "DOUBLE_SOLID_WHITE"}
"""Paint of the world -> segment_type of nuScenes, which knows no single dashed line."""
RoadOf = Callable[[np.ndarray], str | None]
LAYERS = (
    "polygon",
    "line",
    "node",
    "drivable_area",
    "road_segment",
    "road_block",
    "lane",
    "ped_crossing",
    "walkway",
    "stop_line",
    "carpark_area",
    "road_divider",
    "lane_divider",
    "traffic_light",
    "lane_connector",
)


def map_expansion(town: Town, location: str) -> Row:
    """All layers of one town. Polygons and lines have the town's own vertices; a ring's last point is left out, as there."""
    layers = _Layers(location)
    road_of = _segments(layers, town)
    for lane in town.lanes:
        layers.add("lane_connector" if lane.junction is not None else "lane", lane.lane_id, **_lane_fields(layers, lane))
    _blocks_and_stop_lines(layers, town, road_of)
    for index, crossing in enumerate(town.crossings):
        segment = road_of(crossing.outline_m.mean(0))
        layers.add("ped_crossing", index, polygon_token=layers.polygon(crossing.outline_m), road_segment_token=segment)
    for index, divider in enumerate(town.dividers):
        line = layers.line(divider.points_m)
        if divider.kind == "road":
            layers.add("road_divider", index, line_token=line, road_segment_token=road_of(divider.points_m[len(divider.points_m) // 2]))
        else:
            pieces = [{"node_token": node, "segment_type": PAINT[divider.paint]} for node in layers.nodes_of(line)]
            layers.add("lane_divider", index, line_token=line, lane_divider_segments=pieces)
    for index, pavement in enumerate(town.pavements):
        layers.add("walkway", index, polygon_token=layers.polygon(pavement))
    incoming: dict[int, list[str]] = {lane.lane_id: [] for lane in town.lanes}
    for lane in town.lanes:
        for successor in lane.successors:
            incoming[successor].append(lane_token(location, lane))
    connectivity = {
        lane_token(location, lane): {
            "incoming": incoming[lane.lane_id],
            "outgoing": [lane_token(location, town.lane(other)) for other in lane.successors],
        }
        for lane in town.lanes
    }
    paths = {lane_token(location, lane): arcline_path(lane.centre_m) for lane in town.lanes}
    edge = [float(value) for value in town.extent_m[2:]]
    return {**layers.records, "arcline_path_3": paths, "connectivity": connectivity, "canvas_edge": edge, "version": VERSION}


def lane_token(location: str, lane: Lane) -> str:
    """Token of a lane, or of a connector inside a junction."""
    return token("map", location, "lane_connector" if lane.junction is not None else "lane", lane.lane_id)


def semantic_mask(town: Town) -> UInt8[np.ndarray, "H W"]:
    """255 on roads and pavements, 0 elsewhere: 0.1 m a pixel, x = 0 at the left and y = 0 at the bottom border."""
    width_m, height_m = town.extent_m[2:]
    mask = np.zeros((round(height_m * MASK_PX_PER_M), round(width_m * MASK_PX_PER_M)), np.uint8)
    for ring_m in (*town.roads, *town.pavements):
        pixels = np.column_stack([ring_m[:, 0] * MASK_PX_PER_M, len(mask) - ring_m[:, 1] * MASK_PX_PER_M])
        cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, shift=4)
    return mask


class _Layers:
    """Records by layer, while they are made."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.records: dict[str, list[Row]] = {name: [] for name in LAYERS}

    def add(self, layer: str, key: object, **fields: object) -> str:
        own = token("map", self.location, layer, key)
        self.records[layer].append({"token": own, **fields})
        return own

    def line(self, points_m: Float[np.ndarray, "P 2"]) -> str:
        return self.add("line", len(self.records["line"]), node_tokens=self._nodes(points_m))

    def polygon(self, ring_m: Float[np.ndarray, "K 2"], holes_m: Sequence[Float[np.ndarray, "K 2"]] = ()) -> str:
        holes = [{"node_tokens": self._nodes(_open(hole_m))} for hole_m in holes_m]
        return self.add("polygon", len(self.records["polygon"]), exterior_node_tokens=self._nodes(_open(ring_m)), holes=holes)

    def nodes_of(self, line_token: str) -> list[str]:
        assert self.records["line"][-1]["token"] == line_token, "ask right after the line was made"
        return self.records["line"][-1]["node_tokens"]

    def _nodes(self, points_m: Float[np.ndarray, "P 2"]) -> list[str]:
        return [self.add("node", len(self.records["node"]), x=x, y=y) for x, y in points_m.tolist()]


def _open(ring_m: np.ndarray) -> np.ndarray:
    return ring_m[:-1] if (ring_m[0] == ring_m[-1]).all() else ring_m


def _segments(layers: _Layers, town: Town) -> RoadOf:
    """Adds drivable area and road segments; returns the function that finds the segment a point lies in (None: in none)."""
    area = layers.add("drivable_area", 0, polygon_tokens=[layers.polygon(ring, holes) for ring, holes in nest(town.boundaries)])
    junction_points = [Point(lane.centre_m[len(lane.centre_m) // 2]) for lane in town.lanes if lane.junction is not None]
    segments = []
    for index, road in enumerate(town.roads):
        polygon = Polygon(road)
        crossing = any(polygon.contains(point) for point in junction_points)
        fields = {"polygon_token": layers.polygon(road), "is_intersection": crossing, "drivable_area_token": area}
        segments.append((polygon, layers.add("road_segment", index, **fields)))
    return lambda point_m: next((found for polygon, found in segments if polygon.contains(Point(point_m))), None)


def nest(rings_m: Sequence[Float[np.ndarray, "K 2"]]) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Rings that do not cross as (outer ring, its holes): a ring inside an odd number of others is a hole of the smallest of them."""
    polygons = [Polygon(ring) for ring in rings_m]
    around = [[o for o, outer in enumerate(polygons) if o != i and outer.contains(inner)] for i, inner in enumerate(polygons)]
    parent = [min(others, key=lambda o: polygons[o].area) if len(others) % 2 else None for others in around]
    return [(rings_m[i], [rings_m[h] for h in range(len(rings_m)) if parent[h] == i]) for i in range(len(rings_m)) if parent[i] is None]


def edges_of(lane: Lane) -> tuple[Float[np.ndarray, "P 2"], Float[np.ndarray, "P 2"]]:
    """Left and right edge of a lane, both in its direction."""
    along = np.gradient(lane.centre_m, axis=0)
    left = np.column_stack([-along[:, 1], along[:, 0]]) / np.linalg.norm(along, axis=1, keepdims=True) * lane.width_m / 2
    return lane.centre_m + left, lane.centre_m - left


def _strip(layers: _Layers, left_m: np.ndarray, right_m: np.ndarray) -> dict[str, str]:
    """Polygon between two edges, and the lines across its two ends."""
    return {
        "polygon_token": layers.polygon(np.concatenate([left_m, right_m[::-1]])),
        "from_edge_line_token": layers.line(np.stack([left_m[0], right_m[0]])),
        "to_edge_line_token": layers.line(np.stack([left_m[-1], right_m[-1]])),
    }


def _lane_fields(layers: _Layers, lane: Lane) -> Row:
    left_m, right_m = edges_of(lane)
    if lane.junction is not None:
        return {"polygon_token": layers.polygon(np.concatenate([left_m, right_m[::-1]]))}
    # Where a lane's borders are painted is in lane_divider and road_divider.
    return {**_strip(layers, left_m, right_m), "lane_type": "CAR", "left_lane_divider_segments": [], "right_lane_divider_segments": []}


def _blocks_and_stop_lines(layers: _Layers, town: Town, road_of: RoadOf) -> None:
    """A block is all neighbouring lanes of one direction; a stop line lies where a lane ends whose traffic must let others go first."""
    for leftmost in (lane for lane in town.lanes if lane.junction is None and lane.left is None):
        lanes = [leftmost]
        while lanes[-1].right is not None:
            lanes.append(town.lane(lanes[-1].right))
        strip = _strip(layers, edges_of(lanes[0])[0], edges_of(lanes[-1])[1])
        segment = road_of(leftmost.centre_m[len(leftmost.centre_m) // 2])
        block = layers.add("road_block", leftmost.lane_id, **strip, road_segment_token=segment)
        for lane in lanes:
            if any(town.lane(successor).yields_to for successor in lane.successors):
                fields = {"polygon_token": layers.polygon(_end_of(lane)), "stop_line_type": "YIELD", "road_block_token": block}
                layers.add("stop_line", lane.lane_id, **fields, ped_crossing_tokens=[], traffic_light_tokens=[])


def _end_of(lane: Lane) -> Float[np.ndarray, "4 2"]:
    left_m, right_m = (edge_m[-1] for edge_m in edges_of(lane))
    back = np.array([left_m[1] - right_m[1], right_m[0] - left_m[0]]) / np.linalg.norm(left_m - right_m) * -STOP_LINE_M
    return np.stack([left_m, right_m, right_m + back, left_m + back])
