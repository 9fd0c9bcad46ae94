"""Ego status from the nuScenes CAN bus expansion: acceleration, rotation rate, velocity, steering angle."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparsedrive.data.nuscenes.tables import read_json
from sparsedrive.structures import EGO_STATUS_DIM


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of one kind in the order of time."""

    time_us: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, time_us: int) -> tuple[float, ...]:
        """The last message not later than `time_us`: what a car knows at that moment. Before the first message: the first."""
        return self.values[max(bisect_right(self.time_us, time_us) - 1, 0)]


@dataclass(frozen=True, slots=True)
class CanBus:
    """Messages of one scene. `steering` is None where the recording has no steering angle."""

    pose: Messages
    steering: Messages | None

    def ego_status(self, time_us: int) -> tuple[float, ...]:
        """`EGO_STATUS_DIM` values in the order of `Frame.ego_status`; steering angle 0 where it was not recorded.

        (The public SparseDrive converter writes ten zeros when either file is missing.)
        """
        steering_rad = self.steering.at(time_us) if self.steering is not None else (0.0,)
        status = self.pose.at(time_us) + steering_rad
        assert len(status) == EGO_STATUS_DIM
        return status


def read_can_bus(root: Path, scene_name: str) -> CanBus | None:
    """CAN bus of one scene from `<root>/can_bus`, None when its pose file is missing or empty (21 scenes of nuScenes have none).

    `ValueError` names a malformed file.
    """
    pose_path = root / "can_bus" / f"{scene_name}_pose.json"
    steering_path = root / "can_bus" / f"{scene_name}_steeranglefeedback.json"
    pose = _read_messages(pose_path, lambda m: (*m["accel"], *m["rotation_rate"], *m["vel"]), 9) if pose_path.is_file() else None
    steering = _read_messages(steering_path, lambda m: (m["value"],), 1) if steering_path.is_file() else None
    return CanBus(pose, steering) if pose is not None else None


def _read_messages(path: Path, values_of: Callable[[dict], tuple], count: int) -> Messages | None:
    messages = read_json(path)
    try:
        rows = sorted((int(message["utime"]), tuple(float(value) for value in values_of(message))) for message in messages)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of nuScenes CAN bus messages ({error!r}); unpack the CAN bus expansion again") from error
    if any(len(values) != count for _, values in rows):
        raise ValueError(f"{path}: expected {count} numbers in every message; unpack the CAN bus expansion again")
    return Messages(tuple(time for time, _ in rows), tuple(values for _, values in rows)) if rows else None
