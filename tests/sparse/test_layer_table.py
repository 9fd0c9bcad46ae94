"""Layers by name: SpConv's arguments give SpConv's layers (stored numbers), and misuse is refused."""

import numpy as np
import pytest
import torch

from sources import golden_folder
from sparsedrive.convert.spconv import from_spconv
from sparsedrive.sparse.layer_table import LAYERS
from sparsedrive.sparse.tensor import SparseTensor

GOLDEN = golden_folder() / "sparseconv"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden folder {GOLDEN}; name its parent in SPARSEDRIVE_GOLDEN")


def stored(name: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind in "if"}


def ordered(x: SparseTensor) -> torch.Tensor:
    _, order = torch.unique(x.coords, dim=0, return_inverse=True)
    return x.feats[order.argsort()]


@needs_golden
@pytest.mark.parametrize(
    ("file", "name", "arguments"),
    [
        ("subm_k3", "SubMConv3d", (3, 1, 1)),
        ("subm_k3_d2", "SubMConv3d", (3, 1, 2, 2)),
        ("down_k3s2p1", "SparseConv3d", (3, 2, 1)),
        ("down_k3s2p011", "SparseConv3d", (3, 2, (0, 1, 1))),
        ("conv_k3s1p1_dilating", "SparseConv3d", (3, 1, 1)),
        ("transpose_gen_k3s2p1", "SparseConvTranspose3d", (3, 2, 1)),
    ],
)
def test_positional_arguments_of_spconv(file, name, arguments):
    data = stored(file)
    weight = data["weight_spconv2"]
    layer = LAYERS[name](weight.shape[4], weight.shape[0], *arguments, bias=False, indice_key="any")
    model = torch.nn.Sequential(layer)
    model.load_state_dict(from_spconv({"0.weight": weight}, "spconv2", model=model))
    shape = (int(data["batch_size"]), *data["spatial_shape"].tolist())
    stride = (2, 2, 2) if "Transpose" in name else (1, 1, 1)  # a tensor that can be made finer
    x = SparseTensor(coords=data["coords"], feats=data["feats"], spatial_range=shape, stride=stride)
    torch.testing.assert_close(
        ordered(model(x)), ordered(SparseTensor(coords=data["out_coords"], feats=data["out_feats"])), atol=1e-5, rtol=1e-5
    )


@needs_golden
def test_inverse_convolution_finds_its_stride():
    data = stored("inverse_k3s2p1")
    down, up = data["weight_spconv2_down"], data["weight_spconv2_up"]
    first = LAYERS["SparseConv3d"](down.shape[4], down.shape[0], 3, 2, 1, bias=False)
    second = LAYERS["SparseInverseConv3d"](up.shape[4], up.shape[0], 3, "key", bias=False)
    model = torch.nn.Sequential(first, second)
    model.load_state_dict(from_spconv({"0.weight": down, "1.weight": up}, "spconv2", model=model))
    shape = (int(data["batch_size"]), *data["spatial_shape"].tolist())
    x = SparseTensor(coords=data["coords"], feats=data["feats"], spatial_range=shape)
    made = model(x)
    assert torch.equal(made.coords, data["coords"])
    torch.testing.assert_close(made.feats, data["out_feats"], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="made by a convolution"):
        second(made.with_feats(torch.zeros(len(made), up.shape[4])))


def test_arguments_that_would_mean_something_else_are_refused():
    with pytest.raises(ValueError, match="groups: expected 1"):
        LAYERS["SubMConv3d"](4, 4, 3, 1, 0, 1, 2)
    with pytest.raises(TypeError):
        LAYERS["TorchSparseConv3d"](4, 4, 3, 2, 1, False, True)  # stride, dilation, bias, transposed: the order of TorchSparse 1.4
