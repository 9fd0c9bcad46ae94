"""`sparsedrive calibration` and `sparsedrive anchors` on the generated log and on what `sparsedrive prepare` makes of it."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import sparsedrive
from sparsedrive.cli import main
from sparsedrive.models.anchors import anchor_sizes, set_anchors
from sparsedrive.structures.anchors import Anchors


@pytest.fixture(scope="module")
def log(drive_root) -> Path:
    """Four key frames."""
    return drive_root


@pytest.fixture(scope="module")
def prepared(log, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    assert main(["prepare", "nuscenes", "--root", str(log), "--out", str(folder)]) == 0
    return folder


def test_check_picture_of_a_log_and_of_what_is_prepared_from_it(log, prepared, tmp_path, capsys):
    for data, name in ((log, "a.png"), (prepared, "b.png")):
        assert main(["calibration", "--data", str(data), "--frame", "1", "--out", str(tmp_path / "new" / name), "--width", "1500"]) == 0
    printed = capsys.readouterr()
    assert "6 cameras ->" in printed.out and "no lidar file" in printed.err
    first, second = (cv2.imread(str(tmp_path / "new" / name)) for name in ("a.png", "b.png"))
    assert first.shape[1] == 1500 and np.array_equal(first, second)
    assert main(["calibration", "--data", str(log), "--frame", "1", "--out", str(tmp_path / "c.png"), "--width", "1500", "--no-boxes"]) == 0
    assert not np.array_equal(first, cv2.imread(str(tmp_path / "c.png")))


def test_lidar_of_the_log_is_drawn(log, tmp_path, capsys):
    copy = tmp_path / "log"
    shutil.copytree(log, copy)
    command = ["calibration", "--data", str(copy), "--width", "1500"]
    assert main([*command, "--out", str(tmp_path / "without.png")]) == 0
    warning = next(line for line in capsys.readouterr().err.splitlines() if "no lidar file" in line)
    path = Path(warning.split("no lidar file ")[1].split(":")[0])
    path.parent.mkdir(parents=True)
    points = np.random.default_rng(0).uniform(-20, 20, (2000, 5)).astype(np.float32)
    path.write_bytes(points.tobytes())
    assert main([*command, "--out", str(tmp_path / "with.png")]) == 0
    assert "no lidar file" not in capsys.readouterr().err
    without, drawn = (cv2.imread(str(tmp_path / name)).astype(int) for name in ("without.png", "with.png"))
    assert (np.abs(without - drawn).max(-1) > 40).sum() > 3000


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--frame", "4"], "--frame: expected 0 to 3 in scene-0001, got 4"),
        (["--scene", "scene-9999"], "no scene 'scene-9999'"),
        (["--width", "200"], "width_px 200 is too small"),
    ],
)
def test_wrong_options_of_calibration(log, prepared, tmp_path, capsys, extra, message):
    for data in (log, prepared):
        assert main(["calibration", "--data", str(data), "--out", str(tmp_path / "x.png"), *extra]) == 2
        assert message in capsys.readouterr().err


def test_calibration_without_pictures_or_with_a_bad_name(log, tmp_path, capsys):
    shutil.copytree(log / "v1.0-world", tmp_path / "bare" / "v1.0-world")
    assert main(["calibration", "--data", str(tmp_path / "bare"), "--out", str(tmp_path / "x.png")]) == 2
    assert "unpack samples/" in capsys.readouterr().err
    assert main(["calibration", "--data", str(log), "--out", str(tmp_path / "x.txt")]) == 2
    assert "expected a name ending in .png or .jpg" in capsys.readouterr().err


def test_anchors_of_a_tiny_log_fit_the_model(prepared, tmp_path, capsys):
    out, picture = tmp_path / "a.safetensors", tmp_path / "a.png"
    command = ["anchors", "--data", str(prepared), "--split", "train", "--preset", "tiny"]
    assert main([*command, "--out", str(out), "--picture", str(picture)]) == 0
    printed = capsys.readouterr()
    anchors = Anchors.load(out)
    groups = {group.name: group for group in anchors.groups}
    assert 0 < groups["detection"].from_data == groups["detection"].samples < groups["detection"].count and groups["map"].from_data > 0
    assert f"detection {groups['detection'].from_data} of {groups['detection'].count}" in printed.err and str(out) in printed.out
    assert cv2.imread(str(picture)).shape[1] > 800
    model = sparsedrive.load("tiny")
    assert anchors.sizes == anchor_sizes(model.config)
    set_anchors(model, anchors)
    assert main([*command, "--out", str(tmp_path / "b.safetensors")]) == 0
    assert (tmp_path / "b.safetensors").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--split", "nope"], "split: expected one of ['train', 'val']"),
        (["--preset", "huge"], "preset: expected one of tiny"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--out", "a.npz"], "--out: expected a name ending in .safetensors"),
    ],
)
def test_wrong_options_of_anchors(prepared, tmp_path, capsys, extra, message):
    command = ["anchors", "--data", str(prepared), "--split", "train", "--out", str(tmp_path / "a.safetensors")]
    assert main([*command, *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()


def test_anchors_that_cannot_be_written_are_an_error_before_clustering(prepared, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["anchors", "--data", str(prepared), "--out", str(tmp_path / "file" / "a.safetensors")]) == 2
    assert "--out: cannot write in" in capsys.readouterr().err


def test_anchors_of_a_folder_that_is_not_prepared(tmp_path, capsys):
    assert main(["anchors", "--data", str(tmp_path), "--out", str(tmp_path / "a.safetensors")]) == 2
    assert "run `sparsedrive prepare`" in capsys.readouterr().err
