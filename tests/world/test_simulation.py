"""The drive as a whole: the expert, plans in closed loop, commands, determinism."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import shapely
from grid_town import grid_town

from sparsedrive.world.cast import CastConfig
from sparsedrive.world.ego import EgoPlan
from sparsedrive.world.simulation import TICK_S, World, drive, plan_of
from sparsedrive.world.traffic import advance

LIGHT = CastConfig(drivers=24, walkers=24)
QUIET = CastConfig(drivers=0, walkers=0, sites=0, parked_share=0.0)


@pytest.fixture(scope="module")
def town():
    return grid_town()


@pytest.fixture(scope="module")
def drives(town):
    """Drives of 20 s by the expert, over several seeds."""
    worlds = [World.create(seed, town, LIGHT) for seed in range(5)]
    return [(world, drive(world, 20.0)) for world in worlds]


def arrays(value) -> list[np.ndarray]:
    """All numbers of a state."""
    if is_dataclass(value):
        return [array for field in fields(value) for array in arrays(getattr(value, field.name))]
    return [np.asarray(value)]


def test_the_expert_never_collides_and_stays_on_the_road(drives):
    for world, states in drives:
        assert not any(len(world.collisions(state)) for state in states)
        assert not any(world.off_road(state) for state in states)


def test_the_expert_gets_on(drives):
    way_m = [np.hypot(*np.diff([s.ego.position_m for s in states], axis=0).T).sum() for _, states in drives]
    assert np.median(way_m) > 40 and max(way_m) > 80


def test_the_expert_drives_smoothly(drives):
    for _, states in drives:
        pull = np.array([state.ego.acceleration_mps2 for state in states])
        sideways = np.array([state.ego.speed_mps * state.ego.yaw_rate_radps for state in states])
        assert np.abs(pull).max() <= 3.0 and np.abs(sideways).max() <= 3.0
        assert np.abs(np.diff(pull)).max() / TICK_S < 21


def test_the_expert_keeps_to_its_lane(drives):
    for world, states in drives:
        lanes = shapely.union_all([shapely.LineString(lane.centre_m) for lane in world.town.lanes])
        for state in states:
            minds = state.minds.drivers
            if minds.shift_part[-1] >= 1 and minds.nudge_m[-1] == 0:
                assert lanes.distance(shapely.Point(state.ego.position_m)) < 0.5


def test_same_seed_same_drive_and_no_hidden_memory(town):
    one, two, other = (World.create(seed, town, LIGHT) for seed in (7, 7, 8))
    half = drive(one, 1.0)[-1]
    ends = [drive(one, 1.0)[-1], drive(two, 2.0)[-1]]
    state = half
    for _ in range(20):
        state = advance(two.setting, state, None, TICK_S)
    for again in (ends[1], state):
        assert all((a == b).all() for a, b in zip(arrays(ends[0]), arrays(again), strict=True))
    assert len(other.cast) != len(one.cast) or not np.allclose(other.cast.size_lwh_m, one.cast.size_lwh_m)


def test_a_step_does_not_change_the_state_it_started_from(town):
    world = World.create(1, town, LIGHT)
    before, copies = world.state, [array.copy() for array in arrays(world.state)]
    drive(world, 3.0)
    assert all((a == b).all() for a, b in zip(arrays(before), copies, strict=True))
    assert world.state.time_s == pytest.approx(3.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_experts_own_future_as_plan_gives_its_path(town, seed):
    world = World.create(seed, town, LIGHT)
    start = world.state
    states = drive(world, 9.0)
    world.state = start
    worst_m = 0.0
    for k in range(0, 120, 10):
        world.step(plan_of([world.state, *states[k + 1 :]]), 0.5)
        worst_m = max(worst_m, float(np.hypot(*(world.state.ego.position_m - states[k + 10].ego.position_m))))
    assert worst_m < 0.15


def test_a_plan_into_others_collides(town):
    world = World.create(0, town, replace(QUIET, parked_share=1.0))
    parked = world.state.pose[:, :2]
    for _ in range(8):
        ego = world.state.ego
        forward = np.array([np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)])
        away = parked - ego.position_m
        ahead = np.where(away @ forward > 9.0, np.hypot(*away.T), np.inf)
        target = away[ahead.argmin()]
        local = np.array([target @ (forward[1], -forward[0]), target @ forward])
        plan = np.arange(1, 7)[:, None] / 6 * local * min(1.0, 20 / np.hypot(*local))
        for _ in range(6):
            world.step(EgoPlan(position_m=plan), 0.5)
            if len(world.collisions()):
                return
            plan = plan[1:] - plan[0] if len(plan) > 2 else plan
    pytest.fail("drove at parked cars for a long time and hit none")


def test_leaving_the_road_is_noticed(town):
    world = World.create(0, town, QUIET)
    assert not world.off_road()
    sideways = EgoPlan(position_m=np.stack([np.arange(1, 7) * 3.0, np.arange(1, 7) * 4.0], 1))
    assert any(world.off_road(world.step(sideways, 0.5)) for _ in range(8))


def test_commands_tell_the_turn_that_comes(town):
    """At moderate speeds the command is the side on which the ego is 3 s later."""
    told, right = 0, 0
    for seed in range(6):
        world = World.create(seed, town, QUIET)
        commands, states = [], [world.state]
        for _ in range(400):
            commands.append(world.command())
            states.append(world.step())
        for k in range(0, len(commands) - 60, 10):
            ego, later = states[k].ego, plan_of(states[k:]).position_m[-1]
            truth = "right" if later[0] >= 2 else "left" if later[0] <= -2 else "straight"
            if abs(abs(later[0]) - 2) > 1.5 and ego.speed_mps > 3:
                told += 1
                right += truth == commands[k]
        assert set(commands) <= {"left", "right", "straight"}
    assert told > 50 and right / told > 0.85


def test_steps_are_whole_ticks_within_the_plan(town):
    world = World.create(0, town, QUIET)
    with pytest.raises(ValueError, match=r"multiple of 0.05.*0.12"):
        world.step(None, 0.12)
    with pytest.raises(ValueError, match=r"at least 1.5 s, got 1.0 s"):
        world.step(EgoPlan(position_m=np.zeros((2, 2))), 1.5)
