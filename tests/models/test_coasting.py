from dataclasses import replace
from itertools import pairwise

import model_samples
import pytest
import torch
from completion_samples import failing
from model_samples import ROUNDING, build, differences, frame, run

from sparsedrive.geometry import box_state
from sparsedrive.models.coasting import CoastingConfig, blind
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.structures import cat_frames


def config(coasting: CoastingConfig | None):
    base = model_samples.config()
    return replace(base, detection=replace(base.detection, coasting=coasting))


@pytest.fixture(scope="module")
def model():
    return build(config(CoastingConfig()))


def same_weights(model, coasting):
    other = build(config(coasting))
    other.load_state_dict(model.state_dict())
    return other


def drive(length: int):
    return [frame(index, stream=1) for index in range(length)]


def test_only_what_no_working_camera_sees_is_blind():
    rig = model_samples.rig()
    state = torch.zeros(1, 4, 11)
    # ahead, to the left behind, behind, and above, where nobody looks; the cameras look to yaw 90, 210 and 270 degrees
    state[0, :, :3] = torch.tensor([[0.0, 10.0, 0.0], [-8.7, -5.0, 0.0], [0.0, -10.0, 0.0], [0.0, 0.0, 30.0]])
    assert blind(state, rig).tolist() == [[False] * 4]
    assert blind(state, replace(rig, available=torch.tensor([[False, True, True]]))).tolist() == [[True, False, False, False]]
    # the two rear cameras overlap: what both see is blind when both failed
    left, both = (blind(state, replace(rig, available=torch.tensor([[True, False, back]]))) for back in (True, False))
    assert not both[0, 0] and not both[0, 3] and both[0, 1] and both[0, 2] and bool((left <= both).all())


def test_without_failure_it_is_the_model_without_coasting_bit_by_bit(model):
    assert differences(run(model, drive(4)), run(same_weights(model, None), drive(4))) == []


def test_blind_boxes_go_on_as_they_moved_and_are_believed_less_and_less(model):
    frames = drive(5)
    _, state = run(model, frames[:2])
    total = 0
    for last, now in pairwise(frames[1:]):
        (said,), after = run(model, [failing(now, 0, 1, 2)], state)
        memory, rows = state.detection, model.config.detection.num_memory
        now_T_then = torch.linalg.solve(now.global_T_ego, last.global_T_ego).float()
        moved = model.config.detection.kind.transform(memory.state, now_T_then, torch.tensor([0.5]))[0]
        unseen = blind(moved[None], replace(now.rig, available=torch.zeros(1, 3, dtype=torch.bool)))[0]
        # The first rows are the remembered ones, in their order.
        confidence = said.detection.last.class_logits.amax(-1)[0, :rows].sigmoid()
        wanted = 0.95 * memory.confidence[0]
        assert unseen.any() and (confidence[unseen] > wanted[unseen] - 1e-5).all()
        coasted = unseen & (confidence - wanted).abs().lt(1e-6)
        total += int(coasted.sum())
        torch.testing.assert_close(said.detection.last.state[0, :rows][coasted], moved[coasted], atol=1e-3, rtol=1e-4)
        assert torch.equal(said.detection.feature[0, :rows][coasted], memory.feature[0][coasted])
        state = after
    assert total > 0


def test_at_speed_0_boxes_stand_still(model):
    still = same_weights(model, CoastingConfig(speed=0.0, keeps=1.0))
    frames = [replace(each, global_T_ego=frame(0, stream=1).global_T_ego) for each in drive(4)]
    _, before = run(still, frames[:2])
    said, _ = run(still, [failing(each, 0, 1, 2) for each in frames[2:]], before)
    known = {int(name): row for row, name in enumerate(before.detection.track_id[0])}
    coasted = 0
    for prediction in said:
        for row, name in enumerate(prediction.detection.track_id[0].tolist()):
            if name in known and torch.allclose(prediction.detection.last.state[0, row], before.detection.state[0, known[name]], atol=1e-4):
                coasted += 1
    assert coasted >= 4


def test_streams_coast_by_themselves(model):
    pairs = [[frame(index, stream=stream) for stream in (0, 1)] for index in range(4)]
    broken = [[failing(first, 1), second] if index > 1 else [first, second] for index, (first, second) in enumerate(pairs)]
    together, _ = run(model, [cat_frames(pair) for pair in broken])
    for stream in (0, 1):
        alone, _ = run(model, [pair[stream] for pair in broken])
        for both, one in zip(together, alone, strict=True):
            rows = replace(both.detection.last, **{
                name: getattr(both.detection.last, name)[stream : stream + 1] for name in ("class_logits", "state", "quality")
            })  # fmt: skip
            assert differences(rows, one.detection.last, model_samples.Tolerance(atol=1e-3, rtol=1e-3)) == []


def test_a_cold_stream_has_nothing_to_coast_with(model):
    first = failing(frame(0, stream=1), 0, 1, 2)
    assert differences(run(model, [first]), run(same_weights(model, None), [first]), ROUNDING) == []


def test_training_does_not_coast(model):
    learner, plain = same_weights(model, CoastingConfig()).train(), same_weights(model, None).train()
    frames = [frame(0, stream=1), failing(frame(1, stream=1), 0, 1, 2)]
    torch.manual_seed(0)
    ours = run(learner, frames)[0][1].detection.last.state
    torch.manual_seed(0)
    assert torch.equal(ours, run(plain, frames)[0][1].detection.last.state)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"CoastingConfig\.keeps: expected a share from 0 to 1, got 2"):
        CoastingConfig(keeps=2)
    lines = model_samples.config().map
    assert lines is not None and isinstance(lines.kind, PolylineKind) and box_state.STATE_DIM == 11
    with pytest.raises(ValueError, match="coasting: expected None for PolylineKind"):
        replace(lines, coasting=CoastingConfig())
