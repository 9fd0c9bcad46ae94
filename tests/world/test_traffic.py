"""Drivers and people on foot: car following, lane changes, junctions, crossings."""

from dataclasses import fields, replace

import numpy as np
import pytest
import shapely
from grid_town import grid_town

from sparsedrive.world.cast import CastConfig
from sparsedrive.world.drivers import acceleration, wanted_gap
from sparsedrive.world.network import build_network
from sparsedrive.world.overlap import corners, inside_polygon, overlapping
from sparsedrive.world.simulation import TICK_S, World, drive
from sparsedrive.world.state import WorldState
from sparsedrive.world.traffic import all_boxes, settle

QUIET = CastConfig(drivers=0, walkers=0, sites=0, parked_share=0.0)
CLASSES = {
    "vehicle.car", "vehicle.truck", "vehicle.bus.rigid", "vehicle.trailer", "vehicle.construction", "vehicle.motorcycle", "vehicle.bicycle",
    "human.pedestrian.adult", "movable_object.trafficcone", "movable_object.barrier",
}  # fmt: skip


@pytest.fixture(scope="module")
def town():
    return grid_town()


@pytest.fixture(scope="module")
def busy(town):
    """A drive of 20 s with everybody in it."""
    world = World.create(0, town)
    return world, drive(world, 20.0)


def with_drivers(world: World, **changes) -> WorldState:
    """The present state with other arrays in the minds of the drivers."""
    minds = world.state.minds
    return replace(world.state, minds=replace(minds, drivers=replace(minds.drivers, **changes)))


def alone(town, lane: int, others: tuple[tuple[int, float], ...] = ((0, 10.0),), ego_s_m: float = 5.0) -> World:
    """Cars at (lane, place) and the ego, all standing, nobody else."""
    world = World.create(3, town, replace(QUIET, drivers=20))
    drivers, minds = world.setting.drivers, world.state.minds.drivers
    cars = [k for k in range(len(drivers.actor) - 1) if world.cast.categories[drivers.actor[k]] == "vehicle.car"][: len(others)]
    rows = np.array([*cars, len(drivers.actor) - 1])
    few = {f.name: getattr(drivers, f.name)[rows] for f in fields(drivers)}
    world.setting = replace(world.setting, drivers=type(drivers)(**few))
    mind = {f.name: getattr(minds, f.name)[rows].copy() for f in fields(minds)}
    mind["lane"][:], mind["s_m"][:] = [place[0] for place in others] + [lane], [place[1] for place in others] + [ego_s_m]
    mind["past"][:], mind["grant"][:], mind["shift_part"][:], mind["nudge_m"][:] = -1, -1, 1.0, 0.0
    row = world.setting.network.first[lane] + round(ego_s_m / world.setting.network.step_m[lane])
    yaw_rad = float(world.setting.network.yaw_rad[row])
    ego = replace(
        world.state.ego, speed_mps=0.0, acceleration_mps2=0.0, yaw_rate_radps=0.0, steering_rad=0.0, yaw_rad=yaw_rad,
        position_m=world.setting.network.points_m[row] - 1.35 * np.array([np.cos(yaw_rad), np.sin(yaw_rad)]),
    )  # fmt: skip
    still = np.zeros(len(world.cast))
    pose = world.state.pose + np.array([1e4, 0, 0])  # those without a driver: out of the way
    world.state = replace(world.state, ego=ego, pose=pose, speed_mps=still, acceleration_mps2=still)
    world.state = with_drivers(world, **mind)
    world.state = settle(world.setting, world.state, ego, world.state.minds, np.zeros(len(rows)), world.setting.walkers.pace_mps, 0.0)
    return world


def test_idm_keeps_its_equilibrium_gap():
    # Equation 5 of the paper: where a = 0 behind a leader of the same speed.
    speed, wanted, headway, pull, brake = 10.0, 15.0, 1.4, 1.6, 2.0
    gap = wanted_gap(speed, speed, headway, pull, brake) / np.sqrt(1 - (speed / wanted) ** 4)
    assert gap == pytest.approx((2.0 + speed * headway) / np.sqrt(1 - (speed / wanted) ** 4))
    assert acceleration(speed, wanted, (wanted_gap(speed, speed, headway, pull, brake) / gap) ** 2, pull, brake) == pytest.approx(
        0, abs=1e-12
    )
    assert acceleration(speed, wanted, (wanted_gap(speed, speed, headway, pull, brake) / (gap - 2)) ** 2, pull, brake) < 0


def test_network_knows_lengths_crossings_and_conflicts(town):
    network = build_network(town)
    for lane in (0, 5, 40):
        assert network.length_m[lane] == pytest.approx(np.hypot(*np.diff(town.lanes[lane].centre_m, axis=0).T).sum(), rel=1e-3)
    lane = next(k for k in range(len(town.lanes)) if network.crossing[k, 0] >= 0)
    middle_m = (network.crossing_in_m[lane, 0] + network.crossing_out_m[lane, 0]) / 2
    row = network.first[lane] + int(middle_m / network.step_m[lane])
    assert inside_polygon(network.points_m[row : row + 1], town.crossings[network.crossing[lane, 0]].outline_m).all()
    for a, others in enumerate(network.conflicts):
        for b in others:
            assert a in network.conflicts[b] and town.lanes[a].junction == town.lanes[b].junction
            assert shapely.LineString(town.lanes[a].centre_m).distance(shapely.LineString(town.lanes[b].centre_m)) < 2.9
    assert any(network.conflicts)


def test_lanes_must_be_numbered_by_place(town):
    with pytest.raises(ValueError, match=r"lanes\[1\].*number lanes by their place"):
        build_network(replace(town, lanes=(town.lanes[0], town.lanes[0], *town.lanes[2:])))


def test_overlap_agrees_with_polygon_clipping():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(-4, 4, (60, 2)), rng.uniform(-4, 4, (60, 1)), rng.uniform(0.5, 6, (60, 2))], 1)
    shapes = [shapely.Polygon(ring) for ring in corners(boxes)]
    area = np.array([[a.intersection(b).area for b in shapes] for a in shapes])
    assert ((area > 1e-9) == overlapping(boxes, boxes)).all()
    assert 0.1 < overlapping(boxes, boxes).mean() < 0.9
    assert all(shape.exterior.is_ccw for shape in shapes)


def test_a_car_stops_behind_a_standing_one_without_touching(town):
    world = alone(town, lane=0, others=((0, 15.0), (0, 68.0)))
    # The one ahead stands for ever: it asks for nothing and wants no speed.
    drivers = world.setting.drivers
    world.setting = replace(
        world.setting, drivers=replace(drivers, top_speed_mps=np.array([12.0, 1e-6, 12.0]), changes_lanes=drivers.polite & False)
    )
    gaps = []
    for _ in range(400):
        world.step()
        behind, ahead = world.setting.drivers.actor[:2]
        length_m = world.cast.size_lwh_m[[behind, ahead], 0].sum() / 2
        gaps.append(np.hypot(*(world.state.pose[ahead, :2] - world.state.pose[behind, :2])) - length_m)
    assert gaps[0] > 40 and min(gaps) > 1.5
    assert gaps[-1] == pytest.approx(2.0, abs=0.4)
    assert world.state.speed_mps[world.setting.drivers.actor[0]] < 0.15  # the one ahead creeps at 0.1


def test_a_lane_change_ends_in_the_middle_of_the_neighbour(town):
    lane = next(k for k, item in enumerate(town.lanes) if item.left is not None)
    world = alone(town, lane=20, others=((lane, 12.0), (lane, 30.0)))
    drivers = world.setting.drivers
    top_mps, changes = np.array([12.0, 2.0, 12.0]), np.array([True, False, False])
    world.setting = replace(
        world.setting, drivers=replace(drivers, top_speed_mps=top_mps, changes_lanes=changes, speed_factor=drivers.speed_factor * 0 + 1)
    )
    world.state = replace(world.state, speed_mps=np.where(np.arange(len(world.cast)) == drivers.actor[0], 8.0, 0.0))
    states = drive(world, 5.0)
    lanes = [int(state.minds.drivers.lane[0]) for state in states]
    assert lanes[0] == lane and town.lanes[lane].left in lanes
    done = next(k for k, state in enumerate(states) if k > lanes.index(town.lanes[lane].left) and state.minds.drivers.shift_part[0] >= 1)
    away_m = [
        shapely.LineString(town.lanes[town.lanes[lane].left].centre_m).distance(shapely.Point(s.pose[drivers.actor[0], :2])) for s in states
    ]
    assert away_m[0] == pytest.approx(3.5, abs=0.05) and away_m[done] < 0.1
    steps_m = np.abs(np.diff(away_m))
    assert steps_m.max() < 0.12  # no jump: at most 2.4 m/s sideways


def test_a_bold_driver_cuts_in_and_the_ego_brakes(town):
    lane = next(k for k, item in enumerate(town.lanes) if item.left is not None)
    world = alone(town, lane=town.lanes[lane].left, others=((lane, 22.0),), ego_s_m=7.0)
    world.setting = replace(
        world.setting,
        drivers=replace(
            world.setting.drivers, cuts_in=np.array([True, False]), changes_lanes=np.array([True, False]), top_speed_mps=np.full(2, 7.0)
        ),
    )
    world.state = replace(world.state, time_s=1.0, speed_mps=world.state.speed_mps + 7.0, ego=replace(world.state.ego, speed_mps=7.0))
    states = drive(world, 5.0)
    assert int(states[-1].minds.drivers.lane[0]) == int(states[-1].minds.drivers.lane[-1]) == town.lanes[lane].left
    assert min(state.ego.acceleration_mps2 for state in states) < -0.5
    assert not any(len(world.collisions(state)) for state in states)


def test_a_left_turner_waits_for_oncoming_traffic(town):
    network = build_network(town)
    turn = next(k for k, lane in enumerate(town.lanes) if lane.turn == "left" and lane.junction == 4 and len(lane.yields_to) == 3)
    rival = next(k for k in town.lanes[turn].yields_to if town.lanes[k].turn == "straight" and k in network.conflicts[turn])
    before = [next(k for k, lane in enumerate(town.lanes) if target in lane.successors) for target in (turn, rival)]
    entered = {}
    for name, rival_s_m in (("with", 40.0), ("without", 5.0)):
        world = alone(town, lane=1, others=((before[0], 65.0), (before[1], rival_s_m)))
        choice = world.setting.drivers.choice.copy()
        choice[0, before[0]], choice[1, before[1]] = turn, rival
        world.setting = replace(world.setting, drivers=replace(world.setting.drivers, choice=choice, changes_lanes=np.zeros(3, bool)))
        actor = world.setting.drivers.actor[1]
        world.state = replace(world.state, speed_mps=np.where(np.arange(len(world.cast)) == actor, 8.0 if name == "with" else 0.0, 0.0))
        states = drive(world, 12.0)
        lanes = np.array([state.minds.drivers.lane[:2] for state in states])
        entered[name] = int(np.argmax(lanes[:, 0] == turn)), int(np.argmax(lanes[:, 1] == rival))
    assert 0 < entered["with"][1] < entered["with"][0]
    assert 0 < entered["without"][0] < entered["with"][0]


def test_nobody_drives_into_anybody(busy):
    world, states = busy
    drivers = world.setting.drivers
    moving = np.concatenate([drivers.actor, drivers.towed[drivers.towed >= 0]])
    together = {(int(a), int(b)) for a, b in zip(drivers.actor, drivers.towed, strict=True)}
    for state in states[::4]:
        boxes = all_boxes(world.cast, state)
        for a, b in np.argwhere(overlapping(boxes[moving], boxes)):
            assert int(moving[a]) == b or (int(moving[a]), int(b)) in together or (int(b), int(moving[a])) in together, (state.time_s, a, b)


def test_traffic_moves_and_brakes_like_people(busy):
    world, states = busy
    actors = world.setting.drivers.actor[:-1]
    speed_mps = np.array([state.speed_mps[actors] for state in states])
    acceleration_mps2 = np.array([state.acceleration_mps2[actors] for state in states[1:]])
    assert speed_mps.mean() > 2 and speed_mps.max() < 20 and speed_mps.min() >= 0
    assert acceleration_mps2.max() < 2.7 and acceleration_mps2.min() > -7.01
    assert (acceleration_mps2 < -4).mean() < 0.01
    way_m = np.hypot(*np.diff([state.pose[actors, :2] for state in states], axis=0).transpose(2, 0, 1))
    assert way_m.max() < 20 * TICK_S  # nobody jumps
    turned_rad = np.diff(np.unwrap([state.pose[actors, 2] for state in states], axis=0), axis=0)
    assert np.abs(turned_rad).max() < 0.15


def test_people_are_on_the_road_only_on_crossings(busy):
    world, states = busy
    road = shapely.union_all([shapely.Polygon(ring) for ring in world.town.roads]).buffer(-0.3)
    crossings = shapely.union_all([shapely.Polygon(crossing.outline_m) for crossing in world.town.crossings]).buffer(0.3)
    seen = 0
    for state in states[::5]:
        x, y = state.pose[world.setting.walkers.actor, :2].T
        on_road = shapely.contains_xy(road, x, y)
        assert shapely.contains_xy(crossings, x, y)[on_road].all()
        seen += on_road.sum()
    assert seen > 10


def test_all_classes_have_their_sizes(town):
    sizes: dict[str, list] = {}
    for seed in range(4):
        world = World.create(seed, town, CastConfig(sites=4))
        assert set(world.cast.categories) >= CLASSES
        for category, size in zip(world.cast.categories, world.cast.size_lwh_m, strict=True):
            sizes.setdefault(category, []).append(size)
    assert np.mean(sizes["vehicle.car"], 0) == pytest.approx([4.62, 1.95, 1.73], rel=0.03)
    assert np.std(sizes["vehicle.car"], 0).min() > 0.03
    assert np.mean(sizes["human.pedestrian.adult"], 0) == pytest.approx([0.73, 0.67, 1.77], rel=0.03)
    assert np.mean(sizes["movable_object.barrier"], 0) == pytest.approx([0.50, 2.53, 0.98], rel=0.03)


def test_config_is_checked():
    with pytest.raises(ValueError, match=r"parked_share.*between 0 and 1"):
        CastConfig(parked_share=2.0)
    with pytest.raises(ValueError, match=r"drivers.*0 or more"):
        CastConfig(drivers=-1)
