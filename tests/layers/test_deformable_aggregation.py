from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from sparsedrive.geometry import camera
from sparsedrive.layers.deformable_aggregation import DeformableAggregation
from sparsedrive.layers.keypoints import BoxKeyPoints
from sparsedrive.ops import deformable_aggregation
from sparsedrive.ops.published_order import published_order
from sparsedrive.structures import CameraRig, ImageFeatures

DIM, GROUPS, CAMERAS, LEVEL_HW = 16, 4, 3, (8, 12, 4, 6)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(weight_dropout: float = 0.0) -> DeformableAggregation:
    torch.manual_seed(0)
    key_points = BoxKeyPoints(DIM, num_learned=2)
    module = DeformableAggregation(key_points, key_points.num_points, DIM, GROUPS, num_levels=2, weight_dropout=weight_dropout)
    nn.init.normal_(module.weights.weight)
    nn.init.normal_(module.weights.bias)
    return module.eval()


def rig(batch: int = 2) -> CameraRig:
    """Cameras along +z, a metre apart: boxes near (0, 0, 10) are in sight of all."""
    image_T_ego = torch.tensor([[40.0, 0, 48, 0], [0, 40, 32, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).repeat(batch, CAMERAS, 1, 1)
    image_T_ego[:, :, 0, 3] = torch.tensor([-40.0, 0, 40])
    return CameraRig(
        image_T_ego=image_T_ego,
        image_wh_px=torch.tensor([96.0, 64]).expand(batch, CAMERAS, 2),
        focal_px=torch.full((batch, CAMERAS), 40.0),
        available=torch.ones(batch, CAMERAS, dtype=torch.bool),
        names=("A", "B", "C"),
    )


def instances() -> tuple[Tensor, Tensor, Tensor]:
    feature, embed = torch.randn(2, 2, 5, DIM, generator=rng(1)).unbind()
    state = torch.randn(2, 5, 11, generator=rng(2)) * 0.5
    state[..., 2] += 10
    return feature, state, embed


def images(seed: int = 3) -> ImageFeatures:
    return ImageFeatures(packed=torch.randn(2, CAMERAS, 8 * 12 + 4 * 6, DIM, generator=rng(seed)), level_hw=LEVEL_HW)


def call(module: DeformableAggregation, seen: ImageFeatures, cameras: CameraRig) -> Tensor:
    return module(*instances(), seen, cameras)


def test_equals_the_formula_spelled_out():
    module, seen, cameras = layer(), images(), rig()
    feature, state, embed = instances()
    points = camera.project(module.key_points(state, feature), cameras.image_T_ego, cameras.image_wh_px)
    assert ((points > 0) & (points < 1)).all(-1).float().mean() > 0.5  # the sampling has something to sample
    by_camera = module.camera_encoder(cameras.image_T_ego[:, :, :3].flatten(2))
    logits = module.weights((feature + embed)[:, :, None] + by_camera[:, None])  # [B, N, C, L * P * G]
    logits = logits.unflatten(-1, (2, 9, GROUPS))
    weights = logits.flatten(2, 4).softmax(2).unflatten(2, (CAMERAS, 2, 9))  # one softmax over cameras, levels, points
    gathered = deformable_aggregation(seen.packed, LEVEL_HW, points, weights.permute(0, 1, 4, 2, 3, 5), backend="reference")
    assert_close(call(module, seen, cameras), torch.cat([module.output(gathered), feature], -1), atol=1e-5, rtol=1e-5)


def test_published_order_changes_rounding_only():
    module = layer()
    fast = call(module, images(), rig())
    with torch.no_grad(), published_order():
        assert_close(call(module, images(), rig()), fast, atol=1e-5, rtol=1e-5)


def test_fresh_layers_weigh_everything_alike():
    key_points = BoxKeyPoints(DIM)
    module = DeformableAggregation(key_points, key_points.num_points, DIM, GROUPS, num_levels=2)
    weights = module._sampling_weights(torch.randn(2, 5, DIM, generator=rng(0)), rig())
    assert_close(weights, torch.full((2, 5, 13, CAMERAS, 2, GROUPS), 1 / (13 * CAMERAS * 2)))


def test_an_unavailable_camera_adds_nothing_and_keeps_its_share():
    module = layer()
    available = torch.tensor([[True, False, True], [True, True, True]])
    lost = replace(rig(), available=available)
    seen, other = images(), images(seed=4)
    mixed = ImageFeatures(packed=torch.where(available[..., None, None], seen.packed, other.packed), level_hw=LEVEL_HW)
    assert torch.equal(call(module, mixed, lost), call(module, seen, lost))
    blank = ImageFeatures(packed=seen.packed.masked_fill(~available[..., None, None], 0), level_hw=LEVEL_HW)
    assert_close(call(module, seen, lost), call(module, blank, rig()))  # a zero picture with the same weights
    assert not torch.equal(call(module, seen, lost)[0], call(module, seen, rig())[0])
    assert torch.equal(call(module, seen, lost)[1], call(module, seen, rig())[1])


def test_dropout_takes_whole_cameras_points_and_keeps_the_mean():
    module = layer(weight_dropout=0.25).train()
    torch.manual_seed(0)
    feature = torch.randn(2, 200, DIM, generator=rng(0))
    full = layer()._sampling_weights(feature, rig())
    ratio = module._sampling_weights(feature, rig()) / full
    kept = ratio > 0.5
    assert_close(ratio, kept * (1 / 0.75))
    # one draw a (instance, camera, point): the same for all levels and groups
    assert ((kept.sum((-1, -2)) == 0) | (kept.sum((-1, -2)) == 2 * GROUPS)).all()
    assert abs(kept.float().mean().item() - 0.75) < 0.02
