import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from writer_samples import little_town

from sparsedrive.world.arcs import TOLERANCE_M, arcline_path
from sparsedrive.world.map_expansion import LAYERS, edges_of, lane_token, map_expansion, nest, semantic_mask

TOWN = little_town()
MAP = map_expansion(TOWN, "here")
NODES = {row["token"]: (row["x"], row["y"]) for row in MAP["node"]}


def line_m(token: str) -> np.ndarray:
    return np.array([NODES[node] for row in MAP["line"] if row["token"] == token for node in row["node_tokens"]])


def polygon(token: str) -> shapely.Polygon:
    (row,) = (row for row in MAP["polygon"] if row["token"] == token)
    holes = [[NODES[node] for node in hole["node_tokens"]] for hole in row["holes"]]
    return shapely.Polygon([NODES[node] for node in row["exterior_node_tokens"]], holes)


def test_every_layer_is_there_and_every_token_is_known():
    assert set(MAP) == {*LAYERS, "arcline_path_3", "connectivity", "canvas_edge", "version"}
    tokens = {name: {row["token"] for row in MAP[name]} for name in LAYERS}
    assert all(len(tokens[name]) == len(MAP[name]) for name in LAYERS)
    for name in LAYERS:
        for row in MAP[name]:
            for field, value in row.items():
                if field == "road_segment_token" and value is None:
                    continue
                if field.endswith("_token") and field != "token":
                    parent = field[: -len("_token")]
                    assert value in tokens["line" if parent.endswith("line") else parent], (name, field)
    assert json.loads(json.dumps(MAP)) == MAP


def test_lines_and_polygons_are_those_of_the_town():
    (lane_divider,), (road_divider,) = MAP["lane_divider"], MAP["road_divider"]
    np.testing.assert_array_equal(line_m(lane_divider["line_token"]), TOWN.dividers[0].points_m)
    np.testing.assert_array_equal(line_m(road_divider["line_token"]), TOWN.dividers[1].points_m)
    assert {piece["segment_type"] for piece in lane_divider["lane_divider_segments"]} == {"DOUBLE_DASHED_WHITE"}
    assert polygon(MAP["ped_crossing"][0]["polygon_token"]).equals(shapely.Polygon(TOWN.crossings[0].outline_m))
    assert polygon(MAP["walkway"][0]["polygon_token"]).equals(shapely.Polygon(TOWN.pavements[0]))
    for row, road in zip(MAP["road_segment"], TOWN.roads, strict=True):
        assert polygon(row["polygon_token"]).equals(shapely.Polygon(road))
    assert [row["is_intersection"] for row in MAP["road_segment"]] == [False, True]


def test_drivable_area_has_the_boundaries_as_its_rings():
    (area,) = MAP["drivable_area"]
    (token,) = area["polygon_tokens"]
    outer, inner = TOWN.boundaries
    assert polygon(token).equals(shapely.Polygon(outer, [inner]))


def test_rings_are_nested_by_depth():
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], dtype=np.float64)
    rings = [square * size + shift for size, shift in [(2, 4), (10, 0), (8, 1), (1, 4.5), (1, 20)]]
    found = {id(outer): sorted(id(hole) for hole in holes) for outer, holes in nest(rings)}
    assert found == {id(rings[1]): [id(rings[2])], id(rings[0]): [id(rings[3])], id(rings[4]): []}


def test_lanes_blocks_and_stop_lines():
    left, right = (lane_token("here", TOWN.lane(number)) for number in (0, 1))
    assert [row["token"] for row in MAP["lane"]] == [left, right] and [row["token"] for row in MAP["lane_connector"]] == [
        lane_token("here", TOWN.lane(2))
    ]
    assert polygon(MAP["lane"][0]["polygon_token"]).area == pytest.approx(40 * 3.5)
    (block,) = MAP["road_block"]
    assert polygon(block["polygon_token"]).equals(shapely.box(0, 6.75, 40, 13.75))
    assert line_m(block["to_edge_line_token"]).tolist() == [[40, 13.75], [40, 6.75]]
    (stop,) = MAP["stop_line"]
    assert polygon(stop["polygon_token"]).equals(shapely.box(39.4, 10.25, 40, 13.75)) and stop["stop_line_type"] == "YIELD"
    assert MAP["connectivity"][left] == {"incoming": [], "outgoing": [lane_token("here", TOWN.lane(2))]}
    assert MAP["connectivity"][lane_token("here", TOWN.lane(2))] == {"incoming": [left], "outgoing": []}


def test_edges_keep_the_width_in_a_curve():
    left_m, right_m = edges_of(TOWN.lane(2))
    np.testing.assert_allclose(np.linalg.norm(left_m - right_m, axis=1), 3.5)
    assert shapely.LineString(left_m).length < shapely.LineString(right_m).length  # the lane turns left


def test_mask_is_white_on_roads_and_pavements():
    mask = semantic_mask(TOWN)
    assert mask.shape == (500, 600) and set(np.unique(mask)) == {0, 255}
    for x_m, y_m, ground in [(5, 2, True), (20, 15, True), (45, 10, True), (20, 31.5, True), (55, 10, False), (20, 34, False)]:
        assert bool(mask[500 - round(10 * y_m), round(10 * x_m)]) == ground, (x_m, y_m)


def walk(path: list[dict], spacing_m: float = 0.5) -> np.ndarray:
    """Points along arcs, from their start poses and lengths alone."""
    points = []
    for piece in path:
        sign = {"LSL": 1, "RSR": -1, "LSR": 0}[piece["shape"]] / piece["radius"]
        length_m, (x, y, yaw) = sum(piece["segment_length"]), piece["start_pose"]
        s = np.linspace(0, length_m, max(int(length_m / spacing_m), 2))
        forward, left = (np.sin(sign * s) / sign, (1 - np.cos(sign * s)) / sign) if sign else (s, 0 * s)
        points.append(np.column_stack([x + np.cos(yaw) * forward - np.sin(yaw) * left, y + np.sin(yaw) * forward + np.cos(yaw) * left]))
        np.testing.assert_allclose(points[-1][-1], piece["end_pose"][:2], atol=1e-6)
    return np.concatenate(points)


@given(
    st.lists(st.tuples(st.floats(-0.12, 0.12), st.integers(3, 40)), min_size=1, max_size=4),
    st.floats(-3.1, 3.1),
)
def test_arcs_follow_any_smooth_lane(bends, heading):
    curvature = np.concatenate([np.full(count, bend) for bend, count in bends])
    yaw = heading + np.concatenate([[0], np.cumsum(curvature)])
    points_m = 500 + np.cumsum(np.column_stack([np.cos(yaw), np.sin(yaw)]), axis=0)
    path = arcline_path(points_m)
    walked_m = walk(path)
    np.testing.assert_allclose(walked_m[[0, -1]], points_m[[0, -1]], atol=1e-6)
    lane = shapely.LineString(walked_m)
    sagitta_m = 0.12 * 0.5**2 / 8  # of the half metre steps above
    assert max(lane.distance(shapely.Point(point)) for point in points_m) < TOLERANCE_M + sagitta_m


def test_straight_lane_and_quarter_circle_are_one_piece_each():
    (piece,) = arcline_path(np.column_stack([np.arange(60.0), np.zeros(60)]))
    assert piece["segment_length"] == [0.0, 59.0, 0.0]
    (piece,) = arcline_path(TOWN.lane(2).centre_m)
    assert piece["shape"] == "LSL" and piece["radius"] == pytest.approx(8) and piece["segment_length"][0] == pytest.approx(4 * np.pi)
