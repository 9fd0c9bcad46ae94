"""Detection metrics: the official numbers, cases computed by hand, and what must hold for any boxes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from golden_metrics import numbers as published_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_boxes import (
    BICYCLE,
    CAR,
    CASES,
    MINI_VAL,
    boxes,
    case_boxes,
    case_truth,
    golden_metrics,
    key_frames,
    largest_difference,
    real_folder,
    unpack_golden,
)

from sparsedrive.metrics import pairs
from sparsedrive.metrics.detection import ERRORS, RECALLS, DetectionConfig, average_precision, evaluate_detection
from sparsedrive.metrics.nuscenes_truth import read_ground_truth
from sparsedrive.metrics.records import ATTRIBUTES, BikeRacks, GroundTruth
from sparsedrive.metrics.submission import read_detections
from sparsedrive.structures import DETECTION_CLASSES

ONLY_CARS = DetectionConfig(range_of_class_m={"car": 50.0})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['truth']['frame'])} boxes")
def test_official_numbers_of_crowded_worlds(case):
    metrics = evaluate_detection(case_truth(case), case_boxes(case, "predictions"))
    assert largest_difference(metrics.summary(), case["official"]["detection"]) < 1e-9


@pytest.mark.parametrize("name", ["cc3dt", "gt_perturbed"])
def test_official_numbers_of_real_scenes(name):
    root = real_folder()
    truth = read_ground_truth(root / "v1.0-mini", MINI_VAL)
    file = {"cc3dt": "cc_3dt_pure_det", "gt_perturbed": "gt_perturbed_det"}[name]
    metrics = evaluate_detection(truth, read_detections(root / "results" / f"{file}.json", truth.frames))
    official = json.loads((root / "reference" / f"{name}_detection_metrics.json").read_text())
    assert largest_difference(metrics.summary(), official) < 1e-6
    counts = official["counts"]["gt_after_filter"] if "counts" in official else {}
    assert {name: count for name, count in zip(metrics.classes, metrics.num_truth, strict=True) if count} == counts or not counts


def test_official_numbers_of_the_synthetic_log(tmp_path):
    tables, files = unpack_golden(tmp_path)
    truth = read_ground_truth(tables)
    metrics = evaluate_detection(truth, read_detections(files["detection"], truth.frames))
    official = json.loads((golden_metrics() / "detection_metrics_summary.json").read_text())
    assert len(truth.racks.frame) and largest_difference(metrics.summary(), official) < 1e-6
    published = {name.removeprefix("img_bbox_NuScenes/"): value for name, value in published_numbers("detection").items()}
    ours = {"mAP": metrics.mean_ap, "NDS": metrics.nds}
    assert ours == pytest.approx({name: published.pop(name) for name in ours}, abs=1e-6)
    ours = dict(zip(("mATE", "mASE", "mAOE", "mAVE", "mAAE"), metrics.mean_error, strict=True))
    for row, name in enumerate(metrics.classes):
        ours |= {f"{name}_AP_dist_{distance_m}": ap for distance_m, ap in zip(metrics.config.distances_m, metrics.ap[row], strict=True)}
        ours |= {f"{name}_{error}": value for error, value in zip(ERRORS, metrics.error[row], strict=True)}
    assert ours == pytest.approx(published, abs=5.1e-5, nan_ok=True)  # printed with four digits


def every_class() -> GroundTruth:
    """Two of each class in two frames, with all that can be compared."""
    label = np.tile(np.repeat(np.arange(10), 2), 2)
    count = len(label)
    rng = np.random.default_rng(0)
    truth = boxes(
        np.repeat([0, 1], count // 2),
        np.stack([np.arange(count) % 20 - 10.0, np.full(count, 3.0)], -1),
        label=label,
        score=np.linspace(0.9, 0.1, count),
        attribute=label % len(ATTRIBUTES),
        yaw_rad=rng.uniform(-3, 3, count),
        velocity_mps=rng.normal(size=(count, 2)),
    )
    return GroundTruth(frames=key_frames(2), boxes=truth)


def test_perfect_predictions():
    truth = every_class()
    metrics = evaluate_detection(truth, truth.boxes)
    assert metrics.mean_ap == pytest.approx(1) and metrics.nds == pytest.approx(1)
    assert np.array_equal(metrics.matched_truth, np.arange(len(truth.boxes)))
    undefined = {
        (row, name) for row, values in zip(metrics.classes, metrics.error, strict=True) for name in np.array(ERRORS)[np.isnan(values)]
    }
    expected = {("traffic_cone", name) for name in ERRORS[2:]} | {("barrier", name) for name in ERRORS[3:]}
    assert undefined == expected


def test_nothing_predicted():
    truth = every_class()
    metrics = evaluate_detection(truth, truth.boxes[np.zeros(0, int)])
    assert metrics.mean_ap == 0 and metrics.nds == 0 and (metrics.mean_error == 1).all()


def test_nothing_annotated():
    truth = every_class()
    metrics = evaluate_detection(replace(truth, boxes=truth.boxes[np.zeros(0, int)]), truth.boxes)
    assert metrics.mean_ap == 0 and metrics.nds == 0 and (metrics.matched_truth == -1).all()


def test_shifted_boxes_have_that_translation_error():
    truth = every_class()
    metrics = evaluate_detection(truth, replace(truth.boxes, center_m=truth.boxes.center_m + np.array([0.0, 0.75, 9.0])))
    assert metrics.mean_error == pytest.approx([0.75, 0, 0, 0, 0])
    assert metrics.ap.mean(0) == pytest.approx([0, 1, 1, 1])  # the height does not count


def test_turned_boxes_have_that_orientation_error_and_barriers_look_the_same_from_behind():
    truth = every_class()
    for turn_rad, error, of_barrier in (
        (0.3, 0.3, 0.3),
        (-np.pi, np.pi, 0.0),
        (2 * np.pi - 0.2, 0.2, 0.2),
        (np.pi - 0.1, np.pi - 0.1, 0.1),
    ):
        metrics = evaluate_detection(truth, replace(truth.boxes, yaw_rad=truth.boxes.yaw_rad + turn_rad))
        orientation = dict(zip(metrics.classes, metrics.error[:, ERRORS.index("orient_err")], strict=True))
        assert orientation["car"] == pytest.approx(error) and orientation["barrier"] == pytest.approx(of_barrier, abs=1e-9)


def test_one_hit_and_one_false_positive():
    truth = GroundTruth(frames=key_frames(1), boxes=boxes([0], [0, 0]))
    metrics = evaluate_detection(truth, boxes([0, 0], [[0.3, 0], [10, 0]], score=[0.9, 0.8]), ONLY_CARS)
    # Precision 1 below recall 1, where the false positive has come too: 89 of 90 recalls.
    assert metrics.ap == pytest.approx(np.full((1, 4), (89 * 0.9 + 0.4) / 90 / 0.9))
    assert metrics.error[0, 0] == pytest.approx(0.3)
    assert metrics.matched_truth.tolist() == [0, -1]
    metrics = evaluate_detection(truth, boxes([0, 0], [[0.3, 0], [10, 0]], score=[0.8, 0.9]), ONLY_CARS)
    # Precision 0 at recall 0, a half at recall 1, linear between: over 0.1 from recall 0.2 on.
    assert metrics.ap == pytest.approx(np.full((1, 4), np.maximum(RECALLS[11:] / 2 - 0.1, 0).mean() / 0.9))


def test_the_better_score_chooses_first_and_of_equal_scores_the_later_box():
    truth = GroundTruth(frames=key_frames(1), boxes=boxes([0, 0], [[0, 0], [1.5, 0]]))
    places = [[0.1, 0], [0.2, 0]]  # both nearest to the first annotation
    assert evaluate_detection(truth, boxes([0, 0], places, score=[0.9, 0.8]), ONLY_CARS).matched_truth.tolist() == [0, 1]
    assert evaluate_detection(truth, boxes([0, 0], places, score=[0.8, 0.9]), ONLY_CARS).matched_truth.tolist() == [1, 0]
    assert evaluate_detection(truth, boxes([0, 0], places, score=[0.8, 0.8]), ONLY_CARS).matched_truth.tolist() == [1, 0]


def test_boxes_of_other_frames_and_classes_do_not_match():
    truth = GroundTruth(frames=key_frames(2), boxes=boxes([0], [0, 0]))
    predictions = boxes([1, 0], [[0, 0], [0, 0]], label=[CAR, CAR + 1])
    assert evaluate_detection(truth, predictions).matched_truth.tolist() == [-1, -1]


def test_boxes_without_points_out_of_range_or_in_a_rack_do_not_count():
    places = [[0, 0], [49.9, 0], [50, 0], [39.9, 0], [40, 0], [0, 10], [0, 12]]
    label = [CAR, CAR, CAR, BICYCLE, BICYCLE, BICYCLE, CAR]
    quarter_turn = np.array([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    rack = BikeRacks(frame=np.array([0]), center_m=np.array([[0, 12.0, 0]]), size_wlh_m=np.array([[2.0, 5, 1]]), rotation=quarter_turn)
    truth = GroundTruth(frames=key_frames(2), boxes=boxes([0] * 7, places, label=label, num_points=[0] + [1] * 6), racks=rack)
    counts = evaluate_detection(truth, boxes([0] * 7, places, label=label, num_points=-1))
    numbers = dict(zip(counts.classes, zip(counts.num_truth.tolist(), counts.num_predictions.tolist(), strict=True), strict=True))
    assert {name: number for name, number in numbers.items() if any(number)} == {"car": (2, 3), "bicycle": (1, 1)}
    assert counts.matched_truth.tolist() == [-1, 1, -2, 3, -2, -2, 6]
    elsewhere = replace(truth, racks=replace(rack, frame=np.array([1])))
    assert evaluate_detection(elsewhere, boxes([0] * 7, places, label=label, num_points=-1)).matched_truth.tolist() == [
        -1,
        1,
        -2,
        3,
        -2,
        5,
        6,
    ]


def test_unknown_velocities_and_attributes_are_left_out():
    truth = boxes([0, 0], [[0, 0], [10, 0]], velocity_mps=[[np.nan, np.nan], [1, 0]], attribute=[-1, 5])
    predictions = boxes([0, 0], [[0, 0], [10, 0]], velocity_mps=[[5, 5], [1, 2]], attribute=[3, 5], score=[0.4, 0.9])
    metrics = evaluate_detection(GroundTruth(frames=key_frames(1), boxes=truth), predictions, ONLY_CARS)
    assert metrics.error[0, 3:] == pytest.approx([2, 0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_boxes_and_frames_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth, predictions = case_truth(CASES[0]), case_boxes(CASES[0], "predictions")
    predictions = replace(predictions, score=rng.permutation(len(predictions)) / len(predictions))
    before = evaluate_detection(truth, predictions).summary()
    frames, new_frame = truth.frames, rng.permutation(len(truth.frames))
    old_frame = np.argsort(new_frame)
    shuffled = GroundTruth(
        frames=replace(
            frames,
            tokens=tuple(frames.tokens[old] for old in old_frame),
            scene=frames.scene[old_frame],
            timestamp_us=frames.timestamp_us[old_frame],
            car_xy_m=frames.car_xy_m[old_frame],
        ),
        boxes=replace(truth.boxes, frame=new_frame[truth.boxes.frame])[rng.permutation(len(truth.boxes))],
    )
    moved = replace(predictions, frame=new_frame[predictions.frame])[rng.permutation(len(predictions))]
    assert largest_difference(evaluate_detection(shuffled, moved).summary(), before) < 1e-12


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), left=st.integers(0, 12), right=st.integers(0, 12))
def test_choosing_in_turn_is_the_plain_loop(seed, left, right):
    rng = np.random.default_rng(seed)
    chooser, chosen = (index.ravel() for index in np.meshgrid(np.arange(left), np.arange(right), indexing="ij"))
    kept = rng.random(len(chooser)) < 0.6
    chooser, chosen = chooser[kept], chosen[kept]
    distance_m = rng.integers(0, 5, len(chooser)).astype(float)  # many equal ones
    expected, taken = np.full(left, -1), set()
    for index in range(left):
        free = [(away, other) for one, other, away in zip(chooser, chosen, distance_m, strict=True) if one == index and other not in taken]
        if free:
            expected[index] = min(free)[1]
            taken.add(min(free)[1])
    shuffled = rng.permutation(len(chooser))
    found = pairs.choose_in_turn(chooser[shuffled], chosen[shuffled], distance_m[shuffled], left, right)
    assert np.array_equal(found, expected)


def test_pairs_do_not_depend_on_the_slices(monkeypatch):
    rng = np.random.default_rng(0)
    frames, places = (rng.integers(0, 4, 30), rng.integers(2, 6, 50)), (rng.uniform(-3, 3, (30, 2)), rng.uniform(-3, 3, (50, 2)))
    whole = pairs.pairs_within(frames[0], places[0], frames[1], places[1], 2.0)
    monkeypatch.setattr(pairs, "_PAIRS_AT_ONCE", 10)
    sliced = pairs.pairs_within(frames[0], places[0], frames[1], places[1], 2.0)
    distance_m = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1)
    left, right = np.nonzero((frames[0][:, None] == frames[1][None]) & (distance_m < 2.0))
    for found in (whole, sliced):
        assert np.array_equal(found[0], left) and np.array_equal(found[1], right)
        assert found[2] == pytest.approx(distance_m[left, right], abs=1e-12)


def test_hits_at_every_distance():
    truth, predictions = case_truth(CASES[1]), case_boxes(CASES[1], "predictions")
    metrics = evaluate_detection(truth, predictions)
    assert (np.diff(metrics.hit.sum(0)) > 0).all()  # a larger distance finds more
    for column, distance_m in enumerate(metrics.config.distances_m):
        alone = evaluate_detection(truth, predictions, DetectionConfig(distances_m=(distance_m,), tp_distance_m=distance_m))
        assert np.array_equal(metrics.hit[:, column], alone.matched_truth >= 0)


def test_average_precision_is_that_of_the_whole_evaluation():
    truth, predictions = case_truth(CASES[1]), case_boxes(CASES[1], "predictions")
    metrics = evaluate_detection(truth, predictions)
    for row, name in enumerate(metrics.classes):
        there, said = (side[side.label == DETECTION_CLASSES.index(name)] for side in (truth.boxes, predictions))
        for column, distance_m in enumerate(metrics.config.distances_m):
            arrays = (there.frame, there.center_m[:, :2], said.frame, said.center_m[:, :2], said.score)
            assert average_precision(*arrays, distance_m) == metrics.ap[row, column]


def test_wrong_input_is_refused():
    truth = GroundTruth(frames=key_frames(2), boxes=boxes([0], [0, 0]))
    with pytest.raises(ValueError, match=r"predictions: boxes lie in frames 1\.\.2, expected 0\.\.1"):
        evaluate_detection(truth, boxes([1, 2], np.zeros((2, 2))))
    with pytest.raises(ValueError, match=r"predictions: row 1 has size .* expected positive"):
        evaluate_detection(truth, boxes([0, 0], np.zeros((2, 2)), size_wlh_m=[[1.0, 1, 1], [1, 0, 1]]))
    with pytest.raises(ValueError, match=r"score: row 1 is nan"):
        boxes([0, 0], np.zeros((2, 2)), score=[0.5, np.nan])
    with pytest.raises(ValueError, match=r"expected 2 rows .*'score': \(3,\)"):
        boxes([0, 0], np.zeros((2, 2)), score=[0.5, 0.4, 0.3])
    with pytest.raises(ValueError, match="detection classes"):
        boxes([0], np.zeros((1, 2)), label=[10])
    with pytest.raises(ValueError, match="unknown classes \\['cars'\\]"):
        DetectionConfig(range_of_class_m={"cars": 50.0})
    with pytest.raises(ValueError, match="none of distances_m"):
        DetectionConfig(distances_m=(0.5, 1.0))
    with pytest.raises(ValueError, match="stands for two frames"):
        replace(key_frames(2), tokens=("a", "a"))
