"""A street between two junctions made into ground: lanes side by side, kerbs, dividers, crossings, places to park."""

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float

from sparsedrive.world.curves import Points, Vector, curvature, left_of, lengths_m, resample, unit
from sparsedrive.world.layout import Street
from sparsedrive.world.town import Crossing, Divider, Lane, Parking

SHOULDER_M = 0.5
PAVEMENT_M = 2.6
STEP_M = 1.0
KERB_TOLERANCE_M = 0.01
WIDE_LIMIT_MPS, NARROW_LIMIT_MPS = 14.0, 11.0
SIDE_ACCELERATION_MPS2 = 2.5
CROSSING_PART, CROSSING_AFTER_M, CROSSING_WIDTH_M = 0.6, 1.0, (3.0, 4.5)
STOP_BEFORE_CROSSING_M = 1.0
BAY_WIDTH_M, BAY_RAMP_M, BAY_FROM_MOUTH_M, CAR_PLACE_M, MOST_CARS = 2.2, 3.0, 14.0, 6.5, 14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Road:
    """The part of a street between its two mouths, where junctions begin.

    `centre_m` has points 1 m apart, `normal` points to the left, `left_m` and `right_m` are the distances of the kerbs from the
    centre line. Lanes of the direction of `centre_m` have the numbers `forward`, the others `backward`, each from left to right.
    """

    ends: tuple[int, int]
    centre_m: Points
    normal: Float[np.ndarray, "P 2"]
    along_m: Float[np.ndarray, "P"]
    left_m: Float[np.ndarray, "P"]
    right_m: Float[np.ndarray, "P"]
    lane_width_m: float
    forward: tuple[int, ...]
    backward: tuple[int, ...]

    def beside(self, offset_m: float | np.ndarray) -> Points:
        """The centre line moved to the left by `offset_m` (one number, or one a point)."""
        return self.centre_m + np.reshape(offset_m, (-1, 1)) * self.normal

    def at(self, along_m: float) -> tuple[Vector, Vector]:
        """Place on the centre line and direction to the left there."""
        place, normal = (
            np.array([np.interp(along_m, self.along_m, values[:, i]) for i in range(2)]) for values in (self.centre_m, self.normal)
        )
        return place, unit(normal)


def half_width_m(street: Street) -> float:
    """From the centre line to the kerb."""
    return street.lanes * street.lane_width_m + SHOULDER_M


def build_road(rng: np.random.Generator, street: Street, trims_m: tuple[float, float], first_lane: int) -> Road:
    """Cut the street at its mouths (`trims_m` from either end), number its lanes from `first_lane`, widen it for parking."""
    path_along_m = lengths_m(street.path_m)
    from_m, to_m = trims_m[0], path_along_m[-1] - trims_m[1]
    assert to_m - from_m > 20, f"a street of {path_along_m[-1]:.0f} m does not reach between its junctions"
    at_m = np.linspace(from_m, to_m, round((to_m - from_m) / STEP_M) + 1)
    tangents = np.gradient(street.path_m, path_along_m, axis=0)
    centre_m, tangent = (
        np.stack([np.interp(at_m, path_along_m, values[:, i]) for i in range(2)], axis=1) for values in (street.path_m, tangents)
    )
    along_m, lanes = at_m - from_m, range(street.lanes)
    return Road(
        ends=street.ends,
        centre_m=centre_m,
        normal=left_of(unit(tangent)),
        along_m=along_m,
        left_m=half_width_m(street) + bay_m(rng, along_m, street.lanes),
        right_m=half_width_m(street) + bay_m(rng, along_m, street.lanes),
        lane_width_m=street.lane_width_m,
        forward=tuple(first_lane + k for k in lanes),
        backward=tuple(first_lane + street.lanes + k for k in lanes),
    )


def bay_m(rng: np.random.Generator, along_m: Float[np.ndarray, "P"], lanes: int) -> Float[np.ndarray, "P"]:
    """How much a kerb steps back for parked cars: nothing, or a bay with ramps away from the mouths."""
    room = int((along_m[-1] - 2 * (BAY_FROM_MOUTH_M + BAY_RAMP_M)) / CAR_PLACE_M)
    if rng.random() > (0.6 if lanes == 1 else 0.3) or room < 2:
        return np.zeros_like(along_m)
    places = int(rng.integers(2, min(room, MOST_CARS) + 1))
    spare_m = along_m[-1] - 2 * (BAY_FROM_MOUTH_M + BAY_RAMP_M) - places * CAR_PLACE_M
    from_m = BAY_FROM_MOUTH_M + BAY_RAMP_M + rng.uniform(0, spare_m)
    to_m = from_m + places * CAR_PLACE_M
    return np.interp(along_m, [from_m - BAY_RAMP_M, from_m, to_m, to_m + BAY_RAMP_M], [0.0, BAY_WIDTH_M, BAY_WIDTH_M, 0.0])


def speed_limit_mps(centre_m: Points, at_most_mps: float) -> float:
    """What a comfortable driver makes of the sharpest bend."""
    sharpest = float(np.abs(curvature(centre_m)).max())
    return float(min(at_most_mps, np.sqrt(SIDE_ACCELERATION_MPS2 / max(sharpest, 1e-6))))


def road_lanes(road: Road) -> list[Lane]:
    """The lanes of a road in the order of their numbers, not yet joined to others."""
    limit_mps = WIDE_LIMIT_MPS if len(road.forward) > 1 else NARROW_LIMIT_MPS
    lanes = []
    for ids, sign in ((road.forward, -1), (road.backward, 1)):
        for k, lane_id in enumerate(ids):
            centre_m = resample(road.beside(sign * (k + 0.5) * road.lane_width_m)[::-sign], STEP_M)
            lanes.append(
                Lane(
                    lane_id=lane_id,
                    centre_m=centre_m,
                    width_m=road.lane_width_m,
                    speed_limit_mps=speed_limit_mps(centre_m, limit_mps),
                    successors=(),
                    left=ids[k - 1] if k > 0 else None,
                    right=ids[k + 1] if k + 1 < len(ids) else None,
                )
            )
    return lanes


def kerbs(road: Road) -> tuple[Points, Points]:
    """Left and right kerb in the direction of the centre line, with no more points than their bends need."""
    return thinned(road.beside(road.left_m)), thinned(road.beside(-road.right_m))


def thinned(points_m: Points) -> Points:
    return shapely.get_coordinates(shapely.LineString(points_m).simplify(KERB_TOLERANCE_M))


def strip(line_m: Points, outer_m: Points) -> Points:
    """Ring of the ground between two lines of one direction."""
    return np.concatenate([line_m, outer_m[::-1]])


def road_pavements(road: Road) -> list[Points]:
    """Strips along both kerbs."""
    left_m, right_m = kerbs(road)
    outer_left_m, outer_right_m = road.beside(road.left_m + PAVEMENT_M), road.beside(-road.right_m - PAVEMENT_M)
    return [strip(left_m, thinned(outer_left_m)), strip(right_m, thinned(outer_right_m))]


def road_crossings(rng: np.random.Generator, road: Road) -> tuple[list[Crossing], tuple[float, float]]:
    """Crossings near the mouths, and between which two places [m] there are none (where stop lines are)."""
    crossings, free_m = [], [0.0, float(road.along_m[-1])]
    for end in (0, 1):
        width_m = rng.uniform(*CROSSING_WIDTH_M)
        if rng.random() < CROSSING_PART:
            inward = 1 - 2 * end
            middle_m, normal = road.at(free_m[end] + inward * (CROSSING_AFTER_M + width_m / 2))
            ahead_m, aside_m = -left_of(normal) * width_m / 2, normal * road.left_m[0]
            walk_m = normal * (road.left_m[0] + PAVEMENT_M / 2)
            corners_m = [ahead_m - aside_m, ahead_m + aside_m, -ahead_m + aside_m, -ahead_m - aside_m]
            crossings.append(
                Crossing(
                    outline_m=middle_m + np.array(corners_m),
                    walk_m=middle_m + np.array([-walk_m, walk_m]),
                    lane_ids=road.forward + road.backward,
                )
            )
            free_m[end] += inward * (CROSSING_AFTER_M + width_m + STOP_BEFORE_CROSSING_M)
    return crossings, (free_m[0], free_m[1])


def road_dividers(rng: np.random.Generator, road: Road, between_m: tuple[float, float]) -> list[Divider]:
    """Lines between the lanes from stop line to stop line."""
    inside_m = np.linspace(*between_m, max(2, round((between_m[1] - between_m[0]) / 2)))
    places, normals = (np.stack(values) for values in zip(*(road.at(along_m) for along_m in inside_m), strict=True))
    double = len(road.forward) > 1 or rng.random() < 0.5
    dividers = [Divider(kind="road", paint="double" if double else "solid", points_m=places)]
    for k in range(1, len(road.forward)):
        for side in (-1, 1):
            dividers.append(Divider(kind="lane", paint="dashed", points_m=places + side * k * road.lane_width_m * normals))
    return dividers


def road_parkings(road: Road) -> list[Parking]:
    """Places in the bays, heading as the traffic beside them."""
    places = []
    for kerb_m, side in ((road.left_m, 1), (road.right_m, -1)):
        in_bay_m = road.along_m[kerb_m > kerb_m[0] + BAY_WIDTH_M - 1e-6]
        if len(in_bay_m):
            count = round((in_bay_m[-1] - in_bay_m[0] + STEP_M) / CAR_PLACE_M)
            middle_m = (in_bay_m[0] + in_bay_m[-1]) / 2
            for along_m in middle_m + (np.arange(count) - (count - 1) / 2) * CAR_PLACE_M:
                place_m, normal = road.at(along_m)
                heading = side * left_of(normal)
                offset_m = kerb_m[0] + BAY_WIDTH_M / 2 - SHOULDER_M / 2
                yaw_rad = float(np.arctan2(heading[1], heading[0]))
                places.append(Parking(position_m=place_m + side * offset_m * normal, yaw_rad=yaw_rad))
    return places
