from dataclasses import replace

import completion_samples as samples
import model_samples
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sparsedrive.geometry import se3
from sparsedrive.models.completion import warp
from sparsedrive.models.completion.blocks import level_sizes, revise
from sparsedrive.models.completion.config import GuidedConfig, PublishedQuirks, ReconstructionConfig
from sparsedrive.models.completion.guided import PlanningGuided, corridor
from sparsedrive.models.completion.health import flat_pictures, frozen_pictures, with_health
from sparsedrive.models.completion.memory import advance, along, remember_plan
from sparsedrive.models.completion.reconstruction import Reconstruction
from sparsedrive.structures import FailedCameras, PlanPredictions

ROWS = FailedCameras(camera=torch.tensor([[0]]), failed=torch.tensor([[True]]))


def given(seed: int = 0):
    """Features, confidences and directions of one failed camera."""
    draw = torch.Generator().manual_seed(seed)
    shape = (1, 1, samples.NUM_PIXELS)
    return torch.randn(*shape, samples.DIM, generator=draw), torch.rand(shape, generator=draw), torch.randn(*shape, 3, generator=draw)


def reconstruction(**quirks) -> Reconstruction:
    torch.manual_seed(0)
    return Reconstruction(ReconstructionConfig(hidden_dim=4), samples.DIM, 2, PublishedQuirks(**quirks))


def test_the_latent_is_drawn_while_training_only():
    level = reconstruction().eval()
    first, second = level(*given(), samples.LEVEL_HW), level(*given(), samples.LEVEL_HW)
    assert torch.equal(first.features, second.features)
    level.train()
    assert not torch.equal(level(*given(), samples.LEVEL_HW).features, level(*given(), samples.LEVEL_HW).features)
    quirk = reconstruction(sampled_latent=True).eval()
    assert not torch.equal(quirk(*given(), samples.LEVEL_HW).features, quirk(*given(), samples.LEVEL_HW).features)


def test_a_closed_gate_leaves_features_and_confidence_as_they_are_an_open_one_replaces_them():
    level, (features, confidence, direction) = reconstruction().eval(), given()
    for bias, believed in ((-50.0, confidence), (50.0, torch.ones_like(confidence))):
        for part in level.levels:
            torch.nn.init.constant_(part.gate[-1].bias, bias)
        found = level(features, confidence, direction, samples.LEVEL_HW)
        torch.testing.assert_close(found.confidence, believed)
        assert torch.allclose(found.features, features) == (bias < 0)


def test_a_newer_opinion_counts_as_its_gate_is_open():
    """The same as blending features that are scaled by their belief, which heads see, and dividing by what is believed then."""
    (features, confidence, _), newer = given(), given(1)[0]
    gate = given(2)[1][..., None]
    belief = confidence[..., None]
    revised, believed = revise(features, belief, newer, gate)
    torch.testing.assert_close(revised * believed, (1 - gate) * features * belief + gate * newer)
    torch.testing.assert_close(believed, 1 - (1 - gate) * (1 - belief))
    nothing_known, share = revise(features, torch.zeros_like(belief), newer, gate)
    torch.testing.assert_close(nothing_known, newer)
    torch.testing.assert_close(share, gate)


def test_level_two_works_at_test_unless_it_is_switched_off():
    rig = samples.failed(samples.forward_rig(2), 0)
    images = samples.blank(samples.features(cameras=2), rig)
    with pytest.warns(UserWarning, match="trained on features that level 2 made"):
        off = ReconstructionConfig(hidden_dim=4, use_at_test=False)
    for config, at_test in ((ReconstructionConfig(hidden_dim=4), True), (off, False)):
        cascade = samples.small_cascade(temporal=samples.temporal(), reconstruction=config)
        for training in (True, False):
            _, _, said = cascade.train(training)(images, rig, samples.start(cascade, 2), samples.tick())
            assert (said.reconstructed is not None) == (training or at_test)
            assert said.last is (said.reconstructed if training or at_test else said.temporal)


def test_level_two_lets_the_gradient_of_level_one_through_unless_as_published():
    for quirk in (False, True):
        features, confidence, direction = given()
        features.requires_grad_()
        found = reconstruction(replaced_by_reconstruction=quirk)(features, confidence, direction, samples.LEVEL_HW)
        found.features.square().sum().backward() if not quirk else None
        assert found.features.requires_grad
        assert (features.grad is not None and bool(features.grad.any())) != quirk
        if quirk:
            assert (found.confidence == 1).all() and not torch.autograd.grad(found.features.sum(), features, allow_unused=True)[0]


def guided(**changes) -> PlanningGuided:
    torch.manual_seed(0)
    return PlanningGuided(replace(GuidedConfig(num_heads=2), **changes), samples.DIM).eval()


def straight(metres: float = 2.0) -> torch.Tensor:
    return torch.tensor([0.0, metres]) * torch.arange(1, 7)[:, None] * torch.ones(1, 1, 1)


def test_the_corridor_lies_where_the_way_is_projected():
    rig = samples.forward_rig()
    centres = warp.pixel_centres(32, 48, rig.focal_px)
    near = corridor(straight(3.0), torch.tensor([True]), rig, ROWS, centres, (-1.84,), 0.3)[0, 0].unflatten(0, (32, 48))
    assert near.shape == (32, 48) and 0.9 < near.amax() <= 1
    x, y = (near * centres[:, 0].view(32, 48)).sum() / near.sum(), (near * centres[:, 1].view(32, 48)).sum() / near.sum()
    assert abs(x - 0.5) < 0.01 and y > 0.5  # straight ahead on the road, below the horizon
    left = straight(3.0) + torch.tensor([-4.0, 0.0])
    turned = corridor(left, torch.tensor([True]), rig, ROWS, centres, (-1.84,), 0.3)[0, 0].unflatten(0, (32, 48))
    assert turned[:, :24].sum() > 3 * turned[:, 24:].sum()


def test_a_way_that_is_not_known_or_not_in_sight_makes_nothing_important():
    rig, centres = samples.forward_rig(), warp.pixel_centres(8, 12, torch.zeros(1))
    for way_m, known in ((straight(), False), (straight(-3.0), True)):
        assert (corridor(way_m, torch.tensor([known]), rig, ROWS, centres, (0.0,), 1.5) == 0).all()


def test_a_camera_to_the_rear_matters_when_the_way_goes_back():
    """No table of cameras by index: what counts is where the way is."""
    ahead = samples.forward_rig()
    turn = se3.from_yaw(torch.zeros(1), torch.zeros(1), torch.full((1,), torch.pi))
    behind = replace(ahead, image_T_ego=ahead.image_T_ego @ turn)
    centres = warp.pixel_centres(8, 12, torch.zeros(1))
    back = corridor(straight(-3.0), torch.tensor([True]), behind, ROWS, centres, (-1.84,), 1.5)
    assert back.amax() > 0.9
    torch.testing.assert_close(back, corridor(straight(3.0), torch.tensor([True]), ahead, ROWS, centres, (-1.84,), 1.5), atol=1e-4, rtol=0)


def test_without_importance_the_fine_part_says_nothing():
    level, rig, images = guided(), samples.forward_rig(2), samples.features(cameras=2)
    rig = samples.failed(rig, 0)
    features, confidence, _ = given()
    arguments = (features, confidence, images, rig, ROWS)
    unknown = level(*arguments, straight(), torch.tensor([False]))
    torch.nn.init.normal_(level.fine[-1].weight)
    assert torch.equal(unknown.features, level(*arguments, straight(), torch.tensor([False])).features)
    known = level(*arguments, straight(), torch.tensor([True]))
    changed = (known.features != unknown.features).any(-1)
    assert changed[known.importance > 0].any() and torch.equal(
        known.features[known.importance == 0], unknown.features[known.importance == 0]
    )
    assert guided(trajectory="none").fine is None


def test_the_cost_is_that_of_failed_cameras_and_below_60_gflop():
    """At the published size, two failed cameras, the most of the published masks. The published level took 765 GFLOP a frame."""
    level_hw = (64, 176, 32, 88, 16, 44, 8, 22)
    pixels = sum(height * width for height, width in level_sizes(level_hw))
    counted = []
    for failures in (1, 2):
        with torch.device("meta"):
            level = PlanningGuided(GuidedConfig(), 256)
            rig = samples.forward_rig(6)
            images = replace(samples.features(), packed=torch.zeros(1, 6, pixels, 256), level_hw=level_hw)
            cameras = FailedCameras(camera=torch.zeros(1, failures, dtype=torch.int64), failed=torch.ones(1, failures, dtype=torch.bool))
            rows = torch.zeros(1, failures, pixels, 256)
            with FlopCounterMode(display=False) as counter:
                level(rows, rows[..., 0], images, rig, cameras, torch.zeros(1, 6, 2), torch.ones(1, dtype=torch.bool))
        counted.append(counter.get_total_flops() / 1e9)
    assert 15 < counted[0] < counted[1] < 60


def test_the_true_way_leaks_and_says_so():
    with pytest.warns(UserWarning, match="tell the planner the answer"):
        GuidedConfig(trajectory="gt")


@pytest.mark.filterwarnings("ignore:GuidedConfig.trajectory='gt'")
def test_the_true_way_is_used_only_where_it_is_asked_for_and_given():
    rig = samples.failed(samples.forward_rig(2), 0)
    images = samples.blank(samples.features(cameras=2), rig)
    for trajectory, expected in (("previous", 0), ("none", 0), ("gt", 1)):
        cascade = samples.small_cascade(guided=GuidedConfig(num_heads=2, trajectory=trajectory))
        memory = samples.start(cascade, 2)
        _, _, said = cascade(images, rig, memory, samples.tick(), straight())
        assert bool(said.importance.any()) == bool(expected)
        assert not cascade(images, rig, memory, samples.tick())[2].importance.any()


def test_the_predicted_plan_moves_with_the_car():
    cascade = samples.small_cascade(guided=GuidedConfig(num_heads=2))
    memory = samples.start(cascade)
    offsets_m = torch.zeros(1, 3, 2, 6, 2)
    offsets_m[0, 2, 1] = torch.tensor([0.0, 2.0])
    plan = PlanPredictions(
        mode_logits=torch.tensor([[[9.0, 0], [9.0, 0], [0, 1.0]]]), step_offsets_m=offsets_m, ego_status=torch.zeros(1, 10),
        history_state=torch.zeros(1, 1, 11), period=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    memory = remember_plan(memory, plan, torch.tensor([2]))
    torch.testing.assert_close(memory.plan_m, straight(2.0))
    moved = advance(memory, samples.tick(samples.forward_motion(1.5)), 4.0)
    torch.testing.assert_close(moved.plan_m, straight(2.0) - torch.tensor([0.0, 1.5]))
    assert moved.plan_valid.all() and not advance(memory, samples.tick(warm=False), 4.0).plan_valid.any()


def test_points_along_a_path():
    path_m = torch.tensor([[[0.0, 2.0], [1.0, 2.0]]])
    assert along(path_m, 1).tolist() == [[[0.0, 1.0], [0.0, 2.0], [0.5, 2.0], [1.0, 2.0]]]


def test_attention_without_positions_is_the_same_everywhere_as_published():
    """Why the published temporal level can only add one vector to a whole picture."""
    images, rig = samples.features(cameras=2), samples.forward_rig(2)
    broken = samples.failed(rig, 0)
    for quirk in (True, False):
        published = PublishedQuirks(no_positions=quirk)
        cascade = samples.small_cascade(spread=0.2, temporal=samples.temporal(levels=(1,)), published=published)
        pictures = warp.sources(samples.start(cascade, 2), samples.blank(images, broken), broken)
        centres = warp.pixel_centres(4, 6, rig.focal_px)
        context = cascade.temporal._context(pictures, broken, ROWS, None, centres, 1, None)
        assert (context.std(dim=2).amax() < 1e-5) == quirk


def test_levels_that_are_not_completed_stay_empty():
    rig = samples.failed(samples.forward_rig(2), 0)
    images = samples.blank(samples.features(cameras=2), rig)
    cascade = samples.small_cascade(temporal=samples.temporal(levels=(1,)))
    found, _, _ = cascade(images, rig, samples.start(cascade, 2), samples.tick())
    assert (found.packed[0, 0, :96] == 0).all() and (found.confidence[0, 0, :96] == 0).all()
    assert (found.packed[0, 0, 96:] != 0).any()


def test_memory_is_not_copied_while_all_cameras_work():
    cascade = samples.small_cascade(temporal=samples.temporal())
    first, second = samples.features(1), samples.features(2)
    _, memory, _ = cascade(first, samples.forward_rig(), samples.start(cascade), samples.tick(warm=False))
    _, memory, _ = cascade(second, samples.forward_rig(), memory, samples.tick())
    assert [entry.data_ptr() for entry in memory.packed] == [first.packed.data_ptr(), second.packed.data_ptr()]
    assert memory.age_s.tolist() == [[[0.5], [0.0]]]


def pictures(cameras: int = 3) -> torch.Tensor:
    return torch.randn(1, cameras, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_flat_pictures_are_noticed():
    images = pictures()
    images[0, 1] = torch.tensor([-2.1, -2.0, -1.8])[:, None, None] + 0.01 * images[0, 1]  # black with a little noise
    assert flat_pictures(images).tolist() == [[False, True, False]]


def test_frozen_pictures_are_noticed_once_the_car_moves():
    last, now = pictures(), pictures()
    now[0, [0, 2]] += 0.1
    assert frozen_pictures(now, last, torch.tensor([3.0])).tolist() == [[False, True, False]]
    assert not frozen_pictures(now, last, torch.tensor([0.1])).any()


@pytest.mark.parametrize(("moved_m", "same_sequence", "expected"), [(2.0, True, [True, False, False]), (0.0, True, [True, True, False]),
                                                                   (2.0, False, [True, True, False])])  # fmt: skip
def test_health_only_takes_cameras_away(moved_m, same_sequence, expected):
    last, frame = model_samples.frame(0), model_samples.frame(1)
    pose = last.global_T_ego.clone()
    pose[:, 0, 3] += moved_m
    images = frame.images.clone()
    images[:, 1] = last.images[:, 1]
    rig = replace(frame.rig, available=torch.tensor([[True, True, False]]))
    sequence_id = last.sequence_id + (0 if same_sequence else 1)
    frame = replace(frame, images=images, global_T_ego=pose, sequence_id=sequence_id, rig=rig)
    assert with_health(frame, last).rig.available.tolist() == [expected]
    assert with_health(frame).rig.available.tolist() == [[True, True, False]]
