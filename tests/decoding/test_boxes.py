import math
from dataclasses import fields

import pytest
import torch
from decoding_samples import step

from sparsedrive.decoding import decode_boxes
from sparsedrive.geometry import box_state
from sparsedrive.structures import DecoderStep, Detections, ParityOptions

QUERIES = 40


@pytest.fixture
def track_id():
    return torch.stack([torch.arange(QUERIES) + 100, torch.arange(QUERIES) + 700])


@pytest.mark.parametrize("with_track_ids", [True, False])
@pytest.mark.parametrize("quality", [True, False])
def test_scores_descend_and_every_row_speaks_of_one_query(track_id, with_track_ids, quality):
    given = step(2, QUERIES, quality=quality)
    found = decode_boxes(given, track_id, num_output=25, with_track_ids=with_track_ids)
    assert found.box.shape == (2, 25, 10)
    assert (found.score.diff(dim=1) <= 0).all()
    stream = torch.arange(2)[:, None]
    class_score = given.class_logits.sigmoid()[stream, found.query_index, found.label]
    torch.testing.assert_close(found.class_score, class_score, rtol=0, atol=0)
    torch.testing.assert_close(found.box, box_state.decode(given.state)[stream, found.query_index], rtol=0, atol=0)
    expected = class_score * given.quality[stream, found.query_index, 0].sigmoid() if quality else class_score
    torch.testing.assert_close(found.score, expected, rtol=0, atol=0)
    expected_id = track_id[stream, found.query_index] if with_track_ids else torch.full_like(found.query_index, -1)
    assert torch.equal(found.track_id, expected_id)
    assert found.valid.all()


def test_with_track_ids_a_query_answers_once_with_its_best_class(track_id):
    given = step(2, QUERIES)
    found = decode_boxes(given, track_id, num_output=QUERIES)
    assert torch.equal(found.query_index.sort(dim=1).values, torch.arange(QUERIES).expand(2, -1))
    assert torch.equal(found.label, given.class_logits.argmax(-1).gather(1, found.query_index))


def test_without_track_ids_the_best_pairs_of_query_and_class_win(track_id):
    logits = torch.full((1, 3, 2), -5.0)
    logits[0, 1] = torch.tensor([2.0, 3.0])
    logits[0, 2, 0] = 1.0
    given = DecoderStep(class_logits=logits, state=torch.zeros(1, 3, 11), quality=None)
    found = decode_boxes(given, track_id[:1, :3], num_output=3, with_track_ids=False)
    assert found.query_index.tolist() == [[1, 1, 2]]
    assert found.label.tolist() == [[1, 0, 0]]


def test_candidates_are_chosen_by_class_score_before_centerness_orders_them(track_id):
    logits = torch.tensor([[[3.0], [2.0], [1.0]]])
    quality = torch.tensor([[[-4.0, 0.0], [4.0, 0.0], [9.0, 0.0]]])  # the last query would win by the fused score, but is no candidate
    given = DecoderStep(class_logits=logits, state=torch.zeros(1, 3, 11), quality=quality)
    found = decode_boxes(given, track_id[:1, :3], num_output=2)
    assert found.query_index.tolist() == [[1, 0]]


def test_threshold_looks_at_the_class_score_and_only_clears_valid(track_id):
    given = step(2, QUERIES)
    every = decode_boxes(given, track_id, num_output=QUERIES)
    found = decode_boxes(given, track_id, num_output=QUERIES, score_threshold=0.8)
    assert torch.equal(found.valid, every.class_score >= 0.8)
    assert 0 < found.valid.sum() < found.valid.numel()
    assert torch.equal(found.box, every.box)


def test_published_class_scores_keep_the_order_before_centerness(track_id):
    given = step(2, QUERIES)
    ours = decode_boxes(given, track_id)
    published = decode_boxes(given, track_id, parity=ParityOptions(unsorted_class_scores=True))
    assert (published.class_score.diff(dim=1) <= 0).all()
    assert not torch.equal(published.class_score, ours.class_score)
    torch.testing.assert_close(published.class_score.sort(dim=1).values, ours.class_score.sort(dim=1).values, rtol=0, atol=0)
    for name in (field.name for field in fields(Detections)):
        if name != "class_score":
            assert torch.equal(getattr(published, name), getattr(ours, name)), name


def test_more_outputs_than_candidates_gives_all_candidates(track_id):
    assert decode_boxes(step(2, QUERIES), track_id, num_output=300).score.shape == (2, QUERIES)
    assert decode_boxes(step(2, QUERIES), track_id, num_output=10_000, with_track_ids=False).score.shape == (2, QUERIES * 10)


def test_streams_do_not_see_each_other(track_id):
    given = step(2, QUERIES)
    both = decode_boxes(given, track_id, num_output=20)
    alone = decode_boxes(
        DecoderStep(class_logits=given.class_logits[1:], state=given.state[1:], quality=given.quality[1:]), track_id[1:], num_output=20
    )
    for name in (field.name for field in fields(Detections)):
        torch.testing.assert_close(getattr(both, name)[1:], getattr(alone, name), rtol=0, atol=0)


def test_sizes_and_yaw_are_metric(track_id):
    state = torch.zeros(1, 1, 11)
    state[0, 0] = torch.tensor([1.0, 2.0, 3.0, math.log(4.0), math.log(2.0), math.log(1.5), 1.0, 0.0, 7.0, 8.0, 9.0])
    given = DecoderStep(class_logits=torch.zeros(1, 1, 10), state=state, quality=None)
    found = decode_boxes(given, track_id[:1, :1])
    torch.testing.assert_close(found.box[0, 0], torch.tensor([1.0, 2.0, 3.0, 4.0, 2.0, 1.5, math.pi / 2, 7.0, 8.0, 9.0]))


def test_no_output_is_an_error(track_id):
    with pytest.raises(ValueError, match="num_output >= 1, got 0"):
        decode_boxes(step(2, QUERIES), track_id, num_output=0)
