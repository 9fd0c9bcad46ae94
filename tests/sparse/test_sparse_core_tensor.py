"""Sparse tensors: what they promise, and how they refuse what cannot be."""

import dataclasses

import pytest
import torch
from sparse_samples import RANGE, other, random_tensor

from sparsedrive.sparse import ReLU, SparseTensor, cat, generative_add, sparse_collate, sparse_quantize


class TestTensor:
    def test_dense_and_back(self):
        x = random_tensor()
        grid = x.dense()
        assert grid.shape == (2, 4, 7, 6, 5) and grid.is_contiguous() and (grid != 0).sum() == x.feats.numel()
        b, i, j, k = x.coords.long().T
        assert torch.equal(grid[b, :, i, j, k], x.feats) and torch.equal(x.dense(channels_last=True), grid.movedim(1, -1))
        assert random_tensor(ranged=False).dense(spatial_range=(3, 8, 8, 8)).shape == (3, 4, 8, 8, 8)

    def test_dense_has_a_gradient(self):
        x = random_tensor(5)
        leaf = x.feats.clone().requires_grad_()
        x.with_feats(leaf).dense().square().sum().backward()
        assert torch.equal(leaf.grad, 2 * x.feats)

    def test_is_immutable_and_shares_its_maps(self):
        x = random_tensor()
        with pytest.raises(dataclasses.FrozenInstanceError):
            x.feats = x.feats * 2
        y = ReLU()(x)
        assert y.coords is x.coords and y.maps is x.maps and y.F is y.feats and y.C is y.coords and y.s == (1, 1, 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"coords": torch.zeros(3, 4)}, r"coords: expected int32 \[N, 4\].*got torch.float32"),
            ({"coords": torch.zeros(3, 3, dtype=torch.int32)}, "coords: expected int32"),
            ({"feats": torch.zeros(2, 4)}, r"feats: expected \[3, C\]"),
            ({"feats": torch.zeros(3, 4, dtype=torch.int64)}, "feats: expected a floating point dtype"),
            ({"stride": (1, 2)}, "stride: expected three positive numbers"),
            ({"spatial_range": (7, 6, 5)}, r"spatial_range: expected \(B, X, Y, Z\)"),
        ],
    )
    def test_shapes_are_checked(self, changes, message):
        good = {"coords": torch.zeros(3, 4, dtype=torch.int32), "feats": torch.zeros(3, 4)}
        with pytest.raises(ValueError, match=message):
            SparseTensor(**{**good, **changes})

    def test_dense_refuses_what_lies_outside(self):
        x = random_tensor(ranged=False)
        with pytest.raises(ValueError, match=r"spatial_range: expected .*got None"):
            x.dense()
        with pytest.raises(ValueError, match="expected cells inside spatial_range"):
            x.dense(spatial_range=(2, 7, 6, 4))

    def test_cat_and_sum_want_the_same_cells(self):
        x = random_tensor()
        assert torch.equal(cat([x, x + x]).feats, torch.cat([x.feats, 2 * x.feats], 1)) and cat([x]).spatial_range == RANGE
        twin = other(x, coords=x.coords.clone())
        assert torch.equal((x + twin).feats, 2 * x.feats)
        for wrong in (other(x, coords=x.coords.flip(0)), other(x, stride=(2, 2, 2), coords=x.coords.clone())):
            with pytest.raises(ValueError, match="expected tensors with the same coordinates in the same order"):
                x + wrong
        with pytest.raises(ValueError, match="at least one tensor"):
            cat([])

    def test_generative_add_is_the_sum_of_the_grids(self):
        x, y = random_tensor(40), random_tensor(50, seed=1)
        z = generative_add(x, y)
        assert torch.equal(z.dense(), x.dense() + y.dense())
        assert torch.equal(z.coords, torch.unique(z.coords, dim=0)) and len(x) < len(z) < 90
        with pytest.raises(ValueError, match=r"expected stride .* 4 channels"):
            generative_add(x, random_tensor(channels=3))

    def test_collate_numbers_the_samples_and_keeps_empty_ones(self):
        cells = [torch.tensor([[1, 2, 3]]), torch.zeros(0, 3, dtype=torch.int32), torch.tensor([[4, 5, 6], [7, 8, 9]])]
        batch = sparse_collate([(cell, torch.ones(len(cell), 2)) for cell in cells])
        assert batch.coords.tolist() == [[0, 1, 2, 3], [2, 4, 5, 6], [2, 7, 8, 9]] and batch.coords.dtype == torch.int32
        assert batch.batch_size() == 3 and batch.spatial_range is None
        one = SparseTensor(coords=torch.tensor([[0, 1, 1, 1]], dtype=torch.int32), feats=torch.ones(1, 2), spatial_range=(1, 4, 4, 4))
        assert sparse_collate([one, one]).spatial_range == (2, 4, 4, 4)
        with pytest.raises(ValueError, match="one stride and range"):
            sparse_collate([one, other(one, stride=(2, 2, 2))])
        with pytest.raises(ValueError, match=r"cells \[N, 3\]"):
            sparse_collate([(batch.coords, batch.feats)])
        with pytest.raises(ValueError, match="at least one sample"):
            sparse_collate([])

    def test_quantize_by_hand(self):
        points = torch.tensor([[0.9, 0.1, 0.0], [-0.1, 0.0, 0.0], [0.6, 0.4, 0.9], [2.0, 0.0, 0.0]])
        cells, first, inverse = sparse_quantize(points, (0.5, 0.5, 1.0))
        assert cells.tolist() == [[-1, 0, 0], [1, 0, 0], [4, 0, 0]] and first.tolist() == [1, 0, 3] and inverse.tolist() == [1, 0, 1, 2]
        assert sparse_quantize(points[:0])[0].shape == (0, 3)
        for wrong, size, message in [(points, 0, "positive"), (points[:, :2], 1, r"\[P, 3\]"), (points / 0, 1, "finite points")]:
            with pytest.raises(ValueError, match=message):
                sparse_quantize(wrong, size)
