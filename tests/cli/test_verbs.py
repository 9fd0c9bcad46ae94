"""The verbs that need a model, on the generated log with the smallest preset."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch

import sparsedrive
from sparsedrive.cli import main
from sparsedrive.runtime.results import read_results


@pytest.fixture(scope="module")
def log(drive_root) -> Path:
    """Four key frames."""
    return drive_root


def test_presets_lists_all(capsys):
    assert main(["presets"]) == 0
    text = capsys.readouterr().out
    for name in sparsedrive.presets():
        config = sparsedrive.preset(name)
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert f"{config.image_wh_px[0]} x {config.image_wh_px[1]}" in line and (" yes " in line) == config.public_weights


def test_stream_writes_results_pictures_and_video(log, tmp_path, capsys):
    assert main(["stream", "--data", str(log), "--out", str(tmp_path), "--device", "cpu", "--annotations", "--weights", "random"]) == 0
    printed = capsys.readouterr()
    assert "warning: preset 'tiny' runs with untrained" in printed.err and "4 frames" in printed.out
    results = read_results(tmp_path / "results.json")
    assert results.sequence == "scene-0001" and results.weights is None and results.preset == "tiny"
    assert [frame.time_s for frame in results.frames] == pytest.approx(
        [1_600_000_000.1 + 0.5 * index for index in range(4)], abs=1e-4, rel=0
    )
    assert all(frame.plan is not None for frame in results.frames)
    assert len(list((tmp_path / "frames").glob("*.png"))) == 4
    assert cv2.imread(str(tmp_path / "frames" / "000001.png")).shape[1] == 1920


def test_a_prepared_log_streams_as_its_tables_do(log, tmp_path, capsys):
    prepared = tmp_path / "prepared"
    assert main(["prepare", "nuscenes", "--root", str(log), "--out", str(prepared)]) == 0
    options = ["--weights", "random", "--max-frames", "2", "--no-video", "--score-threshold", "0", "--annotations"]
    for folder, out in ((log, "a"), (prepared, "b")):
        assert main(["stream", "--data", str(folder), "--out", str(tmp_path / out), *options]) == 0
    first, second = (read_results(tmp_path / name / "results.json") for name in "ab")
    assert first == second
    for name in ("000000.png", "000001.png"):
        assert (tmp_path / "a" / "frames" / name).read_bytes() == (tmp_path / "b" / "frames" / name).read_bytes()
    assert main(["stream", "--data", str(prepared), "--scene", "scene-7", "--out", str(tmp_path / "c")]) == 2
    assert "scene-7" in capsys.readouterr().err


def test_saved_weights_are_used_and_named(log, tmp_path, capsys):
    weights = tmp_path / "mine.safetensors"
    sparsedrive.save(sparsedrive.load("tiny", seed=3), weights)
    command = ["stream", "--data", str(log), "--weights", str(weights), "--max-frames", "1", "--no-video", "--score-threshold", "0"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "b")]) == 0
    first, second = (read_results(tmp_path / name / "results.json") for name in "ab")
    assert first == second and first.weights == "mine.safetensors" and len(first.frames) == 1
    assert len(first.frames[0].detections) > 0
    assert not (tmp_path / "a" / "video.mp4").exists()


def test_a_saved_variant_runs_as_it_was_saved_and_that_is_said(log, tmp_path, capsys):
    weights = tmp_path / "mine.safetensors"
    sparsedrive.save(sparsedrive.load(replace(sparsedrive.preset("tiny"), name="mine", camera_names=("CAM_FRONT", "CAM_BACK"))), weights)
    assert main(["stream", "--data", str(log), "--weights", str(weights), "--max-frames", "1", "--out", str(tmp_path / "a")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "mine.safetensors was saved; other than in preset 'tiny': " in told and "camera_names" in told
    assert read_results(tmp_path / "a" / "results.json").preset == "mine"


def test_missing_picture_needs_allow_missing(log, tmp_path, capsys):
    copy = tmp_path / "log"
    shutil.copytree(log, copy)
    next((copy / "samples" / "CAM_BACK").iterdir()).unlink()
    command = ["stream", "--data", str(copy), "--out", str(tmp_path / "out"), "--no-video"]
    assert main(command) == 2
    assert "no picture" in capsys.readouterr().err
    assert main([*command, "--allow-missing"]) == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--scene", "scene-9999"], "no scene 'scene-9999'"),
        (["--max-frames", "0"], "--max-frames: expected at least 1, got 0"),
        (["--preset", "huge"], "preset: expected one of tiny"),
        (["--weights", "absent.safetensors"], "weights: no file absent.safetensors"),
        (["--version", "v9"], "v9"),
    ],
)
def test_wrong_options_are_one_line(log, tmp_path, capsys, extra, message):
    assert main(["stream", "--data", str(log), "--out", str(tmp_path), *extra]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there(log, tmp_path, capsys):
    assert main(["stream", "--data", str(log), "--out", str(tmp_path), "--device", "cuda"]) == 2
    assert "--device: expected a CUDA GPU" in capsys.readouterr().err


def test_convert_there_and_back(tmp_path, capsys):
    ours, official, again = (tmp_path / name for name in ("a.safetensors", "b.pth", "c.safetensors"))
    model = sparsedrive.load("tiny", seed=5)
    sparsedrive.save(model, ours)
    assert main(["convert", str(ours), str(official), "--preset", "tiny", "--to-official"]) == 0
    assert main(["convert", str(official), str(again), "--preset", "tiny"]) == 0
    assert "tensors" in capsys.readouterr().out
    loaded = sparsedrive.load("tiny", again).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


def test_demo_streams_the_generated_and_the_given_log(log, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SPARSEDRIVE_NUSCENES", raising=False)
    small = ["--seconds", "0.5", "--scenes", "1", "--weights", "random"]
    assert main(["demo", "--out", str(tmp_path), *small, "--real-data", str(log)]) == 0
    printed = capsys.readouterr()
    assert "untrained, random weights" in printed.err
    assert len(list((tmp_path / "generated" / "frames").iterdir())) == 1
    for words in ("measured  1 frames of 1 drives", "boxes     mAP 0.", "map       mAP 0.", "plan      distance", "report.html"):
        assert words in printed.out
    assert (tmp_path / "report.html").is_file()
    assert len(list((tmp_path / "scene-0001" / "frames").iterdir())) == 4
    assert str(tmp_path / "generated" / "frames") in printed.out


def test_demo_refuses_a_folder_without_pictures(log, tmp_path, capsys, monkeypatch):
    shutil.copytree(log / "v1.0-world", tmp_path / "bare" / "v1.0-world")
    assert main(["demo", "--out", str(tmp_path / "out"), "--seconds", "0.5", "--scenes", "1", "--real-data", str(tmp_path / "bare")]) == 2
    assert "expected pictures of at least one sample" in capsys.readouterr().err
