"""Random camera failures: by key, independent of who asks when."""

import pickle

import numpy as np
import pytest

from sparsedrive.data.failures import RandomFailures

CAMERAS = ("front", "left", "right", "back")


def test_order_of_asking_does_not_matter():
    keys = [(sequence, frame) for sequence in range(20) for frame in range(10)]
    schedule = RandomFailures(probability=0.5, seed=3)
    forward = {key: schedule.failed(*key, CAMERAS) for key in keys}
    copy = pickle.loads(pickle.dumps(schedule))  # noqa: S301 - what a worker process gets
    for key in reversed(keys):
        np.testing.assert_array_equal(copy.failed(*key, CAMERAS), forward[key])


def test_as_often_as_asked_for_and_no_camera_more():
    lost = np.stack([RandomFailures(probability=0.3).failed(s, f, CAMERAS) for s in range(100) for f in range(20)])
    count = lost.sum(1)
    assert abs((count > 0).mean() - 0.3) < 0.04
    assert abs((count == 1).mean() - (count == 2).mean()) < 0.04 and count.max() == 2
    assert np.ptp(lost.mean(0)) < 0.05


def test_seeds_sequences_and_frames_differ():
    def pattern(seed: int, sequence: int, first: int) -> bytes:
        schedule = RandomFailures(probability=0.5, seed=seed)
        return np.stack([schedule.failed(sequence, first + frame, CAMERAS) for frame in range(30)]).tobytes()

    assert len({pattern(seed, sequence, first) for seed in range(2) for sequence in range(2) for first in (0, 30)}) == 8


def test_a_rig_keeps_one_camera():
    schedule = RandomFailures(probability=1.0, max_cameras=5)
    assert not schedule.failed(0, 0, ("only",)).any()
    assert all(schedule.failed(0, frame, CAMERAS).sum() in (1, 2, 3) for frame in range(50))


@pytest.mark.parametrize("options", [{"probability": 1.2}, {"probability": 0.1, "max_cameras": 0}, {"probability": 0.1, "seed": -1}])
def test_impossible_failures_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        RandomFailures(**options)
