"""Random camera failures: by key, independent of who asks when; as often and as long as asked for."""

import pickle

import numpy as np
import pytest

from sparsedrive.data.failures import CameraFault, Curriculum, MarkovFailures, RandomFailures, SequenceFailures
from sparsedrive.data.sampler import FrameRequest

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


def request(frame: int, sequence: int = 0, step: int | None = None) -> FrameRequest:
    return FrameRequest(scene="scene-0000", frame=frame, sequence_id=sequence, step=step)


def test_a_sequence_fails_as_a_whole():
    schedule = SequenceFailures(probability=0.6, seed=2)
    lost = np.stack([[schedule.failed(s, f, CAMERAS) for f in range(3)] for s in range(200)])
    assert (lost == lost[:, :1]).all() and abs(lost.any((1, 2)).mean() - 0.6) < 0.08


@pytest.mark.parametrize(("share", "mean_down_s"), [(1 / 6, 1.0), (1 / 3, 3.0)])
def test_breakdowns_last_as_long_and_are_as_many_as_asked_for(share, mean_down_s):
    schedule = MarkovFailures(down_share=share, mean_down_s=mean_down_s, frame_s=0.5, seed=1)
    down = np.stack([[schedule.failed(s, f, CAMERAS) for f in range(60)] for s in range(25)]).transpose(0, 2, 1).reshape(-1, 60)
    assert abs(down.mean() - share) < 0.05 and abs(down[:, 0].mean() - share) < 0.12
    starts, ends = (~down[:, :-1] & down[:, 1:]).sum(), (down[:, :-1] & ~down[:, 1:]).sum()
    assert abs(down[:, :-1].sum() / ends * 0.5 / mean_down_s - 1) < 0.2 and starts > 50


def test_a_camera_breaks_down_whatever_its_place_in_the_rig():
    schedule = MarkovFailures(down_share=0.4, mean_down_s=2.0)
    frames = range(40)
    whole = np.stack([schedule.failed(5, frame, CAMERAS) for frame in frames])
    part = np.stack([schedule.failed(5, frame, ("back", "left")) for frame in frames])
    np.testing.assert_array_equal(part, whole[:, [3, 1]])
    assert (whole[:, 0] != whole[:, 1]).any()


def test_failures_become_more_in_a_curriculum():
    schedule = RandomFailures(probability=0.8, max_cameras=3, curriculum=Curriculum(steps=100, start_share=0.25))

    def drawn(step: int | None) -> np.ndarray:
        return np.stack([schedule.failed(s, f, CAMERAS, step) for s in range(60) for f in range(10)]).sum(1)

    for step, probability, most in ((0, 0.2, 1), (50, 0.5, 2), (100, 0.8, 3), (10**6, 0.8, 3), (None, 0.8, 3)):
        assert abs((drawn(step) > 0).mean() - probability) < 0.06 and drawn(step).max() == most, step
    early = schedule.faults(request(3, 7, step=0), CAMERAS)
    assert [fault is not None for fault in early] == schedule.failed(7, 3, CAMERAS, 0).tolist()
    share = MarkovFailures(down_share=0.4, mean_down_s=1.0, curriculum=Curriculum(steps=10, start_share=0.0))
    assert not any(share.failed(s, 30, CAMERAS, 0).any() for s in range(20))
    assert any(share.failed(s, 30, CAMERAS, 10).any() for s in range(20))


def test_a_frozen_camera_shows_the_last_frame_at_which_it_worked():
    schedule = MarkovFailures(down_share=0.4, mean_down_s=2.0, fill="freeze", announced=False, seed=4)
    lost = np.stack([schedule.failed(1, frame, CAMERAS) for frame in range(30)])
    seen = 0
    for frame in range(30):
        for camera, fault in enumerate(schedule.faults(request(frame, 1), CAMERAS)):
            assert (fault is not None) == lost[frame, camera]
            if fault is not None:
                worked = np.flatnonzero(~lost[:frame, camera])
                assert fault.stale_frame == (worked[-1] if len(worked) else None) and fault.kind == "freeze" and not fault.announced
                seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarkovFailures(down_share=0.9, mean_down_s=1.0), "cannot be down 90%"),
        (lambda: MarkovFailures(down_share=0.1, mean_down_s=0.1), "mean_down_s of at least one frame"),
        (lambda: MarkovFailures(down_share=0.1, mean_down_s=1.0, seed=-1), "seed"),
        (lambda: RandomFailures(probability=0.1, fill="pink"), "RandomFailures.fill: expected one of black, mean"),
        (lambda: SequenceFailures(probability=-0.1), "SequenceFailures: expected probability in 0..1"),
        (lambda: Curriculum(steps=0), "Curriculum"),
        (lambda: CameraFault(kind="fog"), "expected a kind of black"),
        (lambda: CameraFault(kind="occlude", amount=1.5), "up to 1, got 1.5"),
        (lambda: CameraFault(kind="blur"), "above 0, got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
