from dataclasses import replace

import numpy as np
import pytest
from golden_metrics import numbers, plan_frames, stored, subset

from sparsedrive.metrics.footprint import heading_rad
from sparsedrive.metrics.mapping import MapLines
from sparsedrive.metrics.planning import (
    PLAIN,
    PROTOCOLS,
    SPARSEDRIVE,
    ST_P3,
    UNIAD,
    VEHICLES,
    FutureObjects,
    PlanFrames,
    driven_path_hits,
    evaluate_plans,
    plan_changes_m,
    turning,
)
from sparsedrive.structures import DETECTION_CLASSES

AHEAD = np.stack([np.zeros(12), 5.0 * np.arange(1, 13)], 1)
"""10 m/s straight on for 6 s."""
NORTH = np.pi / 2
CAR, PEDESTRIAN, CONE, OTHER = (
    DETECTION_CLASSES.index("car"),
    DETECTION_CLASSES.index("pedestrian"),
    DETECTION_CLASSES.index("traffic_cone"),
    -1,
)


def objects(*rows):
    """Each (frame, step, x, y, label), 4 m long and 2 m wide, heading north."""
    table = np.array(rows, float).reshape(-1, 5)
    box = np.column_stack([table[:, 2:4], np.tile([4.0, 2.0, NORTH], (len(table), 1))])
    return FutureObjects(box=box, label=table[:, 4].astype(int), frame=table[:, 0].astype(int), step=table[:, 1].astype(int))


def frames(plans, truths=None, valid=None, things=None, steps=6, boundary=None):
    plans = np.stack(plans)[:, :steps]
    truths = np.stack([AHEAD] * len(plans) if truths is None else truths)[:, :steps]
    valid = np.ones(plans.shape[:2], bool) if valid is None else np.asarray(valid)
    things = objects() if things is None else things
    return PlanFrames(plan_m=plans, truth_m=truths, truth_valid=valid, objects=things, boundary=boundary)


def left(by_m):
    return AHEAD - [by_m, 0.0]


def golden_frames():
    data = stored("planning_eval")
    return plan_frames(data["pred"], data["gt"], data["fut_boxes"][:, [0, 1, 3, 4, 6]], data["fut_boxes_offsets"]), data


def test_published_numbers():
    plans, data = golden_frames()
    scores, expected = evaluate_plans(plans, SPARSEDRIVE), numbers("planning")
    np.testing.assert_allclose(scores.l2_m, data["cumavg_L2"], atol=1e-6)  # summed in float32 there
    np.testing.assert_allclose(scores.collision_rate, data["cumavg_obj_box_col"], atol=1e-9)
    np.testing.assert_allclose(scores.truth_collision_rate, data["cumavg_obj_col"], atol=1e-9)
    assert scores.average(scores.l2_m) == pytest.approx(expected["L2"], abs=1e-6)
    assert scores.average(scores.collision_rate) == pytest.approx(expected["obj_box_col"], abs=1e-8)
    assert scores.average(scores.truth_collision_rate) == pytest.approx(expected["obj_col"], abs=1e-8)
    np.testing.assert_allclose(heading_rad(plans.plan_m), data["pred_yaw"], atol=1e-6)


def test_published_steps_of_some_frames():
    data = subset()
    plans = plan_frames(data["plan_m"], data["plan_truth_m"], data["plan_object_box"], data["plan_object_splits"])
    at_step = replace(SPARSEDRIVE, l2="at", collision="at")
    scores = evaluate_plans(plans, at_step)
    np.testing.assert_allclose(scores.frame_l2_m, data["plan_l2_m"], atol=1e-6)
    assert (scores.frame_collision == data["plan_counted"]).all()
    raw = evaluate_plans(plans, replace(at_step, count_where_truth_hits=True))
    assert (raw.frame_collision == data["plan_hits"]).all() and data["plan_hits"].any()
    truth = evaluate_plans(replace(plans, plan_m=plans.truth_m), replace(at_step, count_where_truth_hits=True))
    assert (truth.frame_collision == data["plan_truth_hits"]).all() and data["plan_truth_hits"].any()


@pytest.mark.parametrize(
    ("protocol", "expected"), [(UNIAD, [2, 4, 6]), (PLAIN, [2, 4, 6]), (ST_P3, [1.5, 2.5, 3.5]), (SPARSEDRIVE, [1.5, 2.5, 3.5])]
)
def test_l2_of_a_plan_that_drifts_1_m_a_step(protocol, expected):
    drifting = AHEAD + np.stack([np.arange(1, 13), np.zeros(12)], 1)
    scores = evaluate_plans(frames([drifting]), protocol)
    assert scores.l2_m[1::2] == pytest.approx(expected)
    assert scores.average(scores.l2_m) == pytest.approx(np.mean(expected))
    assert scores.time_s.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_truth_that_ends_early():
    """Two plans 2 m off; of the second only 3 steps are known."""
    valid = np.ones((2, 6), bool)
    valid[1, 3:] = False
    things = objects((1, 4, -2, 25, CAR))
    plans = frames([left(2), left(2)], valid=valid, things=things)
    assert evaluate_plans(plans, UNIAD).l2_m.tolist() == [2, 2, 2, 1, 1, 1]
    assert evaluate_plans(plans, UNIAD).collision_rate.max() == 0  # unknown steps do not collide
    dropped = evaluate_plans(plans, SPARSEDRIVE)
    assert dropped.l2_m.tolist() == [2] * 6 and dropped.rows.tolist() == [0]
    plain = evaluate_plans(plans, PLAIN)
    assert plain.l2_m.tolist() == [2] * 6 and plain.rows.tolist() == [0, 1] and np.isnan(plain.frame_l2_m[1, 3:]).all()


def test_collision_at_up_to_and_by():
    """One of two plans runs through a car at 1.5 s only."""
    plans = frames([left(6), left(12)], things=objects((0, 2, -6, 15.5, CAR)))
    assert evaluate_plans(plans, UNIAD).collision_rate.tolist() == [0, 0, 0.5, 0, 0, 0]
    assert evaluate_plans(plans, SPARSEDRIVE).collision_rate == pytest.approx([0, 0, 1 / 6, 1 / 8, 1 / 10, 1 / 12])
    assert evaluate_plans(plans, PLAIN).collision_rate.tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("label", "found"),
    [(CAR, (True,) * 4), (PEDESTRIAN, (False, True, True, True)), (CONE, (False, False, True, True)), (OTHER, (False, False, True, True))],
)
def test_which_objects_count(label, found):
    plans = frames([left(6)], things=objects((0, 5, -6, 30, label)))
    hits = tuple(bool(evaluate_plans(plans, protocol).collision_rate[-1]) for protocol in (UNIAD, ST_P3, SPARSEDRIVE, PLAIN))
    assert hits == found


def test_collisions_of_the_driven_path():
    """Plan and driven path both end in the same car: only PLAIN counts that, and all say so."""
    plans = frames([AHEAD], things=objects((0, 5, 0, 30, CAR)))
    scores = [evaluate_plans(plans, protocol) for protocol in PROTOCOLS]
    assert [score.collision_rate[-1] > 0 for score in scores] == [False, False, False, True]
    assert all(score.truth_collision_rate[-1] > 0 for score in scores)


def test_the_vehicle_reaches_forward():
    """Centre 0.5 m ahead, 4.084 m long: the front is at 2.542 m. The car's back is 2 m before its centre."""
    touching, apart = objects((0, 0, -6, 5 + 2.542 + 1.99, CAR)), objects((0, 0, -6, 5 + 2.542 + 2.01, CAR))
    exact = replace(UNIAD, vehicle="straight")
    assert evaluate_plans(frames([left(6)], things=touching), exact).collision_rate[0] == 1
    assert evaluate_plans(frames([left(6)], things=apart), exact).collision_rate[0] == 0


def test_the_grid_finds_more():
    """A car beside the vehicle, 7 cm from touching: in the same cells."""
    plans = frames([left(6)], things=objects((0, 0, -8, 5, CAR)))
    assert evaluate_plans(plans, UNIAD).collision_rate[0] == 1
    assert evaluate_plans(plans, replace(UNIAD, vehicle="straight")).collision_rate[0] == 0


def test_heading_of_the_path_matters():
    """A path to the right, beside a car: the turned vehicle is clear of it, the one that is kept straight is not."""
    east = np.stack([5.0 * np.arange(1, 13), np.zeros(12)], 1)
    plans = frames([east], things=objects((0, 3, 20, 4.2, CAR)))
    assert evaluate_plans(plans, replace(UNIAD, vehicle="turned")).collision_rate[3] == 0
    assert evaluate_plans(plans, UNIAD).collision_rate[3] == 1


def test_crossing_a_kerb():
    """A kerb 3 m to the left. The plan drifts over it between 1.5 and 2 s; its side reaches there before."""
    kerb = MapLines.from_lines([0, 0], [2, 2], [np.array([[-3.0, -5.0], [-3.0, 40.0]]), np.array([[8.0, 0.0], [8.0, 40.0]])])
    drift = AHEAD - np.stack([0.8 * np.arange(1, 13), np.zeros(12)], 1)
    scores = evaluate_plans(frames([drift, AHEAD], boundary=kerb), replace(PLAIN, collision="at"))
    assert scores.boundary_rate.tolist() == [0, 0, 0.5, 0.5, 0.5, 0]
    assert scores.truth_boundary_rate.tolist() == [0] * 6
    without = evaluate_plans(frames([drift, AHEAD]), PLAIN)
    assert without.boundary_rate is None and without.truth_boundary_rate is None


def test_a_kerb_between_two_waypoints_is_crossed():
    across = MapLines.from_lines([0], [2], [np.array([[-5.0, 17.6], [5.0, 17.6]])])
    fast = 4 * AHEAD
    scores = evaluate_plans(frames([fast], truths=[AHEAD / 10], boundary=across), replace(PLAIN, collision="at"))
    assert scores.boundary_rate.tolist() == [1, 0, 0, 0, 0, 0]
    between = MapLines.from_lines([0], [2], [np.array([[-5.0, 30.0], [5.0, 30.0]])])
    scores = evaluate_plans(frames([fast], truths=[AHEAD / 10], boundary=between), replace(PLAIN, collision="at"))
    assert scores.boundary_rate.tolist() == [0, 1, 0, 0, 0, 0]


def test_six_seconds():
    valid = np.ones((2, 12), bool)
    valid[1, 8:] = False
    plans = frames([left(1), left(3)], valid=valid, steps=12)
    assert evaluate_plans(plans, SPARSEDRIVE).rows.tolist() == [0, 1]
    long = evaluate_plans(plans, SPARSEDRIVE, horizon_s=6)
    assert long.rows.tolist() == [0] and len(long.l2_m) == 12


def test_the_driven_path_is_perfect():
    for protocol in PROTOCOLS:
        assert evaluate_plans(frames([AHEAD]), protocol).l2_m.max() == 0


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_order_does_not_matter(protocol):
    rng = np.random.default_rng(0)
    truths = np.cumsum(rng.normal([0, 4], 1, (9, 6, 2)), 1)
    rows = np.column_stack([rng.integers(0, 9, 900), rng.integers(0, 6, 900), rng.uniform(-20, 20, 900), rng.uniform(0, 30, 900)])
    things = objects(*np.column_stack([rows, rng.choice([CAR, PEDESTRIAN, OTHER], 900)]))
    lines = MapLines.from_lines(rng.integers(0, 9, 20), [2] * 20, list(rng.uniform(-20, 30, (20, 3, 2))))
    plans = frames(truths + rng.normal(0, 4, truths.shape), truths, rng.random((9, 6)) < 0.95, things, boundary=lines)
    shuffled = replace(plans, objects=things.take(rng.permutation(900)), boundary=lines.take(rng.permutation(20))).take(rng.permutation(9))
    one, other = evaluate_plans(plans, protocol), evaluate_plans(shuffled, protocol)
    for name in ("l2_m", "collision_rate", "truth_collision_rate", "boundary_rate", "truth_boundary_rate"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)
    assert one.collision_rate.max() > 0 and one.boundary_rate.max() > 0


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_subset_is_what_these_plans_have_alone(protocol):
    kerb = MapLines.from_lines([0, 1], [2, 2], [np.array([[-3.0, -5.0], [-3.0, 40.0]])] * 2)
    drift = AHEAD - np.stack([0.8 * np.arange(1, 13), np.zeros(12)], 1)
    valid = np.ones((3, 6), bool)
    valid[0, 3:] = False
    things = objects((0, 1, 0, 10, CAR), (1, 2, 0, 15.5, CAR), (2, 4, -6, 25, CAR))
    plans = frames([drift, drift, left(6)], valid=valid, things=things, boundary=kerb)
    chosen = np.array([False, True, True])
    driven = driven_path_hits(plans, protocol)
    some = evaluate_plans(plans, protocol, truth_hits=driven).subset(chosen)
    alone = evaluate_plans(plans.take(np.flatnonzero(chosen)), protocol)
    for name in ("l2_m", "collision_rate", "truth_collision_rate", "boundary_rate", "truth_boundary_rate"):
        assert np.array_equal(getattr(some, name), getattr(alone, name)), name
    assert alone.boundary_rate.max() > 0 and alone.truth_collision_rate.max() > 0 and len(some.rows) == 2
    with pytest.raises(ValueError, match="truth_hits: expected"):
        evaluate_plans(plans.take(np.arange(2)), protocol, truth_hits=driven)


def test_no_plans():
    for protocol in PROTOCOLS:
        assert np.isnan(evaluate_plans(frames([AHEAD]).take(np.zeros(0, int)), protocol).l2_m).all()


def test_turning_frames():
    angle = np.linspace(0, np.radians(60), 13)[1:]
    circle = 30 * np.stack([np.cos(angle) - 1, np.sin(angle)], 1)
    change_lane = AHEAD - np.stack([3.5 / (1 + np.exp(6 - np.arange(12.0) * 1.5)), np.zeros(12)], 1)
    standing = AHEAD * 0.001
    valid = np.ones((5, 12), bool)
    valid[4, 1:] = False
    plans = frames([AHEAD] * 5, [AHEAD, circle, change_lane, standing, circle], valid, steps=12)
    assert turning(plans).tolist() == [False, True, False, False, False]
    assert turning(plans.take(np.array([1, 0]))).tolist() == [True, False]


def poses(positions, yaws):
    pose = np.tile(np.eye(4), (len(positions), 1, 1))
    cos, sin = np.cos(yaws), np.sin(yaws)
    pose[:, 0, 0], pose[:, 0, 1], pose[:, 1, 0], pose[:, 1, 1] = cos, -sin, sin, cos
    pose[:, :2, 3] = positions
    return pose


def test_a_plan_that_is_carried_out_does_not_change():
    """Along a circle, turning all the time, every plan says the same places in the world."""
    angle = 0.1 * np.arange(10)
    world = 30 * np.stack([np.cos(angle), np.sin(angle)], 1) + [600.0, 1000.0]
    pose = poses(world, angle)
    plan = np.stack([(np.linalg.inv(pose[n]) @ np.c_[world[n + 1 : n + 7], np.zeros(6), np.ones(6)].T).T[:, :2] for n in range(3)])
    changes = plan_changes_m(plan, pose[:3], 0.5 * np.arange(3), np.zeros(3, int))
    assert np.isnan(changes[0]).all() and changes[1:] == pytest.approx(np.zeros((2, 5)), abs=1e-9)


def test_a_plan_that_changes_its_mind():
    plan = np.stack([left(0), left(2), left(2), left(2)])[:, :6]
    pose = poses([[0, 0], [0, 5], [0, 10], [0, 15]], np.zeros(4))
    changes = plan_changes_m(plan, pose, np.array([0, 0.5, 1.0, 1.8]), np.array([7, 7, 7, 7]))
    assert changes[1] == pytest.approx(np.full(5, 2.0)) and changes[2] == pytest.approx(np.zeros(5))
    assert np.isnan(changes[3]).all()  # 0.8 s after the one before
    apart = plan_changes_m(plan, pose, 0.5 * np.arange(4), np.array([7, 8, 8, 9]))
    assert np.isnan(apart[:, 0]).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan_m": np.full((1, 6, 2), np.nan)}, "plan_m: expected finite numbers, row 0"),
        ({"plan_m": np.zeros((1, 5, 2))}, "to go with plans"),
        ({"plan_m": np.zeros((6, 2))}, r"expected \[N, T, 2\]"),
        ({"truth_valid": np.ones((1, 5), bool)}, "to go with plans"),
        ({"objects": objects((0, 6, 0, 0, CAR))}, "objects.step: expected 0 to 5, got 6 to 6"),
        ({"objects": objects((1, 0, 0, 0, CAR))}, "objects.frame: expected 0 to 0"),
        ({"boundary": MapLines.from_lines([3], [2], [AHEAD])}, "boundary.frame: expected 0 to 0"),
    ],
)
def test_plans_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        replace(frames([AHEAD]), **change)


def test_other_mistakes():
    with pytest.raises(ValueError, match=r"horizon_s: expected 0.5 to 3.0 s.*got 6"):
        evaluate_plans(frames([AHEAD]), PLAIN, horizon_s=6)
    with pytest.raises(ValueError, match="whole seconds"):
        evaluate_plans(frames([AHEAD]), PLAIN, horizon_s=2.5)
    with pytest.raises(ValueError, match="box: expected finite"):
        objects((0, 0, np.nan, 0, CAR))
    with pytest.raises(ValueError, match="label: expected"):
        replace(objects((0, 0, 0, 0, CAR)), label=np.zeros(2, int))
    with pytest.raises(ValueError, match="time_s: expected"):
        plan_changes_m(AHEAD[None], np.eye(4)[None], np.zeros(2), np.zeros(1, int))
    assert CAR in VEHICLES and PEDESTRIAN not in VEHICLES
