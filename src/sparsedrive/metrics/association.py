"""Which predicted track follows which annotated one, frame by frame (CLEAR MOT), in many independent runs at once.

In every frame, for annotated objects and predicted tracks that are near enough:
1. An object stays with the track it had last, however long ago, if that track is in the frame, near enough and not yet taken by an object
   earlier in the frame's order: a match.
2. The others are assigned so that most are, and of those assignments so that the sum of distances is least: a match if the object had no
   track before, else a switch of identity.
Objects without a track are misses, tracks without an object false positives.

Source: Bernardin and Stiefelhagen, "Evaluating multiple object tracking performance: the CLEAR MOT metrics", 2008; the rules for ties of
py-motmetrics 1.4.0, which the nuScenes devkit uses.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def associate(
    step: Int[np.ndarray, "P"],
    thing: Int[np.ndarray, "P"],
    track: Int[np.ndarray, "P"],
    distance_m: Float[np.ndarray, "P"],
) -> tuple[Bool[np.ndarray, "P"], Bool[np.ndarray, "P"]]:
    """Which of the P near pairs are associated (matches and switches), and which of those are switches.

    Args:
        step: time order; pairs of one step are dealt with together.
        thing, track: numbers of the annotated object and of the predicted track, other ones in every scene and run. Pairs of a step must
            be in the order of the objects of their frames, and hold an object and a track once.
        distance_m: between the two, below the threshold of association.
    """
    chosen, switched = np.zeros(len(step), bool), np.zeros(len(step), bool)
    last_track = np.full(int(thing.max(initial=-1)) + 1, -1)
    thing_busy = np.full(len(last_track), -1)
    track_busy = np.full(int(track.max(initial=-1)) + 1, -1)
    order = np.argsort(step, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(step[order])) + 1) if len(order) else []:
        now = step[rows[0]]
        kept = rows[last_track[thing[rows]] == track[rows]]
        kept = kept[np.unique(track[kept], return_index=True)[1]]
        thing_busy[thing[kept]] = now
        track_busy[track[kept]] = now
        free = rows[(thing_busy[thing[rows]] != now) & (track_busy[track[rows]] != now)]
        new = free[_assign(thing[free], track[free], distance_m[free])]
        chosen[kept] = chosen[new] = True
        switched[new] = last_track[thing[new]] >= 0
        last_track[thing[new]] = track[new]
    return chosen, switched


def _assign(thing: Int[np.ndarray, "P"], track: Int[np.ndarray, "P"], distance_m: Float[np.ndarray, "P"]) -> Int[np.ndarray, "K"]:
    """Pairs of the best assignment: most pairs first, then the least sum of distances.

    Objects and tracks that no chain of pairs connects do not compete. Nearly all such groups are stars, of which the nearest pair wins,
    or two objects and two tracks; only larger ones need a solver.
    """
    if not len(thing):
        return np.zeros(0, np.int64)
    things, row = np.unique(thing, return_inverse=True)
    tracks, column = np.unique(track, return_inverse=True)
    nodes = len(things) + len(tracks)
    ends = row.astype(np.int32), (len(things) + column).astype(np.int32)
    _, group_of = connected_components(coo_array((np.ones(len(row)), ends), shape=(nodes, nodes)), directed=False)
    group = group_of[: len(things)][row]
    heights, row = _within_group(group_of[: len(things)], row)
    widths, column = _within_group(group_of[len(things) :], column)

    nearest_first = np.lexsort((distance_m, group))
    best = nearest_first[np.flatnonzero(np.diff(group[nearest_first], prepend=-1))]
    result = [best[np.minimum(heights, widths)[group[best]] == 1]]
    size = np.where(np.minimum(heights, widths) == 1, 0, np.maximum(heights, widths))[group]
    result.append(_assign_two_by_two(*(values[size == 2] for values in (np.arange(len(group)), group, row, column, distance_m))))
    rows = np.flatnonzero(size > 2)
    rows = rows[np.argsort(group[rows], kind="stable")]
    for some in np.split(rows, np.flatnonzero(np.diff(group[rows])) + 1) if len(rows) else []:
        # Having no pair costs more than any assignment of pairs.
        cost = np.full((heights[group[some[0]]], widths[group[some[0]]]), 2.0 * len(some) * (distance_m[some].max() + 1.0))
        pair = np.full(cost.shape, -1)
        cost[row[some], column[some]], pair[row[some], column[some]] = distance_m[some], some
        found = pair[linear_sum_assignment(cost)]
        result.append(found[found >= 0])
    return np.concatenate(result)


def _within_group(group_of: Int[np.ndarray, "N"], member: Int[np.ndarray, "P"]) -> tuple[Int[np.ndarray, "G"], Int[np.ndarray, "P"]]:
    """How many members each group has, and the place of each pair's member in its group."""
    count = np.bincount(group_of, minlength=int(group_of.max()) + 1)
    order = np.argsort(group_of, kind="stable")
    place = np.empty(len(group_of), np.int64)
    place[order] = np.arange(len(group_of)) - np.repeat(np.cumsum(count) - count, count)
    return count, place[member]


def _assign_two_by_two(
    pair: Int[np.ndarray, "P"],
    group: Int[np.ndarray, "P"],
    row: Int[np.ndarray, "P"],
    column: Int[np.ndarray, "P"],
    distance_m: Float[np.ndarray, "P"],
) -> Int[np.ndarray, "K"]:
    """The better diagonal of each group of two objects and two tracks. Without gaps it is one of two pairs."""
    _, number = np.unique(group, return_inverse=True)
    cost_m = np.full((int(number.max(initial=-1)) + 1, 2, 2), np.inf)
    pairs = np.full(cost_m.shape, -1)
    cost_m[number, row, column], pairs[number, row, column] = distance_m, pair
    straight = cost_m[:, 0, 0] + cost_m[:, 1, 1] <= cost_m[:, 0, 1] + cost_m[:, 1, 0]
    return np.where(straight[:, None], pairs[:, [0, 1], [0, 1]], pairs[:, [0, 1], [1, 0]]).ravel()
