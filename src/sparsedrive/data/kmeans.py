"""k-means: Lloyd's algorithm from a greedy k-means++ start. The same samples and seed give the same centres on any number of threads.

Sources: Lloyd, 1982; Arthur and Vassilvitskii, "k-means++", 2007.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

MAX_ROUNDS = 300
TOLERANCE = 1e-4
SEEDING_SAMPLES, SEEDING_SAMPLES_PER_CLUSTER = 20_000, 20


def kmeans(
    samples: Float[np.ndarray, "N D"],
    clusters: int,
    rng: np.random.Generator,
    *,
    max_rounds: int = MAX_ROUNDS,
    on_round: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "K D"]:
    """Centres in float64, the one with most samples first.

    There are `clusters` of them, or as many as there are distinct samples if those are fewer: then they are the samples. Ends when the
    centres' squared moves add up to less than 1e-4 of the samples' variance. `on_round` is told the number of each finished round.

    Memory grows with N * D alone, not with N * K: nearest centres come from a k-d tree, which also makes every sample's answer
    independent of the others (no block sizes, no matrix product that rounds differently on another machine).
    Raises ValueError for other shapes, non-finite samples and less than one cluster.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 2 or clusters < 1:
        raise ValueError(f"kmeans: expected samples [N, D] and at least one cluster, got {list(samples.shape)} and {clusters}")
    if not np.isfinite(samples).all():
        row = int(np.flatnonzero(~np.isfinite(samples).all(1))[0])
        raise ValueError(f"kmeans: expected finite samples, got {samples[row].tolist()} in row {row}; leave such samples out")
    distinct = np.unique(samples, axis=0) if len(samples) else samples
    if len(distinct) <= clusters:
        return _most_samples_first(distinct, samples)
    centres = _start(distinct, clusters, rng)
    enough = TOLERANCE * float(samples.var(0).mean())
    for number in range(1, max_rounds + 1):
        moved = _round(samples, centres)
        squared_move = float(((moved - centres) ** 2).sum())
        centres = moved
        if on_round is not None:
            on_round(number)
        if squared_move <= enough:
            break
    return _most_samples_first(centres, samples)


def _start(distinct: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy k-means++ on a random part of the samples: of a few draws with probability ~ squared distance, the one that helps most."""
    limit = max(SEEDING_SAMPLES, SEEDING_SAMPLES_PER_CLUSTER * clusters)
    if len(distinct) > limit:
        distinct = distinct[np.sort(rng.choice(len(distinct), limit, replace=False))]
    trials = 2 + int(np.log(clusters))
    chosen = [int(rng.integers(len(distinct)))]
    nearest = ((distinct - distinct[chosen[0]]) ** 2).sum(1)
    while len(chosen) < clusters:
        cumulative = np.cumsum(nearest)
        draws = np.searchsorted(cumulative, rng.random(trials) * cumulative[-1], side="right").clip(max=len(distinct) - 1)
        options = [np.minimum(nearest, ((distinct - distinct[draw]) ** 2).sum(1)) for draw in draws]
        best = int(np.argmin([option.sum() for option in options]))
        chosen.append(int(draws[best]))
        nearest = options[best]
    return distinct[chosen]


def _round(samples: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Every centre to the mean of its samples; one centre without samples, if any, to the sample that is worst off."""
    distance, nearest = cKDTree(centres).query(samples)
    counts = np.bincount(nearest, minlength=len(centres))
    # bincount adds in the order of the samples, whatever the machine.
    sums = np.stack([np.bincount(nearest, weights=column, minlength=len(centres)) for column in samples.T], axis=1)
    moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        moved[empty[0]] = samples[int(np.argmax(distance))]
    return moved


def _most_samples_first(centres: np.ndarray, samples: np.ndarray) -> np.ndarray:
    if len(centres) == 0:
        return centres
    counts = np.bincount(cKDTree(centres).query(samples)[1], minlength=len(centres))
    return centres[np.argsort(-counts, kind="stable")]
