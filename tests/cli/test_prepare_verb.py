"""`sparsedrive prepare` on the generated log."""

import json
import shutil
from pathlib import Path

import pytest

from sparsedrive.cli import main
from sparsedrive.data.prepared import PreparedData


@pytest.fixture
def log(drive_root, tmp_path) -> Path:
    """Without its map and its splits."""
    root = Path(shutil.copytree(drive_root, tmp_path / "log"))
    shutil.rmtree(root / "maps")
    (root / "v1.0-world" / "splits.json").unlink()
    return root


def test_prepares_into_the_log_and_says_what_there_is(log, capsys):
    assert main(["prepare", "nuscenes", "--root", str(log)]) == 0
    folder = log / "prepared" / "v1.0-world"
    printed = capsys.readouterr()
    for text in (
        "frames     4",
        "24 of 24 on disk: 4 samples have all",
        "0 of 4 scans",
        "1 scenes made, 0 kept",
        str(folder),
        "pedestrian",
    ):
        assert text in printed.out
    assert "no map expansion of town-001" in printed.err and "no splits known for v1.0-world" in printed.err
    assert PreparedData.open(folder).scene("scene-0001").num_frames == 4
    assert main(["prepare", "nuscenes", "--root", str(log), "--workers", "2"]) == 0
    assert "0 scenes made, 1 kept" in capsys.readouterr().out


def test_options(log, tmp_path, capsys):
    (tmp_path / "mine.json").write_text(json.dumps({"val": ["scene-0001"]}))
    (log / "can_bus" / "scene-0001_pose.json").write_text("[")
    command = ["prepare", "nuscenes", "--root", str(log), "--version", "v1.0-world", "--out", str(tmp_path / "out")]
    assert main([*command, "--splits", str(tmp_path / "mine.json")]) == 2
    assert "scene-0001_pose.json: malformed JSON" in capsys.readouterr().err
    assert main([*command, "--skip-broken"]) == 2
    assert "no scene to prepare (1 broken" in capsys.readouterr().err
    (log / "can_bus" / "scene-0001_pose.json").unlink()
    assert main([*command, "--splits", str(tmp_path / "mine.json")]) == 0
    assert "no pose messages on the CAN bus" in capsys.readouterr().err
    assert PreparedData.open(tmp_path / "out").split("val") == ("scene-0001",)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--workers", "0"], "workers: expected at least 1, got 0"),
        (["--version", "v9"], "v9"),
        (["--splits", "no.json"], "no.json: no such"),
    ],
)
def test_wrong_options_are_one_line(log, capsys, extra, message):
    assert main(["prepare", "nuscenes", "--root", str(log), *extra]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_a_log_that_cannot_be_written_asks_for_another_folder(log, capsys):
    (log / "prepared").write_text("in the way")
    assert main(["prepare", "nuscenes", "--root", str(log)]) == 2
    error = capsys.readouterr().err
    assert "cannot write there" in error and "--out" in error
