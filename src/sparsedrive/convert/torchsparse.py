"""State dicts of TorchSparse and ours. Kernels are stored alike; a few public networks name their blocks otherwise."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from sparsedrive.convert.checkpoint import read_state
from sparsedrive.convert.spconv import without_prefix, write_state

Network = Literal["same", "sparse_resnet", "sparse_resunet"]
BLOCKS = ((r"\.net\.", ".main."), (r"\.downsample\.", ".shortcut."))
NETWORKS: dict[str, tuple[tuple[str, str], ...]] = {
    "same": (),
    "sparse_resnet": ((r"^stages\.(\d)\.0\.net\.", r"\1.0."), (r"^stages\.(\d)\.", r"\1."), *BLOCKS),
    "sparse_resunet": (
        *((rf"^stage{i + 1}\.0\.net\.", f"encoders.{i}.0.") for i in range(4)),
        *((rf"^stage{i + 1}\.", f"encoders.{i}.") for i in range(4)),
        *((rf"^up{i + 1}\.0\.net\.", f"decoders.{i}.upsample.") for i in range(4)),
        *((rf"^up{i + 1}\.1\.", f"decoders.{i}.fuse.") for i in range(4)),
        *BLOCKS,
    ),
}
"""Our names -> those there, applied one after the other. "same": MinkUNet, SPVCNN, SparseEncoder; the others: TorchSparse's backbones."""


def torchsparse_name(name: str, network: Network = "same") -> str:
    """What a parameter of ours is called there. ValueError for an unknown network."""
    if network not in NETWORKS:
        raise ValueError(f"torchsparse.network: expected one of {', '.join(NETWORKS)}, got {network!r}; most are 'same'")
    for ours, there in NETWORKS[network]:
        name = re.sub(ours, there, name)
    return name


def from_torchsparse(state: Mapping[str, Tensor], model: nn.Module, *, network: Network = "same", prefix: str = "") -> dict[str, Tensor]:
    """A state dict of TorchSparse as `model` takes it: with our names, every one checked, kernels of one offset with its dimensions.

    Args:
        network: how the public network names its blocks.
        prefix: take only names that begin with it, and cut it off.

    Raises:
        ValueError: an unknown network, or names or shapes that do not fit the model (all are counted, the first are listed).
    """
    own, state = model.state_dict(), without_prefix(state, prefix)
    named = {torchsparse_name(name, network): name for name in own}
    missing, unused = [name for name in named if name not in state], [name for name in state if name not in named]
    fits = {
        name: value.shape == own[ours].shape or _one_offset(value, own[ours])
        for name, ours in named.items()
        if (value := state.get(name)) is not None
    }
    wrong = [name for name, fit in fits.items() if not fit]
    if missing or unused or wrong:
        raise ValueError(
            f"from_torchsparse: {len(missing)} tensors are missing {missing[:3]}, {len(unused)} have no place {unused[:3]}, "
            f"{len(wrong)} have another shape {wrong[:3]}; check the network and the prefix, or build the model as it was trained"
        )
    return {ours: state[name].reshape(own[ours].shape) for name, ours in named.items()}


def to_torchsparse(state: Mapping[str, Tensor], *, network: Network = "same", prefix: str = "") -> dict[str, Tensor]:
    """The way back: our state dict under the names there, with the prefix in front."""
    return {prefix + torchsparse_name(name, network): value for name, value in state.items()}


def convert_torchsparse_file(source: Path, target: Path, *, prefix: str = "", to_official: bool = False) -> int:
    """A checkpoint of TorchSparse (.pth, read without running code in it, or .safetensors) to .safetensors, for `load_state_dict`.

    With `to_official` the way back, to a .pth with the prefix in front of the names. For networks with the same names; the others need
    the model, see `from_torchsparse`. Returns how many tensors were written. ValueError for another ending or where no name begins so.
    """
    state = read_state(Path(source))
    state = to_torchsparse(state, prefix=prefix) if to_official else without_prefix(state, prefix)
    return write_state(state, target, to_official=to_official)


def _one_offset(value: Tensor, own: Tensor) -> bool:
    """Kernels of one offset come with two and with three dimensions."""
    return value.dim() + own.dim() == 5 and value.shape[-2:] == own.shape[-2:] and value.numel() == own.numel()
