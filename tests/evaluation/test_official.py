"""Official result files, and the devkit's numbers for them where it is installed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from truth_samples import truth_as_predictions

from sparsedrive.evaluation import official
from sparsedrive.evaluation.official import Comparison, check_devkit, compare, largest_difference, write_submissions
from sparsedrive.evaluation.predictions import PredictionSet
from sparsedrive.evaluation.run import evaluate, evaluate_files
from sparsedrive.metrics.tracking import TRACKING_CLASSES

FILES = (
    (("cc3dt_detection", "cc3dt_greedy_tracking"), "cc_3dt_pure_det.json", "cc3dt_greedy_tracks.json"),
    (("gt_perturbed_detection", "gt_perturbed_tracking"), "gt_perturbed_det.json", "gt_perturbed_tracks.json"),
)
"""Names of the reference numbers, and of the detection and the tracking file."""


@pytest.fixture(scope="module")
def noisy(drive) -> PredictionSet:
    """Boxes moved, scored and named with some chance."""
    perfect, random = truth_as_predictions(drive, "train"), np.random.default_rng(1)
    box = perfect.boxes.box + random.normal(0, 0.6, perfect.boxes.box.shape) * [1, 1, 0, 0.1, 0.1, 0.1, 0.3, 1, 1, 0]
    box[:, 3:6] = np.abs(box[:, 3:6]) + 0.1
    strange = random.random(len(box)) < 0.1
    track = np.where(strange, 10_000 + np.arange(len(box)), perfect.boxes.track_id)
    return replace(perfect, boxes=replace(perfect.boxes, box=box, score=random.random(len(box)), track_id=track))


def test_files_name_every_frame_and_give_the_same_numbers(noisy, drive, tmp_path):
    paths = write_submissions(tmp_path / "new", noisy, drive)
    contents = [json.loads(path.read_text()) for path in paths]
    assert all(tuple(content["results"]) == noisy.frames.tokens for content in contents)
    assert {box["tracking_name"] for boxes in contents[1]["results"].values() for box in boxes} <= set(TRACKING_CLASSES)
    assert sum(map(len, contents[0]["results"].values())) == len(noisy.boxes.box) > sum(map(len, contents[1]["results"].values()))
    direct = evaluate(noisy, drive, date="d", tasks=["det", "track"])
    read = evaluate_files(drive, "train", detections=paths[0], tracks=paths[1], library="1", date="d")
    assert read.detection.nds == pytest.approx(direct.detection.nds, abs=1e-9)
    assert read.detection.error == pytest.approx(direct.detection.error, abs=1e-9, nan_ok=True)
    assert read.tracking.mean_amota == pytest.approx(direct.tracking.mean_amota, abs=1e-9)
    assert 0.1 < direct.detection.mean_ap < 0.49 and 0.1 < direct.tracking.mean_amota < 0.95


def test_the_devkit_agrees_on_detection(noisy, drive, tmp_path):
    pytest.importorskip("nuscenes.nuscenes", reason="no devkit; pip install --no-deps -r requirements-oracle.txt")
    result = evaluate(noisy, drive, date="d", tasks=["det"])
    detections, tracks = write_submissions(tmp_path, noisy, drive)
    pairs = compare(result, drive, detections, tracks)
    assert len(pairs) == 2 + 5 + 10 and pairs[0].official > 0.1 and largest_difference(pairs) < 1e-9


def test_the_devkit_agrees_on_tracking(noisy, drive, tmp_path):
    pytest.importorskip("motmetrics", reason="no motmetrics; pip install --no-deps -r requirements-oracle.txt")
    pytest.importorskip("nuscenes.nuscenes", reason="no devkit; pip install --no-deps -r requirements-oracle.txt")
    result = evaluate(noisy, drive, date="d", tasks=["track"])
    _, tracks = write_submissions(tmp_path, noisy, drive)
    pairs = compare(result, drive, None, tracks)
    assert len(pairs) == 16 and pairs[0].official > 0.1 and largest_difference(pairs) < 1e-6


@pytest.mark.filterwarnings("ignore")  # the sample lacks pictures
@pytest.mark.parametrize(("name", "detections", "tracks"), FILES)
def test_official_numbers_of_real_files(real, name, detections, tracks):
    folder = real.root / "results"
    result = evaluate_files(real, "mini_val", detections=folder / detections, tracks=folder / tracks, library="1", date="d")
    detection, tracking = result.detection, result.tracking
    wanted = [json.loads((real.root / "reference" / f"{file}_metrics.json").read_text()) for file in name]
    assert detection.truth == "nuScenes tables" and tracking.truth == detection.truth
    assert detection.mean_ap == pytest.approx(wanted[0]["mean_ap"], abs=1e-6)
    assert detection.nds == pytest.approx(wanted[0]["nd_score"], abs=1e-6)
    assert dict(zip(detection.error_names, detection.mean_error, strict=True)) == pytest.approx(wanted[0]["tp_errors"], abs=1e-6)
    assert dict(zip(detection.classes, detection.ap.mean(1), strict=True)) == pytest.approx(wanted[0]["mean_dist_aps"], abs=1e-6)
    ours = dict(zip(tracking.score_names, tracking.mean, strict=True)) | {"amota": tracking.mean_amota, "amotp": tracking.mean_amotp_m}
    assert ours == pytest.approx({key: wanted[1][key] for key in ours}, abs=1e-6)


def test_what_is_not_there_is_said(drive, numbers, monkeypatch):
    monkeypatch.setattr(official.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="the nuScenes devkit is not installed; pip install"):
        check_devkit(drive, tracking=False)
    monkeypatch.setattr(official.importlib.util, "find_spec", lambda name: name if name == "nuscenes" else None)
    check_devkit(drive, tracking=False)
    with pytest.raises(ValueError, match="tracking needs motmetrics and pandas"):
        check_devkit(drive, tracking=True)
    with pytest.raises(ValueError, match=r"expected the nuScenes tables in .*, found none; the devkit cannot do without"):
        check_devkit(numbers, tracking=False)


def test_differences():
    pairs = [Comparison(name="a", ours=1.0, official=1.5), Comparison(name="b", ours=np.nan, official=np.nan)]
    assert largest_difference(pairs) == 0.5 and largest_difference([]) == 0.0
    assert largest_difference([Comparison(name="a", ours=1.0, official=np.nan)]) == np.inf
