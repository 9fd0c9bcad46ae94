"""Which row holds a coordinate: exact look-up of integer coordinates, look-up of hashes, and counting."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sparsedrive.ops.hash_query import sorted_search

__all__ = ["count_rows", "fnv_hash", "hash_query", "lookup_coords", "unique_coords"]

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def lookup_coords(queries: Int[Tensor, "*batch D"], coords: Int[Tensor, "M D"]) -> Int[Tensor, "*batch"]:
    """Row of `coords` that equals each query, int64; -1 where there is none, the first row where there are several.

    Exact for every value of the integers' range, negative ones included: rows are compared, not hashes of them.

    Raises:
        ValueError: not integers, or another number of columns.
    """
    _check_integers("lookup_coords.queries", queries)
    _check_integers("lookup_coords.coords", coords)
    if coords.dim() != 2 or queries.dim() < 1 or queries.shape[-1] != coords.shape[1]:
        raise _error(
            "lookup_coords.queries", "[..., D] with the D columns of coords [M, D]", f"{list(queries.shape)} and {list(coords.shape)}",
            "give both with the same columns, like batch x y z",
        )  # fmt: skip
    _check_device("lookup_coords.coords", coords, queries)
    return sorted_search.lookup_coords(queries, coords)


def unique_coords(coords: Int[Tensor, "N D"]) -> tuple[Int[Tensor, "M D"], Int[Tensor, "N"]]:
    """Every row once, sorted by the first column, then the second and so on; and for each row its place among them.

    What `torch.unique(coords, dim=0, return_inverse=True)` gives, several times as fast.

    Raises:
        ValueError: not integers, or not two dimensions.
    """
    _check_integers("unique_coords.coords", coords)
    if coords.dim() != 2 or coords.shape[1] < 1:
        raise _error("unique_coords.coords", "[N, D]", list(coords.shape), "give one row a coordinate")
    return sorted_search.unique_coords(coords)


def hash_query(queries: Int[Tensor, "*shape"], keys: Int[Tensor, "M"]) -> Int[Tensor, "*shape"]:
    """Position of each query among the keys (such as hashes), int64; -1 where there is none, the first where there are several.

    Raises:
        ValueError: not integers, or `keys` has not one dimension.
    """
    _check_integers("hash_query.queries", queries)
    _check_integers("hash_query.keys", keys)
    if keys.dim() != 1:
        raise _error("hash_query.keys", "[M]", list(keys.shape), "flatten them")
    _check_device("hash_query.keys", keys, queries)
    return sorted_search.hash_query(queries, keys)


def fnv_hash(coords: Int[Tensor, "N 4"], offsets: Int[Tensor, "K 3"] | None = None) -> Int[Tensor, "N"] | Int[Tensor, "K N"]:
    """60-bit FNV-1a hash of the four columns as int32, in the order given; the numbers TorchSparse's `sphash` returns.

    With `offsets`, one hash a row and offset [K, N]; they are added to the first three columns, so the batch index has to stand last.
    Two coordinates may share a hash (one pair in about 2^60); `lookup_coords` has no such case.

    Raises:
        ValueError: not integers, or other shapes.

    Source: Fowler-Noll-Vo 1a with 64-bit constants, whole columns instead of bytes, folded to 60 bits; mit-han-lab/torchsparse.
    """
    _check_integers("fnv_hash.coords", coords)
    if coords.dim() != 2 or coords.shape[1] != 4:
        raise _error("fnv_hash.coords", "[N, 4]", list(coords.shape), "give three coordinates and the batch index")
    if offsets is None:
        return sorted_search.fnv_hash(coords)
    _check_integers("fnv_hash.offsets", offsets)
    if offsets.dim() != 2 or offsets.shape[1] != 3:
        raise _error("fnv_hash.offsets", "[K, 3]", list(offsets.shape), "give offsets of the first three columns")
    moved = torch.nn.functional.pad(offsets, (0, 1))[:, None] + coords
    return sorted_search.fnv_hash(moved)


def count_rows(index: Int[Tensor, "*shape"], num_rows: int) -> Int[Tensor, "M"]:
    """How often each of `num_rows` rows occurs in `index`, int64; -1 counts nowhere.

    Raises:
        ValueError: not integers, or an index outside -1..num_rows - 1.
    """
    _check_integers("count_rows.index", index)
    if index.numel() and (int(index.min()) < -1 or int(index.max()) >= num_rows):
        raise _error("count_rows.index", f"-1 to {num_rows - 1}", f"{int(index.min())} to {int(index.max())}", "give the number of rows")
    return torch.bincount(index.flatten() + 1, minlength=num_rows + 1)[1:]


def _check_integers(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in INTEGERS:
        raise _error(name, "integers", tensor.dtype, "floor coordinates first: torch.floor(x).int()")


def _check_device(name: str, tensor: Tensor, other: Tensor) -> None:
    if tensor.device != other.device:
        raise _error(name, f"a tensor on {other.device} like the queries", tensor.device, "move both to one device")


def _error(name: str, expected: str, got: Sequence[int] | object, remedy: str) -> ValueError:
    return ValueError(f"{name}: expected {expected}, got {got}; {remedy}")
