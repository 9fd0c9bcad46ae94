"""The training loop: streams with memory, accumulation, many processes, exact resume."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import GradScalerKwargs, set_seed
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils import _pytree as pytree

from sparsedrive.data.keyed_random import Purpose, keyed_rng
from sparsedrive.losses.criterion import Losses, compute_losses
from sparsedrive.losses.denoising import make_queries
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import DenoisingQueries, Frame, FrameTargets
from sparsedrive.training import checkpoint as disk
from sparsedrive.training.config import TrainConfig
from sparsedrive.training.guard import Culprit, TrainingError, bad_inputs, bad_losses, bad_truth, first_bad_module
from sparsedrive.training.logs import RunLog
from sparsedrive.training.optimiser import make_optimiser, set_rate
from sparsedrive.training.teacher import completion_teacher

CHECKPOINTS = "checkpoints"
FIRST_SCALE = 32.0  # of the loss in float16, as published
LAST_SCALE = 2.0**-10  # when even this overflows, it is not the scale's fault


class Request(Protocol):
    """Which frame a row of a batch is."""

    @property
    def scene(self) -> str: ...

    @property
    def frame(self) -> int: ...


class Loader(Protocol):
    """Endless batches of one process, resumable (`data.FrameLoader`). `step` counts those handed out."""

    def __iter__(self) -> Iterator[tuple[Frame, FrameTargets]]: ...

    def requests(self, step: int) -> Sequence[Request]: ...

    @property
    def step(self) -> int: ...

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
        self.frozen = [module for name, module in model.named_modules() if name.startswith(config.freeze)]
        denoising = model.config.detection.denoising is not None
        self.states = [model.initial_state(streams, accelerator.device, denoising=denoising) for _ in range(config.accumulation)]
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()} if config.ema_decay else None

    def resume(self, checkpoint: Path) -> list[str]:
        """Go on where a checkpoint was written; returns which settings have changed. `ValueError` where it does not fit this run."""
        position = disk.read_position(checkpoint)
        if position.processes != self.accelerator.num_processes:
            raise ValueError(
                f"{checkpoint}: written by {position.processes} process(es), every one with streams of its own, but this run has "
                f"{self.accelerator.num_processes}; start as many, or a new run with --init {checkpoint / disk.MODEL}"
            )
        ema = disk.read_shared(checkpoint, self.plain_model, self.optimiser.optimizer)
        if self.ema is not None:
            self.ema = {name: value.to(self.accelerator.device) for name, value in (ema or self.plain_model.state_dict()).items()}
        self.states = disk.read_process(checkpoint, self.accelerator.process_index, self.states)
        self.loader.load_state_dict(position.loader)
        if self.accelerator.scaler is not None and position.loss_scale is not None:
            self.accelerator.scaler.load_state_dict(dict(position.loss_scale))
        self.step = position.step
        return disk.changed_settings(position.settings, self.config.settings())

    def run(self, report: Callable[[dict[str, float]], None] = lambda entry: None) -> None:
        """Train to the end. `report` gets every logged entry. Raises `TrainingError` at the first loss that is not finite."""
        log = RunLog(self.folder, self.step) if self.accelerator.is_main_process else None
        self.model.train()
        for module in self.frozen:
            module.eval()  # else the running statistics of its batch norms would go on changing
        began, begun_at, batches = time.perf_counter(), self.step, iter(self.loader)
        try:
            while self.step < self.config.steps:
                waited = time.perf_counter()
                frame, targets = next(batches)
                waited = time.perf_counter() - waited
                entry = self.train_step(frame, targets)
                if self.step % self.config.log_every == 0 or self.step in (1, self.config.steps):
                    seconds, began = time.perf_counter() - began, time.perf_counter()
                    samples, begun_at = (self.step - begun_at) * self.config.batch_size, self.step
                    entry |= {"seconds": seconds, "seconds_waiting_for_data": waited, "samples_per_s": samples / seconds}
                    if log is not None:
                        with self._writing("log"):
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
        streams = parts * self.config.streams_per_part(self.accelerator.num_processes)
        if frame.batch_size != streams:
            raise ValueError(f"Trainer: expected batches of {streams} streams from this process's loader, got {frame.batch_size}")
        if bad_truth(frame, targets):  # it may take many steps to reach a loss: a box is refined only once its class is believed
            raise self._error(0, frame, targets, bad_truth)
        queries = self._denoising_queries(targets)
        totals: dict[str, Tensor] = {}
        for part in range(parts):
            own = take_streams((frame, targets, queries), part, parts, self.accelerator.device)
            losses = self._backward(part, *own)
            for name, value in losses.by_name.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / parts
        norm = self._clip_gradients()
        gradient_norm, *values = self._mean_over_processes(torch.stack([norm, *(value.reshape(()) for value in totals.values())])).tolist()
        self.optimiser.step()
        self.step += 1
        self._update_mean()
        named = {f"loss.{name}": value for name, value in zip(totals, values, strict=True)}
        return {"step": self.step, "rate": rate, "loss": sum(named.values()), "gradient_norm": gradient_norm} | named

    def _backward(self, part: int, frame: Frame, targets: FrameTargets, queries: DenoisingQueries | None) -> Losses:
        """Forward and backward of one part; its memory goes on without a graph."""
        last = part == self.config.accumulation - 1
        before = self.states[part]
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            truth = {"true_boxes": targets.boxes, "true_way_m": targets.futures.ego_m}
            predictions, state = self.model(frame, before, denoising=queries, **truth)
            teacher = completion_teacher(self.plain_model, frame) if predictions.completion is not None else None
            losses = compute_losses(predictions, frame, targets, self.config.criterion, self._mean_over_processes, teacher=teacher)
            self._stop_unless_finite(losses, part, frame, targets, queries)
            self.accelerator.backward(losses.total / self.config.accumulation)
        self.states[part] = state.detach()
        return losses

    def save(self) -> Path:
        """Write a checkpoint; all processes call it. `TrainingError` where the disk does not take it."""
        folder = self.folder / CHECKPOINTS
        partial = disk.partial_path(folder, self.step)
        scaler = self.accelerator.scaler
        position = disk.RunPosition(
            step=self.step, loader=self.loader.state_dict(), loss_scale=scaler.state_dict() if scaler is not None else None,
            processes=self.accelerator.num_processes, settings=self.config.settings(),
        )  # fmt: skip
        main = self.accelerator.is_main_process
        with self._writing("checkpoint"):
            if main:
                disk.partial_folder(folder, self.step)
            self.accelerator.wait_for_everyone()
            disk.write_process(partial, self.accelerator.process_index, self.states)
            if main:
                disk.write_shared(partial, self.plain_model, self.ema, self.optimiser.optimizer, position)
            self.accelerator.wait_for_everyone()
            if main:
                disk.publish(partial, self.config.keep)
        self.accelerator.wait_for_everyone()
        return partial.with_suffix("")

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except disk.WRITE_ERRORS as error:
            raise TrainingError(
                f"step {self.step}: the {what} could not be written ({error}); the last whole checkpoint is intact: free the disk, "
                "then resume"
            ) from error

    def _mean_over_processes(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, reduction="mean") if self.accelerator.num_processes > 1 else value

    def _denoising_queries(self, targets: FrameTargets) -> DenoisingQueries | None:
        """Where the model's configuration asks for them. Their noise depends on seed, process and step alone, so resuming repeats it."""
        config = self.plain_model.config.detection.denoising
        if config is None:
            return None
        seed = keyed_rng(self.config.seed, Purpose.DENOISING, self.accelerator.process_index, self.step).integers(2**63)
        generator = torch.Generator().manual_seed(int(seed))
        return make_queries(targets.boxes, config, self.config.criterion.detection.cost, generator)

    def _stop_unless_finite(self, losses: Losses, part: int, frame: Frame, targets: FrameTargets, queries: DenoisingQueries | None) -> None:
        bad = bad_losses(losses.by_name)
        if not bad:
            return
        with first_bad_module(self.plain_model) as found, torch.no_grad():
            self.plain_model(frame, self.states[part], denoising=queries, true_boxes=targets.boxes)
        raise self._error(part * frame.batch_size, frame, targets, bad_inputs, losses=bad, module=found[0] if found else None)

    def _error(
        self, first_row: int, frame: Frame, targets: FrameTargets, look: Callable[[Frame, FrameTargets], tuple[str, ...]], *,
        losses: tuple[str, ...] = (), module: str | None = None,
    ) -> TrainingError:  # fmt: skip
        """What is wrong with some rows of the last batch, and which frames they are."""
        count = frame.batch_size
        requests = self.loader.requests(self.loader.step - 1)[first_row : first_row + count]
        inputs = [look(*take_streams((frame, targets), row, count, frame.images.device)) for row in range(count)]
        guilty = [row for row in range(count) if inputs[row]] or range(count)
        culprit = Culprit(
            step=self.step + 1,
            losses=losses,
            module=module,
            inputs=tuple(dict.fromkeys(name for names in inputs for name in names)),
            frames=tuple(f"{requests[row].scene} #{requests[row].frame}" for row in guilty),
        )
        return TrainingError(culprit.message())

    def _clip_gradients(self) -> Tensor:
        """Norm of all gradients before they are clipped. Finite losses can have gradients that are not: `TrainingError`.

        With a loss scale that is everyday, and the scaler leaves such steps out.
        """
        self.accelerator.unscale_gradients()
        scaler = self.accelerator.scaler
        strict = scaler is None or scaler.get_scale() <= LAST_SCALE
        try:
            return clip_grad_norm_(self.plain_model.parameters(), self.config.optimiser.clip_norm, error_if_nonfinite=strict)
        except RuntimeError as error:
            named = self.plain_model.named_parameters()
            bad = [name for name, p in named if p.grad is not None and not bool(p.grad.isfinite().all())]
            first = f"those of {len(bad)} parameters are not, the first is {bad[0]!r}" if bad else "their norm is not"
            raise TrainingError(
                f"step {self.step + 1}: the losses are finite, but not their gradients: {first}; lower the rate, or use precision 'bf16' "
                "or 'no'; resume from the last checkpoint"
            ) from error

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
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    accelerator = Accelerator(mixed_precision=config.precision, cpu=cpu, kwargs_handlers=[GradScalerKwargs(init_scale=FIRST_SCALE)])
    if config.precision == "fp16" and accelerator.device.type == "cpu":  # which would compute in float32 and not say so
        raise ValueError("TrainConfig.precision: 'fp16' needs a GPU, and this run is on the CPU; use 'bf16' or 'no'")
    set_seed(config.seed, device_specific=True, deterministic=config.deterministic)
    return accelerator
