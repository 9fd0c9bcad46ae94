from dataclasses import replace

import model_samples
import pytest
import torch

from sparsedrive.geometry import box_state
from sparsedrive.models.instance_decoder import DecoderConfig
from sparsedrive.models.track_ids import hand_over_ids, same_place


def state(*centres_m: tuple[float, float], size_m: tuple[float, float] = (4.0, 2.0), yaw_rad: float = 0.0) -> torch.Tensor:
    box = torch.zeros(1, len(centres_m), 10)
    box[0, :, :2] = torch.tensor(centres_m)
    box[..., 3], box[..., 4], box[..., 5], box[..., 6] = *size_m, 1.5, yaw_rad
    return box_state.encode(box)


def ids(centres_m, confidence, last_confidence, track_id=None):
    count = len(centres_m)
    track_id = torch.arange(10, 10 + count)[None] if track_id is None else torch.tensor([track_id])
    return hand_over_ids(track_id, state(*centres_m), torch.tensor([confidence]), torch.tensor([last_confidence]))[0].tolist()


def test_a_better_new_instance_gets_the_id_of_the_remembered_one():
    assert ids([(0.0, 0.0), (20.0, 0.0), (1.0, 0.5)], [0.3, 0.6, 0.5], [0.4, 0.7]) == [12, 11, 10]


def test_a_worse_new_instance_or_one_elsewhere_gets_nothing():
    assert ids([(0.0, 0.0), (1.0, 0.5)], [0.5, 0.3], [0.4]) == [10, 11]
    assert ids([(0.0, 0.0), (0.0, 5.0)], [0.3, 0.5], [0.4]) == [10, 11]


def test_of_two_remembered_ones_the_better_has_the_id_of_the_one_that_was_better():
    assert ids([(0.0, 0.0), (0.5, 0.0)], [0.3, 0.5], [0.6, 0.2]) == [11, 10]
    assert ids([(0.0, 0.0), (0.5, 0.0)], [0.3, 0.5], [0.2, 0.6]) == [10, 11]


def test_only_the_best_of_several_new_ones_takes_over():
    assert ids([(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)], [0.2, 0.5, 0.7], [0.4]) == [12, 11, 10]


def test_ids_stay_different_and_streams_apart():
    draw = torch.Generator().manual_seed(0)
    centres = torch.rand(3, 60, 2, generator=draw) * 30
    boxes = torch.cat([state(*map(tuple, one.tolist()), yaw_rad=0.3) for one in centres])
    confidence, last = torch.rand(3, 60, generator=draw), torch.rand(3, 40, generator=draw)
    track_id = torch.stack([torch.randperm(200, generator=draw)[:60] for _ in range(3)])
    found = hand_over_ids(track_id, boxes, confidence, last)
    assert torch.equal(found.sort().values, track_id.sort().values) and not torch.equal(found, track_id)
    alone = [hand_over_ids(*(each[index : index + 1] for each in (track_id, boxes, confidence, last))) for index in range(3)]
    assert torch.equal(found, torch.cat(alone))


def test_a_place_is_a_footprint_or_near():
    turned = state((0.0, 0.0), (0.0, 4.5), (2.5, 0.0), size_m=(10.0, 1.0), yaw_rad=torch.pi / 2)
    assert same_place(turned)[0].tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    small = state((0.0, 0.0), (1.9, 0.0), (0.0, 2.1), size_m=(0.5, 0.5))
    assert same_place(small)[0, 0].tolist() == [True, True, False]
    endless = small.clone()
    endless[..., box_state.LOG_LENGTH] = 100.0
    assert same_place(endless)[0, 0].tolist() == [True, True, False]


def test_a_stream_says_the_same_boxes_and_every_id_once_a_frame():
    plain = model_samples.config(stage=1)
    model, other = model_samples.build(plain), model_samples.build(replace(plain, detection=replace(plain.detection, hands_over_ids=True)))
    frames = [model_samples.frame(index) for index in range(5)]
    (theirs, _), (ours, _) = model_samples.run(model, frames), model_samples.run(other, frames)
    changed = 0
    for before, after in zip(theirs, ours, strict=True):
        assert model_samples.differences(after.detection.steps, before.detection.steps) == []
        assert len(after.detection.track_id.unique()) == after.detection.track_id.numel()
        changed += int((after.detection.track_id != before.detection.track_id).sum())
    assert changed > 0


def test_lines_have_no_ids_to_hand_over():
    lines = model_samples.config().map
    assert isinstance(lines, DecoderConfig)
    with pytest.raises(ValueError, match="hands_over_ids: expected False for PolylineKind"):
        replace(lines, hands_over_ids=True)
