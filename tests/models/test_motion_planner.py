import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from model_samples import build, config, differences, frame, run
from torch.testing import assert_close

from sparsedrive.geometry import box_state
from sparsedrive.layers.embed import sine_embedding
from sparsedrive.models import motion_anchors
from sparsedrive.models.memory_ops import Tick
from sparsedrive.models.motion_planner import EGO_CENTRE_M, EGO_SIZE_LWH_M, MotionPlanner
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import EGO_FORWARD_SPEED, Frame


@pytest.fixture(scope="module")
def model() -> SparseDrive:
    return build()


@pytest.fixture(scope="module")
def planner(model) -> MotionPlanner:
    assert model.planner is not None
    return model.planner


def test_the_ego_vehicle_starts_as_a_standing_box_looking_forward(model):
    (first,), _ = run(model, [frame(0)])
    box = box_state.decode(first.plan.history_state)[0, -1]
    assert_close(box, torch.tensor([*EGO_CENTRE_M, *EGO_SIZE_LWH_M, math.pi / 2, 0, 0, 0]))
    assert first.plan.period.tolist() == [1]


def test_the_ego_speed_is_the_one_predicted_a_frame_before():
    chosen = config()
    assert chosen.planner is not None
    model = build(replace(chosen, planner=replace(chosen.planner, ego_velocity="predicted")))
    (first, second), state = run(model, [frame(0), frame(1)])
    speed_mps = first.plan.ego_status[0, EGO_FORWARD_SPEED]
    assert speed_mps != 0 and torch.equal(second.plan.history_state[0, -1, box_state.VY], speed_mps)
    assert torch.equal(state.motion.ego_status, second.plan.ego_status)
    (cold,), _ = run(model, [frame(2, sequence=9)], state)
    assert cold.plan.history_state[0, -1, box_state.VY] == 0


def test_odometry_tells_the_planner_how_fast_the_poses_moved():
    chosen = config()
    assert chosen.planner is not None
    model = build(replace(chosen, planner=replace(chosen.planner, ego_velocity="odometry")))
    before, now = frame(0, stream=2), frame(1, stream=2)
    (first, second), state = run(model, [before, now])
    moved_m = (now.global_T_ego[0, :3, 3] - before.global_T_ego[0, :3, 3]).float() @ now.global_T_ego[0, :3, :3].float()
    velocity_mps = slice(box_state.VX, box_state.VY + 1)
    assert_close(second.plan.history_state[0, -1, velocity_mps], moved_m[:2] / 0.5, atol=1e-5, rtol=1e-5)
    assert first.plan.history_state[0, -1, velocity_mps].tolist() == [0, 0]
    (cold,), _ = run(model, [frame(2, sequence=9)], state)
    assert cold.plan.history_state[0, -1, velocity_mps].tolist() == [0, 0]
    with pytest.raises(ValueError, match="ego_velocity: expected 'predicted', 'odometry' or 'status', got 'can_bus'"):
        replace(chosen.planner, ego_velocity="can_bus")


def test_plans_may_depart_from_going_on_with_the_velocity_and_turn_rate_told():
    chosen = config()
    assert chosen.planner is not None
    options = replace(chosen.planner, ego_velocity="odometry")
    whole, departing = (build(replace(chosen, planner=replace(options, plan_paths=paths))) for paths in ("whole", "departs"))
    angle_rad, radius_m = 0.1, 30.0  # every 0.5 s on a circle to the left
    frames = [on_a_circle(frame(index, stream=1), index * angle_rad, radius_m) for index in range(3)]
    expected, got = run(whole, frames)[0], run(departing, frames)[0]
    assert_close(got[0].plan.step_offsets_m, expected[0].plan.step_offsets_m)  # nothing is known of a cold stream's motion
    later = [on_a_circle(frame(0), index * angle_rad, radius_m).global_T_ego[0, :2, 3] for index in range(2, 9)]
    global_R_ego = frames[2].global_T_ego[0, :2, :2]
    steps_m = torch.stack([(b - a) @ global_R_ego for a, b in pairwise(later)]).float()
    departed_m = got[2].plan.step_offsets_m - expected[2].plan.step_offsets_m
    assert_close(departed_m, steps_m.expand_as(departed_m), atol=1e-4, rtol=0)
    assert_close(got[2].motion.step_offsets_m, expected[2].motion.step_offsets_m)
    with pytest.raises(ValueError, match="plan_paths: expected 'whole' or 'departs', got 'modes'"):
        replace(options, plan_paths="modes")
    with pytest.raises(ValueError, match="plan_paths: expected 'whole' with ego_velocity='predicted'"):
        replace(chosen.planner, plan_paths="departs")


def test_a_planner_that_is_told_the_measured_status_knows_it_at_once_and_departs_from_it():
    chosen = config()
    assert chosen.planner is not None
    options = replace(chosen.planner, ego_velocity="status")
    whole, departing = (build(replace(chosen, planner=replace(options, plan_paths=paths))) for paths in ("whole", "departs"))
    status = torch.zeros(1, 10)
    status[0, 5], status[0, EGO_FORWARD_SPEED], status[0, EGO_FORWARD_SPEED + 1] = 0.2, 6.0, 0.5  # [rad/s], forward and left [m/s]
    now = replace(frame(0), ego_status=status)
    (expected,), (got,) = run(whole, [now])[0], run(departing, [now])[0]
    assert_close(got.plan.history_state[0, -1, box_state.VX : box_state.VZ], torch.tensor([-0.5, 6.0]))
    steps_m, angle_rad = [], 0.2 * 0.5 * (torch.arange(6) + 0.5)
    for angle in angle_rad.tolist():  # ego x right, y forward, counter-clockwise
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        steps_m.append(0.5 * turn @ torch.tensor([-0.5, 6.0]))
    departed_m = got.plan.step_offsets_m - expected.plan.step_offsets_m
    assert_close(departed_m, torch.stack(steps_m).expand_as(departed_m), atol=1e-5, rtol=0)
    braking = replace(now, ego_status=status.index_fill(1, torch.tensor(0), -3.0))
    assert not torch.equal(run(whole, [braking])[0][0].plan.mode_logits, expected.plan.mode_logits)


def on_a_circle(now: Frame, angle_rad: float, radius_m: float) -> Frame:
    """The frame (ego y forward) from there on a circle to the left that starts towards global y."""
    sin, cos = math.sin(angle_rad), math.cos(angle_rad)
    pose = torch.tensor([[cos, -sin, 0, radius_m * (cos - 1)], [sin, cos, 0, radius_m * sin], [0, 0, 1, 0], [0, 0, 0, 1]])
    return replace(now, global_T_ego=pose.double().expand_as(now.global_T_ego))


def test_measured_ego_status_and_command_are_for_losses_and_decoding_only(model):
    now = frame(0)
    other = replace(now, ego_status=now.ego_status + 5, command=(now.command + 1) % 3)
    assert differences(run(model, [now])[0], run(model, [other])[0]) == []


def test_forecasts_start_from_the_anchors_of_the_best_class_turned_to_the_heading(model, planner):
    (first,), _ = run(model, [frame(0)])
    endpoints = planner._motion_endpoints(first.detection)
    label = first.detection.last.class_logits[0].argmax(-1)
    yaw_rad = box_state.yaw_rad(first.detection.last.state[0])
    for row in range(24):
        turn = torch.tensor([[yaw_rad[row].cos(), -yaw_rad[row].sin()], [yaw_rad[row].sin(), yaw_rad[row].cos()]])
        ends_m = planner.motion_anchors_m[label[row], :, -1] @ turn.T
        assert_close(endpoints[0, row], sine_embedding(ends_m, 32), atol=1e-3, rtol=1e-3)
    assert len(set(label.tolist())) > 1


def test_agents_beyond_the_most_confident_are_not_looked_at(model):
    """The front camera's ego feature and own history aside, what the ego vehicle sees are the `num_agents` best."""
    (first,), state = run(model, [frame(0)])
    planner = model.planner
    images = model.image_encoder(frame(0).images)
    detection, elements = first.detection, first.map
    order = detection.last.class_logits[0].sigmoid().amax(-1).argsort(descending=True)
    now = _cold_tick()

    def plan(row: int) -> torch.Tensor:
        moved = replace(detection, feature=detection.feature.index_add(1, order[row : row + 1], torch.linspace(-9, 9, 32)[None, None]))
        with torch.no_grad():
            return planner(moved, elements, images, model.detection.encoder, state.motion, now, frame(0).ego_status)[1].mode_logits

    with torch.no_grad():
        unchanged = planner(detection, elements, images, model.detection.encoder, state.motion, now, frame(0).ego_status)[1].mode_logits
    limit = planner.config.num_agents
    assert not torch.equal(plan(limit - 1), unchanged)
    assert torch.equal(plan(limit), unchanged)


def _cold_tick() -> Tick:
    flag, half_s = torch.tensor([False]), torch.tensor([0.5])
    return Tick(warm=flag, attends=flag, now_T_then=torch.eye(4)[None], elapsed_s=half_s, step_s=half_s)


def test_the_ego_feature_is_made_from_the_front_camera(model, planner):
    seen = []
    hook = planner.ego_feature.register_forward_hook(lambda _, arguments, output: seen.append((arguments[0], output)))
    try:
        run(model, [frame(0)])
    finally:
        hook.remove()
    ((front, feature),) = seen
    with torch.no_grad():
        coarsest = model.image_encoder(frame(0).images).level(-1)
    assert_close(front, coarsest[:, 0])
    assert not torch.allclose(front, coarsest[:, 1]) and feature.shape == (1, 32) and (feature >= 0).all()


def test_default_anchors_are_arcs_at_half_second_steps():
    motion = motion_anchors.default_motion(10, 6, 12)
    assert motion.shape == (10, 6, 12, 2)
    steps_m = torch.cat([motion[:, :, :1], motion.diff(dim=2)], dim=2).norm(dim=-1)
    assert_close(steps_m, steps_m[:, :, :1].expand_as(steps_m), atol=1e-4, rtol=1e-4)
    assert_close(steps_m[0, :, 0], 8.0 * 0.5 * (torch.arange(6) + 0.5) / 6)
    assert_close(motion[0, 1, :, 1], torch.zeros(12)) and (motion[0, 1, :, 0] > 0).all()  # straight along the heading
    plan = motion_anchors.default_plan(3, 6, 6)
    assert plan.shape == (3, 6, 6, 2) and (plan[..., 1] > 0).all()  # forward
    right, left, straight = plan[:, :, -1, 0]
    assert (right > 0).all() and (left < 0).all() and straight.abs().max() < 1e-5
