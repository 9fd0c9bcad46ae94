import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedrive.data.kmeans import kmeans


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(count: int, dim: int, per_blob: int = 40, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Tight clusters around points far from each other, and their means."""
    places = np.zeros((count, dim))
    places[:, 0], places[:, 1] = 10 * (np.arange(count) % 7), 10 * (np.arange(count) // 7)
    samples = places[:, None] + rng(seed).normal(0, 0.2, (count, per_blob, dim))
    return rng(seed).permutation(samples.reshape(-1, dim)), samples.mean(1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "dim"), [(6, 2), (25, 3), (100, 2), (6, 24)])
def test_separated_clusters_are_found(count, dim, seed):
    samples, means = blobs(count, dim)
    centres = kmeans(samples, count, rng(seed))
    nearest = np.linalg.norm(centres[:, None] - means, axis=-1)
    assert sorted(nearest.argmin(1)) == list(range(count))
    assert nearest.min(1).max() < 1e-9


def test_result_is_a_local_optimum():
    """Every centre is the mean of the samples nearest to it (to the tolerance), and no other centre helps a sample more."""
    samples = rng(3).uniform(-1, 1, (2000, 2))
    centres = kmeans(samples, 30, rng(0))
    nearest = np.linalg.norm(samples[:, None] - centres, axis=-1).argmin(1)
    means = np.stack([samples[nearest == k].mean(0) for k in range(30)])
    assert np.abs(means - centres).max() < 0.02
    uniform_error = np.linalg.norm(samples[:, None] - samples[:30], axis=-1).min(1) ** 2
    error = np.linalg.norm(samples[:, None] - centres, axis=-1).min(1) ** 2
    assert error.mean() < 0.7 * uniform_error.mean()


def test_most_samples_first():
    samples = np.concatenate([np.full((3, 2), 0.0), np.full((9, 2), 5.0), np.full((5, 2), 9.0), [[20.0, 20.0]]])
    assert kmeans(samples, 4, rng())[:, 0].tolist() == [5.0, 9.0, 0.0, 20.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-3, 3)] * 2), min_size=0, max_size=30),
    st.integers(1, 12),
)
def test_few_or_repeated_samples(points, clusters):
    """As many centres as asked for or as there are distinct samples; all distinct, finite, inside the samples' bounds."""
    samples = np.array(points, np.float64).reshape(-1, 2)
    distinct = np.unique(samples, axis=0)
    centres = kmeans(samples, clusters, rng())
    assert len(centres) == min(clusters, len(distinct))
    assert len(np.unique(centres, axis=0)) == len(centres)
    if len(distinct) <= clusters:
        assert sorted(map(tuple, centres)) == sorted(map(tuple, distinct))
    else:
        assert (centres >= samples.min(0)).all() and (centres <= samples.max(0)).all()


def test_a_centre_without_samples_moves():
    """Start where one of two centres owns nothing."""
    from sparsedrive.data.kmeans import _round

    samples = np.array([[0.0], [1.0], [10.0]])
    moved = _round(samples, np.array([[0.0], [1000.0]]))
    assert moved[1, 0] == 10.0


def test_seed_decides():
    samples = rng(5).uniform(size=(3000, 3))
    first, same, other = (kmeans(samples, 50, rng(seed)) for seed in (7, 7, 8))
    assert (first == same).all()
    assert (first != other).any()


def test_threads_do_not_matter():
    script = "import numpy as np; from sparsedrive.data.kmeans import kmeans; "
    script += "s = np.random.default_rng(0).normal(size=(5000, 12)); print(kmeans(s, 6, np.random.default_rng(1)).tobytes().hex())"
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "3")
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **limits})
    assert kmeans(rng(0).normal(size=(5000, 12)), 6, rng(1)).tobytes().hex() == other.stdout.strip()


def test_memory_does_not_hold_a_distance_matrix():
    """60 000 samples and 300 clusters: a matrix of distances would take 144 MB."""
    import tracemalloc

    samples = rng(2).normal(0, 20, (60_000, 3))
    tracemalloc.start()
    centres = kmeans(samples, 300, rng(0), max_rounds=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert centres.shape == (300, 3)
    assert peak < 40e6


def test_rounds_are_told_and_limited():
    rounds: list[int] = []
    kmeans(rng(0).uniform(size=(500, 2)), 20, rng(0), max_rounds=3, on_round=rounds.append)
    assert rounds == [1, 2, 3]


@pytest.mark.parametrize(
    ("samples", "clusters", "message"),
    [
        (np.zeros(5), 2, r"expected samples \[N, D\]"),
        (np.zeros((5, 2)), 0, "at least one cluster"),
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), 1, r"expected finite samples, got \[nan, 1.0\] in row 1"),
    ],
)
def test_bad_input(samples, clusters, message):
    with pytest.raises(ValueError, match=message):
        kmeans(samples, clusters, rng())
