from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from sparsedrive.geometry import se3
from sparsedrive.layers.depth_reweight import DepthReweight
from sparsedrive.layers.keypoints import BoxKeyPoints
from sparsedrive.layers.past_aggregation import PastAggregation, View, Views, bordered, depth_of_boxes, gather_points
from sparsedrive.structures import ImageFeatures

BATCH, CAMERAS, DIM, GROUPS, LEVEL_HW = 2, 2, 16, 4, (8, 12, 4, 6)
IMAGE_WH_PX = (96.0, 64.0)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(seed: int) -> ImageFeatures:
    return ImageFeatures(packed=torch.randn(BATCH, CAMERAS, 8 * 12 + 4 * 6, DIM, generator=rng(seed)), level_hw=LEVEL_HW)


def view(seed: int, *, age_s: float = 0.0, then_T_now: Tensor | None = None, valid: bool = True) -> View:
    """Cameras along +z."""
    image_T_ego = torch.tensor([[40.0, 0, 48, 0], [0, 40, 32, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).repeat(BATCH, CAMERAS, 1, 1)
    image_T_ego[:, 1, 0, 3] = 40.0
    return View(
        levels=bordered(features(seed)),
        image_T_ego=image_T_ego,
        image_wh_px=torch.tensor(IMAGE_WH_PX).expand(BATCH, CAMERAS, 2),
        available=torch.ones(BATCH, CAMERAS, dtype=torch.bool),
        then_T_now=torch.eye(4).repeat(BATCH, 1, 1) if then_T_now is None else then_T_now,
        age_s=torch.full((BATCH,), age_s),
        valid=torch.full((BATCH,), valid),
    )


def layer(*, fuses: bool = True) -> PastAggregation:
    torch.manual_seed(0)
    key_points = BoxKeyPoints(DIM, num_learned=2)
    module = PastAggregation(key_points, key_points.num_points, DIM, GROUPS, 2, num_cameras=CAMERAS, fuses=fuses)
    nn.init.normal_(module.weights.weight)
    return module.eval()


def call(module: PastAggregation, now: View, *past: View, state: Tensor | None = None) -> Tensor:
    torch.manual_seed(1)
    feature, embed = torch.randn(2, BATCH, 5, DIM, generator=rng(1)).unbind()
    views = Views(now=now, past=past, encoder=nn.Linear(11, DIM), depth=DepthReweight(DIM))
    with torch.no_grad():
        return module(feature, boxes() if state is None else state, embed, views)


def boxes() -> Tensor:
    state = torch.randn(BATCH, 5, 11, generator=rng(2)) * 0.5
    state[..., 2] += 10
    return state


def test_points_are_sampled_as_grid_sample_does_beyond_the_border_too():
    seen = features(3)
    points = torch.rand(BATCH, 4, 3, CAMERAS, 2, generator=rng(4)) * 1.4 - 0.2  # some outside, some by less than half a pixel
    weights = torch.randn(BATCH, 4, 3, CAMERAS, 2, GROUPS, generator=rng(5))
    wanted = torch.zeros(BATCH, 4, 3, DIM)
    for level in range(2):
        image = seen.level(level).flatten(0, 1)
        grid = points.permute(0, 3, 1, 2, 4).flatten(0, 1) * 2 - 1
        sampled = F.grid_sample(image, grid, align_corners=False).unflatten(0, (BATCH, CAMERAS)).unflatten(2, (GROUPS, -1))
        wanted += torch.einsum("bcgdnp,bnpcg->bnpgd", sampled, weights[..., level, :]).flatten(3)
    assert_close(gather_points(bordered(seen), points, weights), wanted, rtol=1e-5, atol=1e-5)


def test_frames_that_were_not_seen_change_nothing():
    module, now = layer(), view(0)
    assert_close(call(module, now, view(1, valid=False), view(2, valid=False)), call(module, now), rtol=0, atol=0)


def test_every_seen_frame_counts():
    module, now, past = layer(), view(0), (view(1, age_s=1.0), view(2, age_s=0.5))
    whole = call(module, now, *past)
    assert (whole - call(module, now, past[1])).abs().max() > 1e-3
    assert (whole - call(module, now, past[0])).abs().max() > 1e-3
    some = replace(past[0], valid=torch.tensor([True, False]))
    mixed = call(module, now, some, past[1])
    assert_close(mixed[0], whole[0], rtol=0, atol=0)
    assert_close(mixed[1], call(module, now, past[1])[1], rtol=0, atol=0)


def test_the_oldest_frame_enters_undecayed_and_later_ones_by_their_age():
    module, now, standing = layer(), view(0), boxes()
    standing[..., 8:] = 0.0
    alone = [call(module, now, view(1, age_s=age_s), state=standing) for age_s in (0.5, 5.0)]
    assert_close(*alone)
    pair = [call(module, now, view(1), view(2, age_s=age_s), state=standing) for age_s in (0.5, 5.0)]
    assert (pair[0] - pair[1]).abs().max() > 1e-3


def test_boxes_are_looked_up_where_they_were():
    """The same pictures: the ego vehicle drove and a box moved along, or neither did."""
    state, moving = boxes(), boxes()
    state[..., 8:], moving[..., 8:] = 0.0, torch.tensor([2.0, 0.0, 0.0])
    drove = se3.from_yaw(torch.ones(BATCH), torch.zeros(BATCH), torch.zeros(BATCH))  # half a second at 2 m/s
    module, now = layer(), view(0)
    # Weights are predicted from the whole box, so its velocity shows there; with equal weights only the place counts.
    nn.init.zeros_(module.weights.weight)
    still = call(module, now, view(1, age_s=0.5), state=state)
    along = call(module, now, view(1, age_s=0.5, then_T_now=drove), state=moving)
    assert_close(along, still, rtol=1e-4, atol=1e-4)
    assert (still - call(module, now, view(1, age_s=0.5, then_T_now=drove), state=state)).abs().max() > 1e-3


def test_a_failed_camera_is_not_sampled():
    module, now = layer(), view(0)
    dark = replace(now, available=torch.tensor([[True, False]] * BATCH))
    garbled = [replace(level, packed=level.packed.clone()) for level in now.levels]
    for level in garbled:
        level.packed[:, 1] = torch.nan
    assert_close(call(module, replace(dark, levels=tuple(garbled))), call(module, dark), rtol=0, atol=0)


@pytest.mark.parametrize("distance_m", [0.3, 1.0, 3.5, 6.0, 55.0, 80.0])
def test_depth_mixes_the_two_nearest_bins(distance_m):
    torch.manual_seed(0)
    module, feature = DepthReweight(DIM), torch.randn(1, 1, 3, DIM)
    share = module.blocks(feature).softmax(-1)[0, 0]
    place = min(max((distance_m - 1) / 5, 0.0), 11.0)
    low = min(int(place), 10)
    near, far = 1 - (place - low), place - low
    wanted = (share[:, low] * near + share[:, low + 1] * far) / (near**2 + far**2)
    assert_close(module(feature, torch.tensor([[distance_m]]))[0, 0], wanted, rtol=1e-4, atol=1e-6)


def test_depth_of_boxes_uses_the_fixed_points_only():
    module, depth = layer(), DepthReweight(DIM)
    before = depth_of_boxes(module.key_points, boxes(), view(0), depth, GROUPS)
    nn.init.normal_(module.key_points.learned_points.bias)
    assert before.shape == (BATCH, 5, 7) and (before > 0).all()
    assert_close(depth_of_boxes(module.key_points, boxes(), view(0), depth, GROUPS), before, rtol=0, atol=0)
