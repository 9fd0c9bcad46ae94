"""The specification: dictionaries and Python integers, row by row."""

import torch
from jaxtyping import Int
from torch import Tensor

FNV_OFFSET, FNV_PRIME = 14695981039346656037, 1099511628211
WORD, FOLDED = 2**64, 2**60


def lookup_coords(queries: Int[Tensor, "*batch D"], coords: Int[Tensor, "M D"]) -> Int[Tensor, "*batch"]:
    """See the public function."""
    row: dict[tuple[int, ...], int] = {}
    for number, coord in enumerate(coords.tolist()):
        row.setdefault(tuple(coord), number)
    found = [row.get(tuple(query), -1) for query in queries.flatten(0, -2).tolist()]
    return torch.tensor(found, dtype=torch.int64, device=queries.device).reshape(queries.shape[:-1])


def unique_coords(coords: Int[Tensor, "N D"]) -> tuple[Int[Tensor, "M D"], Int[Tensor, "N"]]:
    """See the public function."""
    rows = sorted(set(map(tuple, coords.tolist())))
    number = {row: place for place, row in enumerate(rows)}
    inverse = torch.tensor([number[tuple(row)] for row in coords.tolist()], dtype=torch.int64, device=coords.device)
    return torch.tensor(rows, dtype=coords.dtype, device=coords.device).reshape(-1, coords.shape[1]), inverse


def hash_query(queries: Int[Tensor, "*shape"], keys: Int[Tensor, "M"]) -> Int[Tensor, "*shape"]:
    """See the public function."""
    return lookup_coords(queries[..., None], keys[:, None])


def fnv_hash(coords: Int[Tensor, "*batch 4"]) -> Int[Tensor, "*batch"]:
    """See the public function."""
    hashes = []
    for row in coords.flatten(0, -2).tolist():
        value = FNV_OFFSET
        for column in row:
            value = (value ^ (column % 2**32)) * FNV_PRIME % WORD
        hashes.append((value // FOLDED) ^ (value % FOLDED))
    return torch.tensor(hashes, dtype=torch.int64, device=coords.device).reshape(coords.shape[:-1])
