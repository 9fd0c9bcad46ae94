"""Voxels against the specification, TorchSparse's stored numbers, and a real sweep."""

import hashlib
import json

import numpy as np
import pytest
import torch

from sources import golden_folder
from sparsedrive.ops.voxelize import CORNERS, Grid, devoxelize, reference, trilinear_weights, voxel_mean, voxelize

GOLDEN = golden_folder() / "sparseconv"
SWEEPS = golden_folder().parent / "data" / "nuscenes_real" / "samples" / "LIDAR_TOP"
GRID = Grid(low_m=(-1.0, -2.0, 0.0), high_m=(1.0, 2.0, 1.0), voxel_m=(0.5, 1.0, 0.5), max_points=3)
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden folder {GOLDEN}; name its parent in SPARSEDRIVE_GOLDEN")


CENTERPOINT = Grid(low_m=(-51.2, -51.2, -5.0), high_m=(51.2, 51.2, 3.0), voxel_m=(0.1, 0.1, 0.2))
BEVFUSION = Grid(low_m=(-54.0, -54.0, -5.0), high_m=(54.0, 54.0, 3.0), voxel_m=(0.075, 0.075, 0.2))


def cloud(seed: int, count: int = 120, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 5, generator=generator, dtype=dtype) * 5 - 2.5


def same(a, b) -> None:
    assert torch.equal(a.coords, b.coords) and torch.equal(a.count, b.count) and torch.equal(a.voxel_of_point, b.voxel_of_point)
    torch.testing.assert_close(a.feats, b.feats)


@pytest.mark.parametrize("max_voxels", [None, 4])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_specification(seed, max_voxels):
    points, batch = cloud(seed), torch.arange(120) // 40
    grid = Grid(low_m=GRID.low_m, high_m=GRID.high_m, voxel_m=GRID.voxel_m, max_points=2, max_voxels=max_voxels)
    same(voxelize(points, grid, batch), reference.voxelize(points, grid, batch))
    shuffled = batch[torch.randperm(120, generator=torch.Generator().manual_seed(seed))]
    same(voxelize(points, grid, shuffled), reference.voxelize(points, grid, shuffled))


def test_rules_by_hand():
    points = torch.tensor(
        [[0.6, 0.1, 0.2, 1.0], [-0.9, 0.1, 0.2, 2.0], [0.7, 0.2, 0.1, 3.0], [0.9, 0.9, 0.4, 5.0], [0.8, 0.0, 0.0, 100.0],
         [1.0, 0.0, 0.0, 7.0], [-1.0, -2.0, 0.0, 8.0], [float("nan"), 0.0, 0.0, 9.0], [1e30, 0.0, 0.0, 9.0], [0.0, 0.0, -1e-6, 9.0]]
    )  # fmt: skip
    made = voxelize(points, GRID)
    # the upper bound is outside and the lower inside; the fourth point of a voxel does not count
    assert made.coords.tolist() == [[0, 3, 2, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert made.count.tolist() == [3, 1, 1]
    assert made.feats[:, 3].tolist() == [3.0, 2.0, 8.0]
    assert made.voxel_of_point.tolist() == [0, 1, 0, 0, 0, -1, 2, -1, -1, -1]


def test_no_points_no_voxels():
    for points in (torch.zeros(0, 4), torch.full((3, 4), 99.0)):
        made = voxelize(points, GRID)
        assert made.coords.shape == (0, 4) and made.feats.shape == (0, 4) and made.count.shape == (0,)
        assert bool((made.voxel_of_point == -1).all())


def test_gradients_of_means():
    points = cloud(1, 30, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: voxelize(p, GRID).feats, (points,))
    index = torch.tensor([0, 2, -1, 2, 0, 1, 2])
    feats = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.testing.assert_close(voxel_mean(feats, index, 4), reference.voxel_mean(feats, index, 4))
    assert torch.autograd.gradcheck(lambda f: voxel_mean(f, index, 4), (feats,))


def interpolation(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(9, 3, generator=generator, dtype=dtype) * 4 - 2
    corner = torch.randint(-1, 6, (9, 8), generator=generator)
    corner[0], corner[1] = -1, 0
    return torch.randn(6, 4, generator=generator, dtype=dtype), points, corner


def test_interpolation_agrees_with_the_specification_and_has_its_gradients():
    feats, points, corner = interpolation()
    weights = trilinear_weights(points, corner)
    torch.testing.assert_close(weights, reference.trilinear_weights(points, corner))
    torch.testing.assert_close(devoxelize(feats, corner, weights), reference.devoxelize(feats, corner, weights))
    points.requires_grad_(), feats.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: trilinear_weights(p, corner), (points,))
    assert torch.autograd.gradcheck(lambda f, p: devoxelize(f, corner, trilinear_weights(p, corner)), (feats, points))


def test_a_linear_function_is_interpolated_exactly():
    side = torch.arange(4.0)
    grid = torch.cartesian_prod(side, side, side)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 3
    corner = ((points.floor()[:, None] + torch.tensor(CORNERS)) @ torch.tensor([16.0, 4.0, 1.0])).long()
    slope = torch.tensor([[1.0, 0.5], [-2.0, 0.25], [3.0, -1.0]])
    found = devoxelize(grid @ slope, corner, trilinear_weights(points, corner))
    torch.testing.assert_close(found, points @ slope, atol=1e-5, rtol=1e-5)


def test_missing_neighbours_give_and_take_nothing():
    feats = torch.ones(2, 3, requires_grad=True)
    corner = torch.full((3, 8), -1)
    corner[0, 0], corner[1, 7] = 1, 1
    points = torch.tensor([[0.25, 0.5, 0.5], [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    weights = trilinear_weights(points, corner)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 0.0, 0.0]))  # the second lies on a missing corner
    made = devoxelize(feats, corner, torch.ones_like(weights))  # even with weights that are not 0
    made.sum().backward()
    assert made.tolist() == [[1.0] * 3, [1.0] * 3, [0.0] * 3]
    assert feats.grad.tolist() == [[0.0] * 3, [2.0] * 3]
    assert devoxelize(torch.zeros(0, 3), torch.full_like(corner, -1), weights).tolist() == [[0.0] * 3] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_may_have_half_precision(dtype):
    feats, points, corner = interpolation(torch.float32)
    weights = trilinear_weights(points, corner)
    exact = devoxelize(feats, corner, weights)
    torch.testing.assert_close(devoxelize(feats.to(dtype), corner, weights.to(dtype)).float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: voxelize(torch.zeros(3, 2), GRID), r"points: expected \[N, 3 or more\]"),
        (lambda: voxelize(torch.zeros(3, 3).half(), GRID), r"half precision cannot name a voxel"),
        (lambda: voxelize(torch.zeros(3, 3), GRID, torch.zeros(2, dtype=torch.int64)), r"batch_index: expected integers \[3\]"),
        (lambda: voxelize(torch.zeros(1, 3), GRID, torch.tensor([-1])), r"batch_index: expected 0 or more"),
        (lambda: Grid(low_m=(0, 0, 0), high_m=(1, 1, 0), voxel_m=(1, 1, 1)), r"low_m below high_m"),
        (lambda: Grid(low_m=(0, 0, 0), high_m=(1, 1, 1), voxel_m=(1, 1, 0)), r"voxel_m: expected three sizes > 0"),
        (lambda: Grid(low_m=(0, 0, 0), high_m=(1, 1, 1), voxel_m=(1, 1, 1), max_points=0), r"limits of 1 or more"),
        (lambda: voxel_mean(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), 1), r"voxel: expected \[3\]"),
        (lambda: voxel_mean(torch.zeros(1, 2), torch.tensor([1]), 1), r"expected -1 to 0, got 1"),
        (lambda: trilinear_weights(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64)), r"corner: expected \[2, 8\]"),
        (lambda: devoxelize(torch.zeros(2, 3), torch.zeros(2, 8, dtype=torch.int64), torch.zeros(2, 4)), r"weights: expected"),
        (lambda: devoxelize(torch.zeros(2, 3), torch.tensor([[2]]), torch.zeros(1, 1)), r"expected -1 to 1, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@needs_golden
def test_agrees_with_torchsparse():
    with np.load(GOLDEN / "point_voxel_ops_ts_cpu.npz", allow_pickle=False) as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    feats = stored["feats"].requires_grad_()
    mean = voxel_mean(feats, stored["idx_query"], len(stored["counts"]))
    mean.backward(stored["grad_voxel"])
    torch.testing.assert_close(mean, stored["voxel_feats"], atol=1e-5, rtol=0)
    torch.testing.assert_close(feats.grad, stored["grad_feats"], atol=1e-5, rtol=0)
    weights = trilinear_weights(stored["points"], stored["idx_query_devox"])
    torch.testing.assert_close(weights, stored["ti_weights"], atol=1e-5, rtol=0)
    voxels = stored["voxel_feats"].requires_grad_()
    found = devoxelize(voxels, stored["idx_query_devox"], weights)
    found.backward(stored["grad_devox"])
    torch.testing.assert_close(found, stored["devox_feats"], atol=1e-5, rtol=0)
    torch.testing.assert_close(voxels.grad, stored["grad_voxel_from_devox"], atol=1e-5, rtol=0)


def sweep() -> tuple[torch.Tensor, dict]:
    counts = json.loads((GOLDEN / "lidar_counts.json").read_text())
    path = SWEEPS / counts["file"]
    if not path.exists():
        pytest.skip(f"no real sweep {path}")
    points = torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, 5))
    points[:, 4] = 0  # the ring, which published models replace by the age of the sweep
    return points, counts


@needs_golden
@pytest.mark.parametrize(("grid", "name"), [(CENTERPOINT, "centerpoint_voxel01"), (BEVFUSION, "bevfusion_voxel0075")])
def test_voxels_of_a_real_sweep(grid, name):
    points, counts = sweep()
    expected = counts[name]
    made = voxelize(points, grid)
    assert len(made.coords) == expected["voxels"]
    assert int((made.voxel_of_point >= 0).sum()) == expected["points_in_range"]
    assert int(made.count.sum()) == expected["points_kept_max10"]
    bzyx = torch.unique(made.coords[:, [0, 3, 2, 1]], dim=0)
    assert hashlib.sha256(bzyx.numpy().tobytes()).hexdigest() == expected["sha256_voxels"]
    assert len(voxelize(points.double(), grid).coords) == expected["voxels_if_float64_index"]


@needs_golden
def test_order_and_means_of_a_real_sweep():
    points, _ = sweep()
    made = voxelize(points, CENTERPOINT)
    with np.load(GOLDEN / "lidar_voxels_centerpoint01.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(made.coords[:, [0, 3, 2, 1]].numpy(), stored["coors_bzyx"])
        np.testing.assert_array_equal(made.count.numpy(), stored["num_points"])
        np.testing.assert_allclose(made.feats.numpy(), stored["mean_feats"], atol=1e-5, rtol=1e-6)
