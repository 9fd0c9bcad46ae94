"""Batches in the order of a sampler, made by worker processes, resumable at an exact step."""

from collections.abc import Iterator, Mapping, Sequence

import cv2
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from sparsedrive.data.collate import collate
from sparsedrive.data.dataset import DrivingDataset, LoadConfig, LoadedFrame
from sparsedrive.data.failures import FailureSchedule
from sparsedrive.data.prepared import PreparedData
from sparsedrive.data.sampler import EvaluationSampler, FrameRequest, Sampler, SequenceSampler, StepSampler, split_runs
from sparsedrive.structures import Frame
from sparsedrive.structures.targets import FrameTargets

PUBLISHED_PARTS = 2


def make_loader(
    data: PreparedData,
    split: str,
    config: LoadConfig,
    *,
    training: bool,
    batch_size: int = 1,
    workers: int = 2,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    parts: int = PUBLISHED_PARTS,
    max_frames: int | None = None,
    failures: FailureSchedule | None = None,
    pin_memory: bool | None = None,
) -> "FrameLoader":
    """Batches of a split for one rank.

    Args:
        data, split, config, failures: as `DrivingDataset`.
        training: shuffled sequences without end (`SequenceSampler`), else every frame once in order (`EvaluationSampler`).
        batch_size: streams of this rank.
        workers: processes that load; 0 loads in this one. The batches are the same for every number.
        rank, world_size: of this process; ranks get different frames.
        seed: of the order and of the augmentation.
        parts, max_frames: pieces every scene is split into for training (`split_runs`).
        pin_memory: page-locked batches for quick copies to a GPU; None where there is one.
    """
    dataset = DrivingDataset(data, split, config, seed=seed, failures=failures)
    sampler: Sampler
    if training:
        sequences = split_runs(dataset.runs, parts, max_frames)
        sampler = SequenceSampler(sequences, batch_size, rank=rank, world_size=world_size, seed=seed)
    else:
        sampler = EvaluationSampler(dataset.runs, batch_size, rank=rank, world_size=world_size)
    return FrameLoader(dataset, sampler, workers=workers, pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory)


class FrameLoader:
    """`for frame, targets in loader`: in training batches from `step` on without end, in evaluation every frame from the start.

    `step` counts the batches handed out; in training another loop goes on where the last one was left. `requests(step)` says which
    frames a batch holds, for example `loader.requests(loader.step - 1)` for the one in hand.
    """

    def __init__(self, dataset: DrivingDataset, sampler: Sampler, *, workers: int = 0, pin_memory: bool = False) -> None:
        self.step = 0
        self._sampler = sampler
        self._batches = StepSampler(sampler, 0)
        self._loader: DataLoader[LoadedFrame] = DataLoader(
            dataset,
            batch_sampler=self._batches,  # type: ignore[arg-type]  # requests, not numbers
            num_workers=workers,
            collate_fn=_Batch.of,
            pin_memory=pin_memory,
            worker_init_fn=_one_thread,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # not the global one, which would go on otherwise with every new loop
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which (nearly) every frame was shown once."""
        return self._sampler.steps_per_epoch

    def requests(self, step: int) -> list[FrameRequest]:
        """Which frames the batch of a step holds: scene, frame and whether a row only pads."""
        return self._sampler.requests(step)

    def __iter__(self) -> Iterator[tuple[Frame, FrameTargets]]:
        if self._sampler.num_steps is not None:
            self.step = 0
        self._batches.first_step = self.step
        for batch in self._loader:
            self.step += 1
            yield batch.frame, batch.targets

    def state_dict(self) -> dict[str, int]:
        """Position in training after the last batch handed out, whatever the workers have prepared beyond."""
        return {"step": self.step, **self._sampler.identity()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on at a saved position. `ValueError` when a step means other frames now than when it was saved."""
        now = self._sampler.identity()
        different = {name: (state.get(name), value) for name, value in now.items() if state.get(name) != value}
        if different:
            raise ValueError(
                "FrameLoader: the saved position was for "
                + ", ".join(f"{name} = {saved}, now {value}" for name, (saved, value) in different.items())
                + " (slots = batch_size * world_size): its step means other frames here; restore these, or begin an epoch with start_epoch"
            )
        self.step = int(state["step"])

    def start_epoch(self, epoch: int) -> None:
        """Go on at the first step of an epoch."""
        self.step = epoch * self.steps_per_epoch


class _Batch:
    """A batch on its way from a worker; `DataLoader` pins what has `pin_memory`."""

    def __init__(self, frame: Frame, targets: FrameTargets) -> None:
        self.frame, self.targets = frame, targets

    @classmethod
    def of(cls, frames: Sequence[LoadedFrame]) -> "_Batch":
        return cls(*collate(frames))

    def pin_memory(self) -> "_Batch":
        frame, targets = pytree.tree_map_only(Tensor, Tensor.pin_memory, (self.frame, self.targets))
        return _Batch(frame, targets)


def _one_thread(worker: int) -> None:
    """The processes are the parallelism: threads of OpenCV inside them would only fight over the cores."""
    cv2.setNumThreads(0)
