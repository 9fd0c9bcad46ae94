"""Properties every generated town must have, whatever its seed."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import shapely
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sparsedrive.world.generate import TownSize, generate_town
from sparsedrive.world.town import Town

SEEDS = tuple(range(8))
SIZES = {100: TownSize(columns=3, rows=3, block_m=100.0), 101: TownSize(columns=3, rows=7), 102: TownSize(columns=6, rows=4, block_m=140.0)}


@pytest.fixture(scope="module", params=[*SEEDS, *SIZES])
def town(request) -> Town:
    return generate_town(request.param, size=SIZES.get(request.param))


def headings(points_m: np.ndarray) -> np.ndarray:
    steps_m = np.diff(points_m, axis=0)
    return np.arctan2(steps_m[:, 1], steps_m[:, 0])


def wrapped(angle_rad):
    return (np.asarray(angle_rad) + np.pi) % (2 * np.pi) - np.pi


def least_radius_m(points_m: np.ndarray) -> float:
    turn_rad = np.abs(wrapped(np.diff(headings(points_m))))
    return float(np.median(np.linalg.norm(np.diff(points_m, axis=0), axis=1)) / max(turn_rad.max(), 1e-9))


def surface(town: Town) -> shapely.Geometry:
    return shapely.unary_union([shapely.Polygon(ring) for ring in town.roads])


def junction_polygons(town: Town) -> list[shapely.Polygon]:
    """The road polygons in which junction lanes lie."""
    middles = shapely.points([lane.centre_m[len(lane.centre_m) // 2] for lane in town.lanes if lane.junction is not None])
    return [polygon for polygon in map(shapely.Polygon, town.roads) if shapely.contains(polygon, middles).any()]


def rectangle(position_m, yaw_rad: float, length_m: float, width_m: float) -> shapely.Polygon:
    ahead, aside = (np.array([np.cos(yaw_rad + turn), np.sin(yaw_rad + turn)]) for turn in (0, np.pi / 2))
    corners = [x * length_m / 2 * ahead + y * width_m / 2 * aside for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
    return shapely.Polygon(position_m + np.array(corners))


# Lanes and how they are joined.


def test_a_lane_begins_where_the_one_before_it_ends(town):
    for lane in town.lanes:
        assert lane.successors, f"lane {lane.lane_id} ends nowhere"
        for after in map(town.lane, lane.successors):
            assert (lane.junction is None) != (after.junction is None)
            np.testing.assert_array_equal(after.centre_m[0], lane.centre_m[-1])
            assert abs(np.degrees(wrapped(headings(after.centre_m)[0] - headings(lane.centre_m)[-1]))) < 1


def test_every_lane_is_reached_from_every_other(town):
    ways = [(lane.lane_id, other) for lane in town.lanes for other in (*lane.successors, lane.left, lane.right) if other is not None]
    graph = csr_array((np.ones(len(ways)), tuple(np.transpose(ways))), shape=(len(town.lanes),) * 2)
    assert connected_components(graph, connection="strong")[0] == 1


def test_lanes_are_numbered_and_their_points_a_metre_apart(town):
    assert [lane.lane_id for lane in town.lanes] == list(range(len(town.lanes)))
    for lane in town.lanes:
        steps_m = np.linalg.norm(np.diff(lane.centre_m, axis=0), axis=1)
        assert steps_m.min() > 0.9 and steps_m.max() < 1.1


def test_neighbours_run_beside_each_other_in_one_direction(town):
    pairs = [(lane, town.lane(lane.left)) for lane in town.lanes if lane.left is not None]
    assert {(left.lane_id, lane.lane_id) for lane, left in pairs} == {
        (lane.lane_id, lane.right) for lane in town.lanes if lane.right is not None
    }
    for lane, left in pairs:
        gap_m = shapely.distance(shapely.points(left.centre_m), shapely.LineString(lane.centre_m))
        np.testing.assert_allclose(gap_m, (lane.width_m + left.width_m) / 2, atol=0.02)
        aside_m = left.centre_m[0] - lane.centre_m[0]
        assert wrapped(np.arctan2(aside_m[1], aside_m[0]) - headings(lane.centre_m)[0]) == pytest.approx(np.pi / 2, abs=0.02)


def test_traffic_keeps_to_the_right(town):
    """The line between the directions is to the left of every lane of a road."""
    middles = shapely.MultiLineString([divider.points_m for divider in town.dividers if divider.kind == "road"])
    for lane in (lane for lane in town.lanes if lane.junction is None):
        place_m, yaw_rad = lane.centre_m[len(lane.centre_m) // 2], headings(lane.centre_m)[len(lane.centre_m) // 2]
        nearest_m = shapely.get_coordinates(shapely.shortest_line(shapely.Point(place_m), middles))[1] - place_m
        assert np.sin(np.arctan2(nearest_m[1], nearest_m[0]) - yaw_rad) > 0.9


def test_turns_are_what_they_are_called(town):
    for lane in town.lanes:
        change_deg = np.degrees(wrapped(headings(lane.centre_m)[-1] - headings(lane.centre_m)[0]))
        if lane.junction is not None:
            low, high = {"left": (45, 135), "right": (-135, -45), "straight": (-45, 45)}[lane.turn]
            assert low < change_deg < high
        else:
            assert lane.turn == "straight" and not lane.yields_to


def test_a_car_can_follow_every_lane_at_its_speed(town):
    least_m = {"right": 5.5, "left": 7.0, "straight": 12.0}
    for lane in town.lanes:
        radius_m = least_radius_m(lane.centre_m)
        assert radius_m > (25.0 if lane.junction is None else least_m[lane.turn]), f"lane {lane.lane_id}, {lane.turn}"
        assert 3 < lane.speed_limit_mps < 15
        assert lane.speed_limit_mps**2 / radius_m < 2.6


def test_where_paths_meet_exactly_one_goes_first_and_nobody_waits_in_a_circle(town):
    through = [lane for lane in town.lanes if lane.junction is not None]
    origin = {after: lane.lane_id for lane in town.lanes for after in lane.successors if lane.junction is None}
    for lane in through:
        for other in (other for other in through if other.junction == lane.junction and other.lane_id < lane.lane_id):
            meet = shapely.LineString(lane.centre_m).intersects(shapely.LineString(other.centre_m))
            waits = (other.lane_id in lane.yields_to) + (lane.lane_id in other.yields_to)
            assert waits <= 1
            if meet and origin[lane.lane_id] != origin[other.lane_id]:
                assert waits == 1
            facing = abs(wrapped(headings(lane.centre_m)[0] - headings(other.centre_m)[0])) > np.radians(135)
            if meet and facing and {lane.turn, other.turn} in ({"left", "straight"}, {"left", "right"}):
                assert (lane if lane.turn == "left" else other).yields_to
                assert (other.lane_id in lane.yields_to) == (lane.turn == "left")
    waiting = {lane.lane_id: set(lane.yields_to) for lane in through}
    while waiting:
        free = {lane for lane, others in waiting.items() if not others & waiting.keys()}
        assert free
        waiting = {lane: others for lane, others in waiting.items() if lane not in free}


# The ground.


def test_road_polygons_are_simple_and_do_not_overlap(town):
    polygons = [shapely.Polygon(ring) for ring in town.roads]
    assert all(polygon.is_valid and polygon.exterior.is_simple for polygon in polygons)
    assert surface(town).area == pytest.approx(sum(polygon.area for polygon in polygons), abs=0.1)


def test_lanes_lie_on_the_road_with_their_whole_width(town):
    ground = surface(town)
    for lane in town.lanes:
        points = shapely.points(lane.centre_m)
        assert shapely.covers(ground, points).all()
        assert shapely.distance(ground.boundary, points[1:-1]).min() > lane.width_m / 2 - 0.05


def test_boundaries_are_the_outline_of_the_roads(town):
    ground = surface(town)
    assert isinstance(ground, shapely.Polygon) and len(ground.interiors) >= 2
    assert shapely.equals(shapely.MultiLineString([*town.boundaries]), ground.boundary)
    for ring in town.boundaries:
        np.testing.assert_array_equal(ring[0], ring[-1])
        assert np.linalg.norm(np.diff(ring, axis=0), axis=1).mean() > 0.8, "denser than a map needs"


def test_crossings_span_the_road_outside_junctions(town):
    junctions, pavement = shapely.union_all(junction_polygons(town)), shapely.union_all([shapely.Polygon(ring) for ring in town.pavements])
    ground = surface(town)
    lines = [shapely.LineString(lane.centre_m) for lane in town.lanes]
    assert town.crossings
    for crossing in town.crossings:
        polygon = shapely.Polygon(crossing.outline_m)
        sides_m = np.linalg.norm(np.diff(crossing.outline_m[[0, 1, 2, 3, 0]], axis=0), axis=1)
        np.testing.assert_allclose(sides_m[:2], sides_m[2:])
        assert polygon.area == pytest.approx(sides_m[0] * sides_m[1]), "not a rectangle"
        assert polygon.disjoint(junctions)
        assert shapely.distance(ground.boundary, shapely.points(crossing.outline_m)).max() < 0.1
        walk = shapely.LineString(crossing.walk_m)
        assert shapely.covers(pavement, shapely.points(crossing.walk_m)).all()
        crossed = {lane.lane_id for lane, line in zip(town.lanes, lines, strict=True) if line.intersects(walk)}
        assert crossed == set(crossing.lane_ids)
        assert crossed == {lane.lane_id for lane, line in zip(town.lanes, lines, strict=True) if line.intersects(polygon)}


def test_dividers_lie_between_lanes_on_roads_and_not_in_junctions(town):
    ground, junctions = surface(town), shapely.union_all(junction_polygons(town))
    crossings = shapely.union_all([shapely.Polygon(crossing.outline_m) for crossing in town.crossings])
    centres = shapely.MultiLineString([lane.centre_m for lane in town.lanes])
    assert {divider.kind for divider in town.dividers} == {"road", "lane"}
    for divider in town.dividers:
        line = shapely.LineString(divider.points_m)
        assert line.within(ground) and line.disjoint(crossings)
        assert line.intersection(junctions).length < 1e-6
        assert (divider.paint == "dashed") == (divider.kind == "lane")
        assert line.distance(centres) > 1.5


def test_parked_cars_fit_beside_the_lanes(town):
    ground = surface(town)
    lanes = shapely.union_all([shapely.LineString(lane.centre_m).buffer(lane.width_m / 2, cap_style="flat") for lane in town.lanes])
    cars = [rectangle(parking.position_m, parking.yaw_rad, 4.6, 1.9) for parking in town.parkings]
    assert cars and shapely.covered_by(cars, ground).all() and not shapely.intersects(cars, lanes).any()
    assert shapely.union_all(cars).area == pytest.approx(sum(car.area for car in cars)), "cars stand in each other"
    directions = {lane.lane_id: headings(lane.centre_m) for lane in town.lanes}
    for parking in town.parkings:
        nearest = min(town.lanes, key=lambda lane: np.linalg.norm(lane.centre_m - parking.position_m, axis=1).min())
        at = int(np.linalg.norm(nearest.centre_m - parking.position_m, axis=1).argmin())
        assert abs(wrapped(directions[nearest.lane_id][min(at, len(nearest.centre_m) - 2)] - parking.yaw_rad)) < 0.1


def test_nothing_stands_in_the_way(town):
    pavements = [shapely.Polygon(ring) for ring in town.pavements]
    assert shapely.is_valid(pavements).all()
    ground = surface(town)
    assert ground.intersection(shapely.union_all(pavements)).area < 0.5
    walked = shapely.union_all([ground, *pavements])
    buildings = [shapely.Polygon(building.outline_m) for building in town.buildings]
    assert len(buildings) > 20 and len(town.trees) > 20
    assert not shapely.intersects(walked, buildings).any()
    assert shapely.union_all(buildings).area == pytest.approx(sum(building.area for building in buildings)), "houses stand in each other"
    for building, polygon in zip(town.buildings, buildings, strict=True):
        assert polygon.exterior.is_ccw and polygon.convex_hull.area == pytest.approx(polygon.area)
        assert 3 < building.height_m < 50
    trunks = shapely.points([tree.position_m for tree in town.trees])
    assert shapely.distance(walked, trunks).min() > 0.4
    assert shapely.distance(shapely.union_all(buildings), trunks).min() > 0.4


def test_everything_is_within_the_extent(town):
    x_min, y_min, x_max, y_max = town.extent_m
    parts = [*town.roads, *town.pavements, *(building.outline_m for building in town.buildings), *(tree.position_m for tree in town.trees)]
    points_m = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
    assert (points_m > [x_min, y_min]).all() and (points_m < [x_max, y_max]).all()


# The seed.


def arrays(value) -> list[np.ndarray]:
    """All numbers and texts in a value, in order."""
    if is_dataclass(value):
        return [part for field in fields(value) for part in arrays(getattr(value, field.name))]
    return [part for item in value for part in arrays(item)] if isinstance(value, tuple) else [np.asarray(value)]


def test_a_seed_is_a_town():
    first, again, other = (arrays(generate_town(seed, name="town")) for seed in (3, 3, 4))
    assert len(first) == len(again)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(first) != len(other) or any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_towns_differ_in_their_streets_and_are_large():
    towns = [generate_town(seed) for seed in SEEDS]
    assert len({len(town.roads) for town in towns}) > 3
    for town in towns:
        assert town.name.startswith("town-")
        size_m = np.ptp(np.concatenate(town.roads), axis=0)
        assert (size_m > 350).all() and (size_m < 650).all()
        arms = [len({lane.turn for lane in town.lanes if lane.junction == j}) for j in {lane.junction for lane in town.lanes} - {None}]
        assert len(arms) > 5
    assert {len([1 for lane in towns[0].lanes if lane.turn == turn]) > 10 for turn in ("left", "right", "straight")} == {True}
    assert any(lane.left is not None for lane in towns[0].lanes)


def test_bad_sizes_and_seeds_are_named():
    with pytest.raises(ValueError, match=r"at least 3 columns and 3 rows, got 2 and 5"):
        TownSize(columns=2)
    with pytest.raises(ValueError, match=r"block_m: expected at least 100 m"):
        TownSize(block_m=60)
    with pytest.raises(ValueError, match=r"seed of 0 or more, got -1"):
        generate_town(-1)
