"""Ego status from the nuScenes CAN bus expansion: acceleration, rotation rate, velocity, steering angle.

Columns are in the order of the published SparseDrive converter. Two things differ from it on purpose. It takes the message nearest in time,
which may be one of the future; here it is the last one not later than the frame, what a car knows at that moment. And it writes ten zeros
when either file is missing, as if the car stood still; here each column says whether it is known.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from sparsedrive.data.nuscenes.tables import read_json
from sparsedrive.structures import EGO_STATUS_DIM

POSE_COLUMNS, STEERING_COLUMNS = 9, 1
MAX_AGE_US = 500_000
"""A message older than this (they come at 50 to 100 Hz) says nothing about now: the recording has a hole."""


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of one kind in the order of time."""

    time_us: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, time_us: int) -> tuple[float, ...] | None:
        """The last message not later than `time_us`; before the first message: the first. None when it is `MAX_AGE_US` away."""
        if not self.time_us:
            return None
        index = max(bisect_right(self.time_us, time_us) - 1, 0)
        return self.values[index] if abs(time_us - self.time_us[index]) <= MAX_AGE_US else None


@dataclass(frozen=True, slots=True)
class CanBus:
    """Messages of one scene; none of a kind that was not recorded."""

    pose: Messages
    steering: Messages

    def ego_status(self, time_us: int) -> tuple[tuple[float, ...], tuple[bool, ...]]:
        """`EGO_STATUS_DIM` values in the order of `Frame.ego_status` and whether each is known; 0 where not."""
        pose, steering = self.pose.at(time_us), self.steering.at(time_us)
        values = (pose or (0.0,) * POSE_COLUMNS) + (steering or (0.0,) * STEERING_COLUMNS)
        known = (pose is not None,) * POSE_COLUMNS + (steering is not None,) * STEERING_COLUMNS
        assert len(values) == len(known) == EGO_STATUS_DIM
        return values, known

    def problems(self) -> tuple[str, ...]:
        """What the recording lacks altogether, in words; one text a kind of message."""
        kinds = ((self.pose, "pose", "acceleration, rotation rate and velocity"), (self.steering, "steering", "steering angle"))
        return tuple(f"no {kind} messages on the CAN bus: {what} unknown" for messages, kind, what in kinds if not messages.time_us)


def read_can_bus(root: Path, scene_name: str) -> CanBus:
    """CAN bus of one scene from `<root>/can_bus`; a missing or empty file is a kind without messages (21 scenes of nuScenes have no file).

    `ValueError` names a malformed file.
    """
    pose_path = root / "can_bus" / f"{scene_name}_pose.json"
    steering_path = root / "can_bus" / f"{scene_name}_steeranglefeedback.json"
    pose = _read_messages(pose_path, lambda m: (*m["accel"], *m["rotation_rate"], *m["vel"]), POSE_COLUMNS)
    return CanBus(pose, _read_messages(steering_path, lambda m: (m["value"],), STEERING_COLUMNS))


def _read_messages(path: Path, values_of: Callable[[dict], tuple], count: int) -> Messages:
    if not path.is_file():
        return Messages((), ())
    messages = read_json(path)
    try:
        rows = sorted((int(message["utime"]), tuple(float(value) for value in values_of(message))) for message in messages)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of nuScenes CAN bus messages ({error!r}); unpack the CAN bus expansion again") from error
    if any(len(values) != count or not all(map(isfinite, values)) for _, values in rows):
        raise ValueError(f"{path}: expected {count} finite numbers in every message; unpack the CAN bus expansion again")
    return Messages(tuple(time for time, _ in rows), tuple(values for _, values in rows))
