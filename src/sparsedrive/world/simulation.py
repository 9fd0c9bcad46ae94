"""A drive: a town, its people and the ego vehicle, stepped by an expert or by plans (closed loop).

world = World.create(seed=0)
states = drive(world, 20.0)                         # the expert drives; world.state is the last of them
world.step(EgoPlan(position_m=trajectory_m), 0.5)   # or a model does, half a second at a time
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import shapely
from jaxtyping import Int

from sparsedrive.world.cast import CastConfig
from sparsedrive.world.ego import EgoPlan, follow, reference_of
from sparsedrive.world.generate import generate_town
from sparsedrive.world.overlap import corners, overlapping
from sparsedrive.world.rig import LIDAR_AHEAD_M
from sparsedrive.world.spawning import populate
from sparsedrive.world.state import Cast, EgoState, WorldState
from sparsedrive.world.town import Town
from sparsedrive.world.traffic import Minds, Setting, advance, all_boxes, ego_box, ego_line

TICK_S = 0.05
WARM_UP_S = 3.0
COMMAND_S, COMMAND_OFFSET_M, COMMAND_AT_LEAST_MPS = 3.0, 2.0, 3.0
Turn = Literal["right", "left", "straight"]


@dataclass(eq=False)
class World:
    """A drive at one instant, `state`, and what stays the same in it."""

    town: Town
    cast: Cast
    setting: Setting
    state: WorldState

    @classmethod
    def create(cls, seed: int, town: Town | None = None, config: CastConfig | None = None) -> "World":
        """A new drive, in a town generated from the seed if none is given. Time 0 is `WARM_UP_S` after everybody was put down."""
        town = town if town is not None else generate_town(seed)
        cast, state, setting = populate(town, seed, config or CastConfig())
        state = replace(state, time_s=-WARM_UP_S)
        for _ in range(round(WARM_UP_S / TICK_S)):
            state = advance(setting, state, None, TICK_S)
        return cls(town, cast, setting, replace(state, time_s=0.0))

    def step(self, plan: EgoPlan | None = None, dt_s: float = TICK_S) -> WorldState:
        """Drive on for `dt_s` (whole ticks of 0.05 s) and return the new state.

        Args:
            plan: where the ego shall go, seen from now; without one the expert drives. It must reach as far as `dt_s`.

        Raises:
            ValueError: `dt_s` is not a whole number of ticks, or longer than the plan.
        """
        ticks = round(dt_s / TICK_S)
        if ticks < 1 or abs(ticks * TICK_S - dt_s) > 1e-6:
            raise ValueError(f"World.step: expected dt_s to be a multiple of {TICK_S} s, got {dt_s}; use 0.5 to follow one step of a plan")
        reference = reference_of(plan, self.state.ego, TICK_S) if plan is not None else None
        if reference is not None and ticks >= len(reference.speed_mps):
            raise ValueError(
                f"World.step: expected a plan of at least {dt_s} s, got {(len(reference.speed_mps) - 1) * TICK_S:.1f} s; "
                "step less far before the next plan"
            )
        for tick in range(ticks):
            control = follow(self.state.ego, reference, tick, TICK_S) if reference is not None else None
            self.state = advance(self.setting, self.state, control, TICK_S)
        return self.state

    def command(self) -> Turn:
        """Which way the route goes: where the ego frame will be 3 s later, seen from now, 2 m or more to the right or left.

        It goes on at its present speed, or at 3 m/s if slower, so that whoever waits to turn is told so.
        """
        assert isinstance(self.state.minds, Minds)
        ego, minds = self.state.ego, self.state.minds.drivers
        ahead_m = COMMAND_S * max(ego.speed_mps, COMMAND_AT_LEAST_MPS)
        rear_m, front_m = ego_line(
            self.setting.network, self.setting.drivers, minds, ego.speed_mps, np.array([ahead_m, ahead_m + LIDAR_AHEAD_M])
        )
        later_m = rear_m + LIDAR_AHEAD_M * (front_m - rear_m) / np.linalg.norm(front_m - rear_m)
        right_m = float((later_m - ego.position_m) @ (np.sin(ego.yaw_rad), -np.cos(ego.yaw_rad)))
        return "right" if right_m >= COMMAND_OFFSET_M else "left" if right_m <= -COMMAND_OFFSET_M else "straight"

    def collisions(self, state: WorldState | None = None) -> Int[np.ndarray, "K"]:
        """Rows of the cast whose boxes overlap the ego vehicle's, now or in another state of this drive."""
        boxes = all_boxes(self.cast, state or self.state)
        return np.flatnonzero(overlapping(boxes[-1:], boxes[:-1])[0])

    def off_road(self, state: WorldState | None = None) -> bool:
        """Whether a corner of the ego vehicle is beside the drivable ground, now or in another state of this drive."""
        points_m = corners(ego_box((state or self.state).ego)[None])[0]
        return not bool(shapely.contains_xy(self._ground, points_m[:, 0], points_m[:, 1]).all())

    @cached_property
    def _ground(self) -> shapely.Geometry:
        # Pieces that touch must not leave a gap of rounding between them.
        ground = shapely.union_all([shapely.Polygon(road).buffer(0.02) for road in self.town.roads])
        shapely.prepare(ground)
        return ground


def drive(world: World, seconds: float) -> list[WorldState]:
    """Let the expert drive; the states at every tick, the present one first."""
    return [world.state, *(world.step() for _ in range(round(seconds / TICK_S)))]


def plan_of(states: list[WorldState], steps: int = 6) -> EgoPlan:
    """The plan that the ego of a recorded drive carried out from its first state on: what a perfect model would say."""
    every = round(0.5 / TICK_S)
    now = states[0].ego
    later_m = np.array([lidar_position_m(state.ego) for state in states[every : every * steps + 1 : every]])
    offset_m = later_m - lidar_position_m(now)
    forward = np.array([np.cos(now.yaw_rad), np.sin(now.yaw_rad)])
    return EgoPlan(position_m=np.stack([offset_m @ (forward[1], -forward[0]), offset_m @ forward], 1))


def lidar_position_m(ego: EgoState) -> np.ndarray:
    """Where the origin of the models' ego frame is [2], global."""
    return ego.position_m + LIDAR_AHEAD_M * np.array([np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)])
