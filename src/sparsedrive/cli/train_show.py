"""What `sparsedrive train` shows: the run in words, its progress, and what it leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import sparsedrive
from sparsedrive.cli.console import err, out
from sparsedrive.training.checkpoint import WRITE_ERRORS
from sparsedrive.training.guard import TrainingError
from sparsedrive.training.logs import read_log
from sparsedrive.viz.curves import draw_curves
from sparsedrive.viz.files import write_picture

if TYPE_CHECKING:
    from sparsedrive.training.trainer import Trainer

WEIGHTS, MEAN_WEIGHTS, CURVES_PICTURE = "model.safetensors", "ema.safetensors", "curves.png"
CURVES = ("loss", "gradient_norm", "rate")
PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def describe(trainer: "Trainer", data: Path, split: str, num_frames: int) -> list[str]:
    """The run before it begins, a line a thing."""
    config, accelerator = trainer.config, trainer.accelerator
    total = sum(parameter.numel() for parameter in trainer.plain_model.parameters())
    learning = sum(parameter.numel() for parameter in trainer.plain_model.parameters() if parameter.requires_grad)
    epochs = config.steps * config.batch_size / num_frames
    parts = f" in {config.accumulation} parts" if config.accumulation > 1 else ""
    processes = f"{accelerator.num_processes} processes" if accelerator.num_processes > 1 else "1 process"
    return [
        f"model      {trainer.plain_model.config.name}, {total / 1e6:.2f} M parameters, {learning / 1e6:.2f} M learn",
        f"data       {data}, split {split!r}, {num_frames} frames",
        f"machine    {processes} on {accelerator.device.type}, {PRECISIONS[config.precision]}",
        f"run        {config.steps} steps of {config.batch_size} streams{parts}: {epochs:.3g} epochs, rate {config.optimiser.rate:.3g} "
        f"(backbone x {config.optimiser.backbone_rate_share:g})",
        f"out        {trainer.folder}, a checkpoint every {config.save_every} steps",
    ]


def train_with_progress(trainer: "Trainer") -> None:
    """Trains to the end: a bar on a terminal, else a line each logged step. The main process alone speaks."""
    if not trainer.accelerator.is_main_process:
        trainer.run()
        return
    console = err()
    announce = _announcement(trainer.step, trainer.config.batch_size, trainer.config.steps)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("first step", total=trainer.config.steps, completed=trainer.step)

        def show(entry: dict[str, float]) -> None:
            announce(entry)
            text = line(entry, trainer.config.batch_size, trainer.config.steps)
            bar.update(task, completed=entry["step"], description=text)
            if not console.is_terminal:
                console.print(f"step {int(entry['step'])}/{trainer.config.steps}  {text}", markup=False)

        trainer.run(show)


def line(entry: dict[str, float], batch_size: int, steps: int) -> str:
    """A logged step in short."""
    left_s = seconds_left(entry, batch_size, steps)
    return (
        f"loss {entry['loss']:.2f}  gradient {entry['gradient_norm']:.1f}  {entry['samples_per_s']:.2g} samples/s  {duration(left_s)} left"
    )


def seconds_left(entry: dict[str, float], batch_size: int, steps: int) -> float:
    """To the end at the speed of the last logged steps."""
    return (steps - entry["step"]) * batch_size / entry["samples_per_s"]


def duration(seconds: float) -> str:
    """In the two largest units."""
    minutes, hours = divmod(round(seconds), 60)[0], round(seconds) // 3600
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {round(seconds) % 60:02d} s" if minutes else f"{round(seconds)} s"


def _announcement(first_step: int, batch_size: int, steps: int) -> Callable[[dict[str, float]], None]:
    """Says once, after a few steps, how long it will take; the very first steps are slower than the rest."""
    said = False

    def announce(entry: dict[str, float]) -> None:
        nonlocal said
        if not said and entry["step"] >= first_step + min(5, steps - first_step):
            said = True
            step_s = batch_size / entry["samples_per_s"]
            out().print(f"time       {step_s:.2g} s a step, {duration(seconds_left(entry, batch_size, steps))} to go", markup=False)

    return announce


def finish(trainer: "Trainer") -> list[str]:
    """Writes the weights, their mean if there is one, and the curves; says where they are."""
    lines, model = [], trainer.plain_model
    try:
        sparsedrive.save(model, trainer.folder / WEIGHTS)
        lines.append(f"weights    {trainer.folder / WEIGHTS}")
        if trainer.ema is not None:
            mean = model.config.build()
            mean.load_state_dict(trainer.ema)
            sparsedrive.save(mean, trainer.folder / MEAN_WEIGHTS)
            lines.append(f"mean       {trainer.folder / MEAN_WEIGHTS}")
    except WRITE_ERRORS as error:
        raise TrainingError(f"{trainer.folder}: the weights could not be written ({error}); free the disk, then --resume") from error
    log = read_log(trainer.folder)
    if log:
        names = [name for name in log[-1] if name in CURVES or name.startswith("loss.")]
        curves = {name: [entry.get(name, float("nan")) for entry in log] for name in names}
        write_picture(trainer.folder / CURVES_PICTURE, draw_curves([entry["step"] for entry in log], curves))
        lines.append(f"curves     {trainer.folder / CURVES_PICTURE}")
    return lines
