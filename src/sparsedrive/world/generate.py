"""A town from a number: streets first, then the ground they need, then what stands beside them."""

from dataclasses import replace

import numpy as np
import shapely

from sparsedrive.world.crossroads import junction_arms, junction_ground, junction_lanes, trim_streets
from sparsedrive.world.curves import Points
from sparsedrive.world.layout import TownSize, plan_streets
from sparsedrive.world.roads import (
    Road,
    build_road,
    kerbs,
    road_crossings,
    road_dividers,
    road_lanes,
    road_parkings,
    road_pavements,
    strip,
)
from sparsedrive.world.scenery import place_buildings, place_trees
from sparsedrive.world.town import Lane, Town

MARGIN_M = 5.0


def generate_town(seed: int, name: str | None = None, size: TownSize | None = None) -> Town:
    """A town around (800, 1600) m, the same for the same seed and size; its streets are some 450 m x 450 m by default.

    Traffic keeps to the right. Every lane has a successor and can be reached from every other (with lane changes). The name is
    "town-<seed>" unless given. Raises ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"generate_town: expected a seed of 0 or more, got {seed}")
    plan_rng, road_rng, scenery_rng = (np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(3))
    streets = plan_streets(plan_rng, size or TownSize())
    roads: list[Road] = []
    first_lane = 0
    for street, trims_m in zip(streets, trim_streets(road_rng, streets), strict=True):
        roads.append(build_road(road_rng, street, trims_m, first_lane))
        first_lane += 2 * street.lanes
    lanes, grounds, pavements = connect_roads(roads)
    surface = shapely.unary_union([shapely.Polygon(ring) for ring in grounds])
    crossings, dividers = [], []
    for road in roads:
        across, between_m = road_crossings(road_rng, road)
        crossings += across
        dividers += road_dividers(road_rng, road, between_m)
    walked = shapely.unary_union([surface, *(shapely.Polygon(ring) for ring in pavements)])
    buildings = place_buildings(scenery_rng, roads, walked)
    land = shapely.box(*surface.bounds).buffer(25)
    everything = [walked, *(shapely.Polygon(building.outline_m) for building in buildings), land]
    x_min, y_min, x_max, y_max = shapely.total_bounds(everything)
    return Town(
        name=f"town-{seed}" if name is None else name,
        extent_m=(float(x_min) - MARGIN_M, float(y_min) - MARGIN_M, float(x_max) + MARGIN_M, float(y_max) + MARGIN_M),
        lanes=tuple(lanes),
        roads=tuple(grounds),
        boundaries=tuple(outline(surface)),
        pavements=tuple(pavements),
        crossings=tuple(crossings),
        dividers=tuple(dividers),
        parkings=tuple(parking for road in roads for parking in road_parkings(road)),
        buildings=tuple(buildings),
        trees=tuple(place_trees(scenery_rng, roads, buildings, walked, land)),
    )


def connect_roads(roads: list[Road]) -> tuple[list[Lane], list[Points], list[Points]]:
    """All lanes joined at the junctions; outlines of the ground of roads and junctions; pavements beside them."""
    lanes = [lane for road in roads for lane in road_lanes(road)]
    grounds = [strip(*kerbs(road)) for road in roads]
    pavements = [pavement for road in roads for pavement in road_pavements(road)]
    successors: dict[int, tuple[int, ...]] = {lane.lane_id: () for lane in lanes}
    for junction in range(1 + max(end for road in roads for end in road.ends)):
        arms = junction_arms(roads, junction)
        through, begin_at = junction_lanes(arms, lanes, junction)
        for lane, before in zip(through, begin_at, strict=True):
            successors[before] += (lane.lane_id,)
        lanes += through
        ground, corners = junction_ground(arms)
        grounds.append(ground)
        pavements += corners
    return [replace(lane, successors=successors.get(lane.lane_id, lane.successors)) for lane in lanes], grounds, pavements


def outline(surface: shapely.Geometry) -> list[Points]:
    """The rings around a surface, closed."""
    return [shapely.get_coordinates(ring) for part in shapely.get_parts(surface) for ring in (part.exterior, *part.interiors)]
