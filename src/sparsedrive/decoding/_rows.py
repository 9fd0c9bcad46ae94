"""Picking rows of a batch."""

from torch import Tensor


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """`values` [B, N, ...] at `index` [B, K] -> [B, K, ...]."""
    trailing = values.shape[2:]
    return values.gather(1, index.reshape(*index.shape, *[1] * len(trailing)).expand(*index.shape, *trailing))
