import math
from dataclasses import replace

import pytest
import torch
from loss_samples import box_targets

from sparsedrive.geometry import box_state
from sparsedrive.losses.objects import NOTHING, ObjectLossConfig, object_losses, object_targets
from sparsedrive.models.image_encoder import pack_levels
from sparsedrive.models.object_head import GEOMETRY_DIM, ObjectHeadConfig
from sparsedrive.models.proposals import propose
from sparsedrive.structures import CameraRig, ObjectMap

WIDTH_PX, HEIGHT_PX, FOCAL_PX, CELL_PX = 160, 64, 100.0, 8
IMAGE_T_CAMERA = torch.tensor([[FOCAL_PX, 0, 80.0, 0], [0, FOCAL_PX, 32.0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
AHEAD_T_EGO = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # looks along ego y; camera x right, y down
BEHIND_T_EGO = torch.tensor([[-1.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def rig(available: tuple[bool, bool] = (True, True)) -> CameraRig:
    return CameraRig(
        image_T_ego=torch.stack([IMAGE_T_CAMERA @ AHEAD_T_EGO, IMAGE_T_CAMERA @ BEHIND_T_EGO])[None],
        image_wh_px=torch.tensor([[[WIDTH_PX, HEIGHT_PX]] * 2], dtype=torch.float32),
        focal_px=torch.full((1, 2), FOCAL_PX),
        available=torch.tensor([available]),
        names=("CAM_FRONT", "CAM_BACK"),
    )


def empty_map() -> ObjectMap:
    shape = (1, 2, HEIGHT_PX // CELL_PX, WIDTH_PX // CELL_PX)
    return ObjectMap(
        class_logits=torch.zeros(*shape, 10), geometry=torch.zeros(*shape, GEOMETRY_DIM), shown=torch.ones(shape, dtype=torch.bool), level=1
    )


def box(x_m: float, y_m: float, yaw_rad: float = 0.0) -> list[float]:
    return [x_m, y_m, 0.0, 4.0, 2.0, 1.6, yaw_rad, 0.0, 0.0, 0.0]


def test_the_pixels_about_a_projected_centre_know_class_distance_size_and_heading():
    boxes = box_targets(torch.tensor([[box(1.0, 10.0, yaw_rad=0.7)]]), torch.tensor([[3]]))
    found = object_targets(empty_map(), boxes, rig(), core=0.6)
    # 10 m ahead, 1 m to the right: pixel (90, 32) = cell (11.25, 4.0); half the outline is 20 x 8 px, its core 1.5 x 0.6 cells
    shown = (found.label[0] == 3).nonzero().tolist()
    assert shown == [[0, 3, 10], [0, 3, 11], [0, 4, 10], [0, 4, 11]]
    assert (found.label == NOTHING).sum() == found.label.numel() - 4
    turn = 0.7 - math.atan2(10.0, 1.0)
    expected = torch.tensor([0.75, 0.5, math.log(10), math.log(4), math.log(2), math.log(1.6), math.sin(turn), math.cos(turn)])
    torch.testing.assert_close(found.geometry[0, 0, 3, 10], expected)


def test_the_nearer_of_two_objects_is_shown_and_hidden_or_padding_ones_are_not():
    boxes = box_targets(torch.tensor([[box(0.0, 20.0), box(0.0, 10.0), box(0.0, 5.0), box(0.0, 4.0)]]), torch.tensor([[1, 2, 3, 4]]))
    boxes.lidar_returns[0, 2] = 0
    boxes.valid[0, 3] = False
    found = object_targets(empty_map(), boxes, rig(), core=0.6).label
    assert set(found.unique().tolist()) == {NOTHING, 2}


def test_every_camera_shows_what_is_before_it():
    boxes = box_targets(torch.tensor([[box(0.0, 10.0), box(0.0, -10.0)]]), torch.tensor([[1, 2]]))
    found = object_targets(empty_map(), boxes, rig(), core=0.6).label
    assert set(found[0, 0].unique().tolist()) == {NOTHING, 1} and set(found[0, 1].unique().tolist()) == {NOTHING, 2}


@pytest.mark.parametrize("count", [0, 1])
def test_frames_without_objects_have_no_geometry_loss_and_finite_gradients(count):
    boxes = box_targets(torch.zeros(1, count, 10), torch.zeros(1, count, dtype=torch.int64))
    boxes.valid[:] = False
    each = empty_map()
    each.class_logits.requires_grad_(), each.geometry.requires_grad_()
    classes, geometry = object_losses([each], boxes, rig())
    (classes + geometry).backward()
    assert geometry == 0 and classes > 0
    assert each.class_logits.grad.isfinite().all() and each.class_logits.grad.abs().sum() > 0


def test_a_perfect_map_costs_nothing_and_failed_cameras_do_not_count():
    boxes = box_targets(torch.tensor([[box(0.0, 10.0), box(0.0, -12.0)]]), torch.tensor([[1, 2]]))
    found = object_targets(empty_map(), boxes, rig(), ObjectLossConfig().core)
    logits = torch.full((*found.label.shape, 10), -20.0)
    logits.scatter_(-1, found.label.clamp(min=0)[..., None], torch.where(found.label == NOTHING, -20.0, 20.0)[..., None])
    perfect = replace(empty_map(), class_logits=logits, geometry=found.geometry)
    assert sum(object_losses([perfect], boxes, rig())) < 1e-6
    wrong_behind = replace(empty_map(), class_logits=logits.clone(), geometry=found.geometry.clone())
    wrong_behind.class_logits[0, 1] *= -1
    wrong_behind.geometry[0, 1] += 1
    assert sum(object_losses([wrong_behind], boxes, rig())) > 1
    wrong_behind.shown[0, 1] = False
    assert sum(object_losses([wrong_behind], boxes, rig())) < 1e-6


def test_the_head_reads_the_levels_it_was_told_to():
    draw = torch.Generator().manual_seed(0)
    features = pack_levels([torch.randn(2, 3, 16, *size, generator=draw) for size in ((8, 12), (4, 6), (2, 3), (1, 2))])
    available = torch.tensor([[True, True, False]] * 2)
    maps = ObjectHeadConfig(levels=(1, 3)).build(16)(features, available)
    assert maps[0].shown.all((2, 3)).tolist() == available.tolist() and not maps[0].shown[:, 2].any()
    assert [(each.level, tuple(each.class_logits.shape), tuple(each.geometry.shape)) for each in maps] == [
        (1, (2, 3, 4, 6, 10), (2, 3, 4, 6, 8)),
        (3, (2, 3, 1, 2, 10), (2, 3, 1, 2, 8)),
    ]
    assert maps[0].class_logits.sigmoid().mean() < 0.1
    with pytest.raises(ValueError, match="more than 4 feature levels, got 4"):
        ObjectHeadConfig(levels=(4,)).build(16)(features, available)
    with pytest.raises(ValueError, match=r"levels.*got \(\)"):
        ObjectHeadConfig(levels=())


def test_a_completed_pixel_shows_something_where_it_is_rather_believed_than_not():
    features = pack_levels([torch.randn(1, 2, 16, *size) for size in ((4, 6), (2, 3))])
    belief = torch.ones(features.packed.shape[:3])
    belief[0, 1] = torch.linspace(0, 1, belief.shape[2])  # the finer level has 24 of 30 pixels
    (each,) = ObjectHeadConfig(levels=(1,)).build(16)(replace(features, confidence=belief), torch.tensor([[True, False]]))
    assert each.shown[0, 0].all() and torch.equal(each.shown[0, 1].flatten(), belief[0, 1, 24:] > 0.5)
    (each,) = ObjectHeadConfig(levels=(0,)).build(16)(replace(features, confidence=belief), torch.tensor([[True, False]]))
    assert each.shown[0, 1].sum() == 9


def test_boxes_are_proposed_where_a_perfect_map_shows_them():
    wanted = torch.tensor([[box(1.0, 10.0, yaw_rad=0.7), box(-3.0, -12.0, yaw_rad=-2.0)]])
    wanted[..., box_state.Z] = 0.3  # else two rows of pixels are equally near the centre
    boxes, cameras = box_targets(wanted, torch.tensor([[3, 0]])), rig()
    found = object_targets(empty_map(), boxes, cameras, core=0.1)  # the nearest pixel alone
    centred = 5.0 - found.geometry[..., :2].abs().sum(-1)  # one peak for every box
    logits = torch.where(found.label == NOTHING, -5.0, centred)[..., None].expand(*found.label.shape, 10)
    state = propose(replace(empty_map(), class_logits=logits, geometry=found.geometry), cameras, 2)
    order = state[0, :, box_state.Y].argsort(descending=True)
    expected = box_state.encode(wanted)
    expected[..., box_state.VX :] = 0
    torch.testing.assert_close(state[:, order], expected, atol=1e-4, rtol=1e-4)


def test_proposals_are_peaks_of_cameras_that_work_and_as_many_as_asked_for():
    draw = torch.Generator().manual_seed(0)
    empty = empty_map()
    geometry = torch.randn(empty.geometry.shape, generator=draw)
    each = replace(empty, class_logits=torch.full_like(empty.class_logits, -3.0), geometry=geometry)
    each.class_logits[0, 0, 3, 5, 2], each.class_logits[0, 0, 3, 6, 2], each.class_logits[0, 1, 4, 10, 7] = 4.0, 3.0, 5.0
    several = propose(each, rig(), 3)
    each.shown[:, 1] = False
    ahead = propose(each, rig(), 1)
    torch.testing.assert_close(several[:, 1:2], ahead)  # the camera behind saw the most confident one
    each.class_logits[0, 0, 3, 6, 2] = 9.0  # a neighbour that is more confident is the peak then
    assert not torch.allclose(propose(each, rig(), 1), ahead)
    assert propose(each, rig(), 400).shape == (1, 400, 11) and propose(each, rig(), 400).isfinite().all()


def test_a_far_object_counts_as_much_as_a_near_one_of_many_pixels():
    boxes = box_targets(torch.tensor([[box(-3.0, 6.0), box(5.0, 30.0)]]), torch.tensor([[1, 1]]))
    found = object_targets(empty_map(), boxes, rig(), ObjectLossConfig().core)
    pixels = [(found.label != NOTHING) & (found.row == row) for row in (0, 1)]
    assert pixels[0].sum() > 3 * pixels[1].sum() > 0

    def loss(wrong: torch.Tensor) -> float:
        each = replace(empty_map(), geometry=found.geometry + wrong[..., None])
        return float(object_losses([each], boxes, rig())[1])

    assert loss(pixels[0]) == pytest.approx(loss(pixels[1])) and loss(pixels[0]) > 0.1
