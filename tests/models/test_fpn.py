import pytest
import torch
import torch.nn.functional as F

from sparsedrive.models.fpn import FPNConfig

CHANNELS = (4, 6, 8, 10)
SIZES = ((17, 30), (9, 15), (5, 8), (3, 4))  # odd: the upsampling must aim at the finer level's size


@pytest.fixture
def stages():
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, *size, generator=draw) for channels, size in zip(CHANNELS, SIZES, strict=True)]


def test_four_levels_of_one_width(stages):
    neck = FPNConfig(out_channels=16).build(CHANNELS)
    assert [tuple(level.shape) for level in neck(stages)] == [(2, 16, *size) for size in SIZES]
    assert {name.split(".")[0] for name in neck.state_dict()} == {"lateral_convs", "output_convs"}


def test_each_level_sums_itself_and_everything_coarser(stages):
    neck = FPNConfig(out_channels=16).build(CHANNELS)
    merged = neck.lateral_convs[3](stages[3])
    levels = neck(stages)
    torch.testing.assert_close(levels[3], neck.output_convs[3](merged))
    for index in (2, 1, 0):
        merged = neck.lateral_convs[index](stages[index]) + F.interpolate(merged, size=SIZES[index], mode="nearest")
        torch.testing.assert_close(levels[index], neck.output_convs[index](merged))


def test_finer_stages_do_not_reach_coarser_levels(stages):
    neck = FPNConfig(out_channels=16).build(CHANNELS)
    before = neck(stages)
    after = neck([stages[0] + 1, *stages[1:]])
    assert not torch.allclose(before[0], after[0])
    for index in (1, 2, 3):
        assert torch.equal(before[index], after[index])


def test_given_stages_are_left_alone(stages):
    copies = [stage.clone() for stage in stages]
    FPNConfig(out_channels=16).build(CHANNELS)(stages)
    assert all(torch.equal(stage, copy) for stage, copy in zip(stages, copies, strict=True))


def test_start_level_drops_the_finest_stages(stages):
    neck = FPNConfig(out_channels=16, start_level=1, num_levels=3).build(CHANNELS)
    assert [tuple(level.shape[2:]) for level in neck(stages)] == list(SIZES[1:])
    assert neck.lateral_convs[0].in_channels == CHANNELS[1]


@pytest.mark.parametrize("extra", [None, "on_input", "on_output"])
def test_extra_levels(stages, extra):
    neck = FPNConfig(out_channels=16, start_level=1, num_levels=5, add_extra_convs=extra).build(CHANNELS)
    levels = neck(stages)
    assert [tuple(level.shape[2:]) for level in levels] == [*SIZES[1:], (2, 2), (1, 1)]
    if extra is None:
        assert len(neck.output_convs) == 3
        assert torch.equal(levels[3], levels[2][:, :, ::2, ::2])
    else:
        source = stages[3] if extra == "on_input" else levels[2]
        torch.testing.assert_close(levels[3], neck.output_convs[3](source))
        torch.testing.assert_close(levels[4], neck.output_convs[4](levels[3].relu()))


def test_biases_start_at_zero():
    neck = FPNConfig(out_channels=16).build(CHANNELS)
    assert all((conv.bias == 0).all() and conv.weight.std() > 0 for conv in [*neck.lateral_convs, *neck.output_convs])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_level": 4}, "start_level: expected 0 to 3"),
        ({"start_level": -1}, "start_level: expected 0 to 3"),
        ({"num_levels": 3}, "num_levels: expected at least 4"),
        ({"out_channels": 0}, "out_channels: expected at least 1"),
        ({"add_extra_convs": "on_lateral"}, "add_extra_convs: expected None, 'on_input' or 'on_output'"),
    ],
)
def test_errors_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        FPNConfig(**options).build(CHANNELS)
