"""Weights of sparse convolutions: SpConv 1.x, SpConv 2.x and ours (which is TorchSparse's), tensor by tensor and as state dicts.

| layout | shape | name | |
|---|---|---|---|
| spconv1 | (k0, k1, k2, in, out) | .weight | SpConv 1.x, mmcv |
| spconv2 | (out, k0, k1, k2, in) | .weight | SpConv 2.x |
| torchsparse | (k0 k1 k2, in, out); (in, out) for a single offset with stride 1 | .kernel | TorchSparse, and here |

TorchSparse counts offsets with the first axis fastest where their number is odd, with the last axis fastest where it is even.
Transposed and inverse convolutions use the same order, not flipped.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsedrive.convert.checkpoint import read_state

SpconvLayout = Literal["spconv1", "spconv2"]
Size = tuple[int, int, int]
WEIGHTS = r"(^|\.)weight$"


def kernel_from_spconv(weight: Float[Tensor, "a b c d e"], layout: SpconvLayout) -> Float[Tensor, "K I O"]:
    """A weight of SpConv 1.x or 2.x in our layout. ValueError where it has not five dimensions."""
    if weight.dim() != 5:
        raise ValueError(f"kernel_from_spconv.weight: expected five dimensions, got {list(weight.shape)}; a layer's weight is wanted")
    weight = _known(layout, weight, weight.permute(1, 2, 3, 4, 0))
    size, channels = weight.shape[:3], weight.shape[3:]
    if size.numel() % 2:
        weight = weight.permute(2, 1, 0, 3, 4)
    return weight.reshape(size.numel(), *channels)


def spconv_from_kernel(kernel: Float[Tensor, "K I O"] | Float[Tensor, "I O"], kernel_size: Size, layout: SpconvLayout) -> Tensor:
    """Our kernel, of the given size, in the layout of SpConv 1.x or 2.x. ValueError where the number of offsets is another."""
    volume = kernel_size[0] * kernel_size[1] * kernel_size[2]
    kernel = kernel[None] if kernel.dim() == 2 else kernel
    if kernel.dim() != 3 or len(kernel) != volume:
        raise ValueError(f"spconv_from_kernel.kernel: expected [{volume}, in, out] for {kernel_size}, got {list(kernel.shape)}")
    order = (2, 1, 0) if volume % 2 else (0, 1, 2)
    weight = kernel.reshape(*(kernel_size[axis] for axis in order), *kernel.shape[1:]).permute(*order, 3, 4)
    return _known(layout, weight, weight.permute(4, 0, 1, 2, 3))


def _known(layout: str, first: Tensor, second: Tensor) -> Tensor:
    if layout not in ("spconv1", "spconv2"):
        raise ValueError(f"layout: expected spconv1 or spconv2, got {layout!r}; the table of convert/spconv.py tells them apart")
    return first.contiguous() if layout == "spconv1" else second.contiguous()


def from_spconv(
    state: Mapping[str, Tensor], layout: SpconvLayout, *, model: nn.Module | None = None, prefix: str = "", pattern: str = WEIGHTS
) -> dict[str, Tensor]:
    """A state dict of SpConv under our names and in our layout; everything that is no sparse convolution stays as it is.

    Args:
        layout: of the file; its shapes do not always tell.
        model: convert its sparse convolutions, whatever their names look like, and check their shapes. Without it every
            five-dimensional tensor whose name matches `pattern`, and single offsets are taken for stride 1.
        prefix: take only names that begin with it, and cut it off: "encoders.lidar.backbone." for BEVFusion.
        pattern: regular expression, searched for in the name (after the prefix is cut off).

    Raises:
        ValueError: nothing to convert, a convolution of the model is missing, a shape does not fit, or `pattern` is no expression.
    """
    state = without_prefix(state, prefix)
    if model is not None:
        names = [f"{name}.weight" for name in sparse_convolutions(model)]
    else:
        wanted = _compiled(pattern)
        names = [name for name, value in state.items() if value.dim() == 5 and name.endswith("weight") and wanted.search(name)]
    missing = [name for name in names if name not in state]
    if missing or not names:
        raise ValueError(
            f"from_spconv: expected weights of sparse convolutions, got none for {missing[:5] or pattern!r} among {len(state)} tensors; "
            "check the prefix, the pattern or the model"
        )
    converted = dict(state)
    shapes = {} if model is None else {name: value.shape for name, value in model.state_dict().items()}
    for name in names:
        ours = name.removesuffix("weight") + "kernel"
        kernel = kernel_from_spconv(converted.pop(name), layout)
        if len(kernel) == 1 and len(shapes.get(ours, (0, 0))) == 2:
            kernel = kernel[0]
        if model is not None and kernel.shape != shapes[ours]:
            raise ValueError(
                f"from_spconv: {name} of layout {layout} would become {list(kernel.shape)}, expected {list(shapes[ours])}; "
                "try the other layout, or build the model as it was trained"
            )
        converted[ours] = kernel
    return converted


def to_spconv(state: Mapping[str, Tensor], layout: SpconvLayout, model: nn.Module, *, prefix: str = "") -> dict[str, Tensor]:
    """The way back: `state` is one of `model`, which knows the kernels' sizes; names get the prefix in front."""
    converted = dict(state)
    for name, size in sparse_convolutions(model).items():
        converted[f"{name}.weight"] = spconv_from_kernel(converted.pop(f"{name}.kernel"), size, layout)
    return {prefix + name: value for name, value in converted.items()}


def convert_spconv_file(source: Path, target: Path, layout: SpconvLayout, *, prefix: str = "", pattern: str = WEIGHTS) -> int:
    """A checkpoint of a model with SpConv layers (.pth, read without running code in it, or .safetensors) to our .safetensors.

    Returns how many tensors were written. ValueError as `from_spconv`, and where the target has another ending.
    """
    return write_state(from_spconv(read_state(Path(source)), layout, prefix=prefix, pattern=pattern), target)


def write_state(state: Mapping[str, Tensor], target: Path, *, to_official: bool = False) -> int:
    """Write tensors as .safetensors, or as a .pth with a "state_dict"; returns how many. ValueError for another ending."""
    target, suffix = Path(target), ".pth" if to_official else ".safetensors"
    if target.suffix != suffix:
        raise ValueError(f"convert: expected a target ending in {suffix}, got {target}; rename it")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    # Copies: tensors of one file may share their memory, which .safetensors cannot say.
    own = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    if to_official:
        torch.save({"state_dict": own}, temporary)
    else:
        save_file(own, temporary)
    temporary.replace(target)
    return len(state)


def sparse_convolutions(model: nn.Module) -> dict[str, Size]:
    """Names and kernel sizes of a model's sparse convolutions: modules with a parameter `kernel`."""
    found = [(name, module) for name, module in model.named_modules() if "kernel" in dict(module.named_parameters(recurse=False))]
    return {name: tuple(module.kernel_size) for name, module in found}  # type: ignore[arg-type, misc]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern: expected a regular expression, got {pattern!r} ({error}); write . as \\.") from error


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Only what begins with the prefix, without it. ValueError where nothing does."""
    chosen = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not chosen:
        raise ValueError(
            f"prefix: expected the beginning of some names, got {prefix!r}; the file has names like {next(iter(state), 'none')!r}"
        )
    return chosen
