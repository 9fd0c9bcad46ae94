import math
from dataclasses import fields, replace

import pytest
import torch
from decoding_samples import LIKELY, MODES, UNLIKELY, motion, plan, standing_agents, step, straight_plan
from torch.utils import _pytree as pytree

from sparsedrive.decoding import corners_inside, select_plan
from sparsedrive.decoding.plan_selection import EGO_LENGTH_M, EGO_MARGIN, EGO_WIDTH_M, mode_collisions
from sparsedrive.structures import Command, ParityOptions, Plan

STRAIGHT = torch.tensor([Command.STRAIGHT])
PUBLISHED = ParityOptions(ego_box_row_shift=True)


def lane_x(mode: int) -> float:
    return (mode - 2.5) * 8.0


def select(agents, given=None, **options):
    detection, futures = standing_agents(agents)
    return select_plan(straight_plan() if given is None else given, STRAIGHT, detection, futures, **options)


def test_free_road_takes_the_best_mode():
    found = select([(0.0, -30.0, 4.0, 2.0, 0.0, LIKELY)])
    assert not found.mode_collides.any()
    expected = torch.tensor([[lane_x(3), 2.0 * (step + 1)] for step in range(6)])
    torch.testing.assert_close(found.trajectory_m[0], expected)
    torch.testing.assert_close(found.mode_score, straight_plan().mode_logits.sigmoid())


def test_a_wall_on_the_best_mode_takes_the_second_best():
    found = select([(lane_x(3), 9.0, 1.0, 1.0, 0.0, LIKELY)])
    assert found.mode_collides.tolist() == [[mode == 3 for mode in range(MODES)]]
    assert found.trajectory_m[0, -1, 0] == lane_x(4)
    assert found.mode_score[0, Command.STRAIGHT, 3] == 0
    untouched = [Command.RIGHT, Command.LEFT]
    torch.testing.assert_close(found.mode_score[0, untouched], straight_plan().mode_logits[0, untouched].sigmoid())


def test_without_rescore_a_collision_is_told_but_not_avoided():
    found = select([(lane_x(3), 9.0, 1.0, 1.0, 0.0, LIKELY)], rescore=False)
    assert found.mode_collides[0, 3]
    assert found.trajectory_m[0, -1, 0] == lane_x(3)
    torch.testing.assert_close(found.mode_score, straight_plan().mode_logits.sigmoid())


def test_a_wall_across_all_modes_changes_nothing():
    found = select([(lane_x(mode), 9.0, 1.0, 1.0, 0.0, LIKELY) for mode in range(MODES)])
    assert found.mode_collides.all()
    assert found.trajectory_m[0, -1, 0] == lane_x(3)
    torch.testing.assert_close(found.mode_score, straight_plan().mode_logits.sigmoid())


def test_doubtful_agents_are_not_avoided():
    assert not select([(lane_x(3), 9.0, 1.0, 1.0, 0.0, UNLIKELY)]).mode_collides.any()
    assert select([(lane_x(3), 9.0, 1.0, 1.0, 0.0, 0.0)]).mode_collides[0, 3]  # exactly 0.5 counts


def test_only_the_likeliest_future_of_an_agent_counts():
    detection, futures = standing_agents([(lane_x(3) + 20.0, 9.0, 4.0, 2.0, 0.0, LIKELY)])
    crossing = futures.step_offsets_m.clone()
    crossing[0, 0, 2, :5, 0] = -4.0  # mode 2 stands in lane 3 after five steps
    for likeliest, hit in ((2, True), (1, False)):
        logits = torch.zeros(1, 1, MODES)
        logits[0, 0, likeliest] = 1.0
        moving = replace(futures, step_offsets_m=crossing, mode_logits=logits)
        assert bool(select_plan(straight_plan(), STRAIGHT, detection, moving).mode_collides[0, 3]) is hit


def test_agents_and_ego_must_meet_at_the_same_step():
    detection, futures = standing_agents([(lane_x(3), 12.0, 2.0, 2.0, math.pi / 2, LIKELY)])
    assert select_plan(straight_plan(), STRAIGHT, detection, futures).mode_collides[0, 3]
    away = futures.step_offsets_m.clone()
    away[..., 1] = 2.0  # drives on ahead of the ego vehicle at the same speed
    assert not select_plan(straight_plan(), STRAIGHT, detection, replace(futures, step_offsets_m=away)).mode_collides[0, 3]


def test_the_present_is_not_compared():
    """An agent on top of the ego vehicle now (a ghost) blocks nothing that has left it after the first step."""
    assert not select([(0.0, 0.0, 1.0, 1.0, 0.0, LIKELY)], given=straight_plan(step_m=8.0)).mode_collides.any()


def test_a_plan_that_stands_still_looks_forward():
    plan_m = straight_plan(step_m=0.0, spread_m=0.001)  # ends within 0.5 m of the start; its own heading would be sideways
    ahead, beside = (0.0, 2.9, 0.2, 0.2, 0.0, LIKELY), (1.5, 0.0, 0.2, 0.2, 0.0, LIKELY)
    # 4.08 * 1.1 / 2 = 2.24 m to the front and 0.95 m to the side of a centre 0.5 m ahead of the origin
    assert not select([ahead], given=plan_m).mode_collides.any()
    assert select([(0.0, 2.8, 0.2, 0.2, 0.0, LIKELY)], given=plan_m).mode_collides.all()
    assert not select([beside], given=plan_m).mode_collides.any()


def test_the_ego_box_sits_ahead_of_the_lidar_unless_published():
    plan_m = straight_plan(step_m=0.0, spread_m=0.001)
    far_agent = (60.0, 60.0, 1.0, 1.0, 0.0, LIKELY)  # takes the published shift of agent 0
    bumper = (0.0, 2.7, 0.2, 0.2, 0.0, LIKELY)
    assert select([far_agent, bumper], given=plan_m).mode_collides.all()
    assert not select([far_agent, bumper], given=plan_m, parity=PUBLISHED).mode_collides.any()


def test_the_ego_box_turns_with_the_plan():
    """Driving along +x the box is long in x: 2.24 m ahead of its centre, which is 0.5 m ahead of the path."""
    given = straight_plan(step_m=0.0, spread_m=0.0)
    offsets = torch.zeros_like(given.step_offsets_m)
    offsets[..., 0] = 2.0
    sideways = replace(given, step_offsets_m=offsets)
    assert select([(12.0 + 2.8, 0.0, 0.2, 0.2, 0.0, LIKELY)], given=sideways).mode_collides.all()
    assert not select([(12.0 + 2.9, 0.0, 0.2, 0.2, 0.0, LIKELY)], given=sideways).mode_collides.any()
    assert not select([(6.0, 1.1, 0.2, 0.2, 0.0, LIKELY)], given=sideways).mode_collides.any()


def test_the_last_heading_comes_from_the_last_step():
    ahead = (lane_x(3), 12.0 + 2.8, 0.2, 0.2, 0.0, LIKELY)
    assert select([ahead]).mode_collides[0, 3]


@pytest.mark.parametrize(("row", "function"), [(0, math.cos), (1, math.sin)])
def test_published_row_shift_reaches_two_boxes_against_the_first_agent_only(row, function):
    """Row 0 += 0.5 cos(row 6) and row 1 += 0.5 sin(row 6), all columns; rows are (mode, step), so row 6 is mode 1 at step 0."""
    modes = torch.zeros(1, 2, 6, 2)
    modes[0, :, 2:, 1] = 40.0
    modes[0, 0, :2] = torch.tensor([[100.0, 0.0], [100.0, 100.0]])
    modes[0, 1, :2] = torch.tensor([[2.0, 1.0], [0.0, 40.0]])
    size = [EGO_LENGTH_M * EGO_MARGIN, EGO_WIDTH_M * EGO_MARGIN]
    yaw = [math.atan2(100.0, 100.0), math.atan2(40.0, -100.0)][row]  # from the point before to the point after
    kept = torch.tensor([*modes[0, 0, row].tolist(), *size, yaw])
    row6 = [2.0, 1.0, *size, math.pi / 2]
    moved = kept + 0.5 * torch.tensor([function(value) for value in row6])
    seen = set()
    for x, y in (kept[:2] + (torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 7).tolist():
        agent, elsewhere = (x, y, 0.1, 0.1, 0.0), (0.0, -90.0, 1.0, 1.0, 0.0)
        hits = []
        for boxes in ((agent, elsewhere), (elsewhere, agent)):
            detection, futures = standing_agents([(*box, LIKELY) for box in boxes])
            hits.append(bool(mode_collisions(modes, detection, futures, parity=PUBLISHED)[0, 0]))
        assert hits == [bool(corners_inside(ego, torch.tensor(agent))) for ego in (moved, kept)]
        seen.add(tuple(hits))
    assert len(seen) == 4


def test_each_stream_follows_its_own_command_and_agents():
    given, detection, futures = plan(3), step(3, 20), motion(3, 20)
    command = torch.tensor([2, 0, 1])
    together = select_plan(given, command, detection, futures)
    for stream in range(3):
        rows = [pytree.tree_map(lambda leaf, s=stream: leaf[s : s + 1], value) for value in (given, command, detection, futures)]
        alone = select_plan(*rows)
        for name in (field.name for field in fields(Plan)):
            torch.testing.assert_close(getattr(together, name)[stream : stream + 1], getattr(alone, name))
    chosen = (together.trajectory_m[:, None] == together.all_trajectories_m[torch.arange(3), command]).flatten(2).all(-1)
    assert chosen.any(dim=1).all()


def test_history_and_status_are_handed_on():
    given = plan(2)
    found = select_plan(given, torch.tensor([0, 1]), step(2, 5), motion(2, 5))
    assert found.history_box.shape == (2, 4, 10)
    assert torch.equal(found.period, given.period)
    assert torch.equal(found.ego_status, given.ego_status)


def test_command_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"expected command \[2\], one Command a stream, got \[2, 3\]"):
        select_plan(plan(2), torch.zeros(2, 3, dtype=torch.long), step(2, 5), motion(2, 5))
