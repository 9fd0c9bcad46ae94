"""The first two key frames of scene-0103, real pictures, through the published model's size and through tiny."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sparsedrive.cli import main
from sparsedrive.runtime.results import read_results

REAL = Path(os.environ.get("SPARSEDRIVE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "nuscenes_real"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real frames at {REAL}; set SPARSEDRIVE_DATA to the folder of nuscenes_real")


@pytest.mark.parametrize("preset", ["tiny", "sparsedrive_small_stage2"])
def test_real_frames_stream(preset, tmp_path):
    command = ["stream", "--data", str(REAL), "--scene", "scene-0103", "--preset", preset, "--max-frames", "2"]
    assert main([*command, "--out", str(tmp_path / "wires"), "--annotations", "--score-threshold", "0.99"]) == 0
    assert main([*command, "--out", str(tmp_path / "plain"), "--score-threshold", "0.99"]) == 0
    results = read_results(tmp_path / "wires" / "results.json")
    assert results.preset == preset
    assert [round(frame.time_s - results.frames[0].time_s, 1) for frame in results.frames] == [0.0, 0.5]
    assert all(len(frame.plan.trajectory_m) == 6 for frame in results.frames)
    for index in range(2):
        wires, plain = (cv2.imread(str(tmp_path / kind / "frames" / f"{index:06d}.png")).astype(int) for kind in ("wires", "plain"))
        changed = np.abs(wires - plain).max(-1) > 60
        assert wires.shape == plain.shape and 500 < changed.sum() < 0.1 * changed.size  # thin wires, not fillings


def test_a_picture_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["stream", "--data", str(REAL), "--scene", "scene-0916", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert "CAM_FRONT" in printed and "scene-0916" in printed and "allow" in printed
