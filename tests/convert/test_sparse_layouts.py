"""Layouts of sparse convolution weights: stored pairs, round trips, whole state dicts, files, and what does not fit."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from sources import golden_folder
from sparsedrive.convert.checkpoint import read_state
from sparsedrive.convert.spconv import convert_spconv_file, from_spconv, kernel_from_spconv, spconv_from_kernel, to_spconv
from sparsedrive.convert.torchsparse import convert_torchsparse_file, from_torchsparse, to_torchsparse
from sparsedrive.sparse.conv import Conv3d
from sparsedrive.sparse.minkunet import MinkUNet, SparseResUNet42, UNetConfig
from sparsedrive.sparse.norm import BatchNorm
from sparsedrive.sparse.sparse_encoder import SparseEncoder, centerpoint
from sparsedrive.sparse.sparse_resnet import SparseResNet21D
from sparsedrive.sparse.spvcnn import SPVCNN

GOLDEN = golden_folder() / "sparseconv"
SIZES = [(3, 3, 3), (2, 2, 2), (5, 5, 5), (1, 3, 5), (3, 1, 1), (2, 3, 3), (1, 1, 1), (4, 4, 4), (3, 5, 1)]
NARROW = UNetConfig(widths=(4, 4, 6, 8, 8, 8, 6, 6, 4), num_classes=3)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden folder {GOLDEN}; name its parent in SPARSEDRIVE_GOLDEN")
def test_all_stored_weights():
    pairs = 0
    for path in sorted(GOLDEN.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if not name.startswith("weight_ts"):
                    continue
                end = name.removeprefix("weight_ts")
                ours, first, second = (torch.from_numpy(file[kind + end]) for kind in ("weight_ts", "weight_spconv1", "weight_spconv2"))
                size = tuple(first.shape[:3])
                flat = ours[None] if ours.dim() == 2 else ours
                assert torch.equal(kernel_from_spconv(first, "spconv1"), flat) and torch.equal(kernel_from_spconv(second, "spconv2"), flat)
                assert torch.equal(spconv_from_kernel(ours, size, "spconv1"), first)
                assert torch.equal(spconv_from_kernel(ours, size, "spconv2"), second)
                pairs += 1
    assert pairs > 25


@pytest.mark.parametrize("size", SIZES)
def test_every_offset_is_where_it_belongs(size):
    """A weight that holds its own place: x fastest where the number of offsets is odd, z fastest where it is even."""
    places = torch.tensor(list(itertools.product(*map(range, size))), dtype=torch.float32)
    first = places.reshape(*size, 3, 1).expand(*size, 3, 2)
    kernel = kernel_from_spconv(first, "spconv1")
    odd = size[0] * size[1] * size[2] % 2
    order = [place[::-1] for place in itertools.product(*map(range, size[::-1]))] if odd else itertools.product(*map(range, size))
    assert kernel[:, :, 1].tolist() == [list(map(float, place)) for place in order]
    assert torch.equal(spconv_from_kernel(kernel, size, "spconv1"), first)
    assert torch.equal(kernel_from_spconv(spconv_from_kernel(kernel, size, "spconv2"), "spconv2"), kernel)


class Mixed(nn.Module):
    """Every kind of kernel, and a dense convolution that must stay as it is."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(*(Conv3d(3, 3, size, bias=True) for size in SIZES), Conv3d(3, 3, 1, 2), BatchNorm(3))
        self.dense = nn.Conv3d(3, 3, 3)


@pytest.mark.parametrize("layout", ["spconv1", "spconv2"])
def test_state_dicts_go_there_and_back(layout):
    model = Mixed()
    there = to_spconv(model.state_dict(), layout, model, prefix="lidar.backbone.")
    assert there["lidar.backbone.convs.0.weight"].shape == (3, 3, 3, 3, 3) and there["lidar.backbone.convs.6.weight"].dim() == 5
    assert len(there) == len(model.state_dict())
    back = from_spconv(there | {"camera.weight": torch.zeros(1)}, layout, model=model, prefix="lidar.backbone.")
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    by_pattern = from_spconv(there, layout, prefix="lidar.backbone.", pattern=r"^convs\.")
    assert torch.equal(by_pattern["dense.weight"], model.dense.weight) and torch.equal(by_pattern["convs.2.kernel"], back["convs.2.kernel"])
    assert by_pattern["convs.6.kernel"].shape == (3, 3)


@pytest.mark.parametrize(
    ("model", "network"),
    [
        (lambda: MinkUNet(NARROW), "same"),
        (lambda: SPVCNN(NARROW), "same"),
        (lambda: SparseEncoder(centerpoint()), "same"),
        (lambda: SparseResUNet42(NARROW), "sparse_resunet"),
        (lambda: SparseResNet21D(width=0.5), "sparse_resnet"),
    ],
)
def test_torchsparse_round_trip_is_exact(model, network):
    model = model()
    ours = model.state_dict()
    there = to_torchsparse(ours, network=network, prefix="module.")
    assert len(there) == len(ours)
    back = from_torchsparse(there, model, network=network, prefix="module.")
    assert list(back) == list(ours) and all(torch.equal(back[name], value) for name, value in ours.items())
    model.load_state_dict(back)
    again = to_torchsparse(back, network=network, prefix="module.")
    assert all(torch.equal(again[name], value) for name, value in there.items())


def test_backbones_of_torchsparse_have_their_names():
    names = to_torchsparse(SparseResUNet42(NARROW).state_dict(), network="sparse_resunet")
    for name in ("stem.3.kernel", "encoders.0.0.0.kernel", "encoders.3.1.main.3.kernel", "encoders.1.1.shortcut.0.kernel",
                 "decoders.0.upsample.1.weight", "decoders.3.fuse.0.shortcut.1.bias", "decoders.2.fuse.1.main.0.kernel"):  # fmt: skip
        assert name in names, name
    names = to_torchsparse(SparseResNet21D().state_dict(), network="sparse_resnet")
    assert "0.0.0.kernel" in names and "3.2.main.4.running_var" in names and names["4.0.0.kernel"].shape == (3, 128, 128)


def test_files_are_converted(tmp_path):
    model = SparseEncoder(centerpoint())
    official = to_spconv(model.state_dict(), "spconv2", model, prefix="encoders.lidar.backbone.")
    torch.save({"state_dict": official | {"head.weight": torch.zeros(2)}}, tmp_path / "official.pth")
    count = convert_spconv_file(tmp_path / "official.pth", tmp_path / "ours.safetensors", "spconv2", prefix="encoders.lidar.backbone.")
    state = read_state(tmp_path / "ours.safetensors")
    assert count == len(state) == len(official)
    SparseEncoder(centerpoint()).load_state_dict(state)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    convert_torchsparse_file(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", prefix="conv_out.")
    assert "0.kernel" in read_state(tmp_path / "again.safetensors")
    with pytest.raises(ValueError, match="ending in"):
        convert_torchsparse_file(tmp_path / "ours.safetensors", tmp_path / "again.pth")


def test_what_does_not_fit_is_refused():
    model, other = Mixed(), SparseEncoder(centerpoint())
    state = to_spconv(model.state_dict(), "spconv2", model)
    cases = [
        (lambda: from_spconv(state, "spconv1", model=model), "try the other layout"),
        (lambda: from_spconv(state, "spconv2", model=other), "check the prefix"),
        (lambda: from_spconv(state, "spconv2", pattern="nothing"), "check the prefix, the pattern"),
        (lambda: from_spconv(state, "spconv2", prefix="wrong."), "beginning of some names"),
        (lambda: from_spconv(state, "spconv3"), "spconv1 or spconv2"),
        (lambda: kernel_from_spconv(torch.zeros(3, 3), "spconv1"), "five dimensions"),
        (lambda: spconv_from_kernel(torch.zeros(27, 1, 1), (3, 3, 1), "spconv1"), r"expected \[9, in, out\]"),
        (lambda: from_torchsparse(model.state_dict(), other), "missing"),
        (lambda: from_torchsparse(SPVCNN(NARROW).state_dict(), MinkUNet(NARROW)), "8 have no place|have no place"),
        (lambda: from_torchsparse(model.state_dict(), model, network="resnet"), "network: expected one of"),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
