"""Who is in a drive: kinds of actors with their sizes, and how a town is filled with them around the ego's route."""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from sparsedrive.world.drivers import SIDE_MARGIN_M
from sparsedrive.world.network import Network
from sparsedrive.world.overlap import overlapping
from sparsedrive.world.state import Cast
from sparsedrive.world.town import Town


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Size of a nuScenes category: mean length, width, height [m] and the spread of one actor's scale (standard deviation)."""

    category: str
    mean_lwh_m: tuple[float, float, float]
    spread: float
    colours_rgb: tuple[tuple[int, int, int], ...]


PAINTS = ((235, 235, 232), (30, 32, 36), (128, 132, 138), (176, 180, 184), (140, 28, 30), (32, 58, 112), (52, 84, 68), (150, 128, 96))
CLOTHES = ((40, 44, 60), (120, 40, 44), (64, 92, 124), (186, 178, 160), (60, 60, 60), (90, 110, 70), (200, 150, 60))
CAR = Kind(category="vehicle.car", mean_lwh_m=(4.62, 1.95, 1.73), spread=0.05, colours_rgb=PAINTS)
TRUCK = Kind(category="vehicle.truck", mean_lwh_m=(6.93, 2.51, 2.84), spread=0.05, colours_rgb=PAINTS[:4])
BUS = Kind(
    category="vehicle.bus.rigid", mean_lwh_m=(11.1, 2.94, 3.47), spread=0.02, colours_rgb=((214, 176, 44), (60, 110, 168), (190, 50, 46))
)
TRAILER = Kind(category="vehicle.trailer", mean_lwh_m=(12.29, 2.90, 3.87), spread=0.02, colours_rgb=((220, 220, 216), (96, 104, 120)))
DIGGER = Kind(category="vehicle.construction", mean_lwh_m=(6.37, 2.85, 3.19), spread=0.03, colours_rgb=((222, 164, 36), (228, 128, 32)))
MOTORCYCLE = Kind(category="vehicle.motorcycle", mean_lwh_m=(2.11, 0.77, 1.47), spread=0.05, colours_rgb=PAINTS[1:6])
BICYCLE = Kind(category="vehicle.bicycle", mean_lwh_m=(1.70, 0.60, 1.28), spread=0.05, colours_rgb=PAINTS)
ADULT = Kind(category="human.pedestrian.adult", mean_lwh_m=(0.73, 0.67, 1.77), spread=0.05, colours_rgb=CLOTHES)
CHILD = Kind(category="human.pedestrian.child", mean_lwh_m=(0.55, 0.50, 1.33), spread=0.06, colours_rgb=CLOTHES)
CONE = Kind(category="movable_object.trafficcone", mean_lwh_m=(0.41, 0.41, 1.07), spread=0.05, colours_rgb=((232, 92, 28),))
BARRIER = Kind(category="movable_object.barrier", mean_lwh_m=(0.50, 2.53, 0.98), spread=0.03, colours_rgb=((226, 110, 60), (210, 210, 206)))
"""Means of the detection classes as the nuScenes baselines publish them (mmdetection3d, anchor sizes of the nuScenes configs)."""
NARROW = frozenset(kind.category for kind in (BICYCLE, CONE, BARRIER))
WIDEST_HALF_M = 1.55


@dataclass(frozen=True, slots=True, kw_only=True)
class CastConfig:
    """How many of whom, around the first `route_m` of the ego's route.

    Attributes:
        drivers: vehicles under way, cyclists included; one or more of every kind that drives.
        parked_share: part of the parking places near the route that are taken.
        walkers: people on foot. `crossing_share` of them walk a round with a crossing in it.
        sites: work sites at the edge of the road.
    """

    route_m: float = 260.0
    drivers: int = 36
    parked_share: float = 0.8
    walkers: int = 64
    crossing_share: float = 0.15
    sites: int = 5

    def __post_init__(self):
        for name in ("drivers", "walkers", "sites"):
            if getattr(self, name) < 0:
                raise ValueError(f"CastConfig.{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("parked_share", "crossing_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"CastConfig.{name}: expected a part between 0 and 1, got {getattr(self, name)}")


@dataclass(slots=True, eq=False)
class CastList:
    """A cast while it is being put together."""

    rng: np.random.Generator
    kinds: list[Kind] = field(default_factory=list)
    size_lwh_m: list[np.ndarray] = field(default_factory=list)
    colour_rgb: list[np.ndarray] = field(default_factory=list)
    pose: list[np.ndarray] = field(default_factory=list)

    def size(self, kind: Kind) -> np.ndarray:
        """A size for somebody of this kind; never beyond two deviations, so that streets fit."""
        scale = 1 + kind.spread * np.clip(self.rng.standard_normal(3), -2, 2)
        size_m = np.array(kind.mean_lwh_m) * scale
        size_m[1] = min(size_m[1], 2 * WIDEST_HALF_M)
        return size_m

    def add(self, kind: Kind, size_lwh_m: np.ndarray, pose=(0.0, 0.0, 0.0)) -> int:
        """Row of the new actor."""
        self.kinds.append(kind)
        self.size_lwh_m.append(size_lwh_m)
        self.colour_rgb.append(np.array(kind.colours_rgb[self.rng.integers(len(kind.colours_rgb))], float))
        self.pose.append(np.asarray(pose, float))
        return len(self.kinds) - 1

    def cast(self) -> Cast:
        """The finished cast."""
        return Cast(
            categories=tuple(kind.category for kind in self.kinds),
            size_lwh_m=np.array(self.size_lwh_m).reshape(-1, 3),
            colour_rgb=np.array(self.colour_rgb).reshape(-1, 3),
        )

    def boxes(self) -> np.ndarray:
        """x, y, yaw, length, width of everybody so far [N, 5]."""
        poses = np.array(self.pose).reshape(-1, 3)
        return np.concatenate([poses, np.array(self.size_lwh_m).reshape(-1, 3)[:, :2]], 1)


def add_parked(town: Town, network: Network, cast: CastList, near: cKDTree, share: float) -> None:
    """Fill parking places near the route: mostly cars, some of everything else that parks, one or more trailers."""
    lanes = cKDTree(network.points_m)
    rare = [TRAILER, TRUCK, DIGGER, BICYCLE, MOTORCYCLE]
    places = [place for place in town.parkings if near.query(place.position_m)[0] < 45.0]
    for place in (places[k] for k in cast.rng.permutation(len(places))):
        if cast.rng.random() > share:
            continue
        kind = rare[int(cast.rng.integers(len(rare)))] if cast.rng.random() < 0.12 else CAR
        flip = np.pi if cast.rng.random() < 0.1 else 0.0
        wobble = cast.rng.normal(0, [0.25, 0.06, 0.015])
        forward = np.array([np.cos(place.yaw_rad), np.sin(place.yaw_rad)])
        position_m = place.position_m + wobble[0] * forward + wobble[1] * np.array([-forward[1], forward[0]])
        add_static(cast, kind, lanes, np.array([*position_m, place.yaw_rad + flip + wobble[2]]))


def add_static(cast: CastList, kind: Kind, lanes: cKDTree, pose: np.ndarray) -> bool:
    """Put something down beside the lanes; moved away from them, or left out, should it reach into the way of a wide vehicle."""
    size_m = cast.size(kind)
    pose = pose.copy()
    for _ in range(3):
        away_m, row = lanes.query(_edge_points(pose, size_m))
        reaches_m = WIDEST_HALF_M + SIDE_MARGIN_M + 0.05 - away_m.min()
        if reaches_m <= 0:
            break
        outward = pose[:2] - lanes.data[row[away_m.argmin()]]
        pose[:2] += (reaches_m + 0.02) * outward / np.linalg.norm(outward)
    else:
        return False
    box = np.array([[*pose, size_m[0] + 0.5, size_m[1] + 0.1]])
    if cast.kinds and overlapping(box, cast.boxes()).any():
        return False
    cast.add(kind, size_m, pose)
    return True


def _edge_points(pose: np.ndarray, size_m: np.ndarray) -> np.ndarray:
    along, across = np.linspace(-0.5, 0.5, 9) * size_m[0], size_m[1] / 2
    local = np.array([(x, y) for x in along for y in (-across, across)])
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    return pose[:2] + local @ np.array([[cos, sin], [-sin, cos]])


def add_sites(network: Network, cast: CastList, near: cKDTree, sites: int) -> None:
    """Work sites at the right edge of the road: a row of cones or barriers, now and then a digger behind it."""
    lanes = cKDTree(network.points_m)
    road = np.flatnonzero((network.junction < 0) & (network.right < 0) & (network.length_m > 45))
    close = np.array([near.query(network.points_m[network.of_lane(lane)])[0].min() < 8.0 for lane in road.tolist()])
    road = road[close] if close.any() else road
    for site in range(sites if len(road) else 0):
        lane = int(road[cast.rng.integers(len(road))])
        kind, spacing_m, count = (CONE, 2.4, 6) if site % 2 == 0 else (BARRIER, 2.7, 5)
        begin_m = cast.rng.uniform(14.0, network.length_m[lane] - 18.0)
        for k in range(count + int(cast.rng.integers(3))):
            row = network.first[lane] + int((begin_m + k * spacing_m) / network.step_m[lane])
            if row >= network.first[lane] + network.count[lane] - 20:
                break
            turn_rad = np.pi / 2 if kind is BARRIER else 0.0
            add_static(cast, kind, lanes, _right_of(network, row, WIDEST_HALF_M + SIDE_MARGIN_M + 0.35, turn_rad))
        if site % 2 == 1:
            row = network.first[lane] + int((begin_m + 6.0) / network.step_m[lane])
            add_static(cast, DIGGER, lanes, _right_of(network, row, 4.2, 0.0))


def _right_of(network: Network, row: int, right_m: float, turn_rad: float) -> np.ndarray:
    yaw_rad = network.yaw_rad[row]
    return np.array([*(network.points_m[row] + right_m * np.array([np.sin(yaw_rad), -np.cos(yaw_rad)])), yaw_rad + turn_rad])
