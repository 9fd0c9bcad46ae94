"""Sparse4D v1, v2 and v3 as configurations of the one model, small."""

from dataclasses import replace

import pytest
import torch
from model_samples import ROUNDING, build, config, differences, frame, run
from torch.testing import assert_close

from sparsedrive.decoding import decode
from sparsedrive.geometry import box_state
from sparsedrive.losses.criterion import CriterionConfig, compute_losses
from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.image_history import HistoryConfig
from sparsedrive.models.motion_planner import PlannerConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.runtime.session import StreamingSession
from sparsedrive.structures import BoxTargets, FrameTargets, FutureTargets, MapTargets, ParityOptions, cat_frames, cat_states

OLD = BoxKind(summed_embedding=True, with_quality=False)


def small(version: str, **changes) -> SparseDriveConfig:
    """As the presets differ from each other, at the size of `model_samples.config`."""
    base = replace(config(stage=1), name=version, map=None, objects=None)
    layer = replace(base.detection.layer, decoupled_attention=False)
    if version == "v3":
        detection = replace(base.detection, kind=BoxKind(swaps_moved_heading=True))
    elif version == "v2":
        detection = replace(base.detection, kind=OLD, layer=layer)
    else:
        history = HistoryConfig(num_past=int(version[-1]) - 1, num_cameras=3, output_dropout=0.0)
        detection = replace(
            base.detection, kind=replace(OLD, adds_to_yaw=False), num_memory=0, num_single_frame_layers=3, first_layer_attention=True,
            layer=replace(layer, history=history), fixed_step_s=0.5,
        )  # fmt: skip
    depth = None if version.startswith("v1") else base.depth
    return replace(base, detection=detection, depth=depth, tracks=version == "v3", **changes)


VERSIONS = ("v1_h1", "v1_h3", "v2", "v3")


@pytest.fixture(scope="module", params=VERSIONS)
def model(request):
    return build(small(request.param))


def test_streams_say_boxes_and_nothing_else(model):
    predictions, state = run(model, [frame(i) for i in range(2)])
    assert predictions[1].map is None and predictions[1].motion is None and state.map is None
    assert not any(name.startswith(("map.", "planner.")) for name in model.state_dict())
    scene = StreamingSession(model).step(frame(0))
    assert scene.map is None and scene.plan is None
    tracks = model.config.tracks
    assert scene.detections.box.shape == (1, 24 if tracks else 240, 10)  # each query once, or in every class
    assert bool((scene.detections.track_id >= 0).all()) == tracks


def test_streams_side_by_side_are_streams_alone(model):
    alone = [run(model, [frame(i, stream=s) for i in range(3)])[0][-1].detection for s in (0, 1)]
    both = run(model, [cat_frames([frame(i), frame(i, stream=1)]) for i in range(3)])[0][-1].detection
    for stream in (0, 1):
        assert_close(both.last.state[stream], alone[stream].last.state[0], rtol=1e-3, atol=1e-3)


def test_a_new_scene_starts_cold(model):
    _, state = run(model, [frame(i) for i in range(3)])
    changed, _ = run(model, [frame(3, sequence=7)], state)
    fresh, _ = run(model, [frame(3, sequence=7)])
    assert differences(changed[0].detection.steps, fresh[0].detection.steps, ROUNDING) == []
    reset, _ = run(model, [frame(3)], state.reset_where(torch.tensor([True])))
    assert differences(reset[0].detection.steps, run(model, [frame(3)])[0][0].detection.steps, ROUNDING) == []


def test_a_stream_goes_on_from_its_state(model, tmp_path):
    session, other = StreamingSession(model), StreamingSession(model)
    session.step(frame(0))
    session.save(tmp_path / "state.safetensors")
    other.load(tmp_path / "state.safetensors")
    assert differences(session.step(frame(1)), other.step(frame(1))) == []
    states = [run(model, [frame(0, stream=s)])[1] for s in (0, 1)]
    assert differences(cat_states(states).stream(1), states[1]) == []


def test_the_published_v1_looks_at_the_scene_before():
    stale, ours = (build(small("v1_h3", parity=ParityOptions(stale_memory_attention=published))) for published in (True, False))
    frames = [frame(0), frame(1), frame(2, sequence=7)]
    fresh = run(ours, frames[2:])[0][-1].detection
    assert differences(run(ours, frames)[0][-1].detection.steps, fresh.steps, ROUNDING) == []
    assert differences(run(stale, frames)[0][-1].detection.steps, fresh.steps, ROUNDING) != []


def test_v1_remembers_so_many_frames_and_no_more():
    model = build(small("v1_h3"))
    last = [run(model, [frame(i) for i in range(first, 4)])[0][-1].detection for first in (0, 1, 2, 3)]
    assert differences(last[0].steps, last[1].steps, ROUNDING) == []  # two past frames either way
    assert differences(last[1].steps, last[2].steps, ROUNDING) != [] != differences(last[2].steps, last[3].steps, ROUNDING)
    single = build(small("v1_h1"))
    assert differences(run(single, [frame(2), frame(3)])[0][-1].detection.steps, run(single, [frame(3)])[0][0].detection.steps) == []


def test_v1_velocities_are_over_half_a_second_whatever_passed():
    model = build(small("v1_h1"))
    slow, fast = (run(model, [frame(0, step_s=step_s), frame(1, step_s=step_s)])[0][-1].detection for step_s in (0.25, 1.0))
    assert_close(slow.last.state, fast.last.state, rtol=0, atol=0)


def test_the_heading_of_a_remembered_box_is_swapped_on_demand():
    state, drove, elapsed_s = torch.randn(2, 3, 11), torch.eye(4).repeat(2, 1, 1), torch.full((2,), 0.5)
    plain, swapped = (BoxKind(swaps_moved_heading=swaps).transform(state, drove, elapsed_s) for swaps in (False, True))
    columns = [box_state.SIN_YAW, box_state.COS_YAW]
    assert torch.equal(swapped[..., columns], plain[..., columns[::-1]])
    others = [column for column in range(11) if column not in columns]
    assert torch.equal(swapped[..., others], plain[..., others])


def truth() -> FrameTargets:
    box = torch.tensor([[[4.0, 10.0, -1.0, 4.5, 1.9, 1.7, 0.3, 1.0, torch.nan, 0.0]], [[0.0] * 10]])
    valid = torch.tensor([[True], [False]])
    number = torch.zeros(2, 1, dtype=torch.int64)
    none = torch.zeros(2, 0, dtype=torch.bool)
    steps = torch.zeros(2, 1, 12, 2)
    return FrameTargets(
        boxes=BoxTargets(box=box, label=number, instance=number, lidar_returns=number, valid=valid),
        map=MapTargets(points_m=torch.zeros(2, 0, 1, 20, 2), order_valid=none[..., None], label=none.long(), valid=none),
        futures=FutureTargets(agent_m=steps, agent_valid=steps[..., 0] > 0, ego_m=steps[:, 0], ego_valid=steps[:, 0, :, 0] > 0),
        depth_m=tuple(torch.full((2, 3, 64 // stride, 96 // stride), 5.0) for stride in (4, 8, 16)),
        ego_status_known=torch.zeros(2, 10, dtype=torch.bool),
    )


def test_every_version_learns(model):
    trained = build(model.config).train()
    targets, state = truth(), None
    for index in range(2):
        now = cat_frames([frame(index), frame(index, stream=1)])
        predictions, state = trained(now, state, true_boxes=targets.boxes)
        losses = compute_losses(predictions, now, targets, CriterionConfig())
    names = {name.split(".")[-1] for name in losses.by_name}
    version = model.config.name
    assert names == {"class", "box"} | ({"depth_fit"} if version.startswith("v1") else {"depth"}) | (
        {"centerness", "yawness"} if version == "v3" else set()
    )
    losses.total.backward()
    bad = [name for name, parameter in trained.named_parameters() if parameter.grad is not None and not parameter.grad.isfinite().all()]
    assert bad == []
    if version.startswith("v1"):
        assert trained.detection.depth_reweight.blocks[2].weight.grad.abs().max() > 0


def test_configurations_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"SparseDriveConfig\.planner: expected None without a map"):
        replace(small("v3"), planner=PlannerConfig(dim=32))
    with pytest.raises(ValueError, match=r"HistoryConfig\.num_cameras: expected 3 as SparseDriveConfig\.camera_names has, got 6"):
        base = small("v1_h3")
        replace(base, detection=replace(base.detection, layer=replace(base.detection.layer, history=HistoryConfig())))
    with pytest.raises(ValueError, match=r"LayerConfig\.history: expected None with denoising or polylines"):
        replace(config().map, layer=replace(config().map.layer, history=HistoryConfig()))


def test_decoding_without_tracks_lets_a_query_stand_for_several_classes():
    predictions, _ = run(build(small("v2")), [frame(0)])
    found = decode(predictions[0], frame(0).command, with_track_ids=False).detections
    assert found.query_index[0].unique().numel() < found.query_index.shape[1]
