"""`sparsedrive eval` in this process: with a small model, with saved predictions, with official files, and with what is wrong."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import model_samples
import pytest

from sparsedrive.cli import main
from sparsedrive.config.presets import PRESETS
from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.results import Evaluation

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    sys.path.append(str(Path(__file__).parents[1] / "data"))
    from prepared_samples import write_prepared

    return write_prepared(tmp_path_factory.mktemp("numbers"), frames=(9, 10, 8), wh_px=(64, 36))


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory) -> Path:
    """All tasks, from a model to the report."""
    out = tmp_path_factory.mktemp("runs") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", lambda: replace(model_samples.config(), name="small", camera_names=CAMERAS))
        words = ["--preset", "small", "--workers", "0", "--batch", "2", "--device", "cpu", "--save-predictions"]
        assert main(["eval", "--data", str(data.folder), "--out", str(out), *words]) == 0
    return out


def run(data: PreparedData, out: Path, *words: str) -> int:
    return main(["eval", "--data", str(data.folder), "--out", str(out), *map(str, words)])


def error(capsys) -> str:
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


def test_everything_is_written(evaluated, data):
    names = {path.name for path in evaluated.iterdir()}
    files = {"evaluation.json", "evaluation.npz", "predictions.json", "predictions.npz", "report.html"}
    assert names == files | {"results_nusc_detection.json", "results_nusc_tracking.json"}
    result = Evaluation.load(evaluated / "evaluation.json")
    assert result.header.preset == "small" and result.header.weights is None and result.header.split == "val"
    assert result.header.num_frames == 8 and len(result.header.date) == 10
    assert len(json.loads((evaluated / "results_nusc_detection.json").read_text())["results"]) == 8


def test_saved_predictions_give_the_same_file_and_all_tables(evaluated, data, tmp_path, capsys):
    assert run(data, tmp_path, "--predictions", evaluated / "predictions.json", "--no-report") == 0
    assert (tmp_path / "evaluation.json").read_bytes() == (evaluated / "evaluation.json").read_bytes()
    assert not (tmp_path / "report.html").exists()
    printed = capsys.readouterr()
    for protocol in ("detection_cvpr_2019", "tracking_nips_2019", "chamfer AP", "published", "uniad", "st-p3", "sparsedrive, 3 s", "plain"):
        assert protocol in printed.out, protocol
    for planner in ("model", "constant_velocity", "constant_turn_rate", "ego_status_mlp", "ground_truth"):
        assert printed.out.count(planner) >= 4, planner
    assert "truth: prepared data" in printed.out and "warning: the weights were random" in printed.err
    result = Evaluation.load(evaluated / "evaluation.json")
    assert f"{result.planning.planner('model').get('uniad').mean_l2_m:.3f}" in printed.out
    assert f"mAP {result.detection.mean_ap:.4f}   NDS {result.detection.nds:.4f}" in printed.out


def test_only_the_tasks_asked_for(evaluated, data, tmp_path, capsys):
    assert run(data, tmp_path, "--predictions", evaluated / "predictions.json", "--tasks", "map, plan", "--no-report") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.json", "evaluation.npz"}
    printed = capsys.readouterr().out
    assert "chamfer" in printed and "uniad" in printed and "nuScenes" not in printed and "forecasts" not in printed


def test_official_files_of_another_program(evaluated, data, tmp_path, capsys):
    files = ["--detections", evaluated / "results_nusc_detection.json", "--tracks", evaluated / "results_nusc_tracking.json"]
    assert run(data, tmp_path, *files) == 0
    ours, direct = (Evaluation.load(folder / "evaluation.json") for folder in (tmp_path, evaluated))
    assert ours.detection.nds == pytest.approx(direct.detection.nds, abs=1e-9) and ours.planning is None
    assert ours.tracking.mean_amotp_m == pytest.approx(direct.tracking.mean_amotp_m, abs=1e-9)
    assert (tmp_path / "report.html").exists()


def test_a_file_that_breaks_a_rule(evaluated, data, tmp_path, capsys):
    path = tmp_path / "det.json"
    content = json.loads((evaluated / "results_nusc_detection.json").read_text())
    content["results"].popitem()
    path.write_text(json.dumps(content))
    assert run(data, tmp_path / "out", "--detections", path) == 2
    assert "1 of 8 key frames are missing" in error(capsys)
    assert run(data, tmp_path / "out", "--predictions", path) == 2
    assert "expected schema 'sparsedrive-predictions', got None" in error(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "det,fly"], "expected some of det, track, map, motion, plan, got 'fly'"),
        (["--split", "nowhere"], "split: expected one of ['train', 'val']"),
        (["--predictions", "a.json", "--weights", "b.safetensors"], "expected one thing to evaluate, got --weights, --predictions"),
        (["--detections", "a.json", "--save-predictions"], "--save-predictions keeps what a model said"),
        (["--preset", "huge"], "preset: expected one of tiny"),
        (["--predictions", "no.json"], "no.json: cannot be read"),
        (["--truth", "tables", "--preset", "small", "--workers", "0"], "expected the nuScenes tables in"),
    ],
)
def test_errors_are_one_line(data, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setitem(PRESETS, "small", lambda: replace(model_samples.config(), name="small", camera_names=CAMERAS))
    assert run(data, tmp_path / "out", *words) == 2
    assert message in error(capsys)
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_prepared(tmp_path, capsys):
    assert main(["eval", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "run `sparsedrive prepare`" in error(capsys)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    text = capsys.readouterr().out
    assert "Examples" in text and "--predictions" in text and "--official" in text and "sparsedrive eval --data" in text
