"""Look-up by sorting and binary search: deterministic, on any device, without a table that could run full."""

import torch
from jaxtyping import Int
from torch import Tensor

from sparsedrive.ops.hash_query import reference

KEY_SPACE = 2.0**62


def lookup_coords(queries: Int[Tensor, "*batch D"], coords: Int[Tensor, "M D"]) -> Int[Tensor, "*batch"]:
    """See the public function."""
    if not len(coords):
        return torch.full(queries.shape[:-1], -1, dtype=torch.int64, device=queries.device)
    coords, queries = coords.long(), queries.long()
    low, high = coords.amin(0), coords.amax(0)
    if _too_far(low, high):
        return _lookup_ranked(queries, coords)
    found = hash_query(_keys(queries, low, high), _keys(coords, low, high))
    return torch.where(((queries >= low) & (queries <= high)).all(-1), found, -1)


def unique_coords(coords: Int[Tensor, "N D"]) -> tuple[Int[Tensor, "M D"], Int[Tensor, "N"]]:
    """See the public function. Numbers are sorted several times as fast as rows."""
    if not len(coords):
        return coords, torch.zeros(0, dtype=torch.int64, device=coords.device)
    wide = coords.long()
    low, high = wide.amin(0), wide.amax(0)
    if _too_far(low, high):
        return torch.unique(coords, dim=0, return_inverse=True)
    keys, number = torch.unique(_keys(wide, low, high), return_inverse=True)
    row = torch.empty_like(keys).scatter_(0, number, torch.arange(len(coords), device=coords.device))
    return coords[row], number


def _too_far(low: Int[Tensor, "D"], high: Int[Tensor, "D"]) -> bool:
    return float((high - low + 1).double().prod()) > KEY_SPACE


def _keys(coords: Int[Tensor, "*batch D"], low: Int[Tensor, "D"], high: Int[Tensor, "D"]) -> Int[Tensor, "*batch"]:
    """One number for each row between `low` and `high`, in the order of the rows."""
    key = (coords - low)[..., 0]
    for column in range(1, coords.shape[-1]):
        key = key * (high - low + 1)[column] + (coords - low)[..., column]
    return key


def _lookup_ranked(queries: Tensor, coords: Tensor) -> Tensor:
    """For coordinates so far apart that one number cannot name them: rows are numbered by sorting all of them."""
    _, number = torch.unique(torch.cat([coords, queries.flatten(0, -2)]), dim=0, return_inverse=True)
    return hash_query(number[len(coords) :].reshape(queries.shape[:-1]), number[: len(coords)])


def hash_query(queries: Int[Tensor, "*shape"], keys: Int[Tensor, "M"]) -> Int[Tensor, "*shape"]:
    """See the public function."""
    if not len(keys):
        return torch.full(queries.shape, -1, dtype=torch.int64, device=queries.device)
    keys, order = keys.long().sort(stable=True)
    queries = queries.long().contiguous()
    place = torch.searchsorted(keys, queries).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == queries, order[place], -1)


def fnv_hash(coords: Int[Tensor, "*batch 4"]) -> Int[Tensor, "*batch"]:
    """See the public function. int64 multiplication wraps around as the unsigned one does."""
    columns = coords.long() & 0xFFFFFFFF
    value = torch.full(coords.shape[:-1], reference.FNV_OFFSET - reference.WORD, dtype=torch.int64, device=coords.device)
    for column in columns.unbind(-1):
        value = (value ^ column) * reference.FNV_PRIME
    return ((value >> 60) & 0xF) ^ (value & (reference.FOLDED - 1))
