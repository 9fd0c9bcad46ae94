"""The lidar: 32 beams that turn once around and meet the ground, actors, buildings and trees.

Beams as on the HDL-32E (its manual: 1 1/3 degrees apart, from -30.67 to +10.67 degrees, here at 1/3 degree of azimuth).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparsedrive.world.foliage import crown_centre_m, trunk_radius_m
from sparsedrive.world.mesh import circle
from sparsedrive.world.rig import LidarMount
from sparsedrive.world.stage import global_T_car, turns
from sparsedrive.world.state import Cast, WorldState
from sparsedrive.world.town import Town

BEAMS, AZIMUTHS = 32, 1080
CORNERS = 8
ELEVATION_RAD = np.radians(-92 / 3 + 4 / 3 * np.arange(BEAMS))
"""Elevation of every ring, from the lowest beam up."""
NEAREST_M, RANGE_M, NOISE_M = 1.0, 80.0, 0.02
FAINT_M = 45.0
"""Distance at which half of the flat ground's echoes are lost."""
GROUND, WALL, LEAF, BODY = 12.0, 34.0, 22.0, 48.0
"""Mean intensity of echoes, 0 to 255."""
CABIN_KINDS = ("vehicle.car", "vehicle.emergency")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prisms:
    """N upright prisms: convex outlines (the last corner may repeat), from one height to another, with their mean intensity."""

    outline_m: Float[np.ndarray, "N 8 2"]
    low_m: Float[np.ndarray, "N"]
    high_m: Float[np.ndarray, "N"]
    intensity: Float[np.ndarray, "N"]


class LidarScanner:
    """Scans one town and cast. The same arguments and states give the same points."""

    def __init__(self, town: Town, cast: Cast, seed: int = 0, noise_m: float = NOISE_M) -> None:
        self._still = town_prisms(town)
        self._owner, self._actors = actor_prisms(cast)
        self._seed, self._noise_m = seed, noise_m

    def scan(self, state: WorldState, mount: LidarMount) -> Float[np.ndarray, "N 5"]:
        """Points as float32 x, y, z [m, lidar frame], intensity (0 to 255) and ring (0 lowest), beam by beam.

        The ego vehicle itself gives no echoes. Nothing moves during a turn.
        """
        lidar_T_global = np.linalg.inv(global_T_car(state.ego) @ mount.car_T_lidar)
        assert np.allclose(lidar_T_global[2, :2], 0), "the lidar stands upright"
        turn, pose = turns(state.pose[self._owner, 2]), state.pose[self._owner, :2]
        outline_m = self._actors.outline_m @ np.swapaxes(turn, 1, 2) + pose[:, None]
        outline_m = np.concatenate([outline_m, self._still.outline_m]) @ lidar_T_global[:2, :2].T + lidar_T_global[:2, 3]
        eye_m = -lidar_T_global[2, 3] / lidar_T_global[2, 2]
        low_m, high_m, shine = (
            np.concatenate([getattr(self._actors, name), getattr(self._still, name)]) for name in ("low_m", "high_m", "intensity")
        )
        # Distance along the ground [beams, azimuths] to the nearest thing, and how strong its echo is.
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, 4, round(state.time_s * 1e6) % 2**63]))
        sink = -np.tan(ELEVATION_RAD)[:, None]
        reach_m = np.repeat(np.where(sink > 0, eye_m / np.maximum(sink, 1e-9), np.inf), AZIMUTHS, axis=1)
        faint = rng.random(reach_m.shape) > 1 / (1 + (np.minimum(reach_m, 1e3) / FAINT_M) ** 4)
        echo = np.full(reach_m.shape, GROUND)
        ground_m = reach_m[:, :1]
        near = np.linalg.norm(outline_m, axis=2).min(1) < RANGE_M + 30
        for prism in np.flatnonzero(near):
            cast_prism(reach_m, echo, outline_m[prism], low_m[prism] - eye_m, high_m[prism] - eye_m, shine[prism])
        return self._points(reach_m, echo, faint & (reach_m == ground_m), rng)

    def _points(self, reach_m: np.ndarray, echo: np.ndarray, lost: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, "N 5"]:
        slope = np.cos(ELEVATION_RAD)[:, None]
        range_m = reach_m / slope
        beam, column = np.nonzero((range_m > NEAREST_M) & (range_m < RANGE_M - 5 * self._noise_m) & ~lost)
        range_m = range_m[beam, column] + self._noise_m * np.clip(rng.normal(size=len(beam)), -4, 4)
        azimuth_rad, elevation_rad = AZIMUTH_RAD[column], ELEVATION_RAD[beam]
        ahead = range_m * np.cos(elevation_rad)
        intensity = np.clip(echo[beam, column] * rng.gamma(6.0, 1 / 6.0, len(beam)), 0, 255)
        points = [ahead * np.cos(azimuth_rad), ahead * np.sin(azimuth_rad), range_m * np.sin(elevation_rad), intensity, beam]
        return np.stack(points, axis=1).astype(np.float32)


AZIMUTH_RAD = -np.pi + 2 * np.pi * (np.arange(AZIMUTHS) + 0.5) / AZIMUTHS
_DIRECTION = np.stack([np.cos(AZIMUTH_RAD), np.sin(AZIMUTH_RAD)], axis=1)
_RISE = np.tan(ELEVATION_RAD)[:, None]


def cast_prism(
    reach_m: Float[np.ndarray, "B A"], echo: Float[np.ndarray, "B A"], outline_m: Float[np.ndarray, "K 2"],
    low_m: float, high_m: float, shine: float,
) -> None:  # fmt: skip
    """Shorten the rays that meet a prism. Outline and heights are seen from the lidar; `reach_m` is distance along the ground."""
    columns = _columns(outline_m)
    if columns is None:
        return
    enter_m, leave_m = _chord(outline_m, _DIRECTION[columns])
    hit = enter_m < leave_m
    if not hit.any() or enter_m[hit].min() > RANGE_M:
        return
    columns, enter_m, leave_m = columns[hit], enter_m[hit], leave_m[hit]
    # A ray is inside the prism's heights between two distances; where that begins inside the outline it meets roof or floor.
    with np.errstate(divide="ignore"):
        at_low, at_high = low_m / _RISE, high_m / _RISE
    first = np.maximum(enter_m, np.minimum(at_low, at_high))
    last = np.minimum(leave_m, np.maximum(at_low, at_high))
    now = reach_m[:, columns]
    nearer = (first <= last) & (first < now) & (first > 0)
    reach_m[:, columns] = np.where(nearer, first, now)
    echo[:, columns] = np.where(nearer, shine, echo[:, columns])


def _columns(outline_m: np.ndarray) -> Int[np.ndarray, "C"] | None:
    """Azimuths that may meet an outline; None where it surrounds the lidar."""
    angle = np.arctan2(outline_m[:, 1], outline_m[:, 0])
    offset = (angle - angle[0] + np.pi) % (2 * np.pi) - np.pi
    if np.ptp(offset) > np.pi:
        return None
    step = 2 * np.pi / AZIMUTHS
    first = int(np.floor((angle[0] + offset.min() + np.pi) / step - 0.5))
    last = int(np.ceil((angle[0] + offset.max() + np.pi) / step - 0.5))
    return np.arange(first, last + 1) % AZIMUTHS


def _chord(outline_m: Float[np.ndarray, "K 2"], direction: Float[np.ndarray, "C 2"]) -> tuple[np.ndarray, np.ndarray]:
    """Where rays from the origin enter and leave a convex outline; enter > leave where they miss."""
    off = direction[:, :1] * outline_m[:, 1] - direction[:, 1:] * outline_m[:, 0]
    along = direction @ outline_m.T
    off_after, along_after = np.roll(off, -1, axis=1), np.roll(along, -1, axis=1)
    crosses = (off < 0) != (off_after < 0)
    meets = along + (along_after - along) * off / np.where(crosses, off - off_after, 1)
    enter_m, leave_m = np.where(crosses, meets, np.inf).min(1), np.where(crosses, meets, -np.inf).max(1)
    return np.where(leave_m > 0, np.maximum(enter_m, 0), np.inf), leave_m


def town_prisms(town: Town) -> Prisms:
    """Buildings, trunks, and crowns as two eight-sided drums."""
    rows = []
    for building in town.buildings:
        rows.append((np.asarray(building.outline_m), 0.0, building.height_m, WALL))
    for tree in town.trees:
        middle_m, radius_m = crown_centre_m(tree), tree.crown_radius_m
        place = np.asarray(tree.position_m)
        rows.append((place + circle(0, 0, trunk_radius_m(tree), CORNERS), 0.0, middle_m, WALL))
        for size, height in ((0.95, 0.4), (0.65, 0.8)):
            rows.append((place + circle(0, 0, size * radius_m, CORNERS), middle_m - height * radius_m, middle_m + height * radius_m, LEAF))
    return _prisms(rows)


def actor_prisms(cast: Cast) -> tuple[Int[np.ndarray, "N"], Prisms]:
    """The actor each prism belongs to, and prisms inside the boxes of the actors, in the frame of the actor."""
    owner, rows = [], []
    for actor, (category, (length, width, height)) in enumerate(zip(cast.categories, cast.size_lwh_m.tolist(), strict=True)):
        box = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (length / 2, width / 2)
        if category.startswith(CABIN_KINDS):
            cabin = box * (0.70, 0.86) - (0.12 * length, 0)
            parts = [(box, 0.16 * height, 0.58 * height, BODY), (cabin, 0.58 * height, height, 0.6 * BODY)]
        elif category.startswith("human."):
            parts = [(circle(0, 0, 1, CORNERS) * (0.28 * length, 0.44 * width), 0.0, 0.84 * height, 0.5 * BODY)]
            parts.append((circle(0, 0, 0.06 * height, CORNERS), 0.84 * height, height, 0.5 * BODY))
        elif category.startswith(("vehicle.bicycle", "vehicle.motorcycle")):
            parts = [(box * (1, 0.3), 0.0, 0.5 * height, 0.7 * BODY), (box * (0.35, 0.6), 0.5 * height, height, 0.5 * BODY)]
        elif category == "movable_object.trafficcone":
            parts = [(box * (1 - 0.8 * step), step * height, (step + 0.25) * height, 1.6 * BODY) for step in (0.0, 0.25, 0.5, 0.75)]
        else:
            parts = [(box, 0.0, height, BODY)]
        owner += [actor] * len(parts)
        rows += parts
    return np.array(owner, dtype=np.int64), _prisms(rows)


def _prisms(rows: list[tuple[np.ndarray, float, float, float]]) -> Prisms:
    outlines = [np.concatenate([o, np.repeat(o[-1:], max(CORNERS - len(o), 0), axis=0)])[:CORNERS] for o, *_ in rows]
    return Prisms(
        outline_m=np.array(outlines, dtype=np.float64).reshape(-1, CORNERS, 2),
        low_m=np.array([low for _, low, _, _ in rows], dtype=np.float64),
        high_m=np.array([high for _, _, high, _ in rows], dtype=np.float64),
        intensity=np.array([shine for *_, shine in rows], dtype=np.float64),
    )


def count_points_in_boxes(
    points_m: Float[np.ndarray, "N C"], centre_m: Float[np.ndarray, "M 3"], size_lwh_m: Float[np.ndarray, "M 3"],
    yaw_rad: Float[np.ndarray, "M"], margin_m: float = 0.05,
) -> Int[np.ndarray, "M"]:  # fmt: skip
    """How many points lie in each box (middle, size, yaw; all in the frame of the points). `margin_m` makes up for range noise."""
    counts = np.zeros(len(centre_m), np.int64)
    xyz = np.asarray(points_m[:, :3], dtype=np.float64)
    order = np.argsort(xyz[:, 0])
    xyz = xyz[order]
    reach_m = np.hypot(size_lwh_m[:, 0], size_lwh_m[:, 1]) / 2 + margin_m
    first = np.searchsorted(xyz[:, 0], centre_m[:, 0] - reach_m)
    end = np.searchsorted(xyz[:, 0], centre_m[:, 0] + reach_m)
    for box, turn in enumerate(turns(np.asarray(yaw_rad, dtype=np.float64))):
        near = xyz[first[box] : end[box]] - centre_m[box]
        near[:, :2] = near[:, :2] @ turn
        counts[box] = np.count_nonzero((np.abs(near) <= size_lwh_m[box] / 2 + margin_m).all(1))
    return counts
