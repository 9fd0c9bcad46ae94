import json
from dataclasses import fields, replace

import completion_samples as samples
import model_samples
import pytest
import torch
from model_samples import ROUNDING, Tolerance, build, differences, run

from sparsedrive.config import from_json, preset, to_json
from sparsedrive.losses.completion import CompletionLossConfig, completion_losses
from sparsedrive.models.completion.cameras import DATA_ORDER_NEIGHBOURS, ring_neighbours, seen_neighbours
from sparsedrive.models.completion.config import (
    NUSCENES_RING,
    CompletionConfig,
    GuidedConfig,
    PublishedQuirks,
    ReconstructionConfig,
    TemporalConfig,
)
from sparsedrive.runtime.session import StreamingSession
from sparsedrive.structures import NUSCENES_CAMERAS, cat_frames, cat_states, with_available

NEAR = Tolerance(atol=1e-3, rtol=1e-3)
"""Rounding after all layers of a model with large random weights."""


@pytest.fixture(scope="module", params=["global", "neighbours"])
def model(request):
    return build(samples.config(samples.completion(request.param)))


@pytest.fixture(scope="module")
def plain():
    return build(replace(model_samples.config(), objects=None))


def drive(length: int = 4, stream: int = 1):
    return [model_samples.frame(index, stream=stream) for index in range(length)]


def test_without_failure_it_is_the_plain_model_bit_by_bit(model, plain):
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("completion.")})
    ours, state = run(model, drive())
    theirs, plain_state = run(plain, drive())
    assert differences(ours, theirs) == []
    assert differences(replace(state, completion=None), plain_state) == []
    assert all(said.completion is None for said in ours)


def test_healthy_cameras_keep_their_features_and_failed_pictures_are_not_looked_at(model, monkeypatch):
    frames = drive(3)
    seen = []
    monkeypatch.setattr(model.detection, "forward", record(model.detection.forward, seen))
    _, state = run(model, frames[:2])
    broken, _ = run(model, [samples.failing(frames[2], 1)], state)
    run(model, [frames[2]], state)
    failed, healthy = seen[-2], seen[-1]
    assert torch.equal(failed.packed[:, [0, 2]], healthy.packed[:, [0, 2]])
    assert failed.packed.isfinite().all() and (failed.packed[:, 1] != 0).any()
    assert (failed.confidence[:, [0, 2]] == 1).all() and ((failed.confidence[:, 1] > 0) & (failed.confidence[:, 1] < 1)).all()
    assert healthy.confidence is None
    assert broken[0].detection.last.state.isfinite().all()


def record(forward, seen):
    def recorded(images, *arguments):
        seen.append(images)
        return forward(images, *arguments)

    return recorded


@pytest.mark.parametrize("cameras", [(0, 1, 2), (0,)])
def test_all_cameras_failed_and_failure_at_the_first_frame(model, cameras):
    frames = drive(3)
    said, state = run(model, [samples.failing(frame, *cameras) for frame in frames])
    for prediction in said:
        assert all(value.isfinite().all() for value in model_samples.named_leaves(prediction).values() if value.is_floating_point())
    assert state.completion.valid.sum(dim=1).tolist() == [[0 if camera in cameras else 2 for camera in range(3)]]
    again, _ = run(model, [samples.failing(frame, *cameras) for frame in frames])
    assert differences(said, again) == []


def test_streams_side_by_side_equal_streams_alone(model):
    """Other cameras fail in each of them, and in one none."""
    lost = {0: (1,), 1: (), 2: (0, 2)}
    drives = {s: [f if i < 2 else samples.failing(f, *lost[s]) for i, f in enumerate(drive(4, stream=s))] for s in lost}
    together, state = run(model, [cat_frames(list(frames)) for frames in zip(*drives.values(), strict=True)])
    for stream, frames in drives.items():
        alone, own_state = run(model, frames)
        assert differences(state.stream(stream), own_state, NEAR) == []
        ours = model_samples.take_stream(replace(together[-1], completion=None, depth_m=None), stream)
        assert differences(ours, replace(alone[-1], completion=None, depth_m=None), NEAR) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda f: replace(f, sequence_id=f.sequence_id + 1),
        lambda f: replace(f, time_s=f.time_s + 2.1),
        lambda f: replace(f, time_s=f.time_s - 1.6),
    ],
    ids=["sequence", "gap", "backwards"],
)  # fmt: skip
def test_a_slot_that_starts_anew_does_not_read_what_it_remembers(model, change):
    frames = [cat_frames([model_samples.frame(index, stream=stream) for stream in (0, 1)]) for index in range(3)]
    _, state = run(model, frames[:2])
    parts = [model_samples.take_stream(replace(frames[2], rig=replace(frames[2].rig, names=())), s) for s in (0, 1)]
    parts = [replace(part, rig=replace(part.rig, names=frames[2].rig.names)) for part in parts]
    last = samples.failing(cat_frames([parts[0], change(parts[1])]), 1, stream=1)
    said, _ = run(model, [last], state)
    fresh, _ = run(model, [samples.failing(change(parts[1]), 1)])
    ours = model_samples.take_stream(said[0].detection.last, 1)
    assert differences(ours, fresh[0].detection.last, NEAR) == []
    reset = state.reset_where(torch.tensor([False, True])).completion
    assert reset.valid.flatten(1).any(1).tolist() == reset.plan_valid.tolist() == [True, False]


def test_every_parameter_learns(model):
    model = build(model.config)
    model.train()
    # One camera with a history and one without, of whose pixels some are seen by nobody.
    frames = [samples.failing(frame, *(0, 1) if index == 2 else (1,)) for index, frame in enumerate(drive(3))]
    state = None
    for frame in frames:
        said, state = model(frame, state)
        ahead_m = torch.tensor([0.0, 4.0]) * torch.arange(1, 7)[:, None]
        state = replace(state, completion=replace(state.completion, plan_m=ahead_m[None]))
    assert said.completion.importance.amax() > 0.5
    leaves = model_samples.named_leaves(said).values()
    sum(leaf.square().mean() for leaf in leaves if leaf.is_floating_point() and leaf.requires_grad).backward()
    silent = [name for name, p in model.named_parameters() if name.startswith("completion.") and not (p.grad is not None and p.grad.any())]
    assert silent == []


def test_without_failure_training_gives_every_parameter_a_gradient_of_zero(model):
    """With many processes a parameter without gradient would stop all of them."""
    model = build(model.config).train()
    said, _ = model(drive(1)[0], None)
    losses = completion_losses(said.completion, None, samples.RING, CompletionLossConfig())
    (said.detection.last.state.square().mean() + sum(losses.values())).backward()
    gradients = [p.grad for name, p in model.named_parameters() if name.startswith("completion.")]
    assert not said.completion.cameras.failed.any()
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_v2_looks_at_neighbours_only_and_v1_at_all():
    names = ("A", "B", "C", "D", "E")
    for attention, expected in (("global", [1, 2, 3, 4]), ("neighbours", [1, 4])):
        cascade = samples.small_cascade(names=names, spread=0.1, temporal=samples.temporal(attention=attention, ring=names))
        rig = replace(samples.forward_rig(), names=names)
        rig = replace(
            rig, **{k: getattr(rig, k).repeat_interleave(5, dim=1) for k in ("image_T_ego", "image_wh_px", "focal_px", "available")}
        )
        broken, images = samples.failed(rig, 0), samples.features(cameras=5)
        images = replace(samples.blank(images, broken), packed=samples.blank(images, broken).packed.requires_grad_())
        _, _, said = cascade(images, broken, samples.start(cascade, 5), samples.tick())
        said.last.square().sum().backward()
        assert images.packed.grad[0].abs().amax((-2, -1)).nonzero()[:, 0].tolist() == expected


def test_published_neighbours_are_those_of_another_camera_order():
    """Right for the front and the front left camera of six; another rig has no such table."""
    right = ring_neighbours(NUSCENES_CAMERAS, NUSCENES_RING)
    assert DATA_ORDER_NEIGHBOURS == ((0, 1, 2), (1, 0, 3), (2, 0, 4), (3, 1, 5), (4, 2, 5), (5, 3, 4))
    assert [set(ours) == set(theirs) for ours, theirs in zip(right, DATA_ORDER_NEIGHBOURS, strict=True)] == [True, False] * 2 + [False] * 2
    config = TemporalConfig(attention="neighbours", levels=(0, 1), num_heads=2, num_groups=2)
    for quirk, expected in ((False, right), (True, DATA_ORDER_NEIGHBOURS)):
        published = PublishedQuirks(data_order_neighbours=quirk)
        assert samples.small_cascade(names=NUSCENES_CAMERAS, temporal=config, published=published).temporal.neighbours == expected
    with pytest.raises(ValueError, match=r"data_order_neighbours: expected the six cameras that its table is for, got .*'LEFT'"):
        samples.config(samples.completion("neighbours", published=PublishedQuirks.all()))


def test_neighbours_by_name_and_by_where_cameras_look():
    assert ring_neighbours(NUSCENES_CAMERAS, NUSCENES_RING) == ((0, 1, 2), (1, 5, 0), (2, 0, 4), (3, 4, 5), (4, 2, 3), (5, 3, 1))
    assert ring_neighbours(("LEFT", "FRONT"), samples.RING) == ((0, 1, 1), (1, 0, 0))
    yaw_rad = torch.deg2rad(torch.tensor([90.0, 35, 145, 270, 200, 340]))  # the six of nuScenes, from +x
    image_T_ego = torch.zeros(1, 6, 4, 4)
    image_T_ego[0, :, 2, :2] = torch.stack([yaw_rad.cos(), yaw_rad.sin()], -1)
    found = seen_neighbours(image_T_ego)[0].tolist()
    assert [set(row) for row in found] == [set(row) for row in ring_neighbours(NUSCENES_CAMERAS, NUSCENES_RING)]
    assert seen_neighbours(image_T_ego[:, :1]).tolist() == [[[0, 0, 0]]]


def test_neighbours_from_extrinsics_work_like_those_by_name():
    """The three cameras of the sample rig look 120 degrees apart or so: everybody is everybody's neighbour."""
    by_name = build(samples.config(samples.completion("neighbours")))
    temporal = TemporalConfig(attention="neighbours", ring="extrinsics", num_heads=4, kv_downsample=2)
    seen = build(samples.config(samples.completion(temporal=temporal)))
    frames = [samples.failing(frame, 1) if index else frame for index, frame in enumerate(drive(2))]
    ours, theirs = run(by_name, frames)[0][1].completion, run(seen, frames)[0][1].completion
    torch.testing.assert_close(ours.last, theirs.last, atol=1e-4, rtol=1e-4)


def test_a_camera_whose_calibration_is_not_known_is_not_believed(model):
    frame = samples.failing(drive(1)[0], 1)
    image_T_ego = frame.rig.image_T_ego.clone()
    image_T_ego[:, 1] = 0
    said, _ = run(model, [replace(frame, rig=replace(frame.rig, image_T_ego=image_T_ego))])
    assert (said[0].completion.confidence[0, 0] == 0).all()
    assert said[0].detection.last.state.isfinite().all()


def test_a_session_goes_on_from_its_saved_state(model, tmp_path):
    frames = [samples.failing(frame, 1) if index > 1 else frame for index, frame in enumerate(drive(4))]
    frames = [replace(frame, images=frame.images.nan_to_num()) for frame in frames]
    through, first = StreamingSession(model), StreamingSession(model)
    expected = [through.step(frame) for frame in frames][-1]
    for frame in frames[:3]:
        first.step(frame)
    first.save(tmp_path / "state.safetensors")
    second = StreamingSession(model)
    second.load(tmp_path / "state.safetensors")
    assert differences(second.step(frames[3]), expected) == []
    assert cat_states([second.state, second.state]).completion.packed[0].shape[0] == 2


def test_a_session_that_watches_its_cameras_finds_the_dead_ones(model):
    frames = [replace(frame, images=frame.images.nan_to_num()) for frame in drive(4)]
    black = frames[1].images.clone()
    black[:, 1] = 0.0
    frames[1] = replace(frames[1], images=black)
    frozen = frames[3].images.clone()
    frozen[:, 2] = frames[2].images[:, 2]
    frames[3] = replace(frames[3], images=frozen)
    told = [frames[0], samples.failing(frames[1], 1), frames[2], samples.failing(frames[3], 2)]
    watching, blind, informed = StreamingSession(model, watch_cameras=True), StreamingSession(model), StreamingSession(model)
    buffer = frames[0].images.clone()
    scenes = []
    for frame in frames:  # a caller may fill the same pictures again
        scenes.append(watching.step(replace(frame, images=buffer.copy_(frame.images))))
    expected = [informed.step(replace(frame, images=frame.images.nan_to_num())) for frame in told]
    assert differences(scenes[1], expected[1]) == [] and differences(scenes[3], expected[3]) == []
    assert differences([blind.step(frame) for frame in frames][1], expected[1])
    watching.reset()
    assert differences(watching.step(frames[3]), StreamingSession(model).step(frames[3])) == []


@torch.no_grad()
def test_compiled_and_exported_programs_agree():
    cascade = samples.small_cascade(
        spread=0.1,
        temporal=samples.temporal(levels=(1,)),
        reconstruction=ReconstructionConfig(hidden_dim=4),
        guided=GuidedConfig(num_heads=2),
    )
    rig, images = samples.forward_rig(3), samples.features(cameras=3)
    _, memory, _ = cascade(images, rig, samples.start(cascade, 3), samples.tick(warm=False))
    broken = samples.failed(rig, 1)
    arguments = (samples.blank(images, broken), broken, memory, samples.tick(samples.forward_motion(1.0)))
    expected, remembered, _ = cascade(*arguments)
    torch.compiler.reset()
    compiled = torch.compile(cascade, fullgraph=True, backend="aot_eager")(*arguments)
    exported = torch.export.export(cascade, arguments).module()(*arguments)
    for found in (compiled, exported):
        assert differences(found[0], expected, ROUNDING) == []
        assert differences(found[1], remembered, ROUNDING) == []


@torch.no_grad()
def test_half_precision_stays_near(model):
    frames = [samples.failing(frame, 1) if index else frame for index, frame in enumerate(drive(2))]
    exact, _ = run(model, frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = run(model, frames)
    gap = (rough[1].completion.last.float() - exact[1].completion.last).abs().mean() / exact[1].completion.last.abs().mean()
    assert 0 < gap < 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalConfig(attention="local"), r"TemporalConfig\.attention: expected 'global' or 'neighbours', got 'local'"),
        (lambda: TemporalConfig(queue_length=0), r"TemporalConfig\.queue_length: expected at least 1, got 0"),
        (lambda: TemporalConfig(depths_m=(0.0,)), "expected depths_m and max_age_s above 0"),
        (lambda: TemporalConfig(levels=(1, 0)), "expected different levels from 0, finest first"),
        (lambda: TemporalConfig(ring="around"), "expected camera names once around the car, or 'extrinsics', got 'around'"),
        (lambda: ReconstructionConfig(hidden_dim=0), r"ReconstructionConfig\.hidden_dim: expected at least 1, got 0"),
        (lambda: GuidedConfig(trajectory="pred"), "expected 'previous', 'none' or 'gt', got 'pred'"),
        (lambda: GuidedConfig(corridor_m=0.0), "expected corridor_m above 0"),
        (lambda: CompletionConfig(temporal=None, reconstruction=None, guided=None), "expected at least one level"),
        (lambda: samples.config(CompletionConfig(temporal=TemporalConfig(attention="neighbours"))),
         r"TemporalConfig\.ring: expected the names of all cameras, .* without \['FRONT', 'LEFT', 'BACK'\]"),
        (lambda: samples.config(samples.completion(temporal=TemporalConfig(num_heads=5))), "num_heads: expected a divisor of the"),
        (lambda: samples.config(samples.completion(temporal=TemporalConfig(num_groups=5))), "num_groups: expected a divisor of"),
        (lambda: samples.config(samples.completion(temporal=TemporalConfig(levels=(4,)))), "expected levels below 4 as the encoder has"),
        (lambda: replace(samples.config(samples.completion()), planner=None), "expected 'none' for a model without a planner"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.filterwarnings("ignore:ReconstructionConfig.use_at_test")
def test_a_cascade_that_would_do_nothing_at_test_is_refused():
    with pytest.raises(ValueError, match="use_at_test: expected True where level 2 is the only one"):
        CompletionConfig(temporal=None, guided=None, reconstruction=ReconstructionConfig(use_at_test=False))


@pytest.mark.parametrize("part", ["temporal", "reconstruction", "guided", "published"])
def test_unknown_keys_of_a_configuration_are_refused_by_place(part):
    tree = json.loads(to_json(preset("sparsedrive_small_stage2_completion")))
    tree["completion"][part]["queue_lenght"] = 2
    with pytest.raises(ValueError, match=rf"configuration\.completion\.{part} \(\w+\): unknown keys \['queue_lenght'\]"):
        from_json(json.dumps(tree))


def test_bad_frames_are_refused(model):
    frame = drive(1)[0]
    with pytest.raises(ValueError, match=r"CameraRig\.available: expected \[1, 3\] .* got \[3\]"):
        model(with_available(frame, torch.ones(3, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"Frame\.global_T_ego: expected poses \[B, 4, 4\], got NoneType; .* give odometry"):
        model(replace(frame, global_T_ego=None))


def test_levels_can_be_left_out():
    for levels in (
        {"guided": None},
        {"reconstruction": None, "guided": None},
        {"temporal": None},
        {"temporal": None, "reconstruction": None},
    ):
        small = build(samples.config(samples.completion(**levels)))
        missing = [name for name in levels if any(key.startswith(f"completion.{name}.") for key in small.state_dict())]
        assert missing == []
        said, _ = run(small, [samples.failing(frame, 1) if index else frame for index, frame in enumerate(drive(2))])
        assert said[1].detection.last.state.isfinite().all() and (said[1].completion.last != 0).any()


def test_a_model_without_a_planner_takes_a_cascade_without_a_way():
    guided = GuidedConfig(num_heads=4, trajectory="none")
    small = build(replace(samples.config(samples.completion(guided=guided)), planner=None, map=None))
    said, _ = run(small, [samples.failing(frame, 1) if index else frame for index, frame in enumerate(drive(2))])
    assert said[1].detection.last.state.isfinite().all() and not said[1].completion.importance.any()


def test_published_quirks_are_one_switch_each_and_off():
    assert not any(getattr(PublishedQuirks(), item.name) for item in fields(PublishedQuirks))
    assert all(getattr(PublishedQuirks.all(), item.name) for item in fields(PublishedQuirks))
    quirk = build(samples.config(samples.completion(published=replace(PublishedQuirks.all(), data_order_neighbours=False))))
    said, _ = run(quirk, [samples.failing(frame, 1) if index else frame for index, frame in enumerate(drive(2))])
    assert said[1].completion.last.isfinite().all()
