"""What stands beside the streets: buildings in rows behind the pavements, trees along them and in the yards."""

import numpy as np
import shapely

from sparsedrive.world.curves import left_of
from sparsedrive.world.roads import PAVEMENT_M, Road
from sparsedrive.world.town import Building, Tree

WALLS_RGB = (
    (178, 92, 70), (201, 176, 140), (222, 210, 190), (150, 150, 155), (120, 132, 145), (190, 140, 100),
    (214, 196, 150), (168, 120, 110), (98, 110, 120), (205, 205, 200), (160, 170, 150), (140, 100, 85),
)  # fmt: skip
FACADE_M, DEPTH_M, SETBACK_M, GAP_M = (9.0, 26.0), (8.0, 16.0), (1.0, 6.0), (0.5, 9.0)
LOW_M, HIGH_M, HIGH_PART = (3.5, 14.0), (15.0, 38.0), 0.2
TREE_STEP_M, TREE_BEHIND_PAVEMENT_M, TRUNK_ROOM_M = (7.0, 22.0), (0.6, 2.0), 0.5
YARD_TREES_PER_HECTARE = 9


def place_buildings(rng: np.random.Generator, roads: list[Road], streets: shapely.Geometry) -> list[Building]:
    """Rows of buildings along both sides of every road. `streets` is the ground they must keep off: roads and pavements."""
    shapely.prepare(streets)
    outlines: list[shapely.Polygon] = []
    buildings = []
    for road in roads:
        for side in (-1, 1):
            along_m = rng.uniform(0, 6)
            while along_m < road.along_m[-1]:
                facade_m = rng.uniform(*FACADE_M)
                outline_m = building_outline(rng, road, side, along_m + facade_m / 2, facade_m)
                footprint = shapely.Polygon(outline_m)
                if not (streets.intersects(footprint) or any(shapely.dwithin(outlines, footprint, 0.3))):
                    outlines.append(footprint)
                    height_m = rng.uniform(*(HIGH_M if rng.random() < HIGH_PART else LOW_M))
                    shade = rng.uniform(0.8, 1.1)
                    red, green, blue = (min(255, int(c * shade)) for c in WALLS_RGB[rng.integers(len(WALLS_RGB))])
                    buildings.append(Building(outline_m=outline_m, height_m=float(height_m), colour_rgb=(red, green, blue)))
                along_m += facade_m + rng.uniform(*GAP_M)
    return buildings


def building_outline(rng: np.random.Generator, road: Road, side: int, along_m: float, facade_m: float) -> np.ndarray:
    """A rectangle with its front along the road, sometimes with the corners at the back cut; counter-clockwise."""
    place_m, normal = road.at(along_m)
    kerb_m = np.interp(along_m, road.along_m, road.left_m if side > 0 else road.right_m)
    away, ahead = side * normal, -side * left_of(normal)
    depth_m, cut_m = rng.uniform(*DEPTH_M), rng.uniform(2, 4) * (rng.random() < 0.25)
    front_m = place_m + (kerb_m + PAVEMENT_M + rng.uniform(*SETBACK_M)) * away
    half_m, straight_m = facade_m / 2, depth_m - cut_m
    corners = [(-half_m, 0), (half_m, 0), (half_m, straight_m), (half_m - cut_m, depth_m), (cut_m - half_m, depth_m), (-half_m, straight_m)]
    if not cut_m:
        corners = [corners[i] for i in (0, 1, 3, 4)]
    outline_m = np.array([front_m + x * ahead * side + y * away for x, y in corners])
    return outline_m if shapely.LinearRing(outline_m).is_ccw else outline_m[::-1].copy()


def place_trees(
    rng: np.random.Generator, roads: list[Road], buildings: list[Building], streets: shapely.Geometry, land: shapely.Geometry
) -> list[Tree]:
    """Trees behind the pavements and scattered over `land`, with crowns clear of walls and trunks clear of `streets`."""
    low_m, high_m = np.reshape(land.bounds, (2, 2))
    places = list(rng.uniform(low_m, high_m, size=(int(np.prod(high_m - low_m) / 1e4 * YARD_TREES_PER_HECTARE), 2)))
    for road in roads:
        for kerb_m, side in ((road.left_m, 1), (road.right_m, -1)):
            if rng.random() < 0.75:
                along_m = np.cumsum(rng.uniform(*TREE_STEP_M, size=int(road.along_m[-1] / TREE_STEP_M[0])))
                for at_m in along_m[along_m < road.along_m[-1]]:
                    place_m, normal = road.at(at_m)
                    offset_m = np.interp(at_m, road.along_m, kerb_m) + PAVEMENT_M + rng.uniform(*TREE_BEHIND_PAVEMENT_M)
                    places.append(place_m + side * offset_m * normal)
    places_m = np.array(places)
    radii_m = rng.uniform(1.2, 2.8, len(places_m))
    heights_m = 2.2 * radii_m + rng.uniform(1.5, 3.5, len(places_m))
    points = shapely.points(places_m)
    walls = shapely.STRtree([shapely.Polygon(building.outline_m) for building in buildings])
    near_wall = np.unique(walls.query(points, predicate="dwithin", distance=radii_m * 0.6 + 0.3)[0])
    shapely.prepare(streets)
    free = ~shapely.dwithin(streets, points, TRUNK_ROOM_M)
    free[near_wall] = False
    return [Tree(position_m=places_m[i], height_m=float(heights_m[i]), crown_radius_m=float(radii_m[i])) for i in np.flatnonzero(free)]
