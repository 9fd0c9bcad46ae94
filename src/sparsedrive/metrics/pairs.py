"""Pairs of boxes of the same frame, and who gets whom when the best-ranked chooses first. Used by all metrics that match boxes."""

import numpy as np
from jaxtyping import Float, Int

_PAIRS_AT_ONCE = 2**22


def same_frame_pairs(
    left_frame: Int[np.ndarray, "L"], right_frame: Int[np.ndarray, "R"]
) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Indices (left, right) of all pairs with equal frame, sorted by left, then by right."""
    by_frame = np.argsort(right_frame, kind="stable")
    first = np.searchsorted(right_frame[by_frame], left_frame, "left")
    count = np.searchsorted(right_frame[by_frame], left_frame, "right") - first
    left = np.repeat(np.arange(len(left_frame)), count)
    return left, by_frame[np.arange(len(left)) + np.repeat(first - np.cumsum(count) + count, count)]


def pairs_within(
    left_frame: Int[np.ndarray, "L"],
    left_xy_m: Float[np.ndarray, "L 2"],
    right_frame: Int[np.ndarray, "R"],
    right_xy_m: Float[np.ndarray, "R 2"],
    radius_m: float,
) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"], Float[np.ndarray, "P"]]:
    """Indices (left, right) and distances [m] of the pairs of one frame nearer than `radius_m`, sorted by left, then by right.

    Works on slices of `left`, so that memory stays bounded for a whole data set.
    """
    total = np.bincount(left_frame, minlength=1).astype(float) @ _padded(np.bincount(right_frame, minlength=1), left_frame)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for rows in np.array_split(np.arange(len(left_frame)), int(total // _PAIRS_AT_ONCE) + 1):
        left, right = same_frame_pairs(left_frame[rows], right_frame)
        left = rows[left]
        distance_m = np.sqrt(((left_xy_m[left] - right_xy_m[right]) ** 2).sum(-1))
        near = distance_m < radius_m
        found.append((left[near], right[near], distance_m[near]))
    left, right, distance_m = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return left, right, distance_m


def choose_in_turn(
    chooser: Int[np.ndarray, "P"], chosen: Int[np.ndarray, "P"], distance_m: Float[np.ndarray, "P"], num_choosers: int, num_chosen: int
) -> Int[np.ndarray, "num_choosers"]:
    """Choosers 0, 1, 2 ... one after the other take the nearest of their pairs that is left; what each got, or -1.

    Choosing in turn has the same outcome as all proposing at once, where whoever is proposed to keeps the best-ranked (Gale and Shapley
    with one ranking common to all): a few rounds over arrays instead of a loop over boxes. Of equally near ones the lower index is taken.
    """
    order = np.lexsort((chosen, distance_m, chooser))
    chosen = chosen[order]
    end = np.cumsum(np.bincount(chooser, minlength=num_choosers))
    cursor = np.concatenate([[0], end[:-1]]) if num_choosers else np.zeros(0, int)
    holder = np.full(num_chosen, num_choosers)
    pending = np.flatnonzero(cursor < end)
    while True:
        np.minimum.at(holder, chosen[cursor[pending]], pending)
        lost = pending[holder[chosen[cursor[pending]]] != pending]
        if not len(lost):
            break
        cursor[lost] += 1
        pending = pending[cursor[pending] < end[pending]]
    result = np.full(num_choosers, -1)
    result[pending] = chosen[cursor[pending]]
    return result


def _padded(counts: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Counts of frames 0 .. the last one in `frames`."""
    length = int(frames.max(initial=0)) + 1
    return np.pad(counts, (0, max(0, length - len(counts))))[:length]
