"""The training loop: streams with memory, accumulation, many processes, exact resume."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import GradScalerKwargs, set_seed
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.losses.criterion import Losses, compute_losses
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Frame, FrameTargets, StreamState
from sparsedrive.training import checkpoint as disk
from sparsedrive.training.config import TrainConfig
from sparsedrive.training.guard import Culprit, TrainingError, bad_inputs, bad_losses, first_bad_module
from sparsedrive.training.logs import RunLog
from sparsedrive.training.optimiser import make_optimiser, set_rate

CHECKPOINTS = "checkpoints"
FIRST_SCALE = 32.0  # of the loss in float16, as published


class Loader(Protocol):
    """Endless batches of one process, resumable (`data.FrameLoader`)."""

    def __iter__(self) -> Iterator[tuple[Frame, FrameTargets]]: ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Trainer:
    """Trains a model on a loader and writes checkpoints and logs into a folder.

    The loader gives all streams of this process in one batch (`TrainConfig.batch_size` / processes); the trainer works them off in
    `accumulation` parts, each with its own memory. `make_accelerator` makes the engine that knows about devices and processes.
    """

    def __init__(self, model: SparseDrive, loader: Loader, config: TrainConfig, folder: Path, accelerator: Accelerator) -> None:
        self.config, self.folder, self.accelerator, self.loader = config, folder, accelerator, loader
        self.step = 0
        streams = config.streams_per_part(accelerator.num_processes)
        optimiser = make_optimiser(model, config.optimiser, config.freeze)
        self.plain_model = model
        self.model, self.optimiser = accelerator.prepare(model, optimiser)
        self.states = [model.initial_state(streams, accelerator.device) for _ in range(config.accumulation)]
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()} if config.ema_decay else None

    def resume(self, checkpoint: Path) -> None:
        """Go on where a checkpoint was written. `ValueError` where it does not fit this run."""
        position = disk.read_position(checkpoint)
        ema = disk.read_shared(checkpoint, self.plain_model, self.optimiser.optimizer)
        if self.ema is not None:
            self.ema = {name: value.to(self.accelerator.device) for name, value in (ema or self.plain_model.state_dict()).items()}
        self.states = disk.read_process(checkpoint, self.accelerator.process_index, self.states)
        self.loader.load_state_dict(position.loader)
        if self.accelerator.scaler is not None and position.loss_scale is not None:
            self.accelerator.scaler.load_state_dict(dict(position.loss_scale))
        self.step = position.step

    def run(self, report: Callable[[dict[str, float]], None] = lambda entry: None) -> None:
        """Train to the end. `report` gets every logged entry. Raises `TrainingError` at the first loss that is not finite."""
        log = RunLog(self.folder, self.step) if self.accelerator.is_main_process else None
        self.model.train()
        began, batches = time.perf_counter(), iter(self.loader)
        try:
            while self.step < self.config.steps:
                waited = time.perf_counter()
                frame, targets = next(batches)
                waited = time.perf_counter() - waited
                entry = self.train_step(frame, targets)
                if self.step % self.config.log_every == 0 or self.step in (1, self.config.steps):
                    seconds, began = time.perf_counter() - began, time.perf_counter()
                    entry |= {"seconds": seconds, "seconds_waiting_for_data": waited}
                    if log is not None:
                        log.add(entry)
                    report(entry)
                if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                    self.save()
        finally:
            if log is not None:
                log.close()

    def train_step(self, frame: Frame, targets: FrameTargets) -> dict[str, float]:
        """One optimiser step over all streams of this process; returns what is logged."""
        optimiser_config = self.config.optimiser
        rate = set_rate(self.optimiser.optimizer, self.step, self.config.steps, optimiser_config)
        self.optimiser.zero_grad()
        parts = self.config.accumulation
        totals: dict[str, Tensor] = {}
        for part in range(parts):
            own = take_streams((frame, targets), part, parts, self.accelerator.device)
            losses = self._backward(part, *own)
            for name, value in losses.by_name.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / parts
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), optimiser_config.clip_norm)
        self.optimiser.step()
        self.step += 1
        self._update_mean()
        named = {f"loss.{name}": float(value) for name, value in totals.items()}
        return {"step": self.step, "rate": rate, "loss": sum(named.values()), "gradient_norm": float(norm)} | named

    def _backward(self, part: int, frame: Frame, targets: FrameTargets) -> Losses:
        """Forward and backward of one part; its memory goes on without a graph."""
        last = part == self.config.accumulation - 1
        before = self.states[part]
        with self.accelerator.no_sync(self.model) if not last else torch.autograd.profiler.record_function("last_part"):
            predictions, state = self.model(frame, before)
            losses = compute_losses(predictions, frame, targets, self.config.criterion, self._mean_over_processes)
            self._stop_unless_finite(losses, frame, targets, before)
            self.accelerator.backward(losses.total / self.config.accumulation)
        self.states[part] = state.detach()
        return losses

    def save(self) -> Path:
        """Write a checkpoint; all processes call it. `TrainingError` where the disk does not take it."""
        folder = self.folder / CHECKPOINTS
        partial = folder / f"{disk.PREFIX}{self.step:08d}.part"
        scaler = self.accelerator.scaler
        position = disk.RunPosition(
            step=self.step, loader=self.loader.state_dict(), loss_scale=scaler.state_dict() if scaler is not None else None
        )
        try:
            if self.accelerator.is_main_process:
                disk.partial_folder(folder, self.step)
            self.accelerator.wait_for_everyone()
            disk.write_process(partial, self.accelerator.process_index, self.states)
            if self.accelerator.is_main_process:
                disk.write_shared(partial, self.plain_model, self.ema, self.optimiser.optimizer, position)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                disk.publish(partial, self.config.keep)
        except OSError as error:
            raise TrainingError(
                f"step {self.step}: the checkpoint could not be written ({error}); the last whole one is intact: free the disk, then resume"
            ) from error
        self.accelerator.wait_for_everyone()
        return partial.with_suffix("")

    def _mean_over_processes(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, reduction="mean") if self.accelerator.num_processes > 1 else value

    def _stop_unless_finite(self, losses: Losses, frame: Frame, targets: FrameTargets, before: StreamState) -> None:
        bad = bad_losses(losses.by_name)
        if not bad:
            return
        with first_bad_module(self.plain_model) as found, torch.no_grad():
            self.plain_model(frame, before)
        ids = tuple(f"{int(sequence)}@{float(time_s):.3f}s" for sequence, time_s in zip(frame.sequence_id, frame.time_s, strict=True))
        module = found[0] if found else None
        culprit = Culprit(step=self.step + 1, losses=bad, module=module, inputs=bad_inputs(frame, targets), frames=ids)
        raise TrainingError(culprit.message())

    @torch.no_grad()
    def _update_mean(self) -> None:
        if self.ema is None:
            return
        decay = min(self.config.ema_decay or 0.0, (1 + self.step) / (10 + self.step))  # quick at first, as in TensorFlow's EMA
        for name, value in self.plain_model.state_dict().items():
            mean = self.ema[name]
            mean.copy_(torch.lerp(value, mean, decay) if mean.is_floating_point() else value)


def take_streams(batch: Any, part: int, parts: int, device: torch.device) -> Any:
    """The rows of one of `parts` equal parts, on the device."""

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.chunk(parts)[part].to(device, non_blocking=True) if parts > 1 else leaf.to(device, non_blocking=True)

    return pytree.tree_map(take, batch)


def make_accelerator(config: TrainConfig, *, cpu: bool = False) -> Accelerator:
    """The engine: device, processes (as started by `torchrun` or `accelerate launch`) and precision; seeds every process."""
    accelerator = Accelerator(mixed_precision=config.precision, cpu=cpu, kwargs_handlers=[GradScalerKwargs(init_scale=FIRST_SCALE)])
    set_seed(config.seed, device_specific=True, deterministic=config.deterministic)
    return accelerator


def rescaled(config: TrainConfig, batch_size: int) -> TrainConfig:
    """The same recipe for another batch: the rate follows the batch linearly (arXiv:1706.02677). Steps stay as they are."""
    share = batch_size / config.batch_size
    return replace(config, batch_size=batch_size, optimiser=replace(config.optimiser, rate=config.optimiser.rate * share))
