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


def associate(
    step: Int[np.ndarray, "P"],
    frame: Int[np.ndarray, "P"],
    thing: Int[np.ndarray, "P"],
    track: Int[np.ndarray, "P"],
    distance_m: Float[np.ndarray, "P"],
) -> tuple[Bool[np.ndarray, "P"], Bool[np.ndarray, "P"]]:
    """Which of the P near pairs are associated (matches and switches), and which of those are switches.

    Args:
        step: time order; pairs of one step are dealt with together.
        frame: number of the frame, another one in every run; a frame has one step.
        thing, track: numbers of the annotated object and of the predicted track, other ones in every scene and run. Pairs of a frame must
            be in the order of its objects, and hold an object and a track once.
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
        new = free[_assign(frame[free], thing[free], track[free], distance_m[free])]
        chosen[kept] = chosen[new] = True
        switched[new] = last_track[thing[new]] >= 0
        last_track[thing[new]] = track[new]
    return chosen, switched


def _assign(
    frame: Int[np.ndarray, "P"], thing: Int[np.ndarray, "P"], track: Int[np.ndarray, "P"], distance_m: Float[np.ndarray, "P"]
) -> Int[np.ndarray, "K"]:
    """Pairs of the best assignment in each frame: most pairs first, then the least sum of distances."""
    _, thing_number, thing_count = np.unique(thing, return_inverse=True, return_counts=True)
    _, track_number, track_count = np.unique(track, return_inverse=True, return_counts=True)
    contested = (thing_count[thing_number] > 1) | (track_count[track_number] > 1)
    result = [np.flatnonzero(~contested)]
    rows = np.flatnonzero(contested)
    rows = rows[np.argsort(frame[rows], kind="stable")]
    for group in np.split(rows, np.flatnonzero(np.diff(frame[rows])) + 1) if len(rows) else []:
        _, row = np.unique(thing[group], return_inverse=True)
        _, column = np.unique(track[group], return_inverse=True)
        # A pair too far apart costs more than any assignment of near pairs.
        cost = np.full((row.max() + 1, column.max() + 1), 2.0 * len(group) * (distance_m[group].max() + 1.0))
        pair = np.full(cost.shape, -1)
        cost[row, column], pair[row, column] = distance_m[group], group
        found = pair[linear_sum_assignment(cost)]
        result.append(found[found >= 0])
    return np.concatenate(result)
