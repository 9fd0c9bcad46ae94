"""Between points and cells: by hand, as round trips, and TorchSparse's quantising."""

import numpy as np
import pytest
import torch

from sources import golden_folder
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.quantize import sparse_collate, sparse_quantize
from sparsedrive.sparse.tensor import SparseTensor
from sparsedrive.sparse.voxels import find_cells, initial_voxelize, point_to_voxel, voxel_to_point

STORED = golden_folder() / "sparseconv" / "quantize_collate_ts.npz"
OPS = golden_folder() / "sparseconv" / "point_voxel_ops_ts_cpu.npz"


def points(*rows: tuple[float, ...]) -> PointTensor:
    table = torch.tensor(rows)
    return PointTensor(coords=table[:, :4], feats=table[:, 4:])


def test_cells_and_means_by_hand():
    cloud = points((0, 0.2, 0.2, 0.2, 1.0), (0, 0.9, 0.9, 0.9, 3.0), (0, -0.1, 0.0, 0.0, 5.0), (1, 0.2, 0.2, 0.2, 7.0))
    voxels, cell = initial_voxelize(cloud)
    assert voxels.coords.tolist() == [[0, -1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert cell.tolist() == [1, 1, 0, 2]
    assert voxels.feats[:, 0].tolist() == [5.0, 2.0, 7.0]
    cells = find_cells(cloud, voxels)
    assert torch.equal(cells.cell, cell)
    assert torch.equal(point_to_voxel(cloud, voxels, cells).feats, voxels.feats)
    assert voxel_to_point(voxels, cloud, cells, nearest=True).feats[:, 0].tolist() == [2.0, 2.0, 5.0, 7.0]
    # between cell -1 (0.1 away of weight 0.9 missing its other neighbours) and cell 0
    trilinear = voxel_to_point(voxels, cloud, cells).feats[:, 0]
    torch.testing.assert_close(trilinear, torch.tensor([2.0, 2.0, 0.1 * 5.0 + 0.9 * 2.0, 7.0]), atol=1e-4, rtol=0)


def test_coarse_cells_are_found_at_their_stride():
    cloud = points((0, 5.0, -1.0, 0.0, 1.0), (0, 100.0, 0.0, 0.0, 2.0))
    coarse = SparseTensor(coords=torch.tensor([[0, 1, -1, 0]]).int(), feats=torch.tensor([[4.0]]), stride=(4, 2, 1))
    cells = find_cells(cloud, coarse)
    assert cells.cell.tolist() == [0, -1]
    assert voxel_to_point(coarse, cloud, cells).feats[:, 0].tolist() == pytest.approx([4.0, 0.0])
    assert point_to_voxel(cloud, coarse, cells).feats.tolist() == [[1.0]]


def test_gradients_of_both_ways():
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(12, 4, generator=generator, dtype=torch.float64) * torch.tensor([0.0, 3, 3, 3])
    feats = torch.randn(12, 2, generator=generator, dtype=torch.float64).requires_grad_()

    def there_and_back(feats):
        cloud = PointTensor(coords=coords, feats=feats)
        voxels, _ = initial_voxelize(cloud)
        return voxel_to_point(voxels, cloud, find_cells(cloud, voxels)).feats

    assert torch.autograd.gradcheck(there_and_back, (feats,))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"PointTensor.coords: expected float32"):
        PointTensor(coords=torch.zeros(2, 4).half(), feats=torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"PointTensor.feats: expected floating point \[2, C\]"):
        PointTensor(coords=torch.zeros(2, 4), feats=torch.zeros(3, 1))
    with pytest.raises(ValueError, match="finite places"):
        initial_voxelize(points((0, float("nan"), 0, 0, 1.0)))
    cloud = points((0, 0.0, 0.0, 0.0, 1.0))
    voxels, _ = initial_voxelize(cloud)
    with pytest.raises(ValueError, match="find_cells for these points"):
        point_to_voxel(points((0, 0.0, 0.0, 0.0, 1.0), (0, 0.0, 0.0, 0.0, 1.0)), voxels, find_cells(cloud, voxels))


@pytest.mark.skipif(not STORED.exists(), reason=f"no golden file {STORED}; name its folder in SPARSEDRIVE_GOLDEN")
def test_agrees_with_torchsparse():
    with np.load(STORED, allow_pickle=False) as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    cells, first, inverse = sparse_quantize(stored["points"], tuple(stored["voxel_size"].tolist()))
    # torchsparse sorts by another rule: the same cells, first points and numbers but for their order
    order = torch.tensor([int((cells == cell).all(1).nonzero()) for cell in stored["coords"]])
    assert torch.equal(cells[order], stored["coords"]) and len(cells) == len(stored["coords"])
    assert torch.equal(first[order], stored["index"])
    assert torch.equal(inverse, order[stored["inverse"]])
    coords, feats = stored["collated_coords"], stored["collated_feats"]
    parts = [(coords[coords[:, 0] == i, 1:], feats[coords[:, 0] == i]) for i in coords[:, 0].unique()]
    batch = sparse_collate(parts)
    assert torch.equal(batch.coords, coords) and torch.equal(batch.feats, feats)


@pytest.mark.skipif(not OPS.exists(), reason=f"no golden file {OPS}; name its folder in SPARSEDRIVE_GOLDEN")
def test_interpolation_agrees_with_torchsparse():
    with np.load(OPS, allow_pickle=False) as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    cloud = PointTensor(coords=torch.cat([stored["batch_idx"][:, None].float(), stored["points"]], 1), feats=stored["feats"])
    voxels = SparseTensor(coords=stored["voxel_coords_bxyz"], feats=stored["voxel_feats"])
    cells = find_cells(cloud, voxels)
    assert torch.equal(cells.corner, stored["idx_query_devox"])
    torch.testing.assert_close(voxel_to_point(voxels, cloud, cells).feats, stored["devox_feats"], atol=1e-5, rtol=0)
    torch.testing.assert_close(point_to_voxel(cloud, voxels, cells).feats, stored["voxel_feats"], atol=1e-5, rtol=0)
