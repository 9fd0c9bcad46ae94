"""Ego status: which message counts, and what happens where messages are missing."""

import json

import pytest

from sparsedrive.data.nuscenes.can_bus import MAX_AGE_US, read_can_bus


def pose(time_us, value):
    return {"utime": time_us, "accel": [value, 1, 2], "rotation_rate": [3, 4, 5], "vel": [6, 7, 8]}


def write(root, kind, messages):
    (root / "can_bus").mkdir(exist_ok=True)
    (root / "can_bus" / f"scene-0001_{kind}.json").write_text(messages if isinstance(messages, str) else json.dumps(messages))


def test_last_message_not_later_counts(tmp_path):
    write(tmp_path, "pose", [pose(300, 30), pose(100, 10), pose(200, 20)])
    write(tmp_path, "steeranglefeedback", [{"utime": 150, "value": -0.5}, {"utime": 250, "value": 0.5}])
    can_bus = read_can_bus(tmp_path, "scene-0001")
    known = (True,) * 10
    assert can_bus.ego_status(250) == ((20, 1, 2, 3, 4, 5, 6, 7, 8, 0.5), known)
    assert can_bus.ego_status(249) == ((20, 1, 2, 3, 4, 5, 6, 7, 8, -0.5), known)
    assert can_bus.ego_status(299)[0][0] == 20  # though the message of 300 is nearer
    assert can_bus.ego_status(300)[0][0] == 30
    assert can_bus.ego_status(10_000)[0][0] == 30
    assert can_bus.ego_status(50)[0][0] == 10  # before the first message: the first
    assert can_bus.problems() == ()


@pytest.mark.parametrize("time_us", [1_000_000 - MAX_AGE_US - 1, 1_000_000 + MAX_AGE_US + 1])
def test_messages_far_away_in_time_are_not_known(tmp_path, time_us):
    write(tmp_path, "pose", [pose(1_000_000, 10)])
    write(tmp_path, "steeranglefeedback", [{"utime": time_us, "value": -0.5}])
    values, known = read_can_bus(tmp_path, "scene-0001").ego_status(time_us)
    assert values == (0,) * 9 + (-0.5,) and known == (False,) * 9 + (True,)


def test_each_kind_is_known_or_not_by_itself(tmp_path):
    write(tmp_path, "pose", [pose(100, 10)])
    can_bus = read_can_bus(tmp_path, "scene-0001")
    assert can_bus.ego_status(100) == ((10, 1, 2, 3, 4, 5, 6, 7, 8, 0), (True,) * 9 + (False,))
    assert can_bus.problems() == ("no steering messages on the CAN bus: steering angle unknown",)
    write(tmp_path, "steeranglefeedback", [{"utime": 150, "value": -0.5}])
    write(tmp_path, "pose", [])
    can_bus = read_can_bus(tmp_path, "scene-0001")
    assert can_bus.ego_status(100) == ((0,) * 9 + (-0.5,), (False,) * 9 + (True,))
    assert len(can_bus.problems()) == 1 and "pose" in can_bus.problems()[0]


def test_no_files_is_nothing_known(tmp_path):
    can_bus = read_can_bus(tmp_path, "scene-0001")
    assert can_bus.ego_status(0) == ((0,) * 10, (False,) * 10) and len(can_bus.problems()) == 2


BROKEN = [
    "[{",
    [{"utime": 1}],
    [{**pose(1, 1), "accel": [1, 2]}],
    [{**pose(1, 1), "accel": 1}],
    3,
    [{**pose(1, 1), "vel": ["x", 1, 1]}],
    [pose(1, float("nan"))],
]


@pytest.mark.parametrize("messages", BROKEN)
def test_malformed_file_is_named(tmp_path, messages):
    write(tmp_path, "pose", messages)
    with pytest.raises(ValueError, match=r"scene-0001_pose\.json"):
        read_can_bus(tmp_path, "scene-0001")
