from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from model_samples import (
    CAMERAS,
    EPOCH_S,
    ROUNDING,
    build,
    config,
    differences,
    frame,
    named_leaves,
    run,
    take_stream,
)
from torch.utils import _pytree as pytree

from sparsedrive.decoding import decode
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Frame, ParityOptions, cat_frames, cat_states
from sparsedrive.structures.frame import with_available


@pytest.fixture(scope="module")
def model() -> SparseDrive:
    return build()


@pytest.fixture(scope="module")
def warm(model):
    """State after four frames of stream 0."""
    return run(model, [frame(index) for index in range(4)])[1]


def scene_change(kind: str) -> Frame:
    """A fifth frame that does not continue the first four."""
    if kind == "sequence":
        return frame(4, sequence=77)
    if kind == "gap":
        return frame(4, start_s=EPOCH_S + 3.0)
    assert kind == "backwards"
    return replace(frame(4), time_s=frame(2).time_s)


def test_no_state_is_the_initial_state(model):
    predictions, state = run(model, [frame(0)])
    again, state_again = run(model, [frame(0)], model.initial_state(1))
    assert differences((predictions, state), (again, state_again)) == []


def test_memory_matters(model, warm):
    (remembered,), _ = run(model, [frame(4)], warm)
    (fresh,), _ = run(model, [frame(4)])
    different = differences(remembered, fresh, ROUNDING)
    for part in ("detection.steps[1]", "map.steps[1]", "motion.mode_logits", "motion.period", "plan.mode_logits", "plan.ego_status"):
        assert any(part in path for path in different), part
    # the single-frame layer does not know the past
    assert not any("steps[0]" in path for path in different)


def test_propagated_instances_keep_their_ids(model):
    predictions, state = run(model, [frame(index) for index in range(4)])
    seen: set[int] = set()
    kept = model.config.detection.num_memory
    assert predictions[0].detection.track_id.tolist() == [list(range(24))]
    for before, after in pairwise(predictions):
        seen |= set(before.detection.track_id[0].tolist())
        ids = after.detection.track_id[0].tolist()
        assert len(set(ids)) == len(ids)
        assert set(ids[:kept]) <= set(before.detection.track_id[0].tolist())
        assert not set(ids[kept:]) & seen
    assert state.detection.next_id.tolist() == [24 + 3 * 8] and state.map.next_id.tolist() == [12 + 3 * 6]
    assert predictions[-1].motion.period.max() == 4 and predictions[-1].plan.period.tolist() == [4]


@pytest.mark.parametrize("kind", ["sequence", "gap", "backwards"])
def test_after_a_scene_change_everything_is_as_from_a_cold_start(model, warm, kind):
    now = scene_change(kind)
    (changed,), state = run(model, [now], warm)
    (fresh,), fresh_state = run(model, [now])
    assert differences(changed, fresh, ROUNDING) == []
    assert differences(decode(changed, now.command), decode(fresh, now.command), ROUNDING) == []
    # nor does anything come back a frame later
    following = replace(frame(5), time_s=now.time_s + 0.5, sequence_id=now.sequence_id)
    assert differences(run(model, [following], state)[0], run(model, [following], fresh_state)[0], ROUNDING) == []


@pytest.mark.parametrize("kind", ["sequence", "gap", "backwards"])
def test_parity_stale_memory_attention_looks_at_the_old_scene(warm, kind):
    model = build(config(parity=ParityOptions(stale_memory_attention=True)))
    now = scene_change(kind)
    (changed,), (fresh,) = run(model, [now], warm)[0], run(model, [now])[0]
    different = differences(changed, fresh, ROUNDING)
    assert any("detection.steps[1].state" in path for path in different) and any("map.steps[1].state" in path for path in different)
    assert torch.equal(changed.detection.track_id, fresh.detection.track_id)


def test_one_stream_of_a_batch_changes_the_scene_alone(model):
    """Stream 1 drives on; stream 0 gets another sequence in frame 2. Each as if it were alone, ids included."""
    alone = [[frame(i, sequence=int(i >= 2)) for i in range(5)], [frame(i, stream=1, sequence=5) for i in range(5)]]
    batched, state = run(model, [cat_frames([stream[i] for stream in alone]) for i in range(5)])
    for b, frames in enumerate(alone):
        singles, single_state = run(model, frames)
        assert [differences(take_stream(now, b), single, ROUNDING) for now, single in zip(batched, singles, strict=True)] == [[]] * 5
        assert differences(state.stream(b), single_state, ROUNDING) == []
    assert batched[2].detection.track_id[0].tolist() == list(range(24)) and batched[2].detection.track_id[1].max() >= 24
    assert batched[2].plan.period.tolist() == [1, 3]


def test_streams_join_and_leave_a_batch(model):
    """States are values: a warm and a new stream run side by side, and apart again."""
    _, first = run(model, [frame(i) for i in range(2)])
    together = cat_states([first, model.initial_state(1)])
    batched, state = run(model, [cat_frames([frame(2), frame(0, stream=2)])], together)
    assert differences(take_stream(batched[0], 0), run(model, [frame(2)], first)[0][0], ROUNDING) == []
    assert differences(take_stream(batched[0], 1), run(model, [frame(0, stream=2)])[0][0], ROUNDING) == []
    apart, _ = run(model, [frame(3)], state.stream(0))
    assert differences(apart[0], run(model, [frame(2), frame(3)], first)[0][1], ROUNDING) == []


def test_a_reset_stream_starts_cold(model, warm):
    (reset,), _ = run(model, [frame(4)], warm.reset_where(torch.tensor([True])))
    assert differences(reset, run(model, [frame(4)])[0][0], ROUNDING) == []


@pytest.mark.parametrize("training", [False, True])
def test_forward_changes_no_module(training):
    model = build().train(training)

    def snapshot() -> dict[str, object]:
        found: dict[str, object] = {}
        for name, module in model.named_modules():
            norm = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            for key, value in module.__dict__.items():
                if key in ("_parameters", "_buffers") and not (norm and key == "_buffers" and training):
                    found |= {f"{name}.{entry}": tensor.clone() for entry, tensor in value.items() if tensor is not None}
                elif not key.startswith("_"):
                    found[f"{name}.{key}"] = (
                        id(value),
                        repr(value) if isinstance(value, int | float | str | tuple | list | dict) else None,
                    )
            found[f"{name}.__dict__"] = sorted(module.__dict__)
        return found

    before = snapshot()
    _, state = run(model, [frame(0)])
    run(model, [frame(1)], state)
    after = snapshot()
    assert before.keys() == after.keys() and len(before) > 1000
    assert [k for k, v in before.items() if not (torch.equal(v, after[k]) if isinstance(v, torch.Tensor) else v == after[k])] == []


def test_the_state_given_is_not_changed(model, warm):
    copy = pytree.tree_map(torch.clone, warm)
    run(model, [frame(4)], warm)
    assert differences(warm, copy) == []


@pytest.mark.parametrize("content", [1e3, float("nan"), float("inf")])
def test_a_failed_camera_has_no_influence_whatever_it_shows(model, warm, content):
    available = torch.tensor([[True, False, True]])
    now = with_available(frame(4), available)
    garbage = now.images.clone()
    garbage[:, 1] = content
    assert differences(run(model, [replace(now, images=garbage)], warm), run(model, [now], warm)) == []


def test_a_failed_camera_is_missed(model, warm):
    now = frame(4)
    (whole,), _ = run(model, [now], warm)
    for index, name in enumerate(CAMERAS):
        available = torch.ones(1, 3, dtype=torch.bool)
        available[0, index] = False
        assert differences(run(model, [with_available(now, available)], warm)[0][0], whole, ROUNDING), name


def test_without_any_camera_the_result_is_finite(model, warm):
    blind = with_available(frame(4), torch.zeros(1, 3, dtype=torch.bool))
    blind = replace(blind, images=torch.full_like(blind.images, torch.nan))
    predictions, state = run(model, [blind], warm)
    assert all(leaf.isfinite().all() for leaf in named_leaves((predictions, state)).values())


def test_every_trainable_parameter_learns_from_two_frames():
    model = build().train()
    torch.manual_seed(0)
    first, state = model(cat_frames([frame(0), frame(0, stream=1)]))
    assert not any(leaf.requires_grad for leaf in pytree.tree_leaves(state))
    second, _ = model(cat_frames([frame(1), frame(1, stream=1)]), state)
    assert second.depth_m is not None and len(second.depth_m) == 3
    leaves = [leaf for leaf in named_leaves((first, second)).values() if leaf.is_floating_point() and leaf.requires_grad]
    draw = torch.Generator().manual_seed(1)
    sum((leaf * torch.randn(leaf.shape, generator=draw)).mean() for leaf in leaves).backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # Initial features of boxes are zeros that stay (learned_features=False), and a matrix applied to zeros has no gradient.
    assert silent == ["detection.initial_feature", "detection.single_frame_layers.0.aggregation.key_points.learned_points.weight"]
    assert not model.detection.initial_feature.requires_grad
    assert [
        name for name, parameter in model.named_parameters() if parameter.grad is not None and not parameter.grad.isfinite().all()
    ] == []


def test_depth_is_for_training(model):
    assert run(model, [frame(0)])[0][0].depth_m is None


def test_stage_one_detects_and_maps_only():
    model = build(config(stage=1))
    predictions, state = run(model, [frame(i) for i in range(2)])
    assert predictions[1].motion is None and predictions[1].plan is None and state.motion is None
    assert not any(name.startswith("planner") for name in model.state_dict())
    scene = decode(predictions[1], frame(1).command)
    assert scene.forecasts is None and scene.plan is None and scene.detections.box.shape == (1, 24, 10)
    (reset,), _ = run(model, [frame(2)], state.reset_where(torch.tensor([True])))
    assert differences(reset, run(model, [frame(2)])[0][0], ROUNDING) == []


def test_shapes_of_a_step(model):
    (p,), _ = run(model, [cat_frames([frame(0), frame(0, stream=1)])])
    assert [tuple(step.state.shape) for step in p.detection.steps] == [(2, 24, 11)] * 3
    assert [tuple(step.state.shape) for step in p.map.steps] == [(2, 12, 40)] * 2
    assert p.detection.last.class_logits.shape == (2, 24, 10) and p.map.last.class_logits.shape == (2, 12, 3)
    assert p.motion.step_offsets_m.shape == (2, 24, 6, 12, 2) and p.motion.history_state.shape == (2, 24, 4, 11)
    assert p.plan.step_offsets_m.shape == (2, 3, 6, 6, 2) and p.plan.mode_logits.shape == (2, 3, 6) and p.plan.ego_status.shape == (2, 10)


def test_frames_that_do_not_fit_are_refused(model):
    now = frame(0)
    wrong_names = replace(now, rig=replace(now.rig, names=("FRONT", "RIGHT", "BACK")))
    with pytest.raises(ValueError, match=r"Frame\.rig\.names: expected .*missing \['LEFT'\].*available=False"):
        model(wrong_names)
    with pytest.raises(ValueError, match=r"in this order, got \('BACK', 'LEFT', 'FRONT'\)$"):
        model(replace(now, rig=replace(now.rig, names=CAMERAS[::-1])))
    with pytest.raises(ValueError, match=r"Frame\.images: expected .*\[1, 3, 3, 64, 96\], got \[1, 3, 3, 64, 128\].*ImagePreprocess"):
        model(replace(now, images=torch.zeros(1, 3, 3, 64, 128)))
    with pytest.raises(ValueError, match=r"got \[1, 2, 3, 64, 96\]"):
        model(replace(now, images=now.images[:, :2]))


@pytest.mark.parametrize("field", ["image_T_ego", "image_wh_px", "focal_px", "available"])
def test_a_rig_without_batch_dimension_is_refused(model, field):
    now = frame(0)
    with pytest.raises(ValueError, match=rf"CameraRig\.{field}: expected \[1, 3"):
        model(replace(now, rig=replace(now.rig, **{field: getattr(now.rig, field)[0]})))


@pytest.mark.parametrize("field", ["global_T_ego", "time_s", "sequence_id", "command", "ego_status"])
def test_one_pose_or_time_for_two_streams_is_refused(model, field):
    now = cat_frames([frame(0), frame(0, stream=1)])
    with pytest.raises(ValueError, match=rf"Frame\.{field}: expected \[2.*got \[1"):
        model(replace(now, **{field: getattr(now, field)[:1]}))


def test_a_configuration_that_cannot_work_is_refused():
    good = config()
    with pytest.raises(ValueError, match=r"image_wh_px: expected multiples of 32, got \(100, 64\)"):
        replace(good, image_wh_px=(100, 64))
    with pytest.raises(ValueError, match=r"one feature width.*got \[32, 64\]"):
        replace(good, planner=replace(good.planner, dim=64))
    with pytest.raises(ValueError, match=r"one feature width"):
        replace(good, encoder=replace(good.encoder, neck=replace(good.encoder.neck, out_channels=16)))


def test_forecasts_for_other_classes_than_the_detections_are_refused():
    good = config()
    with pytest.raises(ValueError, match="num_classes"):
        replace(good, planner=replace(good.planner, num_classes=good.detection.kind.num_classes - 1))


def test_a_pyramid_of_other_levels_than_the_decoders_sample_is_refused():
    good = config()
    with pytest.raises(ValueError, match="num_levels"):
        replace(good, encoder=replace(good.encoder, neck=replace(good.encoder.neck, num_levels=5)))
