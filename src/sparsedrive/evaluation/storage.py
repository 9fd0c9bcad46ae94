"""Typed results on disk: `NAME.json`, with the larger arrays in `NAME.npz` beside it. No pickle; what is not known is refused.

In the JSON a number that is not known (NaN) is null, a small array a nested list, a large or an empty one {"npz": its name}. A field
annotated `float | None` would not tell NaN from None: use one of them.
"""

import json
import math
import types
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from sparsedrive.data.prepared import whole_file

T = TypeVar("T")

INLINE_NUMBERS = 128
INLINE_TYPES = {np.dtype(kind) for kind in (np.float64, np.int64, np.bool_)}
REMEDY = "the file is damaged, was edited by hand, or is of another version of sparsedrive"


def save(value: Any, path: Path | str, schema: str, version: int) -> Path:
    """Write a dataclass to `path` (ends in .json), arrays to the .npz beside it; each file whole or not at all. Returns `path`."""
    path = _json_path(path)
    arrays: dict[str, np.ndarray] = {}
    body = _plain(value, "", arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stub takes the arrays for allow_pickle
    text = json.dumps({"schema": schema, "schema_version": version, **body}, allow_nan=False, indent=1)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return path


def load(kind: type[T], path: Path | str, schema: str, version: int) -> T:
    """Read what `save` wrote, equal to the last bit. `ValueError` names the place of whatever does not fit."""
    path = _json_path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error}); expected a file of `sparsedrive eval`") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got a file that cannot be parsed ({error}); write it again") from error
    found = content.pop("schema", None) if isinstance(content, dict) else None
    if found != schema:
        raise ValueError(f"{path}: expected schema {schema!r}, got {found!r}; this is not such a file of `sparsedrive eval`")
    found = content.pop("schema_version", None)
    if found != version:
        raise ValueError(f"{path}: expected schema_version {version}, got {found!r}; read it with the sparsedrive that wrote it")
    beside = path.with_suffix(".npz")
    try:
        with np.load(beside, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{beside}: expected the arrays that belong to {path.name}, beside it ({error}); keep both together") from error
    return _typed(content, kind, f"{path}: {kind.__name__}", arrays)


def _json_path(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".json":
        raise ValueError(f"{path}: expected a name that ends in .json (the arrays go to .npz beside it)")
    return path


def _plain(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if is_dataclass(value):
        place = f"{name}." if name else ""
        return {field.name: _plain(getattr(value, field.name), place + field.name, arrays) for field in fields(value)}
    if isinstance(value, np.ndarray):
        if 0 < value.size <= INLINE_NUMBERS and value.dtype in INLINE_TYPES and not np.isinf(value).any():
            return _plain(value.tolist(), name, arrays)
        arrays[name] = value
        return {"npz": name}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{name}.{index}", arrays) for index, item in enumerate(value)]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value


def _typed(value: Any, kind: Any, where: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """A JSON value as the annotated type: dataclass, array, number, text, tuple or `X | None`."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(option for option in get_args(kind) if option is not types.NoneType)
        return None if value is None else _typed(value, inner, where, arrays)
    if is_dataclass(kind):
        return _typed_fields(value, kind, where, arrays)
    if getattr(kind, "array_type", None) is np.ndarray:
        return _typed_array(value, kind, where, arrays)
    if get_origin(kind) is tuple:
        items, kinds = value if isinstance(value, list) else None, get_args(kind)
        if items is None or (kinds[-1] is not Ellipsis and len(items) != len(kinds)):
            raise ValueError(f"{where}: expected a list{'' if kinds[-1] is Ellipsis else f' of {len(kinds)}'}, got {value!r:.80}; {REMEDY}")
        kinds = (kinds[0],) * len(items) if kinds[-1] is Ellipsis else kinds
        return tuple(_typed(item, kind, f"{where}[{row}]", arrays) for row, (item, kind) in enumerate(zip(items, kinds, strict=True)))
    if kind is float and value is None:
        return math.nan
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r:.80}; {REMEDY}")
    return kind(value)


def _typed_fields(value: Any, kind: Any, where: str, arrays: Mapping[str, np.ndarray]) -> Any:
    names = [field.name for field in fields(kind)]
    if not isinstance(value, dict) or set(value) != set(names):
        got = value.keys() if isinstance(value, dict) else set()
        raise ValueError(f"{where}: unknown keys {sorted(got - set(names))}, missing keys {sorted(set(names) - got)}; {REMEDY}")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(value[name], hints[name], f"{where}.{name}", arrays) for name in names})


def _typed_array(value: Any, kind: Any, where: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    if isinstance(value, dict) and set(value) == {"npz"}:
        if value["npz"] not in arrays:
            raise ValueError(f"{where}: the .npz has no array {value['npz']!r}; keep the .json and the .npz of one evaluation together")
        array = arrays[value["npz"]]
    else:
        wanted = next(dtype for dtype in ("float64", "int64", "bool") if dtype in kind.dtypes)
        try:
            array = np.array(value, dtype=wanted)  # null becomes NaN
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: expected numbers, got {value!r:.80} ({error}); {REMEDY}") from error
    if not isinstance(array, kind):
        raise ValueError(f"{where}: expected {kind.__name__}, got {array.dtype} {list(array.shape)}; {REMEDY}")
    return array
