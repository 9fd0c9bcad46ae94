import json
from dataclasses import replace

import pytest
import torch

from sparsedrive.runtime.results import StreamResults, frame_result, read_results, write_results
from sparsedrive.structures import CameraRig, Detections, Forecasts, Frame, MapElements, Plan, Scene

STEPS, MODES = 3, 2


def make_frame() -> Frame:
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, 0, 3] = 1000.123456789
    rig = CameraRig(
        image_T_ego=torch.eye(4).expand(1, 1, 4, 4),
        image_wh_px=torch.ones(1, 1, 2),
        focal_px=torch.ones(1, 1),
        available=torch.ones(1, 1, dtype=torch.bool),
        names=("CAM_FRONT",),
    )
    return Frame(
        images=torch.zeros(1, 1, 3, 2, 2),
        rig=rig,
        global_T_ego=pose,
        time_s=torch.tensor([1533151603.512404], dtype=torch.float64),
        sequence_id=torch.zeros(1, dtype=torch.long),
        ego_status=torch.zeros(1, 10),
        command=torch.tensor([1]),
    )


def make_scene() -> Scene:
    box = torch.tensor([[[1.0, 2.0, -1.0, 4.5, 1.9, 1.6, 0.25, 3.0, -0.5, 0.0], [9.0] * 10, [7.0] * 10]])
    score = torch.tensor([[0.9, 0.5, 0.1]])
    paths = torch.arange(MODES * STEPS * 2, dtype=torch.float32).reshape(MODES, STEPS, 2)
    return Scene(
        detections=Detections(
            box=box,
            score=score,
            class_score=score,
            label=torch.tensor([[0, 8, 1]]),
            track_id=torch.tensor([[4, 5, 6]]),
            query_index=torch.tensor([[0, 1, 2]]),
            valid=torch.tensor([[True, False, True]]),
        ),
        map=MapElements(
            points_m=torch.tensor([[[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]]]),
            score=torch.tensor([[0.8, 0.2]]),
            label=torch.tensor([[2, 1]]),
            valid=torch.ones(1, 2, dtype=torch.bool),
        ),
        forecasts=Forecasts(
            trajectory_m=paths.expand(1, 3, MODES, STEPS, 2),
            mode_score=torch.tensor([[[0.2, 0.7]] * 3]),
            history_box=torch.zeros(1, 3, 1, 10),
            period=torch.ones(1, 3, dtype=torch.long),
        ),
        plan=Plan(
            trajectory_m=paths[:1],
            all_trajectories_m=paths.expand(1, 3, MODES, STEPS, 2) + 100 * torch.arange(3)[:, None, None, None],
            mode_score=torch.tensor([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]]),
            mode_collides=torch.tensor([[True, False]]),
            command=torch.tensor([1]),
            history_box=torch.zeros(1, 1, 10),
            period=torch.ones(1, dtype=torch.long),
            ego_status=torch.zeros(1, 10),
        ),
    )


def make_results(scene: Scene | None = None) -> StreamResults:
    frame = frame_result(scene or make_scene(), make_frame(), "token-1", score_threshold=0.3)
    return StreamResults(sequence="scene-0001", preset="tiny", weights=None, score_threshold=0.3, frames=(frame,))


def test_what_is_written_is_read_back_equal(tmp_path):
    results = make_results()
    assert read_results(write_results(tmp_path / "a" / "results.json", results)) == results


def test_stage_1_has_neither_forecasts_nor_plan(tmp_path):
    results = make_results(replace(make_scene(), forecasts=None, plan=None))
    assert results.frames[0].plan is None and results.frames[0].detections[0].forecast is None
    assert read_results(write_results(tmp_path / "results.json", results)) == results


def test_rows_are_the_valid_ones_above_the_threshold():
    frame = make_results().frames[0]
    assert [(item.class_name, item.track_id) for item in frame.detections] == [("car", 4)]
    assert [item.class_name for item in frame.map] == ["boundary"]


def test_numbers_keep_unit_order_and_precision():
    frame = make_results().frames[0]
    car = frame.detections[0]
    assert (car.centre_m, car.size_lwh_m, car.yaw_rad, car.velocity_mps) == ((1.0, 2.0, -1.0), (4.5, 1.9, 1.6), 0.25, (3.0, -0.5))
    assert frame.time_s == 1533151603.512404 and frame.global_T_ego[0][3] == 1000.123456789
    assert frame.map[0].points_m == ((0.0, 1.0), (2.0, 3.0))


def test_forecasts_come_likeliest_first():
    forecast = make_results().frames[0].detections[0].forecast
    assert forecast is not None
    assert forecast.mode_score == (0.7, 0.2)
    assert forecast.trajectories_m[0][0] == (6.0, 7.0)


def test_plan_modes_are_those_of_the_command():
    plan = make_results().frames[0].plan
    assert plan is not None
    assert (plan.command, plan.mode_score, plan.mode_collides) == ("left", (0.3, 0.4), (True, False))
    assert plan.modes_m[0][0] == (100.0, 101.0)


def test_nan_is_refused_and_the_old_file_survives(tmp_path):
    path = write_results(tmp_path / "results.json", make_results())
    before = path.read_bytes()
    scene = make_scene()
    broken = replace(scene, plan=replace(scene.plan, trajectory_m=scene.plan.trajectory_m * float("nan")))
    with pytest.raises(ValueError, match="expected finite results, got NaN"):
        write_results(path, make_results(broken))
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_a_failing_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    from pathlib import Path

    path = write_results(tmp_path / "results.json", make_results())
    before = path.read_bytes()

    def full_disk(self: Path, text: str, **_) -> None:
        self.write_bytes(text[:10].encode())
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_results(path, make_results())
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["results.json"]


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["frames"][0]["detections"][0].update(score="high"),
            r"frames\[0\]\.detections\[0\]\.score: expected float, got 'high'",
        ),
        (lambda c: c["frames"][0]["detections"][0].update(score=True), r"score: expected float, got True"),
        (lambda c: c["frames"][0]["detections"][0].update(track_id=1.5), r"track_id: expected int, got 1\.5"),
        (lambda c: c["frames"][0]["detections"][0]["centre_m"].pop(), r"centre_m: expected 3 values, got 2"),
        (lambda c: c["frames"][0].pop("token"), r"frames\[0\]: expected the keys"),
        (lambda c: c["frames"][0].update(map=None), r"frames\[0\]\.map: expected a list, got None"),
        (lambda c: c.update(extra=1), r"results\.json: results: expected the keys"),
        (lambda c: c.update(schema="other"), r"expected schema 'sparsedrive-results', got 'other'"),
        (lambda c: c.update(schema_version=99), r"expected schema_version 1, got 99; read it with the version"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, change, message):
    path = write_results(tmp_path / "results.json", make_results())
    edit(path, change)
    with pytest.raises(ValueError, match=message):
        read_results(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json: expected"):
        read_results(path)


def test_a_missing_file_says_where_results_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*; `sparsedrive stream` writes results\.json"):
        read_results(tmp_path / "results.json")


def test_a_batch_is_refused():
    scene, frame = make_scene(), make_frame()
    twice = replace(scene, detections=replace(scene.detections, box=scene.detections.box.repeat(2, 1, 1)))
    with pytest.raises(ValueError, match="expected a batch of 1, got a frame of 1 and a scene of 2"):
        frame_result(twice, frame, "token")
