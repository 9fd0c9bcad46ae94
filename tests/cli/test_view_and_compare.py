import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sparsedrive.cli import main, view_rerun

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from evaluation_samples import noisy_predictions, sample_data, sample_evaluation

SCENE = "scene-0001"


class Stream:
    """Stands in for Rerun's stream: keeps what it was given."""

    def __init__(self, *_, **__) -> None:
        self.logged: list[tuple[float, str, object]] = []
        self.path: Path | None = None
        self.closed = False
        self.now_s = 0.0

    def save(self, path: Path) -> None:
        self.path = path

    def set_time(self, timeline: str, *, duration: float) -> None:
        assert timeline == "time"
        self.now_s = duration

    def log(self, entity: str, value: object) -> None:
        self.logged.append((self.now_s, entity, value))

    def disconnect(self) -> None:
        self.closed = True

    def values(self, entity: str) -> list:
        return [value for _, name, value in self.logged if name == entity]


def stub(stream: Stream) -> SimpleNamespace:
    kinds = ("Transform3D", "Pinhole", "EncodedImage", "Boxes3D", "LineStrips3D")

    def maker(kind: str):
        return lambda *strips, **values: SimpleNamespace(kind=kind, strips=strips, **values)

    return SimpleNamespace(RecordingStream=lambda *_, **__: stream, **{kind: maker(kind) for kind in kinds})


def view(tmp_path: Path, *options: str) -> int:
    return main(["view", "--data", str(sample_data().folder), "--out", str(tmp_path / "out"), *options])


@pytest.fixture
def stream(monkeypatch) -> Stream:
    stream = Stream()
    monkeypatch.setattr(view_rerun, "find_rerun", lambda: stub(stream))
    return stream


def test_view_writes_pictures_and_says_how_to_get_the_recording(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(view_rerun, "find_rerun", lambda: None)
    assert view(tmp_path, "--scene", SCENE, "--max-frames", "2") == 0
    assert "pip install 'sparsedrive[view]'" in capsys.readouterr().out
    pictures = sorted((tmp_path / "out" / "frames").glob("*.png"))
    assert len(pictures) == 2 and cv2.imread(str(pictures[0])).shape[1] == 1920
    assert not (tmp_path / "out" / "scene.rrd").exists()


def test_the_recording_has_cameras_boxes_and_predictions_in_the_ego_frame(tmp_path, stream):
    saved = noisy_predictions(sample_data()).save(tmp_path / "predictions.json")
    assert view(tmp_path, "--scene", SCENE, "--predictions", str(saved), "--max-frames", "3", "--no-video") == 0
    scene = sample_data().scene(SCENE)
    assert stream.closed and stream.path == tmp_path / "out" / "scene.rrd"
    assert sorted({time_s for time_s, *_ in stream.logged}) == [0.0, 0.5, 1.0]
    poses = stream.values("world/ego")
    assert np.allclose(poses[0].translation, 0) and np.allclose(poses[0].mat3x3, np.eye(3))
    moved_m = np.linalg.norm(scene.global_T_ego[2][:3, 3] - scene.global_T_ego[0][:3, 3])
    assert np.isclose(np.linalg.norm(poses[2].translation), moved_m)
    boxes = stream.values("world/ego/annotated")[0]
    true_boxes = scene.box[scene.boxes_of(0)]
    assert np.allclose(boxes.centers, true_boxes[:, :3]) and np.allclose(boxes.sizes, true_boxes[:, 3:6])
    yaw_rad = 2 * np.arctan2(boxes.quaternions[:, 2], boxes.quaternions[:, 3])
    assert np.allclose(np.cos(yaw_rad), np.cos(true_boxes[:, 6])) and np.allclose(np.sin(yaw_rad), np.sin(true_boxes[:, 6]))
    assert [value.kind for value in stream.values("world/ego/CAM_FRONT")[:3]] == ["Transform3D", "Pinhole", "EncodedImage"]
    (plan_m,) = stream.values("world/ego/plan")[0].strips[0]
    row = noisy_predictions(sample_data()).frames.tokens.index(scene.sample_tokens[0])
    assert np.allclose(plan_m[1:, :2], noisy_predictions(sample_data()).plan_m[row], atol=1e-5) and (plan_m[0, :2] == 0).all()
    assert len(stream.values("world/ego/boxes")[0].centers) > 0 and len(stream.values("world/ego/map")) == 3


def test_without_predictions_only_annotations_are_recorded(tmp_path, stream):
    assert view(tmp_path, "--scene", SCENE, "--max-frames", "1", "--no-video") == 0
    assert stream.values("world/ego/annotated") and not stream.values("world/ego/boxes")


def test_an_old_rerun_is_told_to_be_upgraded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(view_rerun, "find_rerun", lambda: SimpleNamespace(__version__="0.1"))
    assert view(tmp_path, "--scene", SCENE) == 2
    assert "rerun-sdk 0.1 is too old" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [((), "--scene: expected the name of one of 8"), (("--scene", "scene-9"), "no scene"), (("--max-frames", "0"), "--max-frames")],
)
def test_view_explains_what_is_wrong(tmp_path, capsys, options, message):
    assert view(tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_view_refuses_predictions_of_other_scenes(tmp_path, capsys):
    predictions = noisy_predictions(sample_data())
    object.__setattr__(predictions.frames, "tokens", tuple(f"other-{token}" for token in predictions.frames.tokens))
    assert view(tmp_path, "--scene", SCENE, "--predictions", str(predictions.save(tmp_path / "p.json"))) == 2
    assert "have no predictions" in capsys.readouterr().err


def test_compare_prints_a_table_and_writes_json(tmp_path, capsys):
    a, b = sample_evaluation(0.2).save(tmp_path / "a.json"), sample_evaluation(0.6, seed=1).save(tmp_path / "b.json")
    out = tmp_path / "new" / "compared.json"
    assert main(["compare", str(a), str(b), "--rounds", "200", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "AMOTP [m], mean of scenes" in printed and "A is better" in printed and "8 scenes, drawn 200 times" in printed
    numbers = {one["name"]: one for one in json.loads(out.read_text(encoding="utf-8"))["numbers"]}
    assert numbers["NDS"]["result"]["a"] == sample_evaluation(0.2).detection.nds
    assert f"{numbers['NDS']['result']['difference']:+.4f}" in printed


def test_compare_refuses_what_is_no_result(tmp_path, capsys):
    a = sample_evaluation(0.2).save(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    assert main(["compare", str(a), str(tmp_path / "b.json")]) == 2
    assert "b.json" in capsys.readouterr().err
    assert main(["compare", str(a), str(a), "--rounds", "3"]) == 2
    assert "--rounds" in capsys.readouterr().err
