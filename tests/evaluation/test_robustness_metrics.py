"""The blind sector by hand: who sees a point, where boxes and lines are counted, and differences between two models."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_samples import SPLIT, noisy_predictions, sample_data

from sparsedrive.evaluation.predictions import box_records, map_lines
from sparsedrive.evaluation.robustness_metrics import (
    averaged,
    blind_ap_difference,
    blind_rows,
    box_ap_parts,
    box_sectors,
    line_ap_parts,
    line_sectors,
    seen_by,
)
from sparsedrive.evaluation.truth import SplitTruth, box_truth, key_frames, map_truth, read_split
from sparsedrive.metrics.mapping import MapLines
from sparsedrive.metrics.records import BoxRecords, GroundTruth
from sparsedrive.structures import NUSCENES_CAMERAS

CAMERAS = NUSCENES_CAMERAS
FRAME = 3
"""Cameras of the sample are 90 degrees wide and 60 apart, clockwise from the front: alone from -15 to 15 degrees, then two at once."""


@pytest.fixture(scope="module")
def truth() -> SplitTruth:
    return read_split(sample_data(), SPLIT)


def at(azimuth_deg: float, distance_m: float = 20.0, up_m: float = 0.0) -> np.ndarray:
    """Ego position, clockwise from the front."""
    angle_rad = np.radians(azimuth_deg)
    return np.array([distance_m * np.sin(angle_rad), distance_m * np.cos(angle_rad), up_m])


def records(truth: SplitTruth, centers_m: list[np.ndarray], *, score: float | list[float] = -1.0, points: int = 5) -> BoxRecords:
    """Cars at ego positions of one frame."""
    count, pose = len(centers_m), truth.global_T_ego[FRAME]
    ego_m = np.reshape(centers_m, (count, 3))
    return BoxRecords(
        frame=np.full(count, FRAME), center_m=ego_m @ pose[:3, :3].T + pose[:3, 3], size_wlh_m=np.full((count, 3), 2.0),
        yaw_rad=np.zeros(count), velocity_mps=np.zeros((count, 2)), label=np.zeros(count, np.int64),
        score=np.broadcast_to(np.asarray(score, float), (count,)).copy(), attribute=np.full(count, -1),
        track_id=np.full(count, "", np.str_), num_points=np.full(count, points),
    )  # fmt: skip


def lost_cameras(truth: SplitTruth, *names: str) -> np.ndarray:
    return np.tile(np.isin(CAMERAS, names), (len(truth.frames.tokens), 1))


def sectors(truth: SplitTruth, there: list, said: list, *lost: str, score: float | list[float] = 0.5):
    boxes = GroundTruth(frames=key_frames(truth), boxes=records(truth, there))
    return box_sectors(truth, boxes, records(truth, said, score=score, points=-1), lost_cameras(truth, *lost), CAMERAS)


def test_who_sees_a_point(truth):
    points = {
        "ahead": (at(0), [0]), "right of ahead": (at(30), [0, 1]), "second camera": (at(60), [1]), "behind": (at(180), [3]),
        "left": (at(-60), [5]), "far above": (at(0, 20.0, 40.0), []), "under the car": (at(0, 0.4, -1.0), []),
        "above the horizon, inside": (at(0, 20.0, 8.0), [0]),
    }  # fmt: skip
    boxes = records(truth, [point for point, _ in points.values()])
    seen = seen_by(truth, CAMERAS, boxes.frame, boxes.center_m)
    for (name, (_, cameras)), row in zip(points.items(), seen, strict=True):
        assert np.flatnonzero(row).tolist() == cameras, name
    some = seen_by(truth, CAMERAS[::-1][:2], boxes.frame, boxes.center_m)
    np.testing.assert_array_equal(some, seen[:, [5, 4]])


def test_blind_is_what_only_lost_cameras_see():
    seen = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
    cases = {(True, False): [1, 0, 0, 0], (False, True): [0, 0, 1, 0], (True, True): [1, 1, 1, 0], (False, False): [0, 0, 0, 0]}
    for lost, expected in cases.items():
        np.testing.assert_array_equal(blind_rows(seen, np.tile(lost, (4, 1))), np.array(expected, bool))


def test_boxes_in_the_sector_of_a_lost_camera(truth):
    blind, rest = sectors(truth, [at(0), at(30), at(60)], [at(0), at(30), at(60)], "CAM_FRONT")
    assert (blind.num_truth, rest.num_truth) == (1, 2) and blind.mean_ap == pytest.approx(1) and rest.mean_ap == pytest.approx(1)
    blind, rest = sectors(truth, [at(0), at(30), at(60)], [at(60)], "CAM_FRONT", CAMERAS[1])
    assert (blind.num_truth, rest.num_truth) == (3, 0) and np.isnan(rest.mean_ap) and 0.2 < blind.mean_ap < 0.4
    blind, rest = sectors(truth, [at(0)], [at(0)])
    assert blind.num_truth == 0 and np.isnan(blind.mean_ap) and rest.mean_ap == pytest.approx(1)


def test_a_prediction_goes_where_its_truth_goes(truth):
    """The truth is blind at 14 degrees, the prediction 1.4 m beside it, at 18 degrees, where another camera sees it."""
    blind, rest = sectors(truth, [at(14)], [at(18)], "CAM_FRONT")
    assert len(blind.hits.score) == 1 and len(rest.hits.score) == 0
    assert blind.hits.hit[0].tolist() == [False, False, True, True]
    blind, rest = sectors(truth, [at(18)], [at(14)], "CAM_FRONT")
    assert (blind.num_truth, len(blind.hits.score), rest.num_truth, len(rest.hits.score)) == (0, 0, 1, 1) and rest.hits.hit[0, 3]


def test_a_prediction_of_nothing_goes_where_it_lies(truth):
    blind, rest = sectors(truth, [at(0)], [at(0), at(5, 40.0), at(90)], "CAM_FRONT", score=[0.5, 0.9, 0.9])
    assert len(blind.hits.score) == 2 and len(rest.hits.score) == 1 and not rest.hits.hit.any()
    assert blind.mean_ap < 0.6  # a better-scored false alarm stands before the hit
    second = sectors(truth, [at(14)], [at(14), at(18, 30.0)], "CAM_FRONT", score=[0.9, 0.5])
    assert [len(sector.hits.score) for sector in second] == [1, 1]


def test_every_box_and_line_counts_once(truth):
    predictions = noisy_predictions(sample_data())
    said, (there, _) = box_records(predictions, truth.global_T_ego), box_truth(truth)
    lost = np.random.default_rng(0).uniform(size=(len(truth.frames.tokens), 6)) < 0.4
    whole = box_sectors(truth, there, said, np.zeros_like(lost), CAMERAS)[1]
    parts = box_sectors(truth, there, said, lost, CAMERAS)
    assert sum(len(one.hits.score) for one in parts) == len(whole.hits.score)
    assert sum(one.num_truth for one in parts) == whole.num_truth and min(one.num_truth for one in parts) > 40
    assert abs(sum(one.hits.hit[:, 3].sum() for one in parts) - whole.hits.hit[:, 3].sum()) <= 2
    for sector in parts:
        assert (sector.hits.hit.sum(0) <= sector.num_truth).all() and box_ap_parts(sector, truth.frames).score() == pytest.approx(
            sector.mean_ap, abs=0.01
        )
    lines = line_sectors(truth, map_truth(truth), map_lines(predictions), lost, CAMERAS)
    assert sum(one.num_truth for one in lines) == len(map_truth(truth)) and min(one.num_truth for one in lines) > 10
    assert line_ap_parts(lines[1], truth.frames).score() == pytest.approx(lines[1].mean_ap, abs=0.01)


def test_a_line_lies_where_its_middle_lies(truth):
    ahead, behind = np.array([[-6.0, 14.0], [6.0, 14.0]]), np.array([[-6.0, -14.0], [6.0, -14.0]])
    long = np.array([[0.0, -29.0], [0.0, 29.0]])
    lines = MapLines.from_lines([FRAME] * 3, [1, 1, 1], [ahead, behind, long])
    moved = replace(lines, points_m=lines.points_m + np.array([0.3, 0.0]), score=np.full(3, 0.5))
    blind, rest = line_sectors(truth, lines, moved, lost_cameras(truth, "CAM_FRONT"), CAMERAS)
    assert (blind.num_truth, rest.num_truth) == (1, 2) and len(blind.hits.score) == 1 and blind.mean_ap == pytest.approx(1)


def test_a_worse_model_is_surely_worse_and_the_same_one_is_not(truth):
    there, _ = box_truth(truth)
    lost = lost_cameras(truth, "CAM_FRONT", CAMERAS[1])
    good, same, bad = (
        box_sectors(truth, there, box_records(noisy_predictions(sample_data(), noise_m=noise), truth.global_T_ego), lost, CAMERAS)[0]
        for noise in (0.3, 0.3, 1.5)
    )
    found = blind_ap_difference([good, good], [bad, bad], truth.frames, rounds=300)
    assert found.high < 0 and found.difference == pytest.approx(bad.mean_ap - good.mean_ap) and found.low < found.difference < found.high
    found = blind_ap_difference([good], [same], truth.frames, rounds=300)
    assert found.difference == found.low == found.high == 0
    both = averaged([box_ap_parts(good, truth.frames), box_ap_parts(bad, truth.frames)])
    assert both.score() == pytest.approx((good.mean_ap + bad.mean_ap) / 2, abs=0.01)


def test_masks_and_cameras_that_do_not_fit(truth):
    there, said = box_truth(truth)[0], records(truth, [at(0)], score=0.5, points=-1)
    frames = len(truth.frames.tokens)
    for lost in (np.zeros((frames, 5), bool), np.zeros((frames - 1, 6), bool), np.zeros((frames, 6))):
        with pytest.raises(ValueError, match=rf"lost cameras: expected a mask of booleans .* = \[{frames}, 6\].*got"):
            box_sectors(truth, there, said, lost, CAMERAS)
    with pytest.raises(ValueError, match=r"no camera \['CAM_TOP'\], there is"):
        box_sectors(truth, there, said, np.zeros((frames, 1), bool), ["CAM_TOP"])
    with pytest.raises(ValueError, match=r"expected two masks \[points, cameras\]"):
        blind_rows(np.zeros((2, 3), bool), np.zeros((2, 2), bool))
    empty, rest = sectors(truth, [at(90)], [at(90)], "CAM_FRONT")
    with pytest.raises(ValueError, match="nothing is annotated"):
        blind_ap_difference([empty], [empty], truth.frames)
    with pytest.raises(ValueError, match="sectors of the same scenarios"):
        blind_ap_difference([empty], [rest], truth.frames)
