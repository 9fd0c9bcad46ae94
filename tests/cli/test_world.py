import json
from dataclasses import fields

import cv2
import pytest

from sparsedrive.cli import main
from sparsedrive.cli.world import World
from sparsedrive.world.writer import WorldConfig

TINY = ["--scenes", "1", "--seconds", "1", "--size", "96", "54", "--look", "fog", "--no-lidar", "--workers", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli") / "world"
    assert main(["world", "--out", str(root), *TINY]) == 0
    return root


def test_world_writes_the_data_and_what_to_look_at(made):
    assert {path.name for path in made.iterdir()} == {
        "bev.mp4", "can_bus", "contact_sheet.jpg", "maps", "parts", "samples", "v1.0-world", "world.json"
    }  # fmt: skip
    sheet = cv2.imread(str(made / "contact_sheet.jpg"))
    assert sheet.shape[1] == 1800 and sheet.std() > 20
    video = cv2.VideoCapture(str(made / "bev.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 7 and video.read()[1].std() > 20
    assert len(list((made / "samples" / "CAM_FRONT").iterdir())) == 2 and not (made / "samples" / "LIDAR_TOP").exists()


def test_a_second_run_says_what_there_is(made, capsys):
    assert main(["world", "--out", str(made), *TINY]) == 0
    text = capsys.readouterr().out
    assert "1 (1 train, 0 val), 2 key frames" in text and "1 town: " in text and str(made / "contact_sheet.jpg") in text
    boxes = len(json.loads((made / "v1.0-world" / "sample_annotation.json").read_text()))
    assert f"boxes     {boxes} of " in text and " car" in text


def test_another_seed_in_the_same_folder_is_refused(made, capsys):
    assert main(["world", "--out", str(made), *TINY, "--seed", "1"]) == 2
    assert "made with seed = 0, not 1" in capsys.readouterr().err


def test_wrong_look_is_refused(tmp_path, capsys):
    assert main(["world", "--out", str(tmp_path), "--look", "snow"]) == 2
    assert "WorldConfig.looks" in capsys.readouterr().err


def test_options_default_to_the_writers_configuration():
    assert World(out=None).config() == WorldConfig()
    assert len(fields(WorldConfig)) == 7
