"""The convolution layer: what it promises beyond the stored numbers, and how it refuses what cannot be."""

import copy
import dataclasses

import pytest
import torch
from sparse_samples import RANGE, by_cell, other, random_tensor, seeded
from torch import nn

from sparsedrive.ops.sparse_conv import available_dataflows
from sparsedrive.sparse import (
    AvgPool3d,
    BatchNorm,
    Conv3d,
    ConvConfig,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    MaxPool3d,
    ReLU,
    SparseTensor,
    functional,
    use_config,
)


class TestConvolution:
    def test_bias_and_pointwise(self):
        x, layer = random_tensor(), seeded(Conv3d(4, 3, 1, bias=True))
        assert layer.kernel.shape == (4, 3)
        torch.testing.assert_close(layer(x).feats, x.feats @ layer.kernel + layer.bias)
        strided = seeded(Conv3d(4, 3, 1, 2, bias=True))
        assert strided.kernel.shape == (1, 4, 3) and len(strided(x)) == ((x.coords[:, 1:] % 2).sum(1) == 0).sum()

    def test_sorted_modes_and_dataflows_give_the_same(self):
        x, layer = random_tensor(), seeded(Conv3d(4, 5, 3, 2, padding=1))
        up = seeded(Conv3d(5, 2, 3, 2, transposed=True))
        want = up(layer(x))
        for splits in (1, 3):
            for dataflow in ("auto", *available_dataflows("cpu")):
                with use_config(ConvConfig(mask_splits=splits, dataflow=dataflow)):
                    y = other(x, feats=x.feats.clone().requires_grad_())
                    got = up(layer(y))
                torch.testing.assert_close(got.feats, want.feats)
                assert bool(y.maps._sorted) == (dataflow in ("auto", "implicit_gemm"))
                assert torch.autograd.gradcheck(lambda feats, y=y: up(layer(y.with_feats(feats))).feats, y.feats, fast_mode=True)

    def test_rows_are_sorted_so_that_like_stand_together(self):
        x = random_tensor()
        Conv3d(4, 4).double()(x)
        (step,) = x.maps._steps.values()
        (part,) = x.maps.sorted_parts(step, 1)
        masks = [tuple(column) for column in (part.pairs.in_of_out >= 0).int().T.tolist()]
        assert masks == sorted(masks, reverse=True) and sorted(part.place.tolist()) == list(range(60))
        assert len(x.maps.sorted_parts(step, 3)) == 3

    def test_every_option_is_part_of_a_map_s_name(self):
        x = random_tensor()
        options = [{}, {"padding": 1}, {"dilation": 2, "padding": 2}, {"config": ConvConfig(downsample_mode="minkowski")}]
        sizes = [len(Conv3d(4, 4, 3, 2, **option).double()(x)) for option in options]
        alone = [len(Conv3d(4, 4, 3, 2, **option).double()(other(x))) for option in options]
        assert sizes == alone and len(set(sizes)) > 2 and len(x.maps) == 4
        before = len(x.maps)
        Conv3d(4, 2, 3, 2, padding=1).double()(x)
        assert len(x.maps) == before

    def test_branches_of_one_stride_stay_apart(self):
        x = random_tensor()
        first, second = (Conv3d(4, 4, 3, 2, padding=padding).double()(x) for padding in (0, 1))
        back = [Conv3d(4, 4, 3, 2, transposed=True).double()(Conv3d(4, 4).double()(y)) for y in (second, first)]
        assert all(torch.equal(y.coords, x.coords) for y in back) and len(first) != len(second)

    def test_a_cell_of_another_sample_is_no_neighbour(self):
        coords = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.int32)
        layer = Conv3d(1, 1)
        layer.kernel.data.fill_(1)
        y = layer(SparseTensor(coords=coords, feats=torch.tensor([[1.0], [2.0]])))
        assert y.feats.flatten().tolist() == [1, 2]

    def test_order_of_the_cells_does_not_matter(self):
        x = random_tensor()
        shuffled = other(x, coords=x.coords.flip(0), feats=x.feats.flip(0))
        for layer in (seeded(Conv3d(4, 3)), seeded(Conv3d(4, 3, 3, 2, padding=1)), seeded(Conv3d(4, 3, submanifold=False, padding=1))):
            want, got = by_cell(layer(x)), by_cell(layer(shuffled))
            assert want.keys() == got.keys() and all(torch.allclose(torch.tensor(want[c]), torch.tensor(got[c])) for c in want)

    def test_negative_cells(self):
        x = random_tensor(ranged=False)
        moved = other(x, coords=x.coords - torch.tensor([0, 4, 4, 4], dtype=torch.int32))
        same, floored = seeded(Conv3d(4, 3)), seeded(Conv3d(4, 3, 2, 2, config=ConvConfig(downsample_mode="minkowski")))
        torch.testing.assert_close(same(moved).feats, same(x).feats)
        torch.testing.assert_close(floored(moved).feats, floored(x).feats)
        assert floored(moved).coords.amin() == -2
        with pytest.raises(ValueError, match=r"at least 0 for a strided convolution by spconv's rule, got negative ones"):
            Conv3d(4, 3, 2, 2).double()(moved)

    @pytest.mark.parametrize(
        "layer", [Conv3d(4, 3), Conv3d(4, 3, 3, 2), Conv3d(4, 3, 2, 2, config=ConvConfig(downsample_mode="minkowski"))]
    )
    def test_bad_cells_are_refused(self, layer):
        x, layer = random_tensor(), layer.double()
        with pytest.raises(ValueError, match=r"cells inside spatial_range \(2, 7, 6, 4\), got some outside"):
            layer(other(x, spatial_range=(2, 7, 6, 4)))
        double = torch.cat([x.coords, x.coords[:1]])
        with pytest.raises(ValueError, match="expected each cell once, got some twice"):
            layer(SparseTensor(coords=double, feats=torch.ones(61, 4, dtype=torch.float64), spatial_range=RANGE))

    @pytest.mark.parametrize("full", [None, (3, 4, 4, 4)])
    def test_nothing_in_nothing_out(self, full):
        x = SparseTensor(coords=torch.zeros(0, 4, dtype=torch.int32), feats=torch.zeros(0, 4, requires_grad=True), spatial_range=full)
        down = Conv3d(4, 3, 3, 2, padding=1)(BatchNorm(4)(x))
        up = Conv3d(3, 2, 3, 2, transposed=True)(GroupNorm(1, 3)(ReLU()(Conv3d(3, 3)(down))))
        assert up.feats.shape == (0, 2) and up.coords.shape == (0, 4) and len(MaxPool3d(2)(x)) == len(AvgPool3d(2)(x)) == 0
        assert GlobalAvgPool()(x).shape == ((3 if full else 0), 4)
        up.feats.sum().backward()

    def test_a_batch_with_an_empty_sample(self):
        x = random_tensor(full=(1, 7, 6, 5))
        coords = x.coords.clone()
        coords[:, 0] = 1
        y = other(x, coords=coords, spatial_range=(3, 7, 6, 5))
        for layer in (seeded(Conv3d(4, 3)), seeded(Conv3d(4, 3, 3, 2)), seeded(GroupNorm(2, 4)), InstanceNorm(4).double()):
            torch.testing.assert_close(layer(y).feats, layer(x).feats)
        pooled = GlobalMaxPool()(y)
        assert not pooled[[0, 2]].any() and torch.equal(pooled[1:2], GlobalMaxPool()(x)) and not GlobalAvgPool()(y)[[0, 2]].any()

    def test_transposed_without_its_convolution_is_refused(self):
        x = random_tensor()
        y = Conv3d(4, 4, 3, 2).double()(x)
        for tensor, layer, message in [
            (x, Conv3d(4, 4, 2, 2, transposed=True), "got cells no strided convolution of this graph made"),
            (y, Conv3d(4, 4, 2, 2, transposed=True), r"kernel \(2, 2, 2\).* got kernel \(3, 3, 3\), stride \(2, 2, 2\)"),
            (y, Conv3d(4, 4, 3, 3, transposed=True), r"stride \(3, 3, 3\).* got kernel \(3, 3, 3\), stride \(2, 2, 2\)"),
            (x, Conv3d(4, 4, 2, 2, transposed=True, generative=True), r"a stride that divides the tensor's \(1, 1, 1\), got \(2, 2, 2\)"),
            (x, Conv3d(3, 4), "expected 3 channels, got 4"),
            (dataclasses.replace(y, coords=y.coords.clone()), Conv3d(4, 4, 3, 2, transposed=True), "the cache was filled for"),
        ]:
            with pytest.raises(ValueError, match=message):
                layer.double()(tensor)

    @pytest.mark.parametrize(
        "options",
        [
            {"kernel_size": 0},
            {"stride": 0},
            {"padding": -1},
            {"generative": True},
            {"submanifold": True, "stride": 2},
            {"kernel_size": (3, 3)},
        ],
    )
    def test_contradictions_are_refused(self, options):
        with pytest.raises(ValueError, match="expected"):
            Conv3d(4, 4, **options)

    def test_everything_after_stride_is_keyword_only(self):
        with pytest.raises(TypeError):
            Conv3d(4, 4, 3, 1, 1)

    def test_half_precision_decides(self):
        x, layer = random_tensor(), Conv3d(4, 3, bias=True)
        want = layer(x.with_feats(x.feats.float()))
        got = layer(x.with_feats(x.feats.bfloat16()))
        assert got.feats.dtype == torch.bfloat16
        torch.testing.assert_close(got.feats.float(), want.feats, rtol=2e-2, atol=2e-2)
        assert Conv3d(4, 3, 1)(x.with_feats(x.feats.half())).feats.dtype == torch.float16

    def test_starts_within_torchsparse_s_bounds(self):
        layer, up = Conv3d(16, 64, bias=True), Conv3d(16, 64, 2, 2, transposed=True)
        for parameter, bound in [(layer.kernel, (27 * 16) ** -0.5), (layer.bias, (27 * 16) ** -0.5), (up.kernel, (8 * 64) ** -0.5)]:
            assert 0.5 * bound < parameter.abs().max() <= bound
        assert "padding" not in repr(layer) and "transposed" in repr(up)

    def test_models_copy_and_save(self):
        model = nn.Sequential(Conv3d(4, 4, 3, 2, padding=1), BatchNorm(4), ReLU(), Conv3d(4, 4)).double()
        x = random_tensor()
        twin = copy.deepcopy(model)
        twin.load_state_dict(model.state_dict())
        assert list(model.state_dict())[:2] == ["0.kernel", "1.weight"]
        assert torch.equal(model(x).feats, twin(copy.deepcopy(x)).feats)

    def test_residual_block_compiles_as_one_graph(self):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.norm, self.second = Conv3d(4, 4), BatchNorm(4), Conv3d(4, 4)
                self.down, self.up = Conv3d(4, 4, 3, 2, padding=1), Conv3d(4, 4, 3, 2, transposed=True)

            def forward(self, x):
                y = functional.relu(self.second(functional.relu(self.norm(self.first(x)))) + x)
                return self.up(self.down(y)) + y

        block, x = Block().double(), random_tensor()
        compiled = torch.compile(copy.deepcopy(block), fullgraph=True, backend="aot_eager")
        leaves = [x.feats.clone().requires_grad_() for _ in range(2)]
        outputs = [module(other(x, feats=leaf)) for module, leaf in zip((block, compiled), leaves, strict=True)]
        for output in outputs:
            output.feats.square().sum().backward()
        torch.testing.assert_close(outputs[1].feats, outputs[0].feats)
        torch.testing.assert_close(leaves[1].grad, leaves[0].grad)
