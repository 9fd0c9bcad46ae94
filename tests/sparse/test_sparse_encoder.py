"""The encoder of a real sweep against stored numbers of the published one, and its variants against hand-made expectations."""

import hashlib
import json

import numpy as np
import pytest
import torch

from sources import golden_folder
from sparsedrive.sparse.sparse_encoder import SparseEncoder, SparseEncoderConfig, bevfusion, centerpoint, second
from sparsedrive.sparse.tensor import SparseTensor

GOLDEN = golden_folder() / "sparseconv"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden folder {GOLDEN}; name its parent in SPARSEDRIVE_GOLDEN")


def seeded(model: SparseEncoder, rule: dict) -> SparseEncoder:
    """Weights by the rule of the stored run: dense layout (out, in, z, y, x), here (offsets, in, out) with the first axis fastest."""
    state = model.state_dict()
    for conv in rule["convs"]:
        size = (conv["cout"], conv["cin"], *conv["kernel"])
        scale = np.sqrt(2.0 / (conv["cin"] * np.prod(conv["kernel"])))
        dense = (np.random.RandomState(conv["seed"]).standard_normal(size) * scale).astype(np.float32)
        kernel = torch.from_numpy(dense).permute(4, 3, 2, 1, 0).reshape(-1, conv["cin"], conv["cout"])
        assert state[f"{conv['name']}.kernel"].shape == kernel.shape, conv["name"]
        state[f"{conv['name']}.kernel"] = kernel
    for name in state:
        if name.endswith(".bias"):
            state[name] = torch.full_like(state[name], 0.1)
    model.load_state_dict(state)
    assert sum(name.endswith(".kernel") for name in state) == len(rule["convs"])
    return model.eval()


@needs_golden
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_full_encoder_of_a_real_sweep(dtype):
    rule = json.loads((GOLDEN / "lidar_second_encoder.json").read_text())
    stages = json.loads((GOLDEN / "lidar_counts.json").read_text())["centerpoint_voxel01"]["stages"]
    with np.load(GOLDEN / "lidar_voxels_centerpoint01.npz", allow_pickle=False) as voxels:
        feats = torch.from_numpy(voxels["mean_feats"]).to(dtype)
        coords = torch.from_numpy(voxels["coors_bzyx"].astype(np.int32))
    feats[:, 3] /= 255
    feats.requires_grad_()
    model = seeded(SparseEncoder(centerpoint()), rule).to(dtype)
    found = model.stages(SparseTensor(coords=coords, feats=feats, spatial_range=(1, 41, 1024, 1024)))
    loss = found[-1].feats.square().mean()
    loss.backward()
    bev = found[-1].dense().flatten(1, 2)
    down = [found[0], found[1], found[2], found[4]]
    for ours, stored in zip(down, stages[1:], strict=True):
        assert len(ours) == stored["active"] and list(ours.spatial_range[1:]) == stored["shape_zyx"]
        ordered = torch.unique(ours.coords, dim=0)
        assert hashlib.sha256(ordered.numpy().tobytes()).hexdigest() == stored["sha256_sorted_b_zyx_int32"]
    with np.load(GOLDEN / "lidar_second_encoder.npz", allow_pickle=False) as stored:
        close = {"rtol": 1e-5, "atol": 0}
        np.testing.assert_allclose([x.feats.double().sum().item() for x in down], stored["stage_sum"], **close)
        np.testing.assert_allclose([x.feats.double().abs().mean().item() for x in down], stored["stage_absmean"], **close)
        np.testing.assert_allclose(loss.item(), stored["loss"], **close)
        np.testing.assert_allclose(bev[0].double().sum((1, 2)).detach(), stored["bev_sum_per_channel"], rtol=1e-5)
        y, x = stored["bev_sample_yx"].T.astype(int)
        sample = stored["bev_sample"]
        np.testing.assert_allclose(bev[0, :, y, x].T.detach(), sample, rtol=0, atol=1e-5 * np.abs(sample).max())
        grad = stored["grad_feats"]
        if dtype == torch.float64:  # in float32 a ReLU opens or not by rounding alone, and all behind it has another gradient
            np.testing.assert_allclose(feats.grad, grad, rtol=0, atol=1e-5 * np.abs(grad).max())


def cells(axes: str, count: int = 300) -> SparseTensor:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.stack([torch.randint(size, (count,), generator=generator) for size in (64, 48, 41)], 1)
    batch = torch.arange(count)[:, None] % 2
    order = [0, 1, 2] if axes == "xyz" else [2, 1, 0]
    coords = torch.unique(torch.cat([batch, xyz], 1).int(), dim=0)
    feats = torch.randn(len(coords), 5, generator=generator)
    shape = [64, 48, 41]
    return SparseTensor(
        coords=torch.cat([coords[:, :1], coords[:, 1:][:, order]], 1), feats=feats, spatial_range=(2, *(shape[i] for i in order))
    )


def test_both_orders_of_axes_give_one_map():
    torch.manual_seed(0)
    narrow = {"widths": ((8, 8, 16), (16, 16, 16), (16, 16, 16), (16, 16)), "base_channels": 8, "out_channels": 12}
    zyx, xyz = SparseEncoder(SparseEncoderConfig(**narrow)), SparseEncoder(SparseEncoderConfig(axes="xyz", **narrow))
    state = zyx.state_dict()
    for name, value in state.items():
        if name.endswith("kernel"):
            size = (3, 3, 3) if len(value) == 27 else (3, 1, 1)
            # turned around: offset x + 3 (y + 3 z) becomes z + 3 (y + 3 x)
            state[name] = value.reshape(*size, *value.shape[1:]).permute(2, 1, 0, 3, 4).reshape(value.shape)
    xyz.load_state_dict(state)
    first, second_map = zyx.eval()(cells("zyx")), xyz.eval()(cells("xyz"))
    assert first.shape == (2, 24, 6, 8) and second_map.shape == (2, 24, 8, 6)
    assert first.abs().sum() > 0
    torch.testing.assert_close(first, second_map.transpose(2, 3))


def test_variants_have_the_published_layers():
    names = SparseEncoder(second()).state_dict()
    assert names["encoder_layers.encoder_layer2.0.0.kernel"].shape == (27, 16, 32)
    assert names["encoder_layers.encoder_layer1.0.0.kernel"].shape == (27, 16, 16)
    assert names["conv_out.0.kernel"].shape == (3, 64, 128) and len([n for n in names if n.endswith("kernel")]) == 12
    names = SparseEncoder(bevfusion()).state_dict()
    assert names["encoder_layers.encoder_layer3.1.bn2.running_var"].shape == (64,)
    assert names["encoder_layers.encoder_layer3.2.0.kernel"].shape == (27, 64, 128)
    assert SparseEncoder(centerpoint()).conv_input[1].eps == 1e-3
    plain = SparseEncoder(SparseEncoderConfig(block="conv_module", widths=((4,), (4, 4), (4, 4), (4, 4)), base_channels=4, out_channels=4))
    assert plain(cells("zyx")).shape == (2, 8, 6, 8)


def test_a_sample_without_points_gives_an_empty_map():
    model = SparseEncoder(SparseEncoderConfig(widths=((4, 4), (4, 4), (4, 4), (4,)), base_channels=4, out_channels=4)).eval()
    both = cells("zyx")
    one = SparseTensor(coords=both.coords, feats=both.feats, spatial_range=(3, *both.spatial_range[1:]))
    made = model(one)
    assert made.shape == (3, 8, 6, 8) and not made[2].any() and made[0].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "bottleneck"}, "block"),
        ({"axes": "yxz"}, "axes"),
        ({"widths": ((16,),)}, "four stages"),
        ({"widths": ((16,), (16,), (16,), ())}, "four stages"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseEncoderConfig(**arguments)
    with pytest.raises(ValueError, match="keeps its channels"):
        SparseEncoder(SparseEncoderConfig(widths=((16, 32, 32), (32, 32), (32, 32), (32,))))
