"""A checkpoint: a folder that is there whole or not at all, and from which a run goes on bit by bit.

`model.safetensors` (+ configuration), `ema.safetensors`, `optimiser.safetensors`, `run.json`, and for every process its random state and
its streams' memory in `process-<rank>.safetensors`. Nothing is pickled.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.convert import save as save_model
from sparsedrive.convert.checkpoint import read_weights
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import StreamState

PREFIX, MODEL, EMA, OPTIMISER, RUN = "step-", "model.safetensors", "ema.safetensors", "optimiser.safetensors", "run.json"


@dataclass(frozen=True, kw_only=True)
class RunPosition:
    """Where a run is: optimiser steps done, the loader's position, the loss scale of half precision (None without)."""

    step: int
    loader: Mapping[str, int]
    loss_scale: Mapping[str, float] | None


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if (path / RUN).is_file() and not path.name.endswith(".part")]
    return sorted(found, key=lambda path: path.name)


def partial_folder(folder: Path, step: int) -> Path:
    """Where the parts are written before they become a checkpoint; what an earlier attempt left there is removed."""
    partial = folder / f"{PREFIX}{step:08d}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def write_shared(
    partial: Path, model: SparseDrive, ema: Mapping[str, Tensor] | None, optimiser: torch.optim.Optimizer, position: RunPosition
) -> None:
    """The parts that all processes have in common."""
    save_model(model, partial / MODEL)
    if ema is not None:
        save_file({name: value.contiguous() for name, value in ema.items()}, partial / EMA)
    save_file(optimiser_tensors(model, optimiser), partial / OPTIMISER)
    run = {"step": position.step, "loader": dict(position.loader), "loss_scale": position.loss_scale}
    (partial / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def write_process(partial: Path, rank: int, states: Sequence[StreamState]) -> None:
    """The parts of one process."""
    tensors = {f"state.{part}.{leaf}": value for part, state in enumerate(states) for leaf, value in enumerate(pytree.tree_leaves(state))}
    tensors |= {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, _process_path(partial, rank))


def publish(partial: Path, keep: int) -> Path:
    """Turn the written parts into a checkpoint and remove all but the last `keep`."""
    final = partial.with_suffix("")
    for path in partial.iterdir():  # on the disk before the name says so
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in checkpoints(final.parent)[:-keep]:
        shutil.rmtree(old)
    return final


def read_position(checkpoint: Path) -> RunPosition:
    """Where the run was. `ValueError` names a damaged file."""
    path = checkpoint / RUN
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return RunPosition(step=int(run["step"]), loader=dict(run["loader"]), loss_scale=run["loss_scale"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the position of a training run ({error!r}); resume from an earlier checkpoint") from error


def read_shared(checkpoint: Path, model: SparseDrive, optimiser: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Load model and optimiser; returns the running mean of the weights if there is one."""
    state, _ = read_weights(checkpoint / MODEL, model.config)
    model.load_state_dict(state)
    tensors = _read(checkpoint / OPTIMISER)
    names = _names(model)
    index_of = {names[id(p)]: i for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"])}
    content = optimiser.state_dict()
    content["state"] = {}
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        if name not in index_of:
            raise ValueError(f"{checkpoint / OPTIMISER}: {name!r} does not learn in this run; resume with the same model and --freeze")
        content["state"].setdefault(index_of[name], {})[entry] = value
    optimiser.load_state_dict(content)
    return _read(checkpoint / EMA) if (checkpoint / EMA).is_file() else None


def read_process(checkpoint: Path, rank: int, states: Sequence[StreamState]) -> list[StreamState]:
    """Restore the random state of this process and return its streams' memory, shaped as `states`."""
    tensors = _read(_process_path(checkpoint, rank))
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    restored = []
    for part, state in enumerate(states):
        leaves, spec = pytree.tree_flatten(state)
        saved = [tensors[f"state.{part}.{leaf}"] for leaf in range(len(leaves)) if f"state.{part}.{leaf}" in tensors]
        if [value.shape for value in saved] != [leaf.shape for leaf in leaves]:
            raise ValueError(
                f"{checkpoint}: the memory of part {part} has other shapes than this run's; resume with the same batch size, "
                "accumulation and number of processes"
            )
        restored.append(pytree.tree_unflatten([value.to(leaf.device) for value, leaf in zip(saved, leaves, strict=True)], spec))
    return restored


def optimiser_tensors(model: SparseDrive, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory by parameter name."""
    names = _names(model)
    return {
        f"{names[id(parameter)]}/{entry}": value.detach().cpu().contiguous()
        for parameter, memory in optimiser.state.items()
        for entry, value in memory.items()
    }


def _names(model: SparseDrive) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _process_path(folder: Path, rank: int) -> Path:
    return folder / f"process-{rank}.safetensors"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a complete safetensors file ({error}); resume from an earlier checkpoint") from error
