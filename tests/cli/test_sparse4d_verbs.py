"""Models without map and planner through `train`, `eval`, `stream` and `convert`: small ones of Sparse4D v1, v2 and v3."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from sparsedrive.cli import main
from sparsedrive.config.presets import PRESETS
from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.results import Evaluation
from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.image_history import HistoryConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.runtime.results import read_results
from sparsedrive.training.logs import read_log

sys.path.append(str(Path(__file__).parents[1] / "training"))
import small_runs

OLD = BoxKind(summed_embedding=True, with_quality=False)


def small(version: str) -> SparseDriveConfig:
    """`small_runs.small` as that version."""
    base = replace(small_runs.small(), name="small", map=None, planner=None)
    layer = replace(base.detection.layer, decoupled_attention=False)
    if version == "v3":
        return base
    detection = replace(base.detection, kind=OLD, layer=layer, denoising=None)
    if version == "v2":
        return replace(base, detection=detection, tracks=False)
    history = HistoryConfig(num_past=1, num_cameras=len(small_runs.CAMERAS))
    detection = replace(
        detection, num_memory=0, num_single_frame_layers=2, first_layer_attention=True, layer=replace(layer, history=history)
    )
    return replace(base, detection=detection, depth=None, tracks=False)


@pytest.fixture(scope="module", params=["v1", "v2", "v3"])
def version(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", lambda: small(request.param))
        patch.setitem(small_runs.recipes.RECIPES, "small", small_runs.recipe)
        yield request.param


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    return small_runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(version, data, tmp_path_factory) -> Path:
    AcceleratorState._reset_state(reset_partial_state=False)
    out = tmp_path_factory.mktemp("runs") / version
    words = ["train", "small", "--data", str(data.folder), "--out", str(out), "--cpu", "--workers", "0", "--log-every", "1"]
    assert main([*words, "--epochs", "0.5", "--save-every", "2"]) == 0
    return out


def test_training_goes_on_bit_by_bit(version, trained, data):
    """The memory of v1, pictures and all, is in the checkpoint."""
    entry = read_log(trained)[-1]
    terms = {name.rsplit(".", 1)[-1] for name in entry if name.startswith("loss.")}
    assert {"class", "box"} <= terms and ("depth_fit" in terms) == (version == "v1") == ("depth" not in terms)
    AcceleratorState._reset_state(reset_partial_state=False)
    words = ["train", "small", "--data", str(data.folder), "--out", str(trained), "--cpu", "--workers", "0", "--epochs", "0.5"]
    assert main([*words, "--resume"]) == 0


def test_evaluation_leaves_out_what_the_model_does_not_have(version, trained, data, tmp_path, capsys):
    words = [
        "eval",
        "--preset",
        "small",
        "--weights",
        str(trained / "model.safetensors"),
        "--data",
        str(data.folder),
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--workers", "0", "--device", "cpu", "--split", "train", "--save-predictions"]) == 0
    result = Evaluation.load(tmp_path / "evaluation.json")
    assert result.detection is not None and result.map is result.planning is result.forecasting is None
    assert (result.tracking is not None) == (version == "v3") == (tmp_path / "results_nusc_tracking.json").is_file()
    without = "no map and no motion and no plan" if version == "v3" else "no track and no map and no motion and no plan"
    assert f"preset 'small' has {without}" in result.header.notes and "preset 'small' has no" in capsys.readouterr().err
    assert (tmp_path / "report.html").stat().st_size > 1000
    again = ["eval", "--data", str(data.folder), "--predictions", str(tmp_path / "predictions.json"), "--out", str(tmp_path / "again")]
    assert main([*again, "--no-report"]) == 0
    assert (tmp_path / "again" / "evaluation.json").read_bytes() == (tmp_path / "evaluation.json").read_bytes()
    assert json.loads((tmp_path / "predictions.json").read_text())["lines"] is None


def test_streaming_draws_boxes(trained, drive_root, tmp_path):
    words = [
        "stream",
        "--data",
        str(drive_root),
        "--preset",
        "small",
        "--weights",
        str(trained / "model.safetensors"),
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--device", "cpu", "--no-video", "--score-threshold", "0", "--max-frames", "2"]) == 0
    frames = read_results(tmp_path / "results.json").frames
    assert len(frames) == 2 and all(frame.detections and not frame.map and frame.plan is None for frame in frames)


def test_weights_go_to_official_names_and_back(trained, tmp_path):
    words = ["convert", "--preset", "small", str(trained / "model.safetensors"), str(tmp_path / "official.pth")]
    assert main([*words, "--to-official"]) == 0
    assert main(["convert", "--preset", "small", str(tmp_path / "official.pth"), str(tmp_path / "back.safetensors")]) == 0
    assert small_runs.same_tensors(tmp_path / "back.safetensors", trained / "model.safetensors")
