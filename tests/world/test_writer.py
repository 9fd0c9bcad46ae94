import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from world_samples import CONFIG, SCENES

from sparsedrive.world.writer import CONFIG_FILE, VERSION, WorldConfig, part_path, read_part, write_world


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.xdist_group("little_world")
def test_a_killed_run_goes_on_in_other_processes_to_the_same_bytes(little_world, tmp_path):
    root = shutil.copytree(little_world, tmp_path / "world")
    part_path(root, "scene-0002").unlink()
    shutil.rmtree(root / VERSION)
    (root / "tables.part").mkdir()
    (root / "tables.part" / "scene.json").write_text("[{")
    part_path(root, "scene-0002").with_name("scene-0002.json.gz.part").write_bytes(b"half")
    pictures = sorted((root / "samples" / "CAM_BACK").glob("scene-0002*"))
    pictures[1].write_bytes(pictures[1].read_bytes()[:1000])
    pictures[2].unlink()
    shutil.rmtree(root / "can_bus")
    for kind in ("pose", "steeranglefeedback"):  # those of the finished scene
        (root / "can_bus").mkdir(exist_ok=True)
        shutil.copy(little_world / "can_bus" / f"scene-0001_{kind}.json", root / "can_bus")
    seen = []
    write_world(root, SCENES, CONFIG, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    made, expected = files(root), files(little_world)
    assert sorted(made) == sorted(expected)
    assert [name for name in made if made[name] != expected[name]] == []


@pytest.mark.xdist_group("little_world")
def test_a_finished_world_is_left_as_it_is(little_world):
    before = {path: path.stat().st_mtime_ns for path in (little_world / "samples").rglob("*")}
    write_world(little_world, SCENES, CONFIG, progress=lambda done, total: None)
    assert before == {path: path.stat().st_mtime_ns for path in (little_world / "samples").rglob("*")}


@pytest.mark.xdist_group("little_world")
def test_scenes_differ_and_share_their_town(little_world):
    first, second = (read_part(little_world, f"scene-000{number}") for number in (1, 2))
    assert first["scene"][0]["log_token"] == second["scene"][0]["log_token"]
    assert first["ego_pose"][0]["translation"] != second["ego_pose"][0]["translation"]
    assert len(list((little_world / "maps" / "expansion").iterdir())) == 1
    attributes = {row["token"]: row["name"] for row in json.loads((little_world / VERSION / "attribute.json").read_text())}
    used = {attributes[token] for part in (first, second) for row in part["sample_annotation"] for token in row["attribute_tokens"]}
    assert {"vehicle.moving", "vehicle.parked", "pedestrian.moving"} <= used


def test_plans_depend_on_seed_and_number_only():
    config = WorldConfig(seed=3)
    assert config.scene(7) == WorldConfig(seed=3).scene(7)
    plans = [config.scene(index) for index in range(12)]
    assert len({plan.seed for plan in plans}) == 12 and len({plan.town_seed for plan in plans}) == 3
    assert [plan.look for plan in plans[:6]] == ["day", "dusk", "day", "rain", "fog", "day"]
    assert [plan.writes_map for plan in plans[:6]] == [True, False, False, False, False, True]
    assert plans[4].name.location == "town-001" and plans[5].name.location == "town-002" and plans[0].key_frames == 40
    assert plans[0].seed != WorldConfig(seed=4).scene(0).seed and plans[0].town_seed != WorldConfig(seed=4).scene(0).town_seed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seconds", 0.2),
        ("wh_px", (0, 10)),
        ("looks", ("day", "snow")),
        ("looks", ()),
        ("scenes_per_town", 0),
        ("jpeg_quality", 101),
    ],
)
def test_wrong_values_are_named(field, value):
    with pytest.raises(ValueError, match=rf"WorldConfig\.{field}: expected .*, got"):
        replace(WorldConfig(), **{field: value})


def begun(root: Path, scenes: int = 0) -> Path:
    """A folder in which a world was begun, without the work of driving it."""
    from sparsedrive.world.writer import _begin

    _begin(root, 1, CONFIG)
    for index in range(scenes):
        part_path(root, f"scene-{index + 1:04d}").parent.mkdir(exist_ok=True)
        part_path(root, f"scene-{index + 1:04d}").write_bytes(gzip.compress(b"{}"))
    return root


def test_another_configuration_is_refused_with_both_values(tmp_path):
    with pytest.raises(ValueError, match=r"made with seconds = 1\.5, not 3\.0; looks = .*go on with it, delete it, or give another folder"):
        write_world(begun(tmp_path), 1, replace(CONFIG, seconds=3.0, looks=("fog",)))


def test_fewer_scenes_than_there_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds 3 scenes already, more than the 2 asked for"):
        write_world(begun(tmp_path, 3), 2, CONFIG)


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="expected an empty folder or a world"):
        write_world(tmp_path, 1, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damaged_files_are_named(tmp_path):
    root = begun(tmp_path, 1)
    part_path(root, "scene-0001").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"scene-0001\.json\.gz: not a finished scene"):
        read_part(root, "scene-0001")
    (root / CONFIG_FILE).write_text("{")
    with pytest.raises(ValueError, match=r"world\.json: not the configuration of a world"):
        write_world(root, 1, CONFIG)


def test_numbers_of_scenes_and_workers_are_checked(tmp_path):
    for scenes, workers in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1 scene and 1 worker"):
            write_world(tmp_path, scenes, CONFIG, workers=workers)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/world: cannot write there"):
        write_world(tmp_path / "file" / "world", 1, CONFIG)
