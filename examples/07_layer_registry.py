"""Build sparse layers by the names in a configuration, through a registry as mmengine and mmdetection3d have it.

With mmengine: `MODELS.register_module(name=name, module=layer, force=True)` in the loop, and configurations written for SpConv or
TorchSparse build these layers.
"""

from typing import Any

import torch
from torch import nn

from sparsedrive.convert.spconv import from_spconv, to_spconv
from sparsedrive.sparse.layer_table import LAYERS
from sparsedrive.sparse.tensor import SparseTensor


class Registry:
    """The part of mmengine's registry that matters here."""

    def __init__(self) -> None:
        self._modules: dict[str, type[nn.Module]] = {}

    def register_module(self, name: str, module: type[nn.Module]) -> None:
        """Enter a class under a name."""
        self._modules[name] = module

    def build(self, config: dict[str, Any], *arguments: Any) -> nn.Module:
        """An instance of the class named by `type`, the rest of the configuration as keywords."""
        options = {key: value for key, value in config.items() if key != "type"}
        return self._modules[config["type"]](*arguments, **options)


def main() -> None:
    """Two layers as an encoder's configuration has them."""
    models = Registry()
    for name, layer in LAYERS.items():
        models.register_module(name=name, module=layer)
    torch.manual_seed(0)
    network = nn.Sequential(
        models.build({"type": "SubMConv3d", "indice_key": "subm1", "bias": False}, 4, 16, 3),
        models.build({"type": "TorchSparseBatchNorm"}, 16),
        models.build({"type": "SparseConv3d", "indice_key": "down1", "bias": False}, 16, 32, 3, 2, 1),
        models.build({"type": "SparseInverseConv3d", "indice_key": "down1", "bias": False}, 32, 16, 3),
    )
    coords = torch.unique(torch.randint(0, 20, (300, 4)) * torch.tensor([0, 1, 1, 1]), dim=0).int()
    made = network(SparseTensor(coords=coords, feats=torch.randn(len(coords), 4), spatial_range=(1, 20, 20, 20)))
    print(f"{len(coords)} cells -> {len(made)} cells with {made.feats.shape[1]} features")

    weights = to_spconv(network.state_dict(), "spconv2", network)  # a checkpoint as SpConv 2.x writes it
    network.load_state_dict(from_spconv(weights, "spconv2", model=network))
    print(f"loaded {len(weights)} tensors, such as 2.weight {list(weights['2.weight'].shape)}")


if __name__ == "__main__":
    main()
