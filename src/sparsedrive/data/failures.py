"""Cameras that fail while frames are loaded: what can happen to a camera, and random schedules of it for training.

Fixed lists, for evaluation, are in `failure_script`. What the pictures then look like is in `failure_pictures`.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Bool

from sparsedrive.data.keyed_random import Purpose, check_seed, keyed_rng
from sparsedrive.data.sampler import FrameRequest

Fill = Literal["black", "mean", "noise", "freeze", "intact"]
FaultKind = Literal["black", "mean", "noise", "freeze", "intact", "occlude", "blur", "expose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFault:
    """What is wrong with one camera at one frame.

    Attributes:
        kind: what the picture shows instead. "black" pixels; the "mean" colour of the normalisation (zero network input); "noise"; the
            last picture from before ("freeze"); "intact" is the true picture, for a false alarm or for a teacher that may see it. Or the
            true picture damaged: a black patch ("occlude"), Gaussian "blur", or brighter or darker ("expose").
        amount: patch: share of the picture it covers; blur: sigma in pixels of a picture 1600 wide; exposure: factor. Else of no meaning.
        announced: the camera is known to have failed: `CameraRig.available` is False.
        stale_frame: the frame a frozen picture is from; None where there was none before, then it is black.

    Raises:
        ValueError: an unknown kind, or an amount that means nothing.
    """

    kind: FaultKind
    amount: float = 0.0
    announced: bool = True
    stale_frame: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"camera fault: expected a kind of {', '.join(get_args(FaultKind))}, got {self.kind!r}")
        if self.kind in ("occlude", "blur", "expose") and not (self.amount > 0 and (self.kind != "occlude" or self.amount <= 1)):
            raise ValueError(
                f"camera fault {self.kind!r}: expected an amount above 0{' and up to 1' * (self.kind == 'occlude')}, got {self.amount}"
            )


class FailureSchedule(Protocol):
    """Says what is wrong with which camera. Must be a function of its arguments alone: workers ask in any order, and ask again after a
    restart. Must survive pickling (workers)."""

    def faults(self, request: FrameRequest, camera_names: Sequence[str]) -> tuple[CameraFault | None, ...]:
        """One entry a camera; None where nothing is wrong."""


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Failures become more in the first `steps` training steps: probabilities rise linearly from `start_share` of their final value to
    all of it, the most cameras that fail together from 1. The defaults are the published ones (0.15 of 0.6 at the start)."""

    steps: int = 8000
    start_share: float = 0.25

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.start_share <= 1:
            raise ValueError(f"Curriculum: expected steps >= 1 and start_share in 0..1, got {self.steps} and {self.start_share}")

    def progress(self, step: int) -> float:
        """0 at the start, 1 from `steps` on."""
        return min(step / self.steps, 1.0)


@dataclass(frozen=True, kw_only=True)
class CameraFailureSimulator(ABC):
    """Random failures whose every number is drawn for (seed, sequence, frame, camera) anew: the same for any number of workers and
    ranks, and after a restart. In training `sequence_id` is another one in every epoch.

    Attributes:
        fill: what failed cameras show; "freeze" shows the last picture before the failure. Models do not look at pictures of cameras that
            are announced as failed.
        announced: whether `CameraRig.available` says so.
        curriculum: how failures become more; None: all from the first step on.
    """

    seed: int = 0
    fill: Fill = "black"
    announced: bool = True
    curriculum: Curriculum | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.fill not in get_args(Fill):
            raise ValueError(f"{type(self).__name__}.fill: expected one of {', '.join(get_args(Fill))}, got {self.fill!r}")

    @abstractmethod
    def failed(self, sequence_id: int, frame: int, camera_names: Sequence[str], step: int | None = None) -> Bool[np.ndarray, "C"]:
        """True for the cameras that fail. `frame` counts within the scene, `step` is that of training (None: the curriculum is over)."""

    def faults(self, request: FrameRequest, camera_names: Sequence[str]) -> tuple[CameraFault | None, ...]:
        """One entry a camera; None for those that work."""
        failed = self.failed(request.sequence_id, request.frame, camera_names, request.step)
        stale = self._stale_frames(request, camera_names, failed) if self.fill == "freeze" else [None] * len(failed)
        return tuple(
            CameraFault(kind=self.fill, announced=self.announced, stale_frame=frame) if lost else None
            for lost, frame in zip(failed, stale, strict=True)
        )

    def _stale_frames(self, request: FrameRequest, camera_names: Sequence[str], failed: np.ndarray) -> list[int | None]:
        """For every failed camera the last frame at which it worked."""
        stale: list[int | None] = [None] * len(failed)
        waiting, frame = failed.copy(), request.frame
        while waiting.any() and frame > 0:
            frame -= 1
            worked = waiting & ~self.failed(request.sequence_id, frame, camera_names, request.step)
            for camera in np.flatnonzero(worked):
                stale[camera] = frame
            waiting &= ~worked
        return stale

    def _scaled(self, probability: float, max_cameras: int, step: int | None) -> tuple[float, int]:
        """Both as far as the curriculum has come."""
        if self.curriculum is None or step is None:
            return probability, max_cameras
        progress, start = self.curriculum.progress(step), self.curriculum.start_share
        return probability * (start + (1 - start) * progress), round(1 + (max_cameras - 1) * progress)


@dataclass(frozen=True, kw_only=True)
class RandomFailures(CameraFailureSimulator):
    """Every frame by itself: with `probability` it loses 1 .. `max_cameras` cameras, all numbers and all cameras equally likely.

    The published setting is a probability of 0.6 with 1 or 2 cameras: 15 % of all pictures. At least one camera of a rig stays.
    """

    probability: float
    max_cameras: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice(self, self.probability, self.max_cameras)

    def failed(self, sequence_id: int, frame: int, camera_names: Sequence[str], step: int | None = None) -> Bool[np.ndarray, "C"]:
        """True for the cameras that fail at this frame."""
        return _choice(keyed_rng(self.seed, Purpose.FAILURE, sequence_id, frame), camera_names, *self._now(step))

    def _now(self, step: int | None) -> tuple[float, int]:
        return self._scaled(self.probability, self.max_cameras, step)


@dataclass(frozen=True, kw_only=True)
class SequenceFailures(RandomFailures):
    """As `RandomFailures`, but drawn once a sequence: a camera that fails is dead in all of its frames."""

    def failed(self, sequence_id: int, frame: int, camera_names: Sequence[str], step: int | None = None) -> Bool[np.ndarray, "C"]:
        """True for the cameras that fail in this sequence."""
        return _choice(keyed_rng(self.seed, Purpose.FAILURE, sequence_id), camera_names, *self._now(step))


@dataclass(frozen=True, kw_only=True)
class MarkovFailures(CameraFailureSimulator):
    """Every camera by itself breaks down and comes back: a chain of two states from the scene's first frame on.

    Attributes:
        down_share: share of time a camera is down, in the long run.
        mean_down_s: how long it is down on average.
        frame_s: time between two frames.

    Raises:
        ValueError: shares outside 0..1, or failures shorter than a frame.
    """

    down_share: float
    mean_down_s: float
    frame_s: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.down_share < 1 or self.frame_s <= 0 or self.mean_down_s < self.frame_s:
            raise ValueError(
                "MarkovFailures: expected down_share in 0..1 (below 1) and mean_down_s of at least one frame (frame_s > 0), got "
                f"{self.down_share}, {self.mean_down_s} and {self.frame_s}"
            )
        if self._to_down(self.down_share) > 1:
            raise ValueError(
                f"MarkovFailures: a camera cannot be down {self.down_share:.0%} of the time in failures of {self.mean_down_s} s: the time "
                f"between them would be less than a frame of {self.frame_s} s; take longer failures or a smaller share"
            )

    def failed(self, sequence_id: int, frame: int, camera_names: Sequence[str], step: int | None = None) -> Bool[np.ndarray, "C"]:
        """True for the cameras that are down at this frame."""
        share, _ = self._scaled(self.down_share, 1, step)
        return np.array([self._down(keyed_rng(self.seed, Purpose.FAILURE, sequence_id, _key(name)), frame, share) for name in camera_names])

    def _down(self, rng: np.random.Generator, frame: int, share: float) -> bool:
        # Number i of a camera's stream belongs to frame i, so a frame costs all before it: some microseconds.
        first, *later = rng.uniform(size=frame + 1)
        to_up, to_down = self.frame_s / self.mean_down_s, self._to_down(share)
        down = bool(first < share)
        for number in later:
            down = bool(number >= to_up) if down else bool(number < to_down)
        return down

    def _to_down(self, share: float) -> float:
        """Probability a frame of breaking down, with which the share comes out."""
        return self.frame_s / self.mean_down_s * share / (1 - share)


def _check_choice(simulator: CameraFailureSimulator, probability: float, max_cameras: int) -> None:
    if not 0 <= probability <= 1 or max_cameras < 1:
        raise ValueError(
            f"{type(simulator).__name__}: expected probability in 0..1 and max_cameras >= 1, got {probability} and {max_cameras}"
        )


def _choice(rng: np.random.Generator, camera_names: Sequence[str], probability: float, max_cameras: int) -> Bool[np.ndarray, "C"]:
    """With `probability` 1 .. `max_cameras` of the cameras."""
    lost = np.zeros(len(camera_names), bool)
    most = min(max_cameras, len(camera_names) - 1)
    if most and rng.uniform() < probability:
        lost[rng.permutation(len(camera_names))[: rng.integers(1, most + 1)]] = True
    return lost


def _key(name: str) -> int:
    """Of a camera, whatever its place in the rig."""
    return zlib.crc32(name.encode())
