"""The nouns of the world that stand still. Global frame: flat ground z = 0, x east, y north, metres."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Turn = Literal["straight", "left", "right"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lane:
    """One lane in its direction of travel, points about 1 m apart. Lanes of a junction connect those of two roads.

    `left` and `right` are the neighbours in the same direction (None: no lane change). `successors` begin where this lane ends.
    `junction` is None on a road. `yields_to` are lanes whose traffic goes first where the two cross or merge.
    """

    lane_id: int
    centre_m: Float[np.ndarray, "P 2"]
    width_m: float
    speed_limit_mps: float
    successors: tuple[int, ...]
    left: int | None = None
    right: int | None = None
    junction: int | None = None
    turn: Turn = "straight"
    yields_to: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crossing:
    """A pedestrian crossing: a rectangle [4, 2]; people walk between the two ends `walk_m` on the pavements."""

    outline_m: Float[np.ndarray, "4 2"]
    walk_m: Float[np.ndarray, "2 2"]
    lane_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Divider:
    """A line between lanes: between opposite directions (`road`) or the same direction (`lane`). None inside junctions."""

    kind: Literal["road", "lane"]
    paint: Literal["solid", "dashed", "double"]
    points_m: Float[np.ndarray, "P 2"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parking:
    """A place beside the lanes, on the road, where a parked car may stand."""

    position_m: Float[np.ndarray, "2"]
    yaw_rad: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Building:
    """A prism: convex counter-clockwise outline [K, 2] and a height."""

    outline_m: Float[np.ndarray, "K 2"]
    height_m: float
    colour_rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """A trunk with a round crown on top."""

    position_m: Float[np.ndarray, "2"]
    height_m: float
    crown_radius_m: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Town:
    """Everything that stands still.

    `roads` are polygons without holes, one a road piece or junction, that cover the drivable ground; `boundaries` are the rings
    (closed: the first point repeats) around their union: the truth of the map class "boundary". `pavements` are rings of ground to
    walk on beside the roads. `extent_m` is x_min, y_min, x_max, y_max of everything.
    """

    name: str
    extent_m: tuple[float, float, float, float]
    lanes: tuple[Lane, ...]
    roads: tuple[Float[np.ndarray, "K 2"], ...]
    boundaries: tuple[Float[np.ndarray, "K 2"], ...]
    pavements: tuple[Float[np.ndarray, "K 2"], ...]
    crossings: tuple[Crossing, ...]
    dividers: tuple[Divider, ...]
    parkings: tuple[Parking, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]

    def lane(self, lane_id: int) -> Lane:
        """A lane by its number (its place in `lanes`)."""
        return self.lanes[lane_id]
