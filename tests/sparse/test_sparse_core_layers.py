"""Norms, activations, pools and views from above, against dense ones over the active cells."""

import pytest
import torch
from sparse_samples import RANGE, by_cell, random_tensor, seeded
from torch import Tensor, nn

from sparsedrive.sparse import (
    AvgPool3d,
    BatchNorm,
    Conv3d,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    InstanceNorm,
    LeakyReLU,
    MaxPool3d,
    ReLU,
    SiLU,
    SparseTensor,
    SyncBatchNorm,
    ToBEVHeightCompression,
    ToBEVReduction,
    ToDenseBEVConvolution,
    functional,
)


class TestNormsAndPools:
    def test_norms_are_the_dense_ones_over_active_cells(self):
        x = random_tensor()
        rows = [x.feats[x.coords[:, 0] == b].T[None] for b in range(2)]

        def expected(dense: nn.Module) -> Tensor:
            want = torch.empty_like(x.feats)
            for b in range(2):
                want[x.coords[:, 0] == b] = dense(rows[b])[0].T
            return want

        for groups in (1, 2, 4):
            layer, dense = seeded(GroupNorm(groups, 4)), seeded(nn.GroupNorm(groups, 4))
            torch.testing.assert_close(layer(x).feats, expected(dense))
        torch.testing.assert_close(InstanceNorm(4).double()(x).feats, expected(nn.InstanceNorm1d(4).double()))
        torch.testing.assert_close(seeded(InstanceNorm(4, affine=True))(x).feats, expected(seeded(nn.InstanceNorm1d(4, affine=True))))
        torch.testing.assert_close(BatchNorm(4).double()(x).feats, nn.BatchNorm1d(4).double()(x.feats))

    def test_norms_become_synchronised_with_their_weights(self):
        model = nn.Sequential(Conv3d(4, 4), seeded(BatchNorm(4)), nn.Sequential(nn.BatchNorm2d(3))).eval()
        model[1].running_mean.fill_(3)
        weight = model[1].weight
        sync = SyncBatchNorm.convert_sync_batchnorm(model)
        assert type(sync[1]) is SyncBatchNorm and type(sync[2][0]) is nn.SyncBatchNorm and not sync[1].training
        assert torch.equal(sync[1].weight, weight) and (sync[1].running_mean == 3).all() and sync[1].weight.dtype == torch.float64
        x = random_tensor()
        torch.testing.assert_close(sync[1](x).feats, (x.feats - 3) * (1 + 1e-5) ** -0.5 * weight + sync[1].bias)

    def test_activations(self):
        x = random_tensor()
        for layer, dense in [(ReLU(), nn.ReLU()), (LeakyReLU(0.1), nn.LeakyReLU(0.1)), (SiLU(), nn.SiLU())]:
            assert torch.equal(layer(x).feats, dense(x.feats))
        assert torch.equal(functional.silu(x).feats, SiLU()(x).feats) and torch.equal(functional.leaky_relu(x).feats, LeakyReLU()(x).feats)

    def test_average_counts_active_cells_only(self):
        x = random_tensor()
        y = AvgPool3d(2)(x)
        for cell, row in by_cell(y).items():
            under = (x.coords[:, 0] == cell[0]) & ((x.coords[:, 1:] // 2) == torch.tensor(cell[1:])).all(1)
            torch.testing.assert_close(torch.tensor(row, dtype=torch.float64), x.feats[under].mean(0))
        assert y.spatial_range == (2, 3, 3, 2) and y.stride == (2, 2, 2)

    @pytest.mark.parametrize("pool", [MaxPool3d(3, 2, padding=1), AvgPool3d(2), GlobalAvgPool(), GlobalMaxPool()])
    def test_gradients_of_pools(self, pool):
        x = random_tensor(12, 2)

        def values(feats: Tensor) -> Tensor:
            y = pool(x.with_feats(feats))
            return y if isinstance(y, Tensor) else y.feats

        assert torch.autograd.gradcheck(values, x.feats.requires_grad_())

    def test_max_of_infinities_and_nan(self):
        coords = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
        feats = torch.tensor([[-torch.inf, torch.nan, 1], [-torch.inf, 5, 1]])
        x = SparseTensor(coords=coords, feats=feats, spatial_range=(1, 2, 2, 2))
        leaf = x.feats.clone().requires_grad_()
        y = MaxPool3d(2)(x.with_feats(leaf))
        assert y.feats[0, 0] == -torch.inf and y.feats[0, 1].isnan() and y.feats[0, 2] == 1
        y.feats[:, 2].sum().backward()
        assert leaf.grad[:, 2].tolist() == [1, 0]

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_seen_from_above(self, axis):
        x = random_tensor()
        grid = x.dense()
        flat = ToBEVReduction(axis)(x)
        torch.testing.assert_close(flat.dense(), grid.sum(2 + axis, keepdim=True))
        compressed = ToBEVHeightCompression(axis)(x)
        levels = RANGE[1 + axis]
        assert compressed.shape == (2, 4 * levels, *(size for i, size in enumerate(RANGE[1:]) if i != axis))
        assert torch.equal(compressed[:, levels + 1], grid[:, 1].select(1 + axis, 1))
        layer = seeded(ToDenseBEVConvolution(4, 3, 2 * levels, stride=2, axis=axis, bias=True))
        want = torch.einsum("bcl...,lcd->bd...", grid.movedim(2 + axis, 2), layer.kernel) + layer.bias[:, None, None]
        torch.testing.assert_close(layer(x), want)
        with pytest.raises(ValueError, match="give the layer more levels"):
            ToDenseBEVConvolution(4, 3, 2, axis=axis).double()(x)
        with pytest.raises(ValueError, match="expected 0, 1 or 2"):
            ToBEVReduction(3)

    def test_crop(self):
        x = random_tensor()
        y = functional.spcrop(x, (1, 0, 2), (4, 6, 4))
        inside = (x.coords[:, 1] >= 1) & (x.coords[:, 1] < 4) & (x.coords[:, 3] >= 2) & (x.coords[:, 3] < 4)
        assert torch.equal(y.coords, x.coords[inside]) and 0 < len(y) < len(x) and y.maps is not x.maps
