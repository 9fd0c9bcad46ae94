"""Layers against stored numbers of dense convolutions in float64, masked at the active cells; spconv and TorchSparse agree with these."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from sources import golden_folder
from sparsedrive.ops.sparse_conv import kernel_places, kernel_tables
from sparsedrive.sparse import (
    BatchNorm,
    Conv3d,
    ConvConfig,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool3d,
    ReLU,
    SparseTensor,
    cat,
    sparse_quantize,
)

GOLDEN = golden_folder() / "sparseconv"
SWEEP = "n015-2018-07-24-11-22-45+0800__LIDAR_TOP__1532402927647951.pcd.bin"
SWEEP_FILE = golden_folder().parent / "data" / "nuscenes_real" / "samples" / "LIDAR_TOP" / SWEEP
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden folder {GOLDEN}; name its parent in SPARSEDRIVE_GOLDEN")

SUBMANIFOLD = ("subm_k3", "subm_k5", "subm_k135", "subm_k311", "subm_k3_d2", "subm_k3_d123", "subm_k2_ts", "subm_k222_k3mix_ts")
STRIDED = (
    "down_k3s2p0", "down_k3s2p1", "down_k3s2p011", "down_k3s2p110", "down_k2s2p0", "down_k3s3p0", "down_k3s122p1", "down_k131s121p0",
    "down_k3s2p2d2", "pointwise_k1s2p0", "convout_k113s112p0", "convout_k311s211p0", "mink_k3s2", "mink_k2s2", "mink_k3s3",
)  # fmt: skip
TRANSPOSED = ("transpose_gen_k2s2p0", "transpose_gen_k3s2p1", "transpose_gen_k3s1p1")
OPTIONS = {
    "subm_k222_k3mix_ts": {"config": ConvConfig(kmap_mode="hashmap")},
    "conv_k3s1p1_dilating": {"submanifold": False},
    **{name: {"config": ConvConfig(downsample_mode="minkowski")} for name in ("mink_k3s2", "mink_k2s2", "mink_k3s3")},
    **{name: {"transposed": True, "generative": True} for name in TRANSPOSED},
}


class Stored:
    """One file: arrays as tensors, and its numbers as tuples."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def numbers(self, key: str, default: tuple = ()) -> tuple[int, ...]:
        return tuple(self.arrays[key].tolist()) if key in self.arrays else default

    def input(self, *, stride: tuple[int, ...] = (1, 1, 1)) -> SparseTensor:
        shape = (int(self.arrays["batch_size"]), *self.numbers("spatial_shape"))
        return SparseTensor(coords=self.tensor("coords"), feats=self.tensor("feats").requires_grad_(), stride=stride, spatial_range=shape)


def conv(weight: Tensor, *args, **options) -> Conv3d:
    layer = Conv3d(*weight.shape[-2:], *args, **options)
    layer.kernel.data.copy_(weight)
    return layer


def in_dense_layout(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    dense = kernel.new_zeros(kernel.shape[2], kernel.shape[1], *size)
    for k, (x, y, z) in enumerate(kernel_places(size)):
        dense[:, :, x, y, z] = kernel[k].T
    return dense


def assert_close(ours: Tensor, stored: Tensor) -> None:
    torch.testing.assert_close(ours.detach(), stored, rtol=0, atol=1e-5 * max(1.0, stored.abs().max().item()))


@pytest.mark.parametrize("name", [*SUBMANIFOLD, *STRIDED, "conv_k3s1p1_dilating", *TRANSPOSED])
@pytest.mark.parametrize("dataflow", ["auto", "gather_scatter"])
def test_cells_features_and_gradients(name, dataflow):
    stored, options = Stored(name), dict(OPTIONS.get(name, {}))
    size, stride = stored.numbers("kernel"), stored.numbers("stride")
    padding = (0, 0, 0) if name in SUBMANIFOLD else stored.numbers("padding")
    base = options.pop("config", ConvConfig())
    config = ConvConfig(downsample_mode=base.downsample_mode, kmap_mode=base.kmap_mode, dataflow=dataflow)
    dilation = stored.numbers("dilation", (1, 1, 1))
    layer = conv(stored.tensor("weight_ts"), size, stride, padding=padding, dilation=dilation, config=config, **options)
    x = stored.input(stride=stride if name in TRANSPOSED else (1, 1, 1))
    y = layer(x)
    (y.feats * stored.tensor("grad_out")).sum().backward()
    assert torch.equal(y.coords, stored.tensor("out_coords"))
    assert y.spatial_range == (2, *stored.numbers("out_spatial_shape"))
    assert_close(y.feats, stored.tensor("out_feats"))
    assert_close(x.feats.grad, stored.tensor("grad_feats"))
    assert_close(in_dense_layout(layer.kernel.grad, size), stored.tensor("grad_weight_dense"))


@pytest.mark.parametrize("name", ["inverse_k3s2p1", "inverse_k2s2p0", "inverse_k3s2p011"])
def test_inverse_restores_the_cells_in_their_order(name):
    stored = Stored(name)
    size, stride, padding = (stored.numbers(key) for key in ("kernel", "stride", "padding"))
    down, up = (
        conv(stored.tensor("weight_ts_down"), size, stride, padding=padding),
        conv(stored.tensor("weight_ts_up"), size, stride, transposed=True),
    )
    x = stored.input()
    middle = down(x)
    y = up(middle)
    (y.feats * stored.tensor("grad_out")).sum().backward()
    assert torch.equal(middle.coords, stored.tensor("mid_coords")) and middle.stride == stride
    assert torch.equal(y.coords, x.coords) and y.stride == (1, 1, 1) and y.spatial_range == x.spatial_range
    for ours, key in [(middle.feats, "mid_feats"), (y.feats, "out_feats"), (x.feats.grad, "grad_feats")]:
        assert_close(ours, stored.tensor(key))
    for layer, key in [(down, "grad_weight_dense_down"), (up, "grad_weight_dense_up")]:
        assert_close(in_dense_layout(layer.kernel.grad, size), stored.tensor(key))


def test_max_pool_takes_active_cells_only():
    stored = Stored("maxpool_k3s2p1")
    y = MaxPool3d(3, 2, padding=1)(stored.input())
    assert torch.equal(y.coords, stored.tensor("out_coords")) and torch.equal(y.feats.detach(), stored.tensor("out_feats"))
    assert (y.feats < 0).any()


def test_a_small_u_net_in_training_with_every_gradient():
    stored = Stored("chain_unet")
    weights = [stored.tensor(f"weight_ts_{i}") for i in range(4)]
    convs = [conv(weights[0]), conv(weights[1], 3, 2, padding=1), conv(weights[2]), conv(weights[3], 3, 2, transposed=True)]
    norms = [BatchNorm(weight.shape[2], eps=1e-3, momentum=0.01) for weight in weights[:3]]
    for i, norm in enumerate(norms):
        norm.weight.data.copy_(stored.tensor(f"bn_weight_{i}"))
        norm.bias.data.copy_(stored.tensor(f"bn_bias_{i}"))
    x, relu = stored.input(), ReLU()
    a = relu(norms[0](convs[0](x)))
    b = relu(norms[1](convs[1](a)))
    c = relu(norms[2](convs[2](b))) + b
    out = cat([convs[3](c), a])
    averages, largest = GlobalAvgPool()(out), GlobalMaxPool()(out)
    ((averages * stored.tensor("grad_pool")).sum() + 0.1 * out.feats.square().sum()).backward()
    assert torch.equal(c.coords, stored.tensor("mid_coords")) and torch.equal(out.coords, x.coords)
    found = [(a.feats, "feat_a"), (c.feats, "feat_c"), (out.feats, "out_feats"), (averages, "global_avg"), (largest, "global_max")]
    found += [(x.feats.grad, "grad_feats")]
    found += [(in_dense_layout(layer.kernel.grad, (3, 3, 3)), f"grad_weight_dense_{i}") for i, layer in enumerate(convs)]
    for i, norm in enumerate(norms):
        found += [(norm.running_mean, f"running_mean_{i}"), (norm.running_var, f"running_var_{i}")]
        found += [(norm.weight.grad, f"grad_bn_weight_{i}"), (norm.bias.grad, f"grad_bn_bias_{i}")]
    for ours, key in found:
        assert_close(ours, stored.tensor(key))


def test_kernel_order_is_torchsparse_s():
    stored = Stored("kernel_offsets_ts")
    for name, offsets in stored.arrays.items():
        size = tuple(int(number) for number in name[1:].split("_"))
        assert [tuple(j - (k - 1) // 2 for j, k in zip(place, size, strict=True)) for place in kernel_places(size)] == [
            *map(tuple, offsets.tolist())
        ]


def test_cells_and_pairs_of_a_real_sweep_at_every_stage():
    stages = json.loads((GOLDEN / "lidar_counts.json").read_text())["centerpoint_voxel01"]["stages"]
    coords = torch.from_numpy(Stored("lidar_voxels_centerpoint01").arrays["coors_bzyx"].astype(np.int32))
    x = SparseTensor(coords=coords, feats=torch.ones(len(coords), 1), spatial_range=(1, *stages[0]["shape_zyx"]))
    layers = [*((3, 2, padding) for padding in (1, 1, (0, 1, 1))), ((3, 1, 1), (2, 1, 1), 0)]
    for stage, (size, stride, padding) in zip(stages[1:], layers, strict=True):
        layer = Conv3d(1, 1, size, stride, padding=padding)
        layer.kernel.data.fill_(1)
        x = layer(x.with_feats(torch.ones(len(x), 1)))
        table, _ = kernel_tables(x.coords, x.coords, kernel=(3, 3, 3), start=(-1, -1, -1))
        assert (len(x), list(x.spatial_range[1:])) == (stage["active"], stage["shape_zyx"])
        # All weights and features are 1: the output counts the pairs.
        assert int(x.feats.sum()) == stage["pairs_of_this_conv"] and int((table >= 0).sum()) == stage["subm_k3_pairs_here"]
        assert hashlib.sha256(x.coords.numpy().tobytes()).hexdigest() == stage["sha256_sorted_b_zyx_int32"]


@pytest.mark.skipif(not SWEEP_FILE.exists(), reason=f"no sweep {SWEEP_FILE}")
@pytest.mark.parametrize("voxel_m", [0.1, 0.05])
def test_strided_cells_of_a_real_sweep_without_a_range(voxel_m):
    """By floor, and as TorchSparse has it by default, where the largest coordinate ends the grid and odd last rows are lost."""
    stored = json.loads((GOLDEN / "lidar_counts.json").read_text())[f"cubic_{voxel_m}"]
    points = torch.from_numpy(np.fromfile(SWEEP_FILE, np.float32).reshape(-1, 5)[:, :3].copy())
    cells, _, _ = sparse_quantize(points, voxel_m)
    cells -= cells.amin(0)
    assert (len(cells), cells.amax(0).tolist()) == (stored["n"], stored["max"])
    coords = torch.cat([cells.new_zeros(len(cells), 1), cells], 1)
    for config, counts in [
        (ConvConfig(downsample_mode="minkowski"), list(stored["floor_div_counts"].values())),
        (ConvConfig(kmap_mode="hashmap"), list(stored["floor_div_counts"].values())),
        (ConvConfig(), stored["onthefly_k2s2_no_spatial_range"]),
    ]:
        x, layer = SparseTensor(coords=coords, feats=torch.ones(len(coords), 1)), Conv3d(1, 1, 2, 2, config=config)
        found = []
        for _ in counts:
            x = layer(x)
            found.append(len(x))
        assert found == counts
