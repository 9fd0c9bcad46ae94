"""Prepared folders on disk: round trip, the same bytes, damage, and names that are not there."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from prepared_samples import make_scene, write_prepared

from sparsedrive.data.prepared import PreparedData, PreparedScene, scene_path
from sparsedrive.structures import NUSCENES_CAMERAS


@pytest.fixture
def scene() -> PreparedScene:
    return make_scene("scene-0000", 3, NUSCENES_CAMERAS, (160, 90), 0)


def test_round_trip(scene, tmp_path):
    scene = replace(scene, notes=("no map",), fingerprint="abc")
    path = tmp_path / "a" / "scene.npz"
    scene.save(path)
    again = PreparedScene.load(path)
    for field in fields(PreparedScene):
        before, after = getattr(scene, field.name), getattr(again, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype and np.array_equal(before, after, equal_nan=before.dtype.kind == "f"), field.name
        else:
            assert before == after, field.name
    assert [path.name for path in path.parent.iterdir()] == ["scene.npz"]


def test_the_same_scene_is_the_same_bytes_whenever_written(scene, tmp_path, monkeypatch):
    scene.save(tmp_path / "a.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    scene.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_write_that_fails_leaves_the_old_archive(scene, tmp_path):
    path = tmp_path / "scene.npz"
    scene.save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        replace(scene, box=np.array([object()])).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["short", "text", "field", "empty"])
def test_damaged_archives_are_named(scene, tmp_path, damage):
    path = tmp_path / "scene.npz"
    scene.save(path)
    if damage == "field":
        with np.load(path) as archive:
            np.savez(path, **{name: archive[name] for name in archive.files if name != "box"})
    else:
        path.write_bytes({"short": path.read_bytes()[:-100], "text": b"not a zip", "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"scene\.npz: not a prepared scene"):
        PreparedScene.load(path)


def test_opening(tmp_path):
    data = write_prepared(tmp_path)
    assert data.scenes == ("scene-0000", "scene-0001", "scene-0002") and data.split("val") == ("scene-0002",)
    assert data.scene("scene-0001").num_frames == 4
    assert PreparedData.open(tmp_path, root=tmp_path / "elsewhere").root == tmp_path / "elsewhere"
    with pytest.raises(ValueError, match=r"expected one of \['train', 'val'\].*got 'test'"):
        data.split("test")
    with pytest.raises(ValueError, match=r"no scene 'scene-001'.*perhaps you meant.*of 3 scenes"):
        data.scene("scene-001")
    scene_path(tmp_path, "scene-0001").unlink()
    with pytest.raises(ValueError, match=r"scene-0001\.npz"):
        data.scene("scene-0001")


@pytest.mark.parametrize("change", [{"format": 99}, {"splits": []}, {"version": None, "splits": None}, None])
def test_an_index_that_is_none(tmp_path, change):
    write_prepared(tmp_path)
    path = tmp_path / "prepared.json"
    path.write_text("[" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"prepared\.json.*run `sparsedrive prepare` again"):
        PreparedData.open(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="not prepared or not finished"):
        PreparedData.open(tmp_path)
