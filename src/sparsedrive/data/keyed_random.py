"""Random numbers that depend on what they are for, not on who asks first: the same in every worker, on every rank, after a restart."""

from enum import IntEnum

import numpy as np

MAX_SEED = 2**32


class Purpose(IntEnum):
    """What a stream of random numbers is for; the numbers are part of the format of a run."""

    ORDER = 0
    GEOMETRY = 1
    COLOUR = 2
    FAILURE = 3
    DENOISING = 4


def keyed_rng(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Counter-based generator (Philox) for one purpose and one key, for example (sequence_id, frame, camera); all >= 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose, *key))))


def check_seed(seed: int) -> int:
    """The seed, or `ValueError`."""
    if not 0 <= seed < MAX_SEED:
        raise ValueError(f"seed: expected 0 <= seed < 2**32, got {seed}")
    return seed
