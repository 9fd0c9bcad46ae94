"""Typed files: what is written is read again, to the last bit, and nothing else is."""

import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Bool, Float, Int
from truth_samples import truth_as_predictions

from sparsedrive.evaluation import storage
from sparsedrive.evaluation.predictions import PredictionSet
from sparsedrive.evaluation.results import Evaluation
from sparsedrive.evaluation.run import evaluate


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    name: str
    small: Float[np.ndarray, "N 2"]
    flags: Bool[np.ndarray, "N"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Whole:
    parts: tuple[Part, ...]
    number: float
    count: int
    large: Float[np.ndarray, "A B"] | None
    empty: Int[np.ndarray, "N 3"]
    single: Float[np.ndarray, "N"]


def whole(**changes: Any) -> Whole:
    values: dict[str, Any] = {
        "parts": (Part(name="a", small=np.array([[1.0, np.nan], [0.1, 3]]), flags=np.array([True, False])),),
        "number": float("nan"),
        "count": 3,
        "large": np.random.default_rng(0).normal(size=(40, 30)),
        "empty": np.zeros((0, 3), np.int64),
        "single": np.array([0.1, np.inf], np.float32),
    }
    return Whole(**(values | changes))


def same(one: Any, other: Any) -> bool:
    """Equal, types of arrays included; NaN is NaN."""
    if is_dataclass(one):
        return type(one) is type(other) and all(same(getattr(one, item.name), getattr(other, item.name)) for item in fields(one))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def test_what_is_written_is_read_again(tmp_path):
    for number, value in enumerate((whole(), whole(large=None, parts=()))):
        path = storage.save(value, tmp_path / "deep" / f"{number}.json", "things", 2)
        assert same(storage.load(Whole, path, "things", 2), value)
    assert "NaN" not in (tmp_path / "deep" / "0.json").read_text()


def test_a_whole_evaluation_and_its_predictions(numbers, tmp_path):
    predictions = truth_as_predictions(numbers, "val")
    result = evaluate(predictions, numbers, date="today")
    assert same(Evaluation.load(result.save(tmp_path / "a.json")), result)
    assert same(PredictionSet.load(predictions.save(tmp_path / "b.json")), predictions)
    with pytest.raises(ValueError, match="expected schema 'sparsedrive-evaluation', got 'sparsedrive-predictions'"):
        Evaluation.load(tmp_path / "b.json")


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (content | changes).items() if value != "drop"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, r"unknown keys \['colour'\], missing keys \[\]"),
        ({"count": "drop"}, r"unknown keys \[\], missing keys \['count'\]"),
        ({"count": 1.5}, "Whole.count: expected int, got 1.5"),
        ({"count": True}, "Whole.count: expected int, got True"),
        ({"parts": {}}, "Whole.parts: expected a list"),
        ({"parts": [{"name": "a", "small": [[1, 2]], "flags": ["x", []]}]}, r"Whole.parts\[0\].flags: expected numbers"),
        ({"parts": [{"name": "a", "small": [1, 2], "flags": [True]}]}, r"Whole.parts\[0\].small: expected .*, got float64 \[2\]"),
        ({"large": {"npz": "other"}}, "Whole.large: the .npz has no array 'other'"),
        ({"schema": "x"}, "expected schema 'things', got 'x'"),
        ({"schema_version": 3}, "expected schema_version 2, got 3"),
    ],
)
def test_other_content_is_refused(tmp_path, changes, message):
    path = storage.save(whole(), tmp_path / "a.json", "things", 2)
    change(path, **changes)
    with pytest.raises(ValueError, match=message):
        storage.load(Whole, path, "things", 2)


def test_damaged_files_are_refused(tmp_path):
    path = storage.save(whole(), tmp_path / "a.json", "things", 2)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"a\.npz: expected the arrays that belong to a\.json"):
        storage.load(Whole, path, "things", 2)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(ValueError, match="keep both together"):
        storage.load(Whole, path, "things", 2)
    path.write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        storage.load(Whole, path, "things", 2)
    with pytest.raises(ValueError, match="cannot be read"):
        storage.load(Whole, tmp_path / "none.json", "things", 2)
    with pytest.raises(ValueError, match=r"ends in \.json"):
        storage.save(whole(), tmp_path / "a.txt", "things", 2)


def test_arrays_are_never_unpickled(tmp_path):
    path = storage.save(whole(), tmp_path / "a.json", "things", 2)
    np.savez(tmp_path / "a.npz", large=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match=r"a\.npz"):
        storage.load(Whole, path, "things", 2)
