"""Cameras that fail in training: the seam at which a failure simulator is put in, and the simplest one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool

from sparsedrive.data.keyed_random import Purpose, check_seed, keyed_rng


class FailureSchedule(Protocol):
    """Says which cameras fail. Must be a function of its arguments alone: workers ask in any order, and ask again after a restart.

    `sequence_id` is another one in every epoch, `frame` counts within the scene. A camera that fails delivers a black picture and is
    not `available`. Must survive pickling (workers).
    """

    def failed(self, sequence_id: int, frame: int, camera_names: Sequence[str]) -> Bool[np.ndarray, "C"]:
        """True for the cameras that fail at this frame."""


@dataclass(frozen=True, kw_only=True)
class RandomFailures:
    """Every frame by itself: with `probability` it loses 1 .. `max_cameras` cameras, all numbers and all cameras equally likely."""

    probability: float
    max_cameras: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 0 <= self.probability <= 1 or self.max_cameras < 1:
            raise ValueError(
                f"RandomFailures: expected probability in 0..1 and max_cameras >= 1, got {self.probability} and {self.max_cameras}"
            )

    def failed(self, sequence_id: int, frame: int, camera_names: Sequence[str]) -> Bool[np.ndarray, "C"]:
        """True for the cameras that fail at this frame; at least one camera of a rig stays."""
        rng = keyed_rng(self.seed, Purpose.FAILURE, sequence_id, frame)
        lost = np.zeros(len(camera_names), bool)
        most = min(self.max_cameras, len(camera_names) - 1)
        if most and rng.uniform() < self.probability:
            lost[rng.permutation(len(camera_names))[: rng.integers(1, most + 1)]] = True
        return lost
