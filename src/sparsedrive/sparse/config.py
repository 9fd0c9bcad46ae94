"""How sparse convolutions place their outputs and run: one frozen value, given to a layer, or to all within a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

KmapMode = Literal["hashmap_on_the_fly", "hashmap"]
DownsampleMode = Literal["spconv", "minkowski"]
Dataflow = Literal["auto", "implicit_gemm", "gather_scatter", "fetch_on_demand"]


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """Options of a sparse convolution that are not part of its weights. The names are TorchSparse's; every one acts.

    Args:
        downsample_mode: which cells a strided convolution makes.
            "spconv": cell q is active if any input p = q * stride - padding + j * dilation is, within the grid.
            "minkowski": q = floor(p / stride); the kernel is centred, p = q * stride + (j - (k - 1) // 2) * dilation, padding unused.
        kmap_mode: conventions of TorchSparse's two kernel maps, where they differ.
            "hashmap_on_the_fly": a submanifold kernel of even volume starts at the cell itself on every axis (offsets 0..k-1).
            "hashmap": it starts at -((k - 1) // 2) on each axis; and a strided convolution whose strides are all 1 or the kernel's
            size takes the "minkowski" cells (so kernel 2 stride 2 keeps the odd last row). Odd submanifold kernels are the same in both.
        dataflow: how the sums are made; results differ by rounding only.
            "implicit_gemm": output cells in blocks, all kernel offsets of a block at once. "fetch_on_demand": one kernel offset after
            the other over all cells, reading features in place. "gather_scatter": the same with rows copied into a matrix, multiplied
            by the platform's BLAS and added back. "auto": the fastest of what runs on the device.
        mask_splits: with "implicit_gemm", sort the output cells by which of their neighbours exist, so that a block's cells agree:
            0 not at all, n > 0 in n parts of the kernel, each with an order of its own (TorchSparse's conv modes 0, 1, 2 are 0, 1, 3).

    Raises:
        ValueError: a value is not one of these.
    """

    downsample_mode: DownsampleMode = "spconv"
    kmap_mode: KmapMode = "hashmap_on_the_fly"
    dataflow: Dataflow = "auto"
    mask_splits: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("downsample_mode", DownsampleMode), ("kmap_mode", KmapMode), ("dataflow", Dataflow)):
            value, choices = getattr(self, name), get_args(allowed)
            if value not in choices:
                raise ValueError(f"ConvConfig.{name}: expected one of {', '.join(choices)}, got {value!r}; choose one of these")
        if not 0 <= self.mask_splits <= 4:
            raise ValueError(f"ConvConfig.mask_splits: expected 0 to 4, got {self.mask_splits}; TorchSparse uses 0, 1 and 3")


# Plain module variables for the reason given in ops/backends.py: torch.compile guards on them.
_global = ConvConfig()
_contexts: tuple[ConvConfig, ...] = ()


@contextmanager
def use_config(config: ConvConfig) -> Iterator[None]:
    """Within this context layers without a `config` of their own run with this one. Holds for the whole process."""
    global _contexts
    before = _contexts
    _contexts = (*before, config)
    try:
        yield
    finally:
        _contexts = before


def current_config() -> ConvConfig:
    """Of the innermost `use_config`, else what `set_global_config` set, else the defaults."""
    return _contexts[-1] if _contexts else _global


def set_global_config(config: ConvConfig) -> None:
    """The configuration of layers that have none, outside any `use_config`, from now on. Prefer `use_config`."""
    global _global
    _global = config
