"""Which frame goes into which batch slot at which step: pure functions of the step, so that any position can be resumed exactly.

A *sequence* is a piece of a scene without holes. A *slot* is one row of the global batch (batch size times ranks); rank r owns the slots
from r * batch_size on. A slot shows the frames of a sequence one after the other, then begins another one.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Int

from sparsedrive.data.keyed_random import Purpose, check_seed, keyed_rng


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRun:
    """Consecutive frames start <= frame < stop of a scene."""

    scene: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRequest:
    """One frame for one slot. A change of `sequence_id` in a slot means: what was remembered is of no use any more.

    `padding`: nothing was left for this slot; the frame comes without pictures and without targets, and no result of it counts.
    `step`: that of training, for what changes in its course; None in evaluation.
    """

    scene: str
    frame: int
    sequence_id: int
    padding: bool = False
    step: int | None = None


class Sampler(Protocol):
    """What a loader needs to know."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which (nearly) every frame was shown once."""

    @property
    def num_steps(self) -> int | None:
        """Steps in all; None where they never end."""

    def requests(self, step: int) -> list[FrameRequest]:
        """The frames of this rank's slots at a step."""

    def identity(self) -> Mapping[str, int]:
        """Numbers that must be equal for a step to mean the same frames."""


def split_runs(runs: Sequence[FrameRun], parts: int = 1, max_frames: int | None = None) -> tuple[FrameRun, ...]:
    """Every run in `parts` pieces of equal length (the last may be shorter), or in more where they would exceed `max_frames`."""
    if parts < 1 or (max_frames is not None and max_frames < 1):
        raise ValueError(f"split_runs: expected parts and max_frames >= 1, got {parts} and {max_frames}")
    pieces = []
    for run in runs:
        length = -(-len(run) // parts)
        length = length if max_frames is None else min(length, max_frames)
        pieces += [FrameRun(scene=run.scene, start=at, stop=min(at + length, run.stop)) for at in range(run.start, run.stop, length)]
    return tuple(pieces)


class SequenceSampler:
    """Endless, shuffled steps for training.

    Every epoch lays all sequences in a new order on one tape, cuts the tape into one stretch a slot, all of the same length, and plays
    the stretches side by side. So no two slots ever show the same frame in an epoch, every slot has work to the end, and at most
    `slots - 1` frames, others each time, are left out. A sequence that a cut falls into is played in two halves by two slots. Ranks
    agree on the order because all compute it. The published sampler gives whole sequences to slots, so its slots drift apart, an epoch
    is one on average only, and it needs as many sequences as slots.

    Args:
        sequences: what to play, for example of `split_runs`.
        batch_size: slots of this rank.
        rank, world_size: of this process.
        seed: of the order.
    """

    num_steps = None

    def __init__(self, sequences: Sequence[FrameRun], batch_size: int, *, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        self._slots = _slots(batch_size, rank, world_size)
        self._num_slots = batch_size * world_size
        self._sequences, self._seed = tuple(sequences), check_seed(seed)
        self._num_frames = sum(map(len, self._sequences))
        self.steps_per_epoch = self._num_frames // self._num_slots
        if not self.steps_per_epoch:
            raise ValueError(
                f"SequenceSampler: expected at least one frame for each of {self._num_slots} slots (batch_size * world_size), got "
                f"{self._num_frames} frames; use a smaller batch or more scenes"
            )
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def requests(self, step: int) -> list[FrameRequest]:
        """The frames of this rank's slots at a step >= 0 counted from the start of training."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order, ends = self._order(epoch)
        requests = []
        for slot in self._slots:
            at = slot * self.steps_per_epoch + step_in_epoch
            place = int(np.searchsorted(ends, at, side="right"))
            number = int(order[place])
            sequence = self._sequences[number]
            frame = sequence.stop - int(ends[place]) + at
            sequence_id = epoch * len(self._sequences) + number
            requests.append(FrameRequest(scene=sequence.scene, frame=frame, sequence_id=sequence_id, step=step))
        return requests

    def identity(self) -> Mapping[str, int]:
        """Numbers that must be equal for a step to mean the same frames; how slots are dealt to ranks is not among them."""
        return {"seed": self._seed, **_identity(self._sequences, self._num_slots)}

    def _shuffled(self, epoch: int) -> tuple[Int[np.ndarray, "S"], Int[np.ndarray, "S"]]:
        """Order of the sequences on the tape of an epoch, and where each ends."""
        order = keyed_rng(self._seed, Purpose.ORDER, epoch).permutation(len(self._sequences))
        return order, np.cumsum([len(self._sequences[number]) for number in order])


class EvaluationSampler:
    """Every frame once, scenes whole and in order; a scene goes to the slot with the least to do so far.

    Slots that are done before the others get `padding` requests. With one slot there is no padding.
    Arguments as `SequenceSampler`.
    """

    def __init__(self, sequences: Sequence[FrameRun], batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        slots = _slots(batch_size, rank, world_size)
        if not sequences:
            raise ValueError("EvaluationSampler: expected at least one sequence, got none; choose a split with frames")
        lanes: list[list[FrameRequest]] = [[] for _ in range(batch_size * world_size)]
        for number, run in enumerate(sequences):
            lane = min(lanes, key=len)
            lane += [FrameRequest(scene=run.scene, frame=frame, sequence_id=number) for frame in range(run.start, run.stop)]
        first = lanes[0][0]
        self.steps_per_epoch = self.num_steps = max(map(len, lanes))
        self._lanes = [lanes[slot] for slot in slots]
        self._idle = FrameRequest(scene=first.scene, frame=first.frame, sequence_id=len(sequences), padding=True)
        self._identity = _identity(sequences, len(lanes))

    def requests(self, step: int) -> list[FrameRequest]:
        """The frames of this rank's slots at a step 0 <= step < num_steps."""
        return [lane[step] if step < len(lane) else self._idle for lane in self._lanes]

    def identity(self) -> Mapping[str, int]:
        """Numbers that must be equal for a step to mean the same frames."""
        return self._identity


def _identity(sequences: Sequence[FrameRun], slots: int) -> dict[str, int]:
    which = json.dumps([(run.scene, run.start, run.stop) for run in sequences]).encode()
    return {"slots": slots, "frames": sum(map(len, sequences)), "sequences": len(sequences), "checksum of sequences": zlib.crc32(which)}


def _slots(batch_size: int, rank: int, world_size: int) -> range:
    if batch_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"expected batch_size >= 1 and 0 <= rank < world_size, got {batch_size}, rank {rank} of {world_size}")
    return range(rank * batch_size, (rank + 1) * batch_size)


class StepSampler:
    """Batches of requests from a step on, as `DataLoader.batch_sampler`."""

    def __init__(self, sampler: Sampler, first_step: int) -> None:
        self._sampler, self.first_step = sampler, first_step

    def __iter__(self) -> Iterator[list[FrameRequest]]:
        step = self.first_step
        while self._sampler.num_steps is None or step < self._sampler.num_steps:
            yield self._sampler.requests(step)
            step += 1
