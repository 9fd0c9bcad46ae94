"""A checkpoint: a folder that is there whole or not at all, and from which a run goes on bit by bit.

`model.safetensors` (+ configuration), `ema.safetensors`, `optimiser.safetensors`, `run.json`, and for every process its random state and
its streams' memory in `process-<rank>.safetensors`. Nothing is pickled. What is being written or removed is named `*.part`.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.convert import save as save_model
from sparsedrive.convert.checkpoint import read_weights
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import StreamState

PREFIX, PARTIAL, RUN = "step-", ".part", "run.json"
MODEL, EMA, OPTIMISER = "model.safetensors", "ema.safetensors", "optimiser.safetensors"
WRITE_ERRORS = (OSError, SafetensorError)  # a full disk is either, depending on who was writing


@dataclass(frozen=True, kw_only=True)
class RunPosition:
    """Where a run is: optimiser steps done, the loader's position, the loss scale of half precision (None without).

    `processes` it runs on; `settings` it was configured with, for people and for `changed_settings`.
    """

    step: int
    loader: Mapping[str, int]
    loss_scale: Mapping[str, float] | None
    processes: int
    settings: Mapping[str, Any]


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if (path / RUN).is_file() and path.suffix != PARTIAL]
    return sorted(found, key=lambda path: path.name)


def partial_folder(folder: Path, step: int) -> Path:
    """Where the parts are written before they become a checkpoint; what an earlier attempt left there is removed."""
    partial = partial_path(folder, step)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def partial_path(folder: Path, step: int) -> Path:
    """Name of `partial_folder`."""
    return folder / f"{PREFIX}{step:08d}{PARTIAL}"


def write_shared(
    partial: Path, model: SparseDrive, ema: Mapping[str, Tensor] | None, optimiser: torch.optim.Optimizer, position: RunPosition
) -> None:
    """The parts that all processes have in common."""
    save_model(model, partial / MODEL)
    if ema is not None:
        save_file({name: value.contiguous() for name, value in ema.items()}, partial / EMA)
    save_file(optimiser_tensors(model, optimiser), partial / OPTIMISER)
    (partial / RUN).write_text(json.dumps(asdict(position), indent=2) + "\n", encoding="utf-8")


def write_process(partial: Path, rank: int, states: Sequence[StreamState]) -> None:
    """The parts of one process."""
    tensors = {f"state.{part}.{leaf}": value for part, state in enumerate(states) for leaf, value in enumerate(pytree.tree_leaves(state))}
    tensors |= {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, _process_path(partial, rank))


def publish(partial: Path, keep: int) -> Path:
    """Turn the written parts into a checkpoint, and remove all but the last `keep` and what other attempts left half done."""
    final = partial.with_suffix("")
    for path in (*partial.iterdir(), partial):  # on the disk before the name says so
        _flush(path)
    if final.exists():
        _remove(final)
    os.replace(partial, final)
    _flush(final.parent)
    for old in checkpoints(final.parent)[:-keep]:
        _remove(old)
    for left in final.parent.glob(f"{PREFIX}*{PARTIAL}"):
        shutil.rmtree(left)
    return final


def read_position(checkpoint: Path) -> RunPosition:
    """Where the run was. `ValueError` names a damaged file."""
    path = checkpoint / RUN
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return RunPosition(
            step=int(run["step"]), loader=dict(run["loader"]), loss_scale=run["loss_scale"], processes=int(run["processes"]),
            settings=dict(run["settings"]),
        )  # fmt: skip
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the position of a training run ({error!r}); resume from an earlier checkpoint") from error


def read_shared(checkpoint: Path, model: SparseDrive, optimiser: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Load model and optimiser; returns the running mean of the weights if there is one."""
    state, _ = read_weights(checkpoint / MODEL, model.config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{checkpoint / MODEL}: not the weights of {model.config.name!r} ({error}); resume with its preset") from error
    names = _names(model)
    index_of = {names[id(p)]: i for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"])}
    memory: dict[str, dict[str, Tensor]] = {}
    for key, value in _read(checkpoint / OPTIMISER).items():
        name, entry = key.rsplit("/", 1)
        memory.setdefault(name, {})[entry] = value
    frozen = sorted(memory.keys() - index_of.keys())
    if frozen:
        raise ValueError(
            f"{checkpoint / OPTIMISER}: {len(frozen)} parameters do not learn in this run, the first is {frozen[0]!r}; resume with the "
            "same preset and --freeze"
        )
    optimiser.load_state_dict(optimiser.state_dict() | {"state": {index_of[name]: entries for name, entries in memory.items()}})
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


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is set differently now, in words: a run that goes on with these is not the run that was interrupted."""
    flat_before, flat_now = dict(_flat(before)), dict(_flat(now))
    names = [name for name in {**flat_before, **flat_now} if flat_before.get(name) != flat_now.get(name)]
    return [f"{name} {flat_before.get(name)} -> {flat_now.get(name)}" for name in names]


def optimiser_tensors(model: SparseDrive, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's memory by parameter name."""
    names = _names(model)
    return {
        f"{names[id(parameter)]}/{entry}": value.detach().cpu().contiguous()
        for parameter, memory in optimiser.state.items()
        for entry, value in memory.items()
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _remove(checkpoint: Path) -> None:
    """Away whole or not at all: a half removed checkpoint must not look like one."""
    going = checkpoint.with_name(checkpoint.name + PARTIAL)
    shutil.rmtree(going, ignore_errors=True)
    os.replace(checkpoint, going)
    shutil.rmtree(going)


def _flush(path: Path) -> None:
    """Onto the disk; a folder's entries where the system can do that."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _names(model: SparseDrive) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _process_path(folder: Path, rank: int) -> Path:
    return folder / f"process-{rank}.safetensors"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a complete safetensors file ({error}); resume from an earlier checkpoint") from error
