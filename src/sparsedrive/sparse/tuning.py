"""Find out which dataflow is fastest for each kind of layer, by running the model."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sparsedrive.ops.sparse_conv import available_dataflows
from sparsedrive.sparse.config import ConvConfig, Dataflow, current_config
from sparsedrive.sparse.conv import Conv3d


def tune(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    run: Callable[[nn.Module, Any], object] | None = None,
    dataflows: Sequence[str] | None = None,
    repeats: int = 3,
) -> dict[str, ConvConfig]:
    """The fastest configuration of each Conv3d: layers of one kernel size, stride and dilation together, one such group after the other.

    The model is as before afterwards; `apply_configs` puts the result in.

    Args:
        model: anything with Conv3d layers.
        batches: inputs like those that will come; a few are enough.
        run: called as run(model, batch), by default model(batch) without gradients. Do forward and backward there to tune a training.
            Batches must come with fresh coordinates for the building of maps to count: a SparseTensor keeps its maps.
        dataflows: what is tried; all that run on the model's device if left out.
        repeats: rounds over the batches; a batch's median counts.

    Returns:
        layer name -> configuration, best in this run.

    Raises:
        ValueError: no batches, or no Conv3d in the model.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Conv3d)}
    inputs = list(batches)
    if not layers or not inputs:
        raise ValueError(f"tune: expected a model with Conv3d layers and some batches, got {len(layers)} layers and {len(inputs)} batches")
    device = next(iter(layers.values())).kernel.device.type
    tried = cast(Sequence[Dataflow], available_dataflows(device) if dataflows is None else dataflows)
    groups: dict[tuple, list[str]] = {}
    for name, layer in layers.items():
        groups.setdefault((layer.kernel_size, layer.stride, layer.dilation), []).append(name)
    before = {name: layer.config for name, layer in layers.items()}
    chosen = {name: config or current_config() for name, config in before.items()}
    try:
        for names in groups.values():
            seconds = {}
            for dataflow in tried:
                apply_configs(model, {**chosen, **{name: replace(chosen[name], dataflow=dataflow) for name in names}})
                seconds[dataflow] = _seconds(model, inputs, run or _forward, repeats)
            best = min(tried, key=seconds.__getitem__)
            chosen.update({name: replace(chosen[name], dataflow=best) for name in names})
    finally:
        for name, config in before.items():
            layers[name].config = config
    return chosen


def apply_configs(model: nn.Module, configs: Mapping[str, ConvConfig]) -> None:
    """Give the layers of these names their configurations.

    Raises:
        ValueError: a name is not that of a Conv3d of the model.
    """
    modules = dict(model.named_modules())
    wrong = [name for name in configs if not isinstance(modules.get(name), Conv3d)]
    if wrong:
        raise ValueError(f"apply_configs: expected names of Conv3d layers, got {', '.join(wrong)}; tune this model again")
    for name, config in configs.items():
        modules[name].config = config  # type: ignore[assignment]


def save_configs(configs: Mapping[str, ConvConfig], path: Path) -> None:
    """As JSON."""
    path.write_text(json.dumps({name: asdict(config) for name, config in configs.items()}, indent=1), encoding="utf-8")


def load_configs(path: Path) -> dict[str, ConvConfig]:
    """What `save_configs` wrote."""
    return {name: ConvConfig(**fields) for name, fields in json.loads(path.read_text(encoding="utf-8")).items()}


def _forward(model: nn.Module, batch: Any) -> None:
    with torch.no_grad():
        model(batch)


def _seconds(model: nn.Module, inputs: list[Any], run: Callable[[nn.Module, Any], object], repeats: int) -> float:
    """Sum over the batches of the median time of one; a first round is not counted."""
    total = 0.0
    for batch in inputs:
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            run(model, batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        total += statistics.median(times[1:])
    return total
