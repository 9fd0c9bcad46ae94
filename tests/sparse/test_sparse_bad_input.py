"""Layers and whole networks on input that is out of the ordinary: the right result, or an error that says what is wrong."""

import pytest
import torch
from sparse_samples import RANGE, by_cell, other, random_tensor, seeded
from torch import Tensor, nn

from sparsedrive.sparse import (
    SPVCNN,
    AvgPool3d,
    Conv3d,
    ConvConfig,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    MaxPool3d,
    MinkUNet,
    PointTensor,
    SparseEncoder,
    SparseTensor,
    ToBEVHeightCompression,
    ToBEVReduction,
    ToDenseBEVConvolution,
    UNetConfig,
    cat,
    generative_add,
    sparse_quantize,
)
from sparsedrive.sparse.sparse_encoder import SparseEncoderConfig
from sparsedrive.sparse.voxels import find_cells, initial_voxelize, point_to_voxel, voxel_to_point

NARROW = UNetConfig(widths=(4, 4, 6, 8, 8, 8, 6, 6, 4), num_classes=3)
FAR = 2**18  # apart on three axes: 2^54 cells
LAYERS = [
    nn.Sequential(Conv3d(4, 3)),
    nn.Sequential(Conv3d(4, 3, 3, 2, padding=1), Conv3d(3, 3), Conv3d(3, 2, 3, 2, transposed=True)),
    nn.Sequential(Conv3d(4, 3, 2, 2, config=ConvConfig(downsample_mode="minkowski"))),
    nn.Sequential(Conv3d(4, 3, submanifold=False, padding=1)),
    nn.Sequential(Conv3d(4, 3, 3, 2, transposed=True, generative=True)),
    nn.Sequential(MaxPool3d(3, 2, padding=1)),
    nn.Sequential(AvgPool3d(2)),
]
PER_SAMPLE = [GlobalAvgPool(), GlobalMaxPool(), GroupNorm(2, 4), InstanceNorm(4)]


def empty(full: tuple[int, ...] | None = None, channels: int = 4) -> SparseTensor:
    return SparseTensor(coords=torch.zeros(0, 4, dtype=torch.int32), feats=torch.zeros(0, channels), spatial_range=full)


def cloud(count: int = 200, size: float = 24.0, dtype: torch.dtype = torch.float32) -> PointTensor:
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(count, 3, generator=generator, dtype=dtype) * size
    batch = (torch.arange(count) % 2)[:, None].to(dtype)
    return PointTensor(coords=torch.cat([batch, places], 1), feats=torch.randn(count, 4, generator=generator))


def network(kind: type) -> nn.Module:
    torch.manual_seed(0)
    return kind(NARROW).eval()


def encoder() -> SparseEncoder:
    torch.manual_seed(0)
    return SparseEncoder(SparseEncoderConfig(in_channels=4, widths=((4, 4), (4, 4), (4, 4), (4,)), base_channels=4, out_channels=4)).eval()


class TestWhereCellsLie:
    @pytest.mark.parametrize("layer", PER_SAMPLE)
    @pytest.mark.parametrize(("shift", "full"), [(-1, None), (-1, RANGE), (1, RANGE)])
    def test_samples_that_are_not_there(self, layer, shift, full):
        x = random_tensor()
        moved = other(x, coords=x.coords + torch.tensor([shift, 0, 0, 0], dtype=torch.int32), spatial_range=full)
        with pytest.raises(ValueError, match=r"batch indices from 0 to \d, got others; number the samples from 0"):
            layer.double()(moved)

    @pytest.mark.parametrize("view", [ToDenseBEVConvolution(4, 2, 5), ToBEVHeightCompression(), SparseTensor.dense])
    @pytest.mark.parametrize("shift", [(0, 0, 1, 0), (0, 0, 0, -1), (0, -1, 0, 0), (1, 0, 0, 0)])
    def test_pictures_refuse_cells_outside(self, view, shift):
        x = random_tensor()
        moved = other(x, coords=x.coords + torch.tensor(shift, dtype=torch.int32))
        if isinstance(view, nn.Module):
            view = view.double()
        with pytest.raises(ValueError, match=r"cells inside spatial_range \(2, 7, 6, 5\), got some outside"):
            view(moved)

    @pytest.mark.parametrize("layer", [LAYERS[1], *LAYERS[3:]])
    def test_layers_refuse_cells_outside(self, layer):
        x = random_tensor()
        stride = (2, 2, 2) if getattr(layer[0], "generative", False) else (1, 1, 1)
        for shift in ((0, -1, 0, 0), (0, 0, 0, 1), (1, 0, 0, 0)):
            moved = other(x, coords=x.coords + torch.tensor(shift, dtype=torch.int32), stride=stride)
            with pytest.raises(ValueError, match="got some outside"):
                layer.double()(moved)

    def test_networks_refuse_cells_outside(self):
        points = cloud()
        with pytest.raises(ValueError, match=r"cells inside spatial_range \(2, 24, 24, 20\), got some outside; crop"):
            network(SPVCNN)(points, (2, 24, 24, 20))
        with pytest.raises(ValueError, match=r"\(2, 24, 24, 20\), got some outside"):
            network(MinkUNet)(initial_voxelize(points, (2, 24, 24, 20))[0])
        with pytest.raises(ValueError, match=r"\(1, 24, 24, 24\), got some outside"):
            encoder()(initial_voxelize(points, (1, 24, 24, 24))[0])

    @pytest.mark.parametrize("layer", LAYERS)
    def test_far_apart_is_as_good_as_alone(self, layer):
        """A number for each cell between these two groups takes more than 31 bits, and more than 32."""
        layer, x = seeded(layer), random_tensor()
        full, coords = (2, 2 * FAR, 2 * FAR, 2 * FAR), x.coords + torch.tensor([0, 8, 8, 8], dtype=torch.int32)
        stride = (2, 2, 2) if getattr(layer[0], "generative", False) else (1, 1, 1)
        shift = torch.tensor([0, FAR, FAR, FAR], dtype=torch.int32)
        alone = layer(other(x, coords=coords, spatial_range=full, stride=stride))
        two = {"coords": torch.cat([coords, coords + shift]), "feats": torch.cat([x.feats, 2 * x.feats])}
        together = by_cell(layer(other(x, **two, spatial_range=full, stride=stride)))
        assert len(together) == 2 * len(alone)
        further = FAR * stride[0] // alone.stride[0]
        for cells, factor in ((alone.coords, 1), (alone.coords + torch.tensor([0, *[further] * 3]), 2)):
            rows = torch.tensor([together[tuple(cell)] for cell in cells.tolist()], dtype=torch.float64)
            torch.testing.assert_close(rows, factor * alone.feats)

    @pytest.mark.parametrize("place", [2**30, -(2**30) - 1])
    def test_new_cells_beyond_int32_are_refused(self, place):
        coords = torch.tensor([[0, 0, place, 0], [0, 0, 0, 0]], dtype=torch.int32)
        layer = Conv3d(1, 1, 2, 2, transposed=True, generative=True)
        with pytest.raises(ValueError, match="cells whose finer ones fit int32, got some too far out"):
            layer(SparseTensor(coords=coords, feats=torch.ones(2, 1), stride=(2, 2, 2)))
        coords[0, 2] -= 1 if place > 0 else -1
        assert len(layer(SparseTensor(coords=coords, feats=torch.ones(2, 1), stride=(2, 2, 2)))) == 16

    def test_networks_on_groups_far_apart(self):
        points = cloud(100, dtype=torch.float64)
        shift = torch.tensor([0, FAR, FAR, FAR])
        both = PointTensor(coords=torch.cat([points.coords, points.coords + shift]), feats=torch.cat([points.feats, points.feats]))
        model = network(SPVCNN)
        want = model(points)
        torch.testing.assert_close(model(both), torch.cat([want, want]), atol=1e-5, rtol=1e-5)
        cells, _ = initial_voxelize(both)
        alone = network(MinkUNet)(initial_voxelize(points)[0])
        made, first = network(MinkUNet)(cells), (cells.coords[:, 1:] < FAR).all(1)
        torch.testing.assert_close(made[first], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made[~first], alone, atol=1e-5, rtol=1e-5)


class TestCellsTwice:
    def test_refused_where_the_result_would_be_of_one_only(self):
        x = random_tensor()
        twice = other(x, coords=torch.cat([x.coords, x.coords[:2]]), feats=torch.cat([x.feats, x.feats[:2]]))
        for use in (SparseTensor.dense, ToBEVHeightCompression(), LAYERS[4].double(), MaxPool3d(2), network(MinkUNet).double()):
            stride = (2, 2, 2) if use is LAYERS[4] else (1, 1, 1)
            with pytest.raises(ValueError, match="expected each cell once, got some twice"):
                use(other(twice, stride=stride))

    def test_added_where_cells_are_united(self):
        x, y = random_tensor(20), random_tensor(20, seed=1)
        twice = other(x, coords=torch.cat([x.coords, x.coords]), feats=torch.cat([x.feats, x.feats]))
        torch.testing.assert_close(generative_add(twice, y).dense(), 2 * x.dense() + y.dense())
        flat, once = ToBEVReduction()(twice), ToBEVReduction()(x)
        assert torch.equal(flat.coords, once.coords)
        torch.testing.assert_close(flat.feats, 2 * once.feats)

    def test_points_twice_answer_alike(self):
        points, model = cloud(), network(SPVCNN)
        twice = PointTensor(coords=points.coords.repeat(2, 1), feats=points.feats.repeat(2, 1))
        want = model(points)  # a cell's mean stays
        torch.testing.assert_close(model(twice), torch.cat([want, want]), atol=1e-5, rtol=1e-5)
        cells, first, number = sparse_quantize(twice.coords[:, 1:])
        assert first.max() < 200 and torch.equal(number[:200], number[200:]) and len(cells) < 200


class TestEmpty:
    @pytest.mark.parametrize("layer", LAYERS)
    @pytest.mark.parametrize("full", [None, (2, 8, 8, 8)])
    def test_layers(self, layer, full):
        layer.float()
        stride = (2, 2, 2) if getattr(layer[0], "generative", False) else (1, 1, 1)
        x = empty(full)
        leaf = x.feats.requires_grad_()
        y = layer(SparseTensor(coords=x.coords, feats=leaf, spatial_range=full, stride=stride))
        assert len(y) == 0 and y.coords.shape == (0, 4)
        y.feats.sum().backward()
        assert leaf.grad.shape == (0, 4)

    def test_pictures_sums_and_points(self):
        x = empty((2, 8, 8, 8))
        assert x.dense().shape == (2, 4, 8, 8, 8) and not x.dense().any()
        assert ToDenseBEVConvolution(4, 3, 8)(x).shape == (2, 3, 8, 8) and len(ToBEVReduction()(x)) == 0
        assert generative_add(x, x).feats.shape == (0, 4) and cat([x, x]).feats.shape == (0, 8)
        assert [part.shape for part in sparse_quantize(torch.zeros(0, 3))] == [(0, 3), (0,), (0,)]
        nothing = PointTensor(coords=torch.zeros(0, 4), feats=torch.zeros(0, 4))
        voxels, cell = initial_voxelize(nothing)
        cells = find_cells(nothing, voxels)
        assert len(voxels) == len(cell) == len(cells.cell) == len(point_to_voxel(nothing, voxels, cells)) == 0
        some = cloud()
        assert not voxel_to_point(voxels, some, find_cells(some, voxels)).feats.any()

    def test_networks(self):
        assert network(MinkUNet)(empty()).shape == (0, 3)
        assert network(SPVCNN)(PointTensor(coords=torch.zeros(0, 4), feats=torch.zeros(0, 4))).shape == (0, 3)
        picture = encoder()(empty((2, 41, 64, 48)))
        assert picture.shape == (2, 8, 8, 6) and not picture.any()
        training = network(MinkUNet).train()
        training(empty()).sum().backward()
        assert not training.stem[0].kernel.grad.any()

    @pytest.mark.parametrize("kind", [MinkUNet, SPVCNN])
    def test_a_sample_without_points_changes_nothing(self, kind):
        model, points = network(kind), cloud()
        gap = PointTensor(coords=points.coords * torch.tensor([2.0, 1, 1, 1]), feats=points.feats)  # sample 1 of 0, 1, 2 is empty

        def answers(cloud: PointTensor) -> Tensor:
            return model(cloud) if kind is SPVCNN else model(initial_voxelize(cloud)[0])

        torch.testing.assert_close(answers(gap), answers(points))


@pytest.mark.parametrize("threads", [2, 8])
def test_any_number_of_threads_gives_layers_the_same_bits_in_twenty_runs(threads):
    x = random_tensor(1500, full=(2, 20, 20, 10))
    layers = [seeded(layer).float() for layer in LAYERS[:4]]
    before = torch.get_num_threads()

    def outcome() -> list[Tensor]:
        found = []
        for layer in layers:
            leaf = x.feats.float().requires_grad_()
            made = layer(other(x, feats=leaf))
            found += [made.coords, made.feats, *torch.autograd.grad(made.feats.square().sum(), [leaf, *layer.parameters()])]
        return found

    try:
        torch.set_num_threads(1)
        want = outcome()
        torch.set_num_threads(threads)
        for _ in range(20):
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(outcome(), want, strict=True))
    finally:
        torch.set_num_threads(before)
