"""A model streamed over a split: every frame once, the same numbers for every batch size, from the model or from a file."""

from dataclasses import fields, replace

import model_samples
import numpy as np
import pytest
from truth_samples import truth_as_predictions

from sparsedrive.data.dataset import LoadConfig
from sparsedrive.data.loader import make_loader
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.targets import TargetConfig
from sparsedrive.evaluation.predictions import MIN_FORECAST_SCORE, PredictionSet
from sparsedrive.evaluation.results import Evaluation
from sparsedrive.evaluation.run import check_tasks, evaluate, evaluate_files, predict
from sparsedrive.metrics.records import KeyFrames
from sparsedrive.metrics.submission import write_detections
from sparsedrive.runtime.session import StreamingSession
from sparsedrive.structures import ParityOptions

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")


def build(stage: int = 2, **changes):
    """All rows stay: which boxes of random weights share a place hangs on the last bits."""
    return model_samples.build(replace(model_samples.config(stage=stage), camera_names=CAMERAS, no_duplicates=False, **changes))


def run(model, data, split="train", **options) -> PredictionSet:
    return predict(model, data, split, **({"weights": "some.safetensors", "library": "1.2", "workers": 0} | options))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def one_by_one(model, numbers) -> PredictionSet:
    return run(model, numbers)


def columns(predictions: PredictionSet) -> dict[str, np.ndarray]:
    parts = {"boxes": predictions.boxes, "lines": predictions.lines, "forecasts": predictions.forecasts}
    found = {f"{name}.{item.name}": getattr(part, item.name) for name, part in parts.items() if part is not None for item in fields(part)}
    return found | {"plan_m": predictions.plan_m}


def test_a_session_says_the_same(model, one_by_one, numbers):
    """Frame for frame the same as streaming by hand, scene after scene."""
    config = LoadConfig(
        camera_names=CAMERAS, preprocess=ImagePreprocess(final_wh_px=model.config.image_wh_px), targets=TargetConfig(depth_strides=())
    )
    loader = make_loader(numbers, "train", config, training=False, workers=0)
    session, row = StreamingSession(model), 0
    for frame, _ in loader:
        scene = session.step(frame)
        boxes = slice(*one_by_one.boxes.splits[row : row + 2])
        assert np.array_equal(one_by_one.boxes.box[boxes], scene.detections.box[0].numpy())
        assert np.array_equal(one_by_one.boxes.track_id[boxes], scene.detections.track_id[0].numpy())
        assert np.array_equal(one_by_one.plan_m[row], scene.plan.trajectory_m[0].numpy())
        row += 1
    assert row == len(one_by_one.frames.tokens) == 27
    futures = one_by_one.forecasts
    believed = np.flatnonzero(one_by_one.boxes.score >= MIN_FORECAST_SCORE)
    assert 0 < len(believed) < len(one_by_one.boxes.score) and np.array_equal(futures.row, believed)


def test_no_number_depends_on_the_batch(model, one_by_one, numbers):
    for batch_size in (2, 4):  # more streams than scenes: some only pad
        other = run(model, numbers, batch_size=batch_size)
        assert other.frames.tokens == one_by_one.frames.tokens
        for name, values in columns(one_by_one).items():
            close = np.isclose(columns(other)[name], values, rtol=1e-2, atol=1e-2)
            assert close.mean() > 0.995, name  # sums in other orders; a few numbers of random weights make much of it


def test_a_saved_file_stands_for_the_model(one_by_one, numbers, tmp_path):
    loaded = PredictionSet.load(one_by_one.save(tmp_path / "predictions.json"))
    first, again = (evaluate(some, numbers, date="d") for some in (one_by_one, loaded))
    first.save(tmp_path / "first.json")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    assert first.header.weights == "some.safetensors" and first.header.preset == "sample_stage2" and first.header.library == "1.2"
    assert all(getattr(first, item.name) is not None for item in fields(Evaluation))


def test_a_model_without_a_plan(numbers):
    predictions = run(build(stage=1, parity=ParityOptions(stale_memory_attention=True)), numbers, split="val")
    result = evaluate(predictions, numbers, date="d")
    assert result.planning is None and result.forecasting is None and result.detection is not None
    assert "preset 'sample_stage1' has no motion and no plan" in result.header.notes
    assert result.header.parity == ("stale_memory_attention",)


def test_tasks_are_chosen(numbers):
    result = evaluate(truth_as_predictions(numbers, "val"), numbers, date="d", tasks=["plan", "det"])
    assert result.detection is not None and result.planning is not None
    assert result.tracking is result.map is result.forecasting is None
    assert check_tasks(["plan", "det", "det"]) == ("det", "plan")
    with pytest.raises(ValueError, match="expected some of det, track, map, motion, plan, got 'fly'"):
        evaluate(truth_as_predictions(numbers, "val"), numbers, date="d", tasks=["fly"])
    with pytest.raises(ValueError, match="got none"):
        check_tasks([])


def test_what_a_reader_must_know_is_noted(model, numbers):
    result = evaluate(run(model, numbers, split="val", weights=None), numbers, date="d", tasks=["det"])
    assert "the weights were random: the numbers mean nothing" in result.header.notes
    assert any("without the nuScenes tables no attribute is known" in note for note in result.header.notes)
    assert result.detection is not None and result.detection.truth.startswith("prepared data") and result.header.weights is None


def test_progress_goes_to_the_end(model, numbers):
    seen: list[tuple[str, int, int]] = []
    predictions = run(model, numbers, split="val", batch_size=2, progress=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == list(range(1, 9)) and {total for *_, total in seen} == {8}
    evaluate(predictions, numbers, date="d", tasks=["map", "det"], progress=lambda *step: seen.append(step))
    assert seen[-3:] == [("metrics: det", 0, 2), ("metrics: map", 1, 2), ("metrics", 2, 2)]


def test_predictions_of_other_frames_are_refused(one_by_one, numbers, drive):
    other = replace(one_by_one, split="val")
    with pytest.raises(ValueError, match=r"expected the 8 frames of split 'val' in .*, got 27 frames \(0 missing, 19 unknown\)"):
        evaluate(other, numbers, date="d")
    with pytest.raises(ValueError, match=r"split 'val' has no scenes; choose one of \['train'\]"):
        evaluate(other, drive, date="d")
    with pytest.raises(ValueError, match="expected one of"):
        evaluate(replace(one_by_one, split="test"), numbers, date="d")


def test_broken_predictions_are_refused(one_by_one, numbers, tmp_path):
    boxes = one_by_one.boxes
    score = boxes.score.copy()
    score[7] = np.nan
    cases = {
        "boxes.score: row 7 has NaN": replace(one_by_one, boxes=replace(boxes, score=score)),
        "boxes.label: expected": replace(one_by_one, boxes=replace(boxes, label=boxes.label[:-1])),
        "boxes.splits: expected 28 numbers": replace(one_by_one, boxes=replace(boxes, splits=boxes.splits[:-1])),
        "plan_m: expected 27 rows, got 26": replace(one_by_one, plan_m=one_by_one.plan_m[1:]),
        "forecasts.row: expected rows of": replace(
            one_by_one, forecasts=replace(one_by_one.forecasts, row=one_by_one.forecasts.row + len(boxes.box))
        ),
    }
    for message, predictions in cases.items():
        with pytest.raises(ValueError, match=message):
            PredictionSet.load(predictions.save(tmp_path / "broken.json"))


def test_official_files_are_judged_like_predictions(drive, tmp_path):
    from sparsedrive.evaluation.predictions import box_records
    from sparsedrive.evaluation.truth import key_frames, read_split

    truth = read_split(drive, "train")
    predictions = truth_as_predictions(drive, "train")
    frames: KeyFrames = key_frames(truth)
    write_detections(tmp_path / "det.json", box_records(predictions, truth.global_T_ego), frames)
    result = evaluate_files(drive, "train", detections=tmp_path / "det.json", tracks=None, library="1", date="d")
    direct = evaluate(predictions, drive, date="d", tasks=["det"])
    assert result.tracking is None and result.detection.nds == pytest.approx(direct.detection.nds, abs=1e-9)
    assert result.header.weights == "det.json" and result.header.preset == "result files"
    with pytest.raises(ValueError, match="a detection file, a tracking file or both"):
        evaluate_files(drive, "train", detections=None, tracks=None, library="1", date="d")
