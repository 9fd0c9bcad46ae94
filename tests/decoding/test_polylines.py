import torch
from decoding_samples import step

from sparsedrive.decoding import decode_polylines
from sparsedrive.structures import DecoderStep

QUERIES, CLASSES, POINTS = 15, 3, 20


def test_as_many_as_queries_best_first_and_each_from_its_query():
    given = step(2, QUERIES, classes=CLASSES, width=2 * POINTS, quality=False)
    found = decode_polylines(given)
    assert found.points_m.shape == (2, QUERIES, POINTS, 2)
    assert (found.score.diff(dim=1) <= 0).all()
    scores = given.class_logits.sigmoid()
    best = scores.flatten(1).sort(dim=1, descending=True).values[:, :QUERIES]
    torch.testing.assert_close(found.score, best, rtol=0, atol=0)
    for stream in range(2):
        for row in range(QUERIES):
            query = int((scores[stream, :, found.label[stream, row]] == found.score[stream, row]).nonzero()[0])
            assert torch.equal(found.points_m[stream, row].flatten(), given.state[stream, query])
    assert found.valid.all()


def test_one_query_may_answer_twice():
    logits = torch.tensor([[[2.0, 1.0], [-3.0, -4.0]]])
    state = torch.arange(8.0).reshape(1, 2, 4)
    found = decode_polylines(DecoderStep(class_logits=logits, state=state, quality=None))
    assert found.label.tolist() == [[0, 1]]
    assert found.points_m.tolist() == [[[[0, 1], [2, 3]], [[0, 1], [2, 3]]]]


def test_threshold_only_clears_valid():
    given = step(2, QUERIES, classes=CLASSES, width=2 * POINTS, quality=False)
    found = decode_polylines(given, score_threshold=0.7)
    assert torch.equal(found.valid, found.score >= 0.7)
    assert 0 < found.valid.sum() < found.valid.numel()
    assert torch.equal(found.points_m, decode_polylines(given).points_m)
