"""Futures: by hand, gaps, ends, and as a property: a valid step is where the box is in that later frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedrive.data.nuscenes.futures import AGENT_STEPS, EGO_STEPS, agent_futures, ego_futures, joined_frames


def poses(x, y, yaw_rad):
    matrix = np.tile(np.eye(4), (len(x), 1, 1))
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, -sin, sin, cos
    matrix[:, 0, 3], matrix[:, 1, 3] = x, y
    return matrix


def test_joined_frames():
    times = np.array([0, 500_000, 1_250_000, 2_000_001, 2_500_000])
    assert joined_frames("s", times).tolist() == [True, True, False, True, False]
    assert joined_frames("s", times[:1]).tolist() == [False]
    assert joined_frames("s", times[:0]).tolist() == []


@pytest.mark.parametrize("step_us", [100_000, 1_000_000, 0])
def test_another_rate_than_2_hz_is_an_error(step_us):
    with pytest.raises(ValueError, match=r"scene-7: expected key frames 0.5 s apart"):
        joined_frames("scene-7", np.arange(9) * step_us)


def test_ego_future_of_a_straight_drive_stops_at_the_last_frame():
    """The car drives 2 m a frame along global y, which is forward in the ego frame."""
    frames = 9
    global_T_ego = poses(np.full(frames, 7.0), 2.0 * np.arange(frames), np.zeros(frames))
    place_m, valid = ego_futures(global_T_ego, np.arange(frames) < frames - 1)
    assert np.allclose(place_m[0], [[0, 2.0 * step] for step in range(1, 7)]) and valid[0].all()
    assert valid[5].tolist() == [True, True, True, False, False, False]
    assert np.allclose(place_m[5, :, 1], [2, 4, 6, 6, 6, 6])  # the last known place
    assert not valid[8].any() and not place_m[8].any()


def test_ego_future_ends_at_a_gap():
    global_T_ego = poses(np.zeros(5), np.arange(5.0), np.zeros(5))
    _, valid = ego_futures(global_T_ego, np.array([True, False, True, True, False]))
    assert valid.sum(1).tolist() == [1, 0, 2, 1, 0]


def test_track_with_a_gap_by_hand():
    """Object 0 is seen in frames 0 1 3, object 1 in 1 2 3; frame 2 has no box of object 0, so its track ends there."""
    frame, instance = np.array([0, 1, 1, 2, 3, 3]), np.array([0, 0, 1, 1, 0, 1])
    place_m = np.array([[0.0, 0], [1, 0], [5, 5], [5, 6], [9, 0], [5, 8]])
    moved_m, valid = agent_futures(place_m, np.zeros(6), frame, instance, np.array([True, True, True, False]))
    assert valid.sum(1).tolist() == [1, 0, 2, 1, 0, 0]
    assert moved_m[0].tolist() == [[1, 0]] * AGENT_STEPS
    assert moved_m[2, :3].tolist() == [[0, 1], [0, 3], [0, 3]]
    quarter, _ = agent_futures(place_m, np.full(6, np.pi / 2), frame, instance, np.array([True, True, True, False]))
    assert np.allclose(quarter[2, 0], [-1, 0])


def test_no_boxes():
    moved_m, valid = agent_futures(np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.array([False]))
    assert moved_m.shape == (0, 12, 2) and valid.shape == (0, 12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 20))
def test_a_step_is_where_the_object_is_later(seed, frames):
    """On flat ground: ego_T_global of now applied to the later place, for agents and for the ego vehicle."""
    rng = np.random.default_rng(seed)
    yaw_rad = rng.uniform(-3, 3, frames)
    global_T_ego = poses(rng.normal(0, 50, frames), rng.normal(0, 50, frames), yaw_rad)
    joined = (rng.random(frames) < 0.9) & (np.arange(frames) < frames - 1)
    seen = rng.random((frames, 4)) < 0.8
    frame, instance = np.nonzero(seen)
    place_m = rng.normal(0, 50, (len(frame), 2))
    row = {(f, i): n for n, (f, i) in enumerate(zip(frame, instance, strict=True))}
    moved_m, valid = agent_futures(place_m, -yaw_rad[frame], frame, instance, joined)
    ego_m, ego_valid = ego_futures(global_T_ego, joined)
    to_ego = np.linalg.inv(global_T_ego)
    for n, (f, i) in enumerate(zip(frame, instance, strict=True)):
        known = 0
        while known < AGENT_STEPS and joined[f + known] and (f + known + 1, i) in row:
            known += 1
        assert valid[n].tolist() == [step < known for step in range(AGENT_STEPS)]
        there = [to_ego[f] @ [*place_m[row[(f + min(step, known), i)]], 0, 1] for step in range(AGENT_STEPS + 1)]
        assert np.allclose(moved_m[n], np.array(there)[1:, :2] - there[0][:2], atol=1e-9)
    for f in range(frames):
        known = 0
        while known < EGO_STEPS and joined[f + known]:
            known += 1
        assert ego_valid[f].sum() == known and ego_valid[f, :known].all()
        assert np.allclose(ego_m[f], [(to_ego[f] @ global_T_ego[f + min(step, known)])[:2, 3] for step in range(1, 7)], atol=1e-9)
