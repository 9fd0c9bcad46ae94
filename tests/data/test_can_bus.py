"""Ego status: which message counts, and what happens where messages are missing."""

import json

import pytest

from sparsedrive.data.nuscenes.can_bus import read_can_bus


def pose(time_us, value):
    return {"utime": time_us, "accel": [value, 1, 2], "rotation_rate": [3, 4, 5], "vel": [6, 7, 8]}


def write(root, kind, messages):
    (root / "can_bus").mkdir(exist_ok=True)
    (root / "can_bus" / f"scene-0001_{kind}.json").write_text(messages if isinstance(messages, str) else json.dumps(messages))


def test_last_message_not_later_counts(tmp_path):
    write(tmp_path, "pose", [pose(300, 30), pose(100, 10), pose(200, 20)])
    write(tmp_path, "steeranglefeedback", [{"utime": 150, "value": -0.5}, {"utime": 250, "value": 0.5}])
    can_bus = read_can_bus(tmp_path, "scene-0001")
    assert can_bus.ego_status(250) == (20, 1, 2, 3, 4, 5, 6, 7, 8, 0.5)
    assert can_bus.ego_status(249) == (20, 1, 2, 3, 4, 5, 6, 7, 8, -0.5)
    assert can_bus.ego_status(300)[0] == 30
    assert can_bus.ego_status(10_000)[0] == 30
    assert can_bus.ego_status(50)[0] == 10  # before the first message: the first


def test_only_steering_missing_is_zero_steering(tmp_path):
    write(tmp_path, "pose", [pose(100, 10)])
    assert read_can_bus(tmp_path, "scene-0001").ego_status(100) == (10, 1, 2, 3, 4, 5, 6, 7, 8, 0)


def test_no_pose_messages_is_none(tmp_path):
    assert read_can_bus(tmp_path, "scene-0001") is None
    write(tmp_path, "steeranglefeedback", [{"utime": 150, "value": -0.5}])
    assert read_can_bus(tmp_path, "scene-0001") is None
    write(tmp_path, "pose", [])
    assert read_can_bus(tmp_path, "scene-0001") is None


BROKEN = ["[{", [{"utime": 1}], [{**pose(1, 1), "accel": [1, 2]}], [{**pose(1, 1), "accel": 1}], 3, [{**pose(1, 1), "vel": ["x", 1, 1]}]]


@pytest.mark.parametrize("messages", BROKEN)
def test_malformed_file_is_named(tmp_path, messages):
    write(tmp_path, "pose", messages)
    with pytest.raises(ValueError, match=r"scene-0001_pose\.json"):
        read_can_bus(tmp_path, "scene-0001")
