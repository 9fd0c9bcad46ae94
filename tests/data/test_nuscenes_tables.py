"""Tables: rows kept, versions found, and an error that names the place for everything that can be broken."""

import json

import pytest

from sparsedrive.data.nuscenes.tables import load_tables


def test_keeps_key_frames_of_cameras_and_ego_sensor(tiny, tables_at):
    tables = load_tables(tables_at(tiny))
    assert sorted(tables.sample_data) == ["cam0", "cam1", "lid0", "lid1"]
    assert sorted(tables.ego_poses) == ["cam0", "cam1", "lid0", "lid1"]
    assert tables.channel(tables.sample_data["cam0"]) == "CAM_FRONT"
    assert tables.sample_data["cam0"].wh_px == (16, 9)
    assert load_tables(tables.folder.parent, annotations=False).objects is None


def test_version_is_found_when_there_is_one(tiny, tables_at):
    root = tables_at(tiny)
    assert load_tables(root).folder.name == "v1.0-tiny"
    with pytest.raises(ValueError, match=r"no folder 'v1.0-mini'.*v1.0-tiny"):
        load_tables(root, "v1.0-mini")
    (root / "v1.0-other").mkdir()
    with pytest.raises(ValueError, match=r"v1.0-other.*v1.0-tiny.*version="):
        load_tables(root)
    assert load_tables(root, "v1.0-tiny").scenes


def test_missing_folders_and_tables_are_named(tiny, tables_at, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        load_tables(tmp_path / "nowhere")
    (tmp_path / "samples").mkdir()
    with pytest.raises(ValueError, match=r"no v1.0-\* folder.*samples"):
        load_tables(tmp_path)
    del tiny["ego_pose"]
    with pytest.raises(ValueError, match=r"ego_pose\.json: no such file"):
        load_tables(tables_at(tiny))


@pytest.mark.parametrize("text", ["[{", "\x00", '{"token": "a"}', "[1, 2]", ""])
def test_malformed_table_is_named(tiny, tables_at, text):
    root = tables_at(tiny)
    (root / "v1.0-tiny" / "log.json").write_text(text)
    with pytest.raises(ValueError, match=r"log\.json"):
        load_tables(root)


def test_malformed_rows_are_named(tiny, tables_at):
    del tiny["sample"][1]["timestamp"]
    with pytest.raises(ValueError, match=r"sample\.json: row 's1' has no field 'timestamp'"):
        load_tables(tables_at(tiny))


@pytest.mark.parametrize("rotation", [[1.0, 0.0, 0.0], None, ["a", 0, 0, 0]])
def test_malformed_values_are_named(tiny, tables_at, rotation):
    tiny["ego_pose"][1]["rotation"] = rotation
    with pytest.raises(ValueError, match=r"ego_pose\.json: row 'lid0'"):
        load_tables(tables_at(tiny))


def test_repeated_tokens_are_an_error(tiny, tables_at):
    tiny["sample"].append(tiny["sample"][0])
    with pytest.raises(ValueError, match=r"sample\.json: 1 tokens occur twice"):
        load_tables(tables_at(tiny))


KEYS = [
    ("scene", "log_token"),
    ("sample", "scene_token"),
    ("calibrated_sensor", "sensor_token"),
    ("sample_data", "sample_token"),
    ("sample_data", "calibrated_sensor_token"),
    ("sample_data", "ego_pose_token"),
    ("instance", "category_token"),
    ("sample_annotation", "sample_token"),
    ("sample_annotation", "instance_token"),
    ("sample_annotation", "prev"),
    ("sample_annotation", "next"),
]


@pytest.mark.parametrize(("table", "field"), KEYS)
def test_broken_key_names_table_field_and_token(tiny, tables_at, table, field):
    row = tiny[table][0]
    row[field] = "lost"
    with pytest.raises(ValueError, match=rf"{table}\.json, row '{row['token']}': {field} = 'lost'"):
        load_tables(tables_at(tiny))


def test_sweeps_are_the_lidar_rows_between_the_key_frames(tiny, tables_at):
    lidar = {**tiny["sample_data"][1], "token": "between", "is_key_frame": False, "prev": "lid0"}
    tiny["sample_data"].append(lidar)
    tiny["sample_data"][4]["prev"] = "between"
    tables = load_tables(tables_at(tiny), sweeps=True)
    assert list(tables.sweeps) == ["between"] and sorted(tables.sample_data) == ["cam0", "cam1", "lid0", "lid1"]
    assert tables.sample_data["lid1"].prev == "between"
    assert not load_tables(tables.folder.parent).sweeps
    lidar["prev"] = "lost"
    with pytest.raises(ValueError, match=r"sample_data\.json, row 'between': prev = 'lost'"):
        load_tables(tables_at(tiny), sweeps=True)


def test_a_scene_that_lost_samples_is_an_error(tiny, tables_at):
    tiny["scene"][0]["nbr_samples"] = 3
    with pytest.raises(ValueError, match=r"row 'sc' \(scene-0001\): nbr_samples = 3, but sample\.json has 2"):
        load_tables(tables_at(tiny))


def with_second_scene(tables):
    """The tiny tables and the same once more under other tokens, as scene-0002 of another log with sensors and category of its own."""
    second = json.loads(json.dumps(tables))
    for name, rows in second.items():
        for row in rows:
            keys = [key for key in row if key.endswith("token") or key in ("prev", "next")]
            row.update({key: f"{row[key]}-2" for key in keys if row[key]})
            if name == "scene":
                row["name"] = "scene-0002"
    return {name: tables[name] + second[name] for name in tables}


@pytest.mark.parametrize(("table", "field"), KEYS)
def test_skip_broken_takes_out_the_scene_of_a_broken_key(tiny, tables_at, table, field):
    both = with_second_scene(tiny)
    whole = load_tables(tables_at(both), skip_broken=True)
    assert not whole.broken and not whole.orphans and len(whole.scenes) == 2
    row = both[table][0]
    row[field] = "lost"
    tables = load_tables(tables_at(both), skip_broken=True)
    if field in ("sample_token", "scene_token"):  # a row that says no more where it belongs
        assert any("'lost'" in reason for reason in tables.orphans)
    else:
        assert list(tables.broken) == ["scene-0001"] and f"{field} = 'lost'" in tables.broken["scene-0001"] and not tables.orphans
        assert [scene.name for scene in tables.scenes.values()] == ["scene-0002"]
        assert {sample.scene_token for sample in tables.samples.values()} == {"sc-2"}
        assert set(tables.objects.annotations) == {"a0-2", "a1-2"} and len(tables.sample_data) == 4


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("log", "location"), ("scene", "name"), ("sample", "timestamp"), ("calibrated_sensor", "rotation"), ("sample_data", "filename"),
        ("ego_pose", "translation"), ("category", "name"), ("instance", "category_token"), ("sample_annotation", "size"),
    ],
)  # fmt: skip
def test_skip_broken_takes_out_the_scene_of_a_malformed_row(tiny, tables_at, table, field):
    both = with_second_scene(tiny)
    del both[table][0][field]
    tables = load_tables(tables_at(both), skip_broken=True)
    (name,) = tables.broken
    assert name == ("sc" if table == "scene" else "scene-0001")  # a scene without a name goes by its token
    assert f"{table}.json: row '{both[table][0]['token']}' has no field '{field}'" in tables.broken[name]
    assert [scene.name for scene in tables.scenes.values()] == ["scene-0002"]


def test_skip_broken_does_not_forgive_a_damaged_file(tiny, tables_at):
    root = tables_at(tiny)
    (root / "v1.0-tiny" / "sample.json").write_text("[{")
    with pytest.raises(ValueError, match=r"sample\.json: malformed JSON"):
        load_tables(root, skip_broken=True)


def test_real_tables_have_the_counts_of_their_description(real_root):
    tables = load_tables(real_root)
    assert (len(tables.scenes), len(tables.samples), len(tables.sample_data)) == (3, 82, 82 * 7)
    assert (len(tables.objects.annotations), len(tables.objects.instances)) == (4510, 284)
