"""Tracking with equal scores and equal distances, counted by hand; and the official devkit on the same boxes, where it is installed."""

import numpy as np
import pytest
from metric_boxes import boxes, key_frames, largest_difference

from sparsedrive.metrics.records import BoxRecords, GroundTruth
from sparsedrive.metrics.tracking import TrackingMetrics, evaluate_tracking

FRAMES = 6
STEPS = np.arange(FRAMES)
HERE, THERE, NOWHERE = np.zeros((FRAMES, 2)), np.full((FRAMES, 2), [0.0, 10.0]), np.full((FRAMES, 2), [0.0, 20.0])


def cars(*tracks: tuple[str, np.ndarray, float]) -> BoxRecords:
    """Tracks of a car in every frame: name, place and score; within a frame in this order."""
    names, places_m, scores = zip(*tracks, strict=True)
    rows = np.argsort(np.tile(STEPS, len(tracks)), kind="stable")
    columns = {"track_id": np.repeat(names, FRAMES)[rows], "score": np.repeat(scores, FRAMES)[rows]}
    return boxes(np.tile(STEPS, len(tracks))[rows], np.concatenate(places_m)[rows], **columns)


def judged(truth: BoxRecords, said: BoxRecords) -> TrackingMetrics:
    """Our numbers, after the devkit's have been found equal."""
    metrics = evaluate_tracking(GroundTruth(frames=key_frames(FRAMES), boxes=truth), said)
    try:
        import make_devkit_cases
    except ImportError:
        return metrics
    frames = key_frames(FRAMES)
    scenes = len(make_devkit_cases.SCENES)
    per_scene = make_devkit_cases.FRAMES
    timestamps_us = [int(frames.timestamp_us[0]) + 500_000 * step for _ in range(scenes) for step in range(per_scene)]
    world = {"scene": np.repeat(np.arange(scenes), per_scene).tolist(), "timestamp_us": timestamps_us}
    world |= {side: _columns(records) for side, records in (("truth", truth), ("predictions", said))}
    official = make_devkit_cases.official(world)["tracking"]
    assert largest_difference(metrics.summary(), official) < 1e-9
    return metrics


def _columns(records: BoxRecords) -> dict:
    names = ("frame", "label", "track_id", "score", "center_m", "size_wlh_m", "yaw_rad", "velocity_mps", "attribute")
    return {name: getattr(records, name).tolist() for name in names}


def of_cars(metrics: TrackingMetrics, *names: str) -> list[float]:
    return [float(getattr(metrics.best, name)[metrics.classes.index("car")]) for name in names]


def test_a_wrong_track_with_the_score_of_a_right_one_cannot_be_left_out():
    """Every threshold is 0.5, and a track at the threshold counts: six hits and six false positives everywhere."""
    truth = cars(("a", HERE, -1.0))
    metrics = judged(truth, cars(("x", HERE, 0.5), ("y", NOWHERE, 0.5)))
    assert of_cars(metrics, "tp", "fp", "fn", "ids", "mota", "motar", "faf") == [6, 6, 0, 0, 0, 0, 100]
    assert metrics.mean_amota == 0
    lower = judged(truth, cars(("x", HERE, 0.5), ("y", NOWHERE, np.nextafter(0.5, 0.0))))
    assert lower.mean_amota == 1 and of_cars(lower, "tp", "fp", "mota") == [6, 0, 1]


def test_tracks_of_one_score_come_in_together():
    """Two cars, x right at 0.9; y right and z wrong at 0.5, so that both or neither are there.

    P = 12. With x alone recall is 6/12, from the seventh match on the score is 0.5; between recalls 6/12 and 7/12 the threshold lies
    between 0.5 and 0.9, and x is still alone. Of the 40 recalls 0.1 + k 0.9/39 those with k <= 20 are below 7/12: MOTAR 1; at the other
    19 there are twelve hits and six false positives: MOTAR 1 - 6/12. AMOTA = (21 + 19 / 2) / 40.
    MOTA is 1 - 6/12 at both scores; of equal ones the higher recall is shown.
    """
    truth = cars(("a", HERE, -1.0), ("b", THERE, -1.0))
    metrics = judged(truth, cars(("x", HERE, 0.9), ("y", THERE, 0.5), ("z", NOWHERE, 0.5)))
    assert metrics.mean_amota == pytest.approx((21 + 19 / 2) / 40, abs=1e-12)
    assert of_cars(metrics, "tp", "fp", "fn", "mota", "recall") == [12, 6, 0, 0.5, 1]
    threshold = metrics.threshold[metrics.classes.index("car")][::-1]
    assert (threshold[:18] == 0.9).all() and ((threshold[18:21] > 0.5) & (threshold[18:21] < 0.9)).all() and (threshold[21:] == 0.5).all()


def test_of_two_tracks_equally_near_the_first_in_the_frame_is_taken_and_kept():
    """x and y stand 1 m to both sides of the car. The order within later frames changes nothing: an object stays with its track."""
    truth, aside_m = cars(("a", HERE, -1.0)), np.array([1.0, 0.0])
    metrics = judged(truth, cars(("x", HERE + aside_m, 0.5), ("y", HERE - aside_m, 0.5)))
    assert of_cars(metrics, "tp", "fp", "ids", "frag", "motp") == [6, 6, 0, 0, 1.0]
    both = cars(("x", HERE + aside_m, 0.5), ("y", HERE - aside_m, 0.5))
    swapped = np.concatenate([np.arange(2), *([row + 1, row] for row in range(2, 2 * FRAMES, 2))])
    metrics = judged(truth, both[swapped])
    assert of_cars(metrics, "tp", "fp", "ids", "frag", "motp") == [6, 6, 0, 0, 1.0]


def test_equal_means_of_unequal_boxes_are_equal_scores():
    """A track's score is the mean of its boxes: 0.25 and 0.75 in turn are as good as 0.5."""
    truth = cars(("a", HERE, -1.0))
    said = cars(("x", HERE, 0.5), ("y", NOWHERE, 0.5))
    uneven = np.where(said.track_id == "y", np.where(said.frame % 2 == 0, 0.25, 0.75), said.score)
    assert judged(truth, BoxRecords(**{name: getattr(said, name) for name in said.__slots__} | {"score": uneven})).mean_amota == 0
