"""Preparing: restart, workers, what makes a scene be done again, broken input, splits. On a small log of three scenes made in code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsedrive.data.nuscenes.prepare import prepare
from sparsedrive.data.prepared import PreparedData, PreparedScene, scene_path

SCENES = ("scene-0001", "scene-0002", "scene-0003")
VERSION = "v1.0-world"


def add_scene(root: Path, number: int) -> None:
    """The drive once more, under other tokens and another name; it names the same files."""
    for path in (root / VERSION).glob("*.json"):
        rows = json.loads(path.read_text())
        if path.stem in ("sensor", "category", "visibility", "attribute", "splits"):
            continue
        first = [row for row in rows if "+" not in row["token"]]
        for row in json.loads(json.dumps(first)):
            for key, value in row.items():
                if key in ("token", "prev", "next") or (key.endswith("_token") and key not in ("sensor_token", "category_token")):
                    row[key] = f"{value}+{number}" if value and key != "visibility_token" else value
            if path.stem == "scene":
                row["name"] = f"scene-{number:04}"
            rows.append(row)
        path.write_text(json.dumps(rows))
    for path in (root / "can_bus").glob("scene-0001_*.json"):
        shutil.copy(path, path.with_name(path.name.replace("0001", f"{number:04}")))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, drive_root) -> Path:
    root = Path(shutil.copytree(drive_root, tmp_path_factory.mktemp("three") / "log"))
    shutil.rmtree(root / "maps")
    (root / VERSION / "splits.json").unlink()
    add_scene(root, 2)
    add_scene(root, 3)
    (root / VERSION / "splits.json").write_text(json.dumps({"train": SCENES[:2], "val": SCENES[2:]}))
    return root


@pytest.fixture
def log(pristine, tmp_path) -> Path:
    """A log to break."""
    return Path(shutil.copytree(pristine, tmp_path / "log"))


def change(root: Path, table: str, edit) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def straight(pristine, tmp_path_factory) -> Path:
    return prepare(pristine, None, tmp_path_factory.mktemp("out") / "straight").out


def test_what_a_run_leaves(straight, pristine):
    assert set(contents(straight)) == {"prepared.json", "report.json", "report.md", *(f"scenes/{name}.npz" for name in SCENES)}
    data = PreparedData.open(straight)
    assert dict(data.splits) == {"train": SCENES[:2], "val": SCENES[2:]} and data.version == VERSION
    assert data.root.resolve() == pristine.resolve()
    assert not Path(json.loads((straight / "prepared.json").read_text())["root"]).is_absolute()
    scene = data.scene("scene-0002")
    assert scene.image_present.all() and not scene.lidar_present.any() and scene.ego_status_known.all()
    assert np.diff(scene.sweep_splits).tolist() == [0, 1, 2, 3]
    assert scene.notes == ("no map expansion of town-001: no map lines",) and len(scene.map_label) == 0
    first = data.scene("scene-0001")
    assert np.array_equal(scene.box, first.box, equal_nan=True) and scene.fingerprint != first.fingerprint


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(straight, pristine, tmp_path):
    out = tmp_path / "killed"
    script = f"""
import os
from sparsedrive.data.nuscenes.prepare import prepare
def die(done, total):
    if done == 1:
        open({str(out / "scenes" / "scene-0002.npz.7.part")!r}, "w").write("half")
        os._exit(9)
prepare({str(pristine)!r}, None, {str(out)!r}, progress=die)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 9
    assert (out / "scenes" / "scene-0001.npz").is_file() and not (out / "scenes" / "scene-0002.npz").exists()
    with pytest.raises(ValueError, match="not prepared or not finished"):
        PreparedData.open(out)
    report = prepare(pristine, None, out)
    assert [scene.kept for scene in report.scenes] == [True, False, False]
    assert contents(out) == contents(straight)


def test_the_number_of_workers_does_not_matter(straight, pristine, tmp_path):
    calls = []
    report = prepare(pristine, None, tmp_path / "two", workers=2, progress=lambda done, total: calls.append((done, total)))
    assert contents(tmp_path / "two") == contents(straight)
    assert calls == [(1, 3), (2, 3), (3, 3)] and [scene.name for scene in report.scenes] == list(SCENES)


@pytest.mark.slow
def test_workers_that_inherit_nothing(straight, pristine, tmp_path, monkeypatch):
    """As outside Linux."""
    monkeypatch.setattr("sparsedrive.data.nuscenes.prepare.START_METHOD", "spawn")
    prepare(pristine, None, tmp_path / "spawned", workers=2)
    assert contents(tmp_path / "spawned") == contents(straight)


def test_a_killed_worker_is_told(pristine, tmp_path, monkeypatch):
    monkeypatch.setattr("sparsedrive.data.nuscenes.prepare._run", die)
    with pytest.raises(ValueError, match=r"worker process was killed .* fewer workers"):
        prepare(pristine, None, tmp_path / "out", workers=2)


def die(name: str) -> None:
    os._exit(9)


def test_nothing_changed_is_nothing_done(straight, pristine, tmp_path):
    out = Path(shutil.copytree(straight, tmp_path / "again"))
    stamps = {path: path.stat().st_mtime_ns for path in (out / "scenes").iterdir()}
    assert all(scene.kept for scene in prepare(pristine, None, out).scenes)
    assert contents(out) == contents(straight)
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "scenes").iterdir()}


@pytest.mark.parametrize("what", ["can bus", "picture", "table", "map", "archive"])
def test_what_changed_is_done_again(straight, log, tmp_path, what):
    out = Path(shutil.copytree(straight, tmp_path / "changed"))
    again = [True, True, True]
    if what == "can bus":
        (log / "can_bus" / "scene-0002_steeranglefeedback.json").unlink()
        again = [False, True, False]
    elif what == "picture":
        next((log / "samples" / "CAM_BACK").iterdir()).unlink()  # the three scenes share their pictures
    elif what == "table":
        change(log, "sample_annotation", lambda rows: rows[0].update(num_lidar_pts=99))
    elif what == "map":
        folder = log / "maps" / "expansion"
        folder.mkdir(parents=True)
        layers = ("node", "line", "polygon", "lane_divider", "road_divider", "ped_crossing", "road_segment", "lane")
        (folder / "town-001.json").write_text(json.dumps({layer: [] for layer in layers}))
    else:
        scene_path(out, "scene-0003").write_bytes(scene_path(straight, "scene-0003").read_bytes()[:-100])
        again = [False, False, True]
    report = prepare(log, None, out)
    assert [not scene.kept for scene in report.scenes] == again
    assert contents(out) == contents(prepare(log, None, tmp_path / "fresh").out)  # as if there had been no earlier run


def test_partial_can_bus_and_missing_pictures_are_warnings(log, tmp_path):
    (log / "can_bus" / "scene-0002_steeranglefeedback.json").unlink()
    missing = sorted((log / "samples" / "CAM_BACK").iterdir())[1]
    missing.unlink()
    report = prepare(log, VERSION, tmp_path / "out")
    assert "no steering messages on the CAN bus: steering angle unknown (1 scene: scene-0002)" in report.all_warnings()
    assert "no map expansion of town-001: no map lines (3 scenes: scene-0001, scene-0002, scene-0003)" in report.all_warnings()
    counts = report.counts()
    assert counts["pictures"] == [69, 72] and counts["samples_with_some_pictures"] == 3
    token = PreparedData.open(report.out).scene("scene-0001").sample_tokens[1]
    assert json.loads((report.out / "report.json").read_text())["scenes"][0]["samples_with_some_pictures"] == {token: 5}


@pytest.mark.parametrize("damage", ["picture", "empty picture", "scan"])
def test_a_file_cut_short_is_an_error_or_a_counted_one_that_is_missing(straight, log, tmp_path, damage):
    if damage == "scan":
        rows = json.loads((log / VERSION / "sample_data.json").read_text())
        victim = log / next(row["filename"] for row in rows if row["filename"].endswith(".bin"))
        victim.parent.mkdir(exist_ok=True)
        victim.write_bytes(bytes(20 * 7 + 1))
    else:
        victim = next((log / "samples" / "CAM_BACK").iterdir())
        victim.write_bytes(victim.read_bytes()[: 0 if damage == "empty picture" else -200])
    name = victim.relative_to(log).as_posix()
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=rf"scene-0001: {name}: .*skip_broken"):
        prepare(log, None, out)
    report = prepare(log, None, out, skip_broken=True)
    assert not report.skipped and [
        text for text in report.all_warnings() if f"1 damaged file counted as missing, the first: {name}" in text
    ]
    assert report.counts()["pictures"] == [72 if damage == "scan" else 69, 72] and report.counts()["lidar_scans"] == [0, 12]
    with pytest.raises(ValueError, match="skip_broken"):  # what an earlier run let pass is not let pass now
        prepare(log, None, out)
    victim.unlink()
    assert not [scene for scene in prepare(log, None, out).scenes if scene.kept]


def break_nan_pose(log):
    change(log, "ego_pose", lambda rows: next(row for row in rows if row["token"].endswith("+2")).update(translation=[float("nan"), 0, 0]))


def break_dangling_token(log):
    change(log, "sample_annotation", lambda rows: next(row for row in rows if row["token"].endswith("+2")).update(instance_token="lost"))


def break_row(log):
    change(log, "sample_data", lambda rows: next(row for row in rows if row["token"].endswith("+2")).pop("filename"))


def break_filename(log):
    change(log, "sample_data", lambda rows: next(row for row in rows if row["token"].endswith("+2")).update(filename="../1.jpg"))


def break_intrinsic(log):
    def spoil(rows):
        next(row for row in rows if row["token"].endswith("+2") and row["camera_intrinsic"])["camera_intrinsic"][0][0] = float("nan")

    change(log, "calibrated_sensor", spoil)


def break_empty_scene(log):
    change(log, "scene", lambda rows: rows[1].update(nbr_samples=0))
    for table in ("sample_data", "sample_annotation", "sample"):
        key = "token" if table == "sample" else "sample_token"
        change(log, table, lambda rows, key=key: rows.__setitem__(slice(None), [row for row in rows if not row[key].endswith("+2")]))


def break_lost_samples(log):
    change(log, "scene", lambda rows: rows[1].update(nbr_samples=40))


def break_rate(log):
    def slow(rows):
        for index, row in enumerate(row for row in rows if row["token"].endswith("+2")):
            row["timestamp"] += 500_000 * index

    change(log, "sample", slow)


def break_can_bus(log):
    (log / "can_bus" / "scene-0002_pose.json").write_text("[{")


def break_camera(log):
    def lose_one(rows):
        rows.remove(next(row for row in rows if row["token"].endswith("+2") and "CAM_BACK_LEFT" in row["filename"]))
        for row in rows:
            row["prev"] = row["next"] = ""

    change(log, "sample_data", lose_one)


def break_twice(log):
    def twice(rows):
        rows.append({**next(row for row in rows if row["token"].endswith("+2")), "token": "twice"})

    change(log, "sample_annotation", twice)


BROKEN = [
    (break_nan_pose, r"scene-0002, sample \w+\+2: ego_pose\.json, row '\w+\+2': expected finite numbers"),
    (break_dangling_token, r"sample_annotation\.json, row '\w+\+2': instance_token = 'lost' is in no row of instance\.json"),
    (break_row, r"sample_data\.json: row '\w+\+2' has no field 'filename'"),
    (break_filename, r"sample_data\.json: row '\w+\+2' .*expected a filename inside the log's folder.*'\.\./1\.jpg'"),
    (break_intrinsic, r"calibrated_sensor\.json: row '\w+\+2' .*finite numbers in camera_intrinsic"),
    (break_empty_scene, r"scene-0002: no sample of this scene"),
    (break_lost_samples, r"\(scene-0002\): nbr_samples = 40, but sample\.json has 4"),
    (break_rate, r"scene-0002: expected key frames 0\.5 s apart, got a median of 1\.000 s"),
    (break_can_bus, r"scene-0002_pose\.json: malformed JSON"),
    (break_camera, r"scene-0002, sample \w+\+2: expected the cameras of the scene's first sample"),
    (break_twice, r"scene-0002, sample \w+\+2: sample_annotation\.json has two boxes of one instance"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[damage.__name__ for damage, _ in BROKEN])
def test_a_broken_scene_is_an_error_or_a_counted_skip(straight, log, tmp_path, damage, message):
    damage(log)
    with pytest.raises(ValueError, match=message):
        prepare(log, None, tmp_path / "out")
    report = prepare(log, None, tmp_path / "out", skip_broken=True)
    assert list(report.skipped) == ["scene-0002"] and [scene.name for scene in report.scenes] == ["scene-0001", "scene-0003"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(report.skipped["scene-0002"])
    data = PreparedData.open(report.out)
    assert dict(data.splits) == {"train": ("scene-0001",), "val": ("scene-0003",)}
    assert report.counts()["scenes_skipped"] == 1 and "1 skipped" in report.lines()[0]
    assert f"- scene-0002: {report.skipped['scene-0002']}" in (report.out / "report.md").read_text()
    whole = PreparedData.open(straight).scene("scene-0001")
    assert np.array_equal(data.scene("scene-0001").box, whole.box, equal_nan=True)  # its neighbour is untouched


def test_a_worker_tells_the_same_error(log, tmp_path):
    break_nan_pose(log)
    with pytest.raises(ValueError, match=r"scene-0002, sample \w+\+2: ego_pose\.json"):
        prepare(log, None, tmp_path / "out", workers=2)
    assert prepare(log, None, tmp_path / "out", workers=2, skip_broken=True).counts()["scenes"] == 2


def test_missing_table_and_nothing_left_are_errors(log, tmp_path):
    for number in (1, 2, 3):
        (log / "can_bus" / f"scene-000{number}_pose.json").write_text("[{")
    with pytest.raises(ValueError, match=r"no scene to prepare \(3 broken: .*scene-0001_pose\.json"):
        prepare(log, None, tmp_path / "out", skip_broken=True)
    (log / VERSION / "ego_pose.json").unlink()
    with pytest.raises(ValueError, match=r"ego_pose\.json: no such file"):
        prepare(log, None, tmp_path / "out", skip_broken=True)
    assert not (tmp_path / "out" / "prepared.json").exists()


def test_a_list_of_ones_own(pristine, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"train": ["scene-0003"], "val": ["scene-0003"]}))
    report = prepare(pristine, None, tmp_path / "out", splits=mine)
    assert [scene.name for scene in report.scenes] == ["scene-0003"]
    assert any(text.startswith("2 scenes are in no split of the list") for text in report.all_warnings())
    assert any("scene-0003" in text and "validate" in text for text in report.all_warnings())
    mine.write_text("{")
    with pytest.raises(ValueError, match=r"mine\.json: malformed JSON"):
        prepare(pristine, None, tmp_path / "out", splits=mine)


def test_a_folder_that_cannot_be_written(pristine, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*cannot write there"):
        prepare(pristine, None, tmp_path / "file" / "out")
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        prepare(pristine, None, tmp_path / "out", workers=0)


def test_a_log_without_boxes(log, tmp_path):
    """As v1.0-test."""
    change(log, "sample_annotation", lambda rows: rows.clear())
    change(log, "instance", lambda rows: rows.clear())
    report = prepare(log, None, tmp_path / "out")
    assert sum(report.counts()["boxes"].values()) == 0 and report.counts()["frames"] == 12
    scene = PreparedScene.load(scene_path(report.out, "scene-0001"))
    assert scene.box.shape == (0, 10) and scene.agent_future_m.shape == (0, 12, 2) and scene.box_splits.tolist() == [0] * 5
