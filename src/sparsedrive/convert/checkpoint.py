"""Weights on disk: our safetensors with the configuration inside, and official `.pth` files read without running their code."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsedrive.config import from_json, preset, presets, to_json
from sparsedrive.convert import sparsedrive as names
from sparsedrive.models.sparsedrive import SparseDrive, SparseDriveConfig
from sparsedrive.structures import ParityOptions

CONFIG_KEY = "sparsedrive_config"
PACKAGED = "packaged"
WRAPPERS = ("state_dict", "model_state", "model")
"""What mmcv and PyTorch Lightning, OpenPCDet, and TorchPack (SPVNAS) keep the weights under."""
WEIGHTS = Path(__file__).parent.parent / "weights"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ConvertReport:
    """What a conversion did."""

    source: Path
    target: Path
    num_tensors: int
    num_parameters: int
    constants: list[str]


def load(
    name: str | SparseDriveConfig, weights: str | Path | None = None, *, device: torch.device | str = "cpu", seed: int = 0,
    parity: ParityOptions | None = None,
) -> SparseDrive:  # fmt: skip
    """A model ready to run (eval mode).

    `name` is a preset or a configuration; `weights` a `.safetensors` file of ours, an official `.pth`, or "packaged" for those that
    come with this library. Without weights the parameters are random, drawn from `seed`: good for timing and tests, not for driving.
    A file of ours knows the configuration its weights had, and that is what is built, so `replace(preset("tiny"), mask_aware=True)` comes
    back as it was saved, without what the preset has gained since; but where the file is of one preset and `name` another, that other. A
    file whose configuration has a name of its own is always built as saved. Give a configuration to build exactly that.
    Raises ValueError for a file that is truncated, needs code to load, or does not fit the preset (all such keys are listed).
    """
    path = None if weights is None else Path(weights)
    if weights == PACKAGED:
        path = packaged_weights(name if isinstance(name, str) else name.name)
    config = _as_saved(path, preset(name)) if isinstance(name, str) else name
    if parity is not None:
        config = replace(config, parity=parity)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.build()
    if path is not None:
        state, _ = read_weights(path, config)
        _load_strictly(model, state, path)
    return model.to(device).eval()


def _as_saved(path: Path | None, chosen: SparseDriveConfig) -> SparseDriveConfig:
    """The configuration in the file's header, unless it is of another preset or not there: then the chosen one."""
    if path is None or path.suffix != ".safetensors" or not path.is_file():
        return chosen
    header = _saved_config(path)
    if header is None:
        return chosen
    try:
        saved = from_json(header)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: the configuration in it cannot be read: {error}; in Python, load(preset(...), file) takes a configuration instead"
        ) from error
    return chosen if saved.name != chosen.name and saved.name in presets() else saved


def has_packaged_weights(name: str) -> bool:
    """Whether trained weights of that preset come with this library."""
    return (WEIGHTS / f"{name}.safetensors").is_file()


def packaged_weights(name: str) -> Path:
    """The trained weights of that preset that come with this library; ValueError where there are none."""
    if not has_packaged_weights(name):
        there = ", ".join(sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))) or "none"
        raise ValueError(f"weights: no packaged weights of preset {name!r} (there are: {there}); give a file")
    return WEIGHTS / f"{name}.safetensors"


def save(model: SparseDrive, path: str | Path, *, half: bool = False) -> None:
    """Weights as safetensors with the configuration as JSON in its header and, readable, beside it (`<name>.json`).

    With `half` the numbers are rounded to float16, for a file of half the size; ValueError where one is too large for that.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"save: expected a path ending in .safetensors, got {path}; rename it (convert_file writes official .pth files)")
    config = to_json(model.config)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        if large := [key for key, value in tensors.items() if not value.isfinite().all()]:
            raise ValueError(f"save: expected numbers within +-65504 for half precision, not so: {_listing(large)}; leave half out")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata={CONFIG_KEY: config})
    temporary.replace(path)
    path.with_suffix(".json").write_text(config + "\n")


def convert_file(source: str | Path, target: str | Path, name: str, to_official: bool = False) -> ConvertReport:
    """Official `.pth` -> our `.safetensors`, or back with `to_official`. Every key is mapped, or ValueError lists what is left over.

    `name` is a preset; a file of ours is taken as it was saved, see `load`. An official file cannot say which variant it is of.
    """
    source, target = Path(source), Path(target)
    config = _as_saved(source, preset(name))
    if to_official == (target.suffix == ".safetensors"):
        wanted = ".pth" if to_official else ".safetensors"
        raise ValueError(f"convert: expected a target ending in {wanted}, got {target}; rename it or use --to-official the other way round")
    state, constants = read_weights(source, config)
    model = config.build()
    _load_strictly(model, state, source)
    if to_official:
        constants = list(names.official_constants(config))
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": to_official_names(model.state_dict(), config)}, target)
    else:
        save(model, target)
    return ConvertReport(
        source=source,
        target=target,
        num_tensors=len(state),
        num_parameters=sum(p.numel() for p in model.parameters()),
        constants=constants,
    )


def to_official_names(state: dict[str, Tensor], config: SparseDriveConfig) -> dict[str, Tensor]:
    """Our state dict under the official names, with the official constants."""
    table, own = names.key_table(config), names.own_constants(config)
    renamed = {names.official_name(key, table): value for key, value in state.items() if key not in own}
    return renamed | names.official_constants(config)


def from_official_names(official: dict[str, Tensor], config: SparseDriveConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Official state dict under our names, and the constants that were dropped.

    Raises ValueError that lists every official key without a place here and every key of ours the file lacks.
    """
    with torch.device("meta"):
        ours = config.build().state_dict()
    table, own = names.key_table(config), names.own_constants(config)
    expected = {names.official_name(key, table): key for key in ours if key not in own}
    constants = [key for key in names.official_constants(config) if key in official]
    unmapped = [key for key in official if key not in expected and key not in constants]
    missing = [key for key in expected if key not in official]
    if unmapped or missing:
        raise ValueError(
            f"checkpoint does not fit preset {config.name!r}: {len(unmapped)} keys have no place in it: {_listing(unmapped)}; "
            f"{len(missing)} keys are missing: {_listing(missing)}; choose the preset the file was trained with"
        )
    return {expected[key]: value for key, value in official.items() if key in expected} | own, constants


def read_weights(path: Path, config: SparseDriveConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of a file under our names, and official constants that were dropped. See `load` for errors."""
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}; give a .safetensors of ours or an official .pth")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), []
    return from_official_names(_read_pickle(path), config)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or `.pth` file as they are named there. See `load` for errors."""
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}; give a .safetensors or .pth file")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def read_config(path: str | Path) -> SparseDriveConfig:
    """The configuration stored in a `.safetensors` file of ours."""
    header = _saved_config(Path(path))
    if header is None:
        raise ValueError(
            f"{path}: expected a safetensors file written by sparsedrive (with {CONFIG_KEY!r} in its header); convert it first"
        )
    return from_json(header)


def _saved_config(path: Path) -> str | None:
    return _with_safetensors(path, lambda file: file.metadata() or {}).get(CONFIG_KEY)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return _with_safetensors(path, lambda file: {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118  (not a dict)


def _with_safetensors(path: Path, read: Callable[[safe_open], T]) -> T:
    try:
        with safe_open(path, framework="pt") as file:
            return read(file)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a complete safetensors file, got one that cannot be read ({error}); copy it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[-1] if str(error) else "unknown"
        raise ValueError(
            f"{path}: refused, because it holds more than tensors and plain values and loading it could run code ({reason}); "
            "save its 'state_dict' alone with torch.save in the environment that made it, or get a safetensors file"
        ) from error
    except Exception as error:  # what the parser raises on bytes that are no checkpoint is its own affair: KeyError, struct.error, ...
        raise ValueError(f"{path}: expected a complete PyTorch checkpoint, got one that cannot be read ({error}); copy it again") from error
    wrapped = [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)] if isinstance(content, dict) else []
    state = next(iter(wrapped), content)
    if not isinstance(state, dict) or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ValueError(f"{path}: expected a state dict, or a dict with one under {' or '.join(WRAPPERS)}; got {type(content).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_strictly(model: SparseDrive, state: dict[str, Tensor], source: Path) -> None:
    own = model.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing, unused = [key for key in own if key not in state], [key for key in state if key not in own]
    if wrong or missing or unused:
        raise ValueError(
            f"{source} does not fit preset {model.config.name!r}: missing {_listing(missing)}; unused {_listing(unused)}; "
            f"other shapes {_listing(wrong)}; choose the preset the file was made with"
        )
    model.load_state_dict(state)


def _listing(keys: list[str], limit: int = 20) -> str:
    shown = ", ".join(keys[:limit]) or "none"
    return shown + (f", ... ({len(keys) - limit} more)" if len(keys) > limit else "")
