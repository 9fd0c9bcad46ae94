"""Look-up of coordinates against dictionaries, and TorchSparse's stored hashes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import golden_folder
from sparsedrive.ops.hash_query import count_rows, fnv_hash, hash_query, lookup_coords, reference, unique_coords

STORED = golden_folder() / "sparseconv" / "point_voxel_ops_ts_cpu.npz"
INT32 = torch.iinfo(torch.int32)


def rows(numbers: list[tuple[int, ...]]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32).reshape(-1, 4)


small = st.lists(st.tuples(*[st.integers(-2, 2)] * 4), max_size=20)


@given(small, small)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_lookup_is_that_of_a_dictionary(coords, queries):
    expected = reference.lookup_coords(rows(queries), rows(coords))
    assert torch.equal(lookup_coords(rows(queries), rows(coords)), expected)


@given(small)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_unique_rows_are_sorted_and_numbered(coords):
    for made, expected in zip(unique_coords(rows(coords)), reference.unique_coords(rows(coords)), strict=True):
        assert torch.equal(made, expected) and made.dtype == expected.dtype


def test_coordinates_at_both_ends_of_int32_are_told_apart():
    far = [(0, INT32.min, INT32.max, 0), (0, INT32.max, INT32.min, 0), (5, INT32.max, INT32.max, INT32.max), (0, 0, 0, 0)]
    assert torch.equal(unique_coords(rows([*far, *far]))[0], rows(sorted(far)))
    assert unique_coords(rows([*far, *far]))[1].tolist() == [sorted(far).index(row) for row in [*far, *far]]
    queries = rows([far[2], far[3], far[0], far[1], (0, INT32.min, INT32.min, 0), (5, INT32.max, INT32.max, INT32.max - 1)])
    assert lookup_coords(queries, rows(far)).tolist() == [2, 3, 0, 1, -1, -1]


def test_a_query_outside_the_box_is_not_mistaken_for_another():
    """Where 3 * y + z is the key, (0, 3) would be (1, 0)."""
    coords = rows([(0, 0, y, z) for y in range(3) for z in range(3)])
    queries = rows([(0, 0, 0, 3), (0, 0, 1, -3), (0, 0, 1, 0), (-1, 0, 0, 0)])
    assert lookup_coords(queries, coords).tolist() == [-1, -1, 3, -1]


def test_shapes_of_queries_are_kept_and_nothing_is_found_in_nothing():
    coords = rows([(0, 1, 2, 3)])
    assert lookup_coords(coords.expand(2, 3, 4), coords).tolist() == [[0] * 3] * 2
    assert lookup_coords(coords, coords[:0]).tolist() == [-1]
    assert lookup_coords(coords[:0], coords).shape == (0,)
    assert hash_query(torch.tensor([[1, 2]]), torch.tensor([], dtype=torch.int64)).tolist() == [[-1, -1]]


def test_of_equal_keys_the_first_is_found():
    keys = torch.tensor([7, 3, 7, -5, 3])
    assert hash_query(torch.tensor([3, 7, -5, 0]), keys).tolist() == [1, 0, 3, -1]


def test_hashes_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(INT32.min, INT32.max, (50, 4), generator=generator).int()
    coords[0] = 0
    hashes = fnv_hash(coords)
    assert torch.equal(hashes, reference.fnv_hash(coords))
    assert bool((hashes >= 0).all()) and bool((hashes < 2**60).all()) and len(hashes.unique()) == 50
    moved = fnv_hash(coords, torch.tensor([[0, 0, 0], [1, 0, -1]]))
    assert torch.equal(moved[0], hashes)
    assert torch.equal(moved[1], fnv_hash(coords.long() + torch.tensor([1, 0, -1, 0])))


def test_rows_are_counted():
    assert count_rows(torch.tensor([[0, 2], [2, -1]]), 4).tolist() == [1, 0, 2, 0]
    assert count_rows(torch.tensor([], dtype=torch.int64), 2).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lookup_coords(torch.zeros(3, 4), rows([])), r"queries: expected integers"),
        (lambda: lookup_coords(rows([]), torch.zeros(3, 3, dtype=torch.int32)), r"D columns"),
        (lambda: unique_coords(torch.zeros(4, dtype=torch.int32)), r"expected \[N, D\]"),
        (lambda: hash_query(torch.tensor([1]), torch.tensor([[1]])), r"keys: expected \[M\]"),
        (lambda: fnv_hash(torch.zeros(3, 3, dtype=torch.int32)), r"expected \[N, 4\]"),
        (lambda: fnv_hash(rows([]), rows([])), r"offsets: expected \[K, 3\]"),
        (lambda: count_rows(torch.tensor([4]), 4), r"expected -1 to 3, got 4"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(not STORED.exists(), reason=f"no golden file {STORED}; name its folder in SPARSEDRIVE_GOLDEN")
def test_agrees_with_torchsparse():
    with np.load(STORED, allow_pickle=False) as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    bxyz = stored["point_coords_bxyz"]
    xyzb = bxyz.roll(-1, dims=1)
    assert torch.equal(fnv_hash(bxyz), stored["hash_bxyz"])
    assert torch.equal(fnv_hash(xyzb), stored["hash_xyzb"])
    assert torch.equal(fnv_hash(xyzb, stored["kernel_offsets_k2"]), stored["kernel_hash_xyzb_k2"])
    assert torch.equal(hash_query(stored["hash_xyzb"], stored["voxel_hash_sorted"]), stored["idx_query"])
    around = hash_query(stored["kernel_hash_xyzb_k2"].T, stored["voxel_hash_sorted"])
    assert torch.equal(around, stored["idx_query_devox"])
    assert torch.equal(lookup_coords(bxyz, stored["voxel_coords_bxyz"]), stored["idx_query"])
    assert torch.equal(count_rows(stored["idx_query"], len(stored["counts"])), stored["counts"].long())
