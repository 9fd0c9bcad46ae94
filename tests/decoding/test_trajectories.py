import torch
from decoding_samples import FUTURE, HISTORY, MODES, motion, step

from sparsedrive.decoding import decode_boxes, decode_forecasts
from sparsedrive.geometry import box_state
from sparsedrive.structures import MotionPredictions

QUERIES, OUTPUTS = 30, 12


def test_rows_follow_the_detections():
    given, futures = step(2, QUERIES), motion(2, QUERIES)
    detections = decode_boxes(given, torch.zeros(2, QUERIES, dtype=torch.long), num_output=OUTPUTS)
    found = decode_forecasts(futures, detections)
    assert found.trajectory_m.shape == (2, OUTPUTS, MODES, FUTURE, 2)
    assert found.history_box.shape == (2, OUTPUTS, HISTORY, 10)
    for stream in range(2):
        for row in range(OUTPUTS):
            query = detections.query_index[stream, row]
            expected = given.state[stream, query, :2] + futures.step_offsets_m[stream, query].cumsum(1)
            torch.testing.assert_close(found.trajectory_m[stream, row], expected)
            torch.testing.assert_close(found.mode_score[stream, row], futures.mode_logits[stream, query].sigmoid())
            expected = box_state.decode(futures.history_state[stream, query])
            torch.testing.assert_close(found.history_box[stream, row], expected, rtol=0, atol=0)
            assert found.period[stream, row] == futures.period[stream, query]


def test_a_trajectory_runs_on_from_the_box_centre():
    detections = decode_boxes(step(1, 1), torch.zeros(1, 1, dtype=torch.long))
    offsets = torch.zeros(1, 1, 1, 3, 2)
    offsets[..., 0] = 2.0
    futures = MotionPredictions(
        mode_logits=torch.zeros(1, 1, 1),
        step_offsets_m=offsets,
        history_state=torch.zeros(1, 1, 1, 11),
        period=torch.ones(1, 1, dtype=torch.long),
    )
    found = decode_forecasts(futures, detections)
    moved = found.trajectory_m[0, 0, 0] - detections.box[0, 0, :2]
    torch.testing.assert_close(moved, torch.tensor([[2.0, 0.0], [4.0, 0.0], [6.0, 0.0]]))
    assert found.history_box[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
