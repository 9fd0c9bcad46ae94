"""MinkUNet, SPVCNN, SPVNAS and the backbones: shapes, names, invariances, learning, and a real scan."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sources import golden_folder
from sparsedrive.sparse.minkunet import MinkUNet, SparseResUNet42, UNetConfig, scaled_widths
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.sparse_resnet import SparseResNet21D
from sparsedrive.sparse.spvcnn import SPVCNN
from sparsedrive.sparse.spvnas import SPVNAS, SpvnasChoice, SpvnasSpace
from sparsedrive.sparse.tensor import SparseTensor
from sparsedrive.sparse.voxels import initial_voxelize

SCAN = golden_folder().parent / "data" / "semantickitti_sample" / "000000.bin"
NARROW = UNetConfig(widths=(4, 4, 6, 8, 8, 8, 6, 6, 4), num_classes=3)
SPACE = SpvnasSpace(
    num_classes=3, least_widths=(16, 16, 16, 16, 16, 16, 16, 16, 16), most_widths=(16, 32, 32, 32, 48, 48, 32, 32, 32)
)  # fmt: skip


def cloud(seed: int = 0, count: int = 400, size: float = 30.0) -> PointTensor:
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 3, generator=generator) * size
    batch = (torch.arange(count) % 2)[:, None].float()
    return PointTensor(coords=torch.cat([batch, places], 1), feats=torch.randn(count, 4, generator=generator))


def built(network: type, config: object, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return network(config)


def test_backbone_returns_nine_levels_and_the_cells_of_the_input():
    voxels, _ = initial_voxelize(cloud())
    levels = built(SparseResUNet42, NARROW).eval()(voxels)
    assert [level.stride[0] for level in levels] == [1, 2, 4, 8, 16, 8, 4, 2, 1]
    assert [level.feats.shape[1] for level in levels] == list(NARROW.widths)
    assert torch.equal(levels[-1].coords, voxels.coords)
    for down, level in enumerate(levels[:5]):
        parents = voxels.coords.clone()
        parents[:, 1:] = torch.div(parents[:, 1:], 2**down, rounding_mode="floor")
        assert torch.equal(torch.unique(level.coords, dim=0), torch.unique(parents, dim=0))  # none is lost at the border


def test_resnet_returns_five_stages():
    voxels, _ = initial_voxelize(cloud(size=60.0))
    model = SparseResNet21D(width=0.25)
    assert sum(name.endswith("kernel") for name in model.state_dict() if "downsample" not in name) == 21
    inside = SparseTensor(coords=voxels.coords, feats=voxels.feats, spatial_range=(2, 60, 60, 60))
    stages = model.eval()(inside)
    assert [stage.stride for stage in stages] == [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (8, 16, 8)]
    assert [stage.feats.shape[1] for stage in stages] == [4, 8, 16, 32, 32]


@pytest.mark.parametrize("network", [MinkUNet, SPVCNN])
def test_samples_do_not_touch_each_other(network):
    model, both = built(network, NARROW).eval(), cloud()

    def run(points):
        if network is SPVCNN:
            return model(points)
        voxels, cell = initial_voxelize(points)
        return model(voxels)[cell]

    first = both.coords[:, 0] == 0
    alone = PointTensor(coords=both.coords[first], feats=both.feats[first])
    torch.testing.assert_close(run(both)[first], run(alone))


def test_a_move_by_whole_coarse_cells_changes_nothing():
    model, points = built(SPVCNN, NARROW).eval(), cloud()
    moved = PointTensor(coords=points.coords + torch.tensor([0.0, 32.0, -64.0, 16.0]), feats=points.feats)
    torch.testing.assert_close(model(points), model(moved), atol=1e-4, rtol=1e-4)


def test_names_and_sizes_are_the_published_ones():
    state = MinkUNet(UNetConfig()).state_dict()
    shapes = {
        "stem.0.kernel": (27, 4, 32), "stem.4.running_mean": (32,), "stage1.0.net.0.kernel": (8, 32, 32),
        "stage3.1.net.3.kernel": (27, 128, 128),
        "stage2.1.downsample.0.kernel": (32, 64), "up1.0.net.0.kernel": (8, 256, 256), "up1.1.0.net.0.kernel": (27, 384, 256),
        "up4.1.0.downsample.1.bias": (96,), "up3.1.1.net.4.weight": (96,), "classifier.0.weight": (19, 96),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    state = SPVCNN(UNetConfig()).state_dict()
    assert state["point_transforms.1.0.weight"].shape == (128, 256) and state["point_transforms.2.1.running_var"].shape == (96,)
    assert scaled_widths(0.5) == (16, 16, 32, 64, 128, 128, 64, 48, 48)


@pytest.mark.parametrize("network", [MinkUNet, SPVCNN])
def test_the_networks_learn(network):
    """Two classes by height: a few steps bring the loss down to nothing."""
    torch.manual_seed(1)
    model, points = network(NARROW), cloud(3, 300)
    label = (points.coords[:, 3] > 15).long()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        voxels, cell = initial_voxelize(points.with_feats(points.coords / 15 - 1))
        logits = model(points.with_feats(points.coords / 15 - 1)) if network is SPVCNN else model(voxels)[cell]
        loss = torch.nn.functional.cross_entropy(logits, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_networks_of_the_supernet_are_those_extracted_from_it():
    torch.manual_seed(0)
    supernet, points = SPVNAS(SPACE), cloud()
    supernet.train()
    for choice in (SPACE.largest(), SPACE.smallest(), SPACE.sample(3)):
        supernet(points, choice)  # moves the running statistics of what is used
    supernet.eval()
    for choice in (SPACE.largest(), SPACE.smallest(), SPACE.sample(3), SPACE.sample(4)):
        network = supernet.extract(choice)
        assert network.config.widths == choice.widths and not network.training
        torch.testing.assert_close(network(points), supernet(points, choice))
        with torch.no_grad():
            network.classifier[0].weight.zero_()
    assert supernet.net.classifier[0].weight.any(), "an extracted network has weights of its own"


def test_training_a_small_network_moves_only_its_slices():
    torch.manual_seed(0)
    supernet = SPVNAS(SPACE)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    supernet(cloud(), SPACE.smallest()).sum().backward()
    kernel = supernet.net.up1[1][0].net[0].kernel.grad  # 48 + 32 channels in; the smallest has the first 16 of each
    used = torch.zeros(80, dtype=torch.bool)
    used[:16] = used[48:64] = True
    assert kernel[:, used, :16].abs().sum() > 0 and not kernel[:, ~used].any() and not kernel[:, :, 16:].any()
    after = supernet.state_dict()["net.stage4.1.net.1.running_var"]
    moved = after != before["net.stage4.1.net.1.running_var"]
    assert moved[:16].all() and not moved[16:].any()
    assert supernet.net.stage4[2].net[0].kernel.grad is None, "the smallest has one block a stage"


def test_choices_are_drawn_by_seed_and_checked():
    choices = [SpvnasSpace().sample(seed) for seed in range(20)]
    assert choices[3] == SpvnasSpace().sample(3) and len(set(choices)) == 20
    for choice in choices:
        assert SpvnasSpace().network(choice).widths == choice.widths
        assert all(width % 16 == 0 for width in choice.widths)
    with pytest.raises(ValueError, match="sample"):
        SPACE.network(SpvnasChoice(widths=(16,) * 8 + (64,), depths=(1,) * 8))
    with pytest.raises(ValueError, match="sample"):
        SPACE.network(SpvnasChoice(widths=(16,) * 9, depths=(3,) * 8))
    with pytest.raises(ValueError, match="nine bounds"):
        SpvnasSpace(most_widths=(40, 48, 96, 192, 384, 384, 192, 128, 128))
    with pytest.raises(ValueError, match="least_depth"):
        SpvnasSpace(least_depth=3)
    with pytest.raises(ValueError, match="nine numbers"):
        UNetConfig(widths=(1, 2))
    with pytest.raises(ValueError, match="eight numbers"):
        UNetConfig(depths=(0,) * 8)


@pytest.mark.skipif(not Path(SCAN).exists(), reason=f"no scan {SCAN}")
@pytest.mark.parametrize("network", [MinkUNet, SPVCNN])
def test_a_real_scan_runs_through(network):
    """The published rule: coordinates divided by 0.05 m, shifted to their least."""
    raw = torch.from_numpy(np.fromfile(SCAN, np.float32).reshape(-1, 4))
    assert len(raw) == 123_389
    place = raw[:, :3] / 0.05
    place = place - place.floor().amin(0)
    points = PointTensor(coords=torch.cat([torch.zeros(len(raw), 1), place], 1), feats=raw)
    model = built(network, UNetConfig(widths=(4, 4, 8, 8, 8, 8, 8, 4, 4))).eval()
    with torch.inference_mode():
        if network is SPVCNN:
            logits = model(points)
        else:
            voxels, cell = initial_voxelize(points)
            assert len(voxels) < len(raw)
            logits = model(voxels)[cell]
    assert logits.shape == (len(raw), 19) and bool(logits.isfinite().all())
    assert len(logits.argmax(1).unique()) > 1
