"""`sparsedrive robustness` in this process, from a model to the page, with lists of one's own and what is wrong with them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import model_samples
import pytest

from sparsedrive.cli import main
from sparsedrive.config.presets import PRESETS
from sparsedrive.data.failure_script import FailureScript, FaultSpan
from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.robustness_results import RobustnessResult

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")
QUICK = ["--preset", "small", "--workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, "small", lambda: replace(model_samples.config(), name="small", camera_names=CAMERAS))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    sys.path.append(str(Path(__file__).parents[1] / "data"))
    from prepared_samples import write_prepared

    return write_prepared(tmp_path_factory.mktemp("numbers"), frames=(9, 8), wh_px=(64, 36))


@pytest.fixture(scope="module")
def tested(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", lambda: replace(model_samples.config(), name="small", camera_names=CAMERAS))
        assert main(["robustness", "--data", str(data.folder), "--out", str(out), "--suite", "quick", *QUICK]) == 0
    return out


def run(out: Path, *words: object) -> int:
    return main(["robustness", "--out", str(out), *map(str, words)])


def error(capsys) -> str:
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


def test_everything_is_written(tested):
    names = {path.name for path in tested.iterdir()}
    assert names == {"robustness.json", "robustness.npz", "robustness.html", "matrix.svg", "scenarios"}
    result = RobustnessResult.load(tested / "robustness.json")
    assert [one.name for one in result.scenarios] == ["C0", "S1-front", "S1-rear", "O-front", "R"]
    assert result.label == "small, random weights" and result.header.num_frames == 8
    for one in result.scenarios:
        assert FailureScript.load(tested / "scenarios" / f"{one.name}.json").digest == one.digest
    assert (tested / "matrix.svg").read_text().startswith("<svg")


def test_results_are_compared_without_a_model(tested, tmp_path, capsys):
    file = tested / "robustness.json"
    assert run(tmp_path, "--result", file, "--plain", file, "--baseline", file) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"robustness.html", "matrix.svg"}
    printed = capsys.readouterr()
    assert "against small, random weights" in printed.out and "+0.00 .. +0.00" in printed.out and "S1-rear" in printed.out
    assert "warning: the weights were random" in printed.err
    assert "share of the plain model's clean score" in (tmp_path / "robustness.html").read_text().replace("&#x27;", "'")


def test_some_scenarios_and_a_list_of_ones_own(data, tmp_path):
    spans = (FaultSpan(scene="scene-0001", camera="CAM_BACK", start=2, stop=4, kind="noise", announced=False),)
    FailureScript(spans=spans).save(tmp_path / "mine.json")
    words = ["--data", data.folder, "--only", "S1-rear", "--script", tmp_path / "mine.json", "--label", "ours", *QUICK]
    assert run(tmp_path / "out", *words) == 0
    result = RobustnessResult.load(tmp_path / "out" / "robustness.json")
    assert [one.name for one in result.scenarios] == ["C0", "S1-rear", "mine"] and result.label == "ours"
    assert result.get("mine").lost_share == pytest.approx(2 / 24)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --data FOLDER to run a model on, or --result FILE"),
        (["--data", "DATA", "--result", "a.json"], "one of the two"),
        (["--result", "absent.json"], "absent.json: cannot be read"),
        (["--data", "DATA", "--only", "S7", *QUICK], "expected names or groups of this suite, got ['S7']"),
        (["--data", "DATA", "--split", "nowhere", *QUICK], "split: expected one of"),
        (["--data", "DATA", "--script", "BROKEN", *QUICK], "fault 0: expected keys scene, camera"),
        (["--data", "DATA", "--script", "TOP", *QUICK], "no such camera, there are ['CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK']"),
        (["--data", "DATA", "--script", "LONG", *QUICK], "the scene has 8 frames"),
        (["--data", "DATA", "--baseline", "TEXT", *QUICK], "expected JSON"),
        (["--data", "DATA", "--seed", "-1", *QUICK], "seed: expected 0 <= seed"),
    ],
)
def test_errors_are_one_line(data, tmp_path, capsys, words, message):
    fault = {"scene": "scene-0001", "camera": "CAM_BACK", "start": 0, "stop": 2, "kind": "black"}
    lists = {"BROKEN": {"scene": "a"}, "TOP": fault | {"camera": "CAM_TOP"}, "LONG": fault | {"stop": 80}}
    places = {"DATA": str(data.folder), "TEXT": str(tmp_path / "text.json")}
    (tmp_path / "text.json").write_text("no")
    for name, row in lists.items():
        places[name] = str(tmp_path / f"{name}.json")
        Path(places[name]).write_text(json.dumps({"format": "sparsedrive-failures", "version": 1, "faults": [row]}))
    assert run(tmp_path / "out", *(places.get(word, word) for word in words)) == 2
    assert message in error(capsys)
    assert not (tmp_path / "out").exists()


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["robustness", "--help"])
    text = capsys.readouterr().out
    assert "Examples" in text and "--baseline" in text and "--suite {quick,core,full}" in text
