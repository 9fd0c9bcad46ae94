import pytest
import torch

from sparsedrive.losses.depth import dense_depth_loss
from sparsedrive.models.depth_head import DepthHeadConfig
from sparsedrive.models.image_encoder import pack_levels

SIZES = ((8, 12), (4, 6), (2, 3), (1, 2))


@pytest.fixture
def features():
    draw = torch.Generator().manual_seed(0)
    return pack_levels([torch.randn(2, 3, 16, *size, generator=draw) for size in SIZES])


def test_depth_is_the_exponential_times_the_focal_length(features):
    head = DepthHeadConfig(num_levels=3).build(16)
    focal_px = torch.tensor([[100.0, 200.0, 400.0], [100.0, 50.0, 300.0]])
    found = head(features, focal_px)
    assert [tuple(depth.shape) for depth in found] == [(6, 1, *size) for size in SIZES[:3]]
    for index, depth in enumerate(found):
        pixels = features.level(index).movedim(2, -1)
        logit = pixels @ head.convs[index].weight.flatten() + head.convs[index].bias
        expected = logit.exp() * focal_px[:, :, None, None] / 100
        torch.testing.assert_close(depth.reshape(2, 3, *SIZES[index]), expected)


def test_more_levels_than_the_pyramid_is_an_error(features):
    with pytest.raises(ValueError, match="expected at least 5 feature levels, got 4"):
        DepthHeadConfig(num_levels=5).build(16)(features, torch.ones(2, 3))
    with pytest.raises(ValueError, match="num_levels: expected at least 1, got 0"):
        DepthHeadConfig(num_levels=0)


def one_level(depth: list[float], target: list[float], **options) -> torch.Tensor:
    count = len(depth)
    return dense_depth_loss([torch.tensor(depth).reshape(count, 1, 1, 1)], [torch.tensor(target).reshape(1, count, 1, 1)], **options)


def test_mean_error_over_known_pixels():
    assert one_level([3.0, 10.0, 7.0, 9.0], [5.0, 9.0, -1.0, 0.0]).item() == pytest.approx((2 + 1) / 2)
    assert one_level([3.0, 10.0], [5.0, 9.0], weight=0.2).item() == pytest.approx(0.2 * 1.5)


def test_predictions_are_clipped_but_targets_are_not():
    assert one_level([100.0], [50.0]).item() == pytest.approx(10.0)
    assert one_level([100.0], [70.0], max_depth_m=60.0).item() == pytest.approx(10.0)
    assert one_level([100.0], [50.0], max_depth_m=80.0).item() == pytest.approx(30.0)


def test_no_gradient_beyond_the_clip_or_without_target():
    depth = torch.tensor([100.0, 20.0, 20.0]).reshape(3, 1, 1, 1).requires_grad_()
    dense_depth_loss([depth], [torch.tensor([50.0, 30.0, 0.0]).reshape(1, 3, 1, 1)]).backward()
    assert depth.grad.flatten().tolist() == [0.0, -0.5, 0.0]


def test_nan_predictions_and_empty_targets_do_no_harm():
    assert one_level([float("nan"), 4.0], [5.0, 5.0]).item() == 1.0
    assert one_level([3.0, 4.0], [-1.0, 0.0]).item() == 0.0


def test_levels_are_averaged_each_over_its_own_pixels():
    fine, coarse = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 1, 1), 10.0)
    targets = [torch.full((1, 1, 2, 2), 5.0), torch.full((1, 1, 1, 1), 6.0)]
    assert dense_depth_loss([fine, coarse], targets).item() == pytest.approx((2 + 4) / 2)


def test_lists_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="one target"):
        dense_depth_loss([torch.ones(1, 1, 2, 2)], [torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)])
    with pytest.raises(ValueError, match="strides"):
        dense_depth_loss([torch.ones(1, 1, 2, 2)], [torch.ones(1, 1, 4, 4)])
