"""Random sparse tensors for the tests of layers."""

import torch
from torch import nn

from sparsedrive.sparse import SparseTensor

RANGE = (2, 7, 6, 5)


def random_tensor(count: int = 60, channels: int = 4, *, full: tuple[int, ...] = RANGE, seed: int = 0, ranged: bool = True) -> SparseTensor:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(torch.Size(full).numel(), generator=generator)[:count]
    coords = torch.stack(torch.unravel_index(flat, full), 1).to(torch.int32)
    feats = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return SparseTensor(coords=coords, feats=feats, spatial_range=full if ranged else None)


def seeded(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer.double()


def other(x: SparseTensor, **changes) -> SparseTensor:
    """The same features elsewhere, with a cache of its own."""
    fields = {"coords": x.coords, "feats": x.feats, "stride": x.stride, "spatial_range": x.spatial_range, **changes}
    return SparseTensor(**fields)


def by_cell(x: SparseTensor) -> dict[tuple[int, ...], list[float]]:
    return {tuple(cell): row for cell, row in zip(x.coords.tolist(), x.feats.tolist(), strict=True)}
