import pytest
import torch

from sparsedrive.layers.grid_mask import GridMaskConfig


def masks(count: int, height: int = 64, width: int = 96, **options) -> torch.Tensor:
    """Kept pixels [count, H, W], one a draw."""
    layer = GridMaskConfig(**options).build()
    draw = torch.Generator().manual_seed(0)
    return torch.stack([layer(torch.ones(1, height, width), generator=draw)[0] for _ in range(count)]) > 0


def test_nothing_happens_in_evaluation_or_with_probability_zero():
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(GridMaskConfig(probability=1.0).build().eval()(images), images)
    assert torch.equal(GridMaskConfig(probability=0.0).build()(images), images)


def test_masks_as_often_as_asked():
    share = (~masks(400, probability=0.7).flatten(1).all(1)).float().mean()
    assert 0.6 < share < 0.8


@pytest.mark.parametrize("kept_ratio", [0.5, 0.8])
def test_hides_squares_of_a_periodic_grid(kept_ratio):
    """A pixel goes where neither its row nor its column is in a kept stripe; kept pixels keep their value."""
    hidden_share = []
    for kept in masks(200, probability=1.0, kept_ratio=kept_ratio):
        rows, columns = kept.all(1), kept.all(0)
        assert torch.equal(kept, rows[:, None] | columns)
        hidden_share.append((~kept).float().mean())
    assert torch.stack(hidden_share).mean().item() == pytest.approx((1 - kept_ratio) ** 2, abs=0.06)


def test_stripes_repeat_with_one_period_in_rows_and_columns():
    for kept in masks(100, probability=1.0):
        periods = []
        for stripe in (kept.all(1), kept.all(0)):
            starts = (stripe[1:] & ~stripe[:-1]).nonzero().flatten()
            gaps = starts.diff()
            assert (gaps == gaps[:1]).all()
            periods += gaps[:1].tolist()
        assert len(set(periods)) <= 1


def test_the_smallest_period_still_has_a_kept_and_a_hidden_row():
    for kept in masks(20, height=3, width=4, probability=1.0, kept_ratio=0.9):  # three rows: the period is 2
        assert kept.any() and not kept.all()


def test_one_mask_for_all_images_and_values_kept():
    images = torch.rand(4, 6, 3, 32, 48) + 0.5
    found = GridMaskConfig(probability=1.0).build()(images, generator=torch.Generator().manual_seed(0))
    kept = found != 0
    assert (~kept).sum() > 0
    assert (kept == kept[0, 0, 0]).all()
    assert torch.equal(found[kept], images[kept])


def test_the_generator_decides():
    layer, images = GridMaskConfig(probability=1.0).build(), torch.ones(1, 32, 48)
    one, same, other = (layer(images, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_nan_in_a_hidden_square_is_gone():
    layer = GridMaskConfig(probability=1.0).build()
    found = layer(torch.full((1, 32, 48), float("nan")), generator=torch.Generator().manual_seed(0))
    assert 0 < found.isnan().sum() < found.numel()


@pytest.mark.parametrize(("options", "field"), [({"probability": 1.5}, "probability"), ({"kept_ratio": 1.0}, "kept_ratio")])
def test_config_errors_name_the_field(options, field):
    with pytest.raises(ValueError, match=f"GridMaskConfig.{field}: expected"):
        GridMaskConfig(**options)
