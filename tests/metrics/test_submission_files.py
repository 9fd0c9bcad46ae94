"""Official result files: read, written, read again, and every way in which they can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from metric_boxes import CAR, PEDESTRIAN, boxes, key_frames, unpack_golden

from sparsedrive.metrics.nuscenes_truth import read_ground_truth
from sparsedrive.metrics.records import BoxRecords
from sparsedrive.metrics.submission import read_detections, read_tracks, write_detections, write_tracks

FRAMES = key_frames(3)
COLUMNS = ("frame", "center_m", "size_wlh_m", "velocity_mps", "label", "score", "attribute", "num_points")


def some_boxes() -> BoxRecords:
    return boxes(
        [2, 0, 2],
        [[1.5, 2], [-3, 4], [5, -6]],
        yaw_rad=[0.5, -3.0, 1.7],
        velocity_mps=[[1, 2], [np.nan, np.nan], [0, -1]],
        label=[CAR, PEDESTRIAN, 9],
        score=[0.25, 0.5, 0.75],
        attribute=[5, -1, -1],
        track_id=["7", "8", "9"],
        num_points=-1,
    )


def assert_same(one: BoxRecords, other: BoxRecords, names: tuple[str, ...] = COLUMNS) -> None:
    for name in names:
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert np.cos(one.yaw_rad - other.yaw_rad) == pytest.approx(np.ones(len(one)))


def test_detections_come_back(tmp_path):
    path, expected = tmp_path / "results.json", some_boxes()[np.array([1, 0, 2])]  # files are by frame
    write_detections(path, some_boxes(), FRAMES)
    again = read_detections(path, FRAMES)
    assert_same(again, expected)
    assert (again.track_id == "").all()
    write_detections(path, again[:0], FRAMES)
    assert len(read_detections(path, FRAMES)) == 0


def test_tracks_come_back_without_the_classes_that_are_not_tracked(tmp_path):
    path = tmp_path / "results.json"
    write_tracks(path, some_boxes(), FRAMES)
    again = read_tracks(path, FRAMES)
    assert_same(again, some_boxes()[np.array([1, 0])], tuple(name for name in COLUMNS if name != "attribute"))
    assert again.track_id.tolist() == ["8", "7"]


def test_published_files_come_back(tmp_path):
    tables, files = unpack_golden(tmp_path)
    frames = read_ground_truth(tables).frames
    for read, write, path in ((read_detections, write_detections, files["detection"]), (read_tracks, write_tracks, files["tracking"])):
        before = read(path, frames)
        write(tmp_path / "again.json", before, frames)
        assert_same(read(tmp_path / "again.json", frames), before)


def broken(tmp_path: Path, change) -> Path:
    """A detection file with one box in the first frame, after `change(content, box)`."""
    path = tmp_path / "results.json"
    write_detections(path, boxes([0], [[1, 2]], num_points=-1), FRAMES)
    content = json.loads(path.read_text())
    change(content, content["results"]["frame0"][0])
    path.write_text(json.dumps(content))
    return path


def of_box(name: str, value: object):
    return lambda content, box: box.__setitem__(name, value)


def of_results(name: str, value: object):
    return lambda content, box: content["results"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content, box: content.pop("results"), "found no object 'results'"),
        (lambda content, box: content.pop("meta"), "found no object 'meta'"),
        (of_results("elsewhere", []), "1 sample tokens are none of the 3 key frames, such as 'elsewhere'"),
        (lambda content, box: content["results"].pop("frame1"), "1 of 3 key frames are missing, such as 'frame1'"),
        (of_results("frame1", {}), "sample 'frame1': expected a list of boxes"),
        (of_results("frame1", [{}] * 501), "sample 'frame1' has 501 boxes; at most 500"),
        (of_box("sample_token", "frame1"), "sample 'frame0', box 0: its sample_token is 'frame1'"),
        (lambda content, box: box.pop("velocity"), "sample 'frame0', box 0: no field 'velocity'; it has "),
        (of_box("detection_score", float("nan")), "detection_score is nan; expected a finite number"),
        (of_box("detection_score", "0.5"), "detection_score is '0.5'; expected a finite number"),
        (of_box("detection_score", None), "detection_score is None; expected a finite number"),
        (of_box("translation", [1.0, 2.0]), r"translation is \[1.0, 2.0\]; expected 3 finite numbers"),
        (of_box("translation", [1.0, 2.0, float("inf")]), r"translation is \[1.0, 2.0, inf\]; expected 3 finite numbers"),
        (of_box("velocity", 3.0), "velocity is 3.0; expected 2 finite numbers"),
        (of_box("velocity", [1.0, float("inf")]), "expected 2 finite numbers"),
        (of_box("size", [1.0, 0.0, 2.0]), "expected a positive width, length and height"),
        (of_box("rotation", [0, 0, 0, 0]), "expected a quaternion w x y z that is not 0"),
        (of_box("detection_name", "pedestrain"), "detection_name is 'pedestrain'; expected one of .* perhaps 'pedestrian'"),
        (of_box("detection_name", ["car"]), "expected one of"),
        (of_box("attribute_name", "vehicle.flying"), "attribute_name is 'vehicle.flying'; expected one of"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path, change, message):
    path = broken(tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        read_detections(path, FRAMES)
    assert str(path) in str(error.value)


def test_the_box_that_is_wrong_is_named(tmp_path):
    path = tmp_path / "results.json"
    write_detections(path, boxes([0, 0, 2, 2], np.zeros((4, 2))), FRAMES)
    content = json.loads(path.read_text())
    content["results"]["frame2"][1]["detection_score"] = None
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="sample 'frame2', box 1: detection_score is None"):
        read_detections(path, FRAMES)


def test_a_tracking_file_must_be_one(tmp_path):
    path = tmp_path / "results.json"
    write_detections(path, some_boxes(), FRAMES)
    with pytest.raises(ValueError, match="no field 'tracking_name'"):
        read_tracks(path, FRAMES)
    write_tracks(path, some_boxes(), FRAMES)
    content = json.loads(path.read_text())
    content["results"]["frame0"][0]["tracking_name"] = "barrier"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="tracking_name is 'barrier'; expected one of"):
        read_tracks(path, FRAMES)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_detections(tmp_path / "none.json", FRAMES)
    (tmp_path / "cut.json").write_text('{"meta": {}, "results": {"a')
    with pytest.raises(ValueError, match=r"cut\.json: malformed JSON"):
        read_detections(tmp_path / "cut.json", FRAMES)


def test_what_cannot_be_written(tmp_path):
    many = boxes([1] * 501, np.zeros((501, 2)))
    with pytest.raises(ValueError, match="'frame1' has 501 boxes"):
        write_detections(tmp_path / "a.json", many, FRAMES)
    with pytest.raises(ValueError, match="2 boxes have no track_id"):
        write_tracks(tmp_path / "a.json", many[:2], FRAMES)
    with pytest.raises(ValueError, match=r"differs in \['use_sonar'\]"):
        write_detections(tmp_path / "a.json", many[:1], FRAMES, {**dict.fromkeys(
            ("use_camera", "use_lidar", "use_radar", "use_map", "use_external"), True), "use_sonar": True})  # fmt: skip
    assert not list(tmp_path.iterdir())
