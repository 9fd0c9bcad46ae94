"""Splits: the official lists, a folder's own, the user's; and what is wrong with a list."""

import json

import pytest

from sparsedrive.data.nuscenes.splits import choose_splits, official_splits, read_splits, shared_scenes


def test_official_sizes_and_that_no_scene_is_in_two():
    whole, held_out, mini = (official_splits(f"v1.0-{name}") for name in ("trainval", "test", "mini"))
    sizes = {name: len(scenes) for splits in (whole, held_out, mini) for name, scenes in splits.items()}
    assert sizes == {"train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2}
    everything = [*whole["train"], *whole["val"], *held_out["test"]]
    assert len(set(everything)) == 1000 and all(len(name) == 10 for name in everything)
    assert set(mini["mini_train"]) | set(mini["mini_val"]) <= set(whole["train"]) | set(whole["val"])
    assert official_splits("v1.0-demo") == {}


def test_official_lists_are_those_of_the_devkit():
    devkit = pytest.importorskip("nuscenes.utils.splits")
    for version in ("trainval", "test", "mini"):
        for name, scenes in official_splits(f"v1.0-{version}").items():
            assert set(scenes) == set(getattr(devkit, name)), name


def test_only_scenes_that_are_there_and_the_rest_is_other(tmp_path):
    splits = choose_splits(["scene-0916", "scene-0061", "mine"], tmp_path / "v1.0-mini")
    assert splits == {"mini_train": ("scene-0061",), "mini_val": ("scene-0916",), "other": ("mine",)}
    assert choose_splits(["scene-0061"], tmp_path / "v1.0-mini") == {"mini_train": ("scene-0061",)}
    assert choose_splits(["a", "b"], tmp_path / "v1.0-own") == {"other": ("a", "b")}


def test_a_list_beside_the_tables_goes_before_the_official_one(tmp_path):
    tables = tmp_path / "v1.0-mini"
    tables.mkdir()
    (tables / "splits.json").write_text(json.dumps({"train": ["a"], "other": ["b"]}))
    assert choose_splits(["a", "b", "scene-0061"], tables) == {"train": ("a",), "other": ("b", "scene-0061")}
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"val": ["b"]}))
    assert choose_splits(["a", "b"], tables, mine) == {"val": ("b",)}  # the others are left out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "malformed JSON"),
        ("[]", "expected a JSON object such as"),
        ("{}", "expected a JSON object such as"),
        ('{"train": "scene-0001"}', "expected a list of scene names for split 'train'"),
        ('{"train": [1]}', "expected a list of scene names for split 'train'"),
        ('{"train": ["scene-0001", "scene-0001"]}', r"names a scene twice: \['scene-0001'\]"),
        ('{"train": ["scene-001"]}', "'scene-001', which is not in the tables; perhaps you meant one of .'scene-0001'"),
    ],
)
def test_wrong_lists_are_named(tmp_path, content, message):
    path = tmp_path / "splits.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_splits(path, ["scene-0001", "scene-0002"])
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=r"no\.json: no such file"):
        read_splits(tmp_path / "no.json", [])


def test_scenes_to_train_and_to_validate_on():
    assert shared_scenes({"train": ("a", "b"), "val": ("c",), "other": ("a",)}) == ()
    assert shared_scenes({"mini_train": ("a", "b"), "val": ("b",), "train_small": ("c",)}) == ("b",)
