"""Tracks before they are compared: one score a track, and no holes.

1. Every box of a predicted track gets the mean score of the track.
2. Where a track skips key frames of its scene, boxes are put between its neighbours in time (ground truth too: boxes without points were
   left out before). The official evaluation weighs the two ends the wrong way round: at a quarter of the gap the new box stands at three
   quarters of the way. Reproduced here, or the numbers would be others. The new box has the class of the later neighbour.

A track is known by its name within its scene, whatever the classes of its boxes. Source: nuscenes-devkit 1.2.0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparsedrive.metrics.records import BoxRecords, KeyFrames


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackPoints:
    """N boxes of tracks, as far as tracking looks at them, sorted by scene and time; `track` numbers their tracks."""

    frame: Int[np.ndarray, "N"]
    xy_m: Float[np.ndarray, "N 2"]
    label: Int[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]
    track: Int[np.ndarray, "N"]

    def of_class(self, label: int) -> "TrackPoints":
        """The boxes of one class."""
        rows = self.label == label
        return TrackPoints(
            frame=self.frame[rows], xy_m=self.xy_m[rows], label=self.label[rows], score=self.score[rows], track=self.track[rows]
        )


def steps_of(frames: KeyFrames) -> Int[np.ndarray, "F"]:
    """Position of each key frame in its scene, in the order of time, from 0."""
    order = np.lexsort((frames.timestamp_us, frames.scene))
    _, first, count = np.unique(frames.scene[order], return_index=True, return_counts=True)
    steps = np.empty(len(frames), int)
    steps[order] = np.arange(len(frames)) - np.repeat(first, count)
    return steps


def complete_tracks(boxes: BoxRecords, frames: KeyFrames) -> TrackPoints:
    """The boxes with the mean score of their track, and boxes in the holes; within a frame in the order of `boxes`, then new ones."""
    scenes, scene_of_frame = np.unique(frames.scene, return_inverse=True)
    steps = steps_of(frames)
    frame_at = np.full((len(scenes), int(steps.max(initial=-1)) + 1), -1)
    frame_at[scene_of_frame, steps] = np.arange(len(frames))

    name = numbered(boxes.track_id)
    _, track = np.unique(scene_of_frame[boxes.frame] * (int(name.max(initial=0)) + 1) + name, return_inverse=True)
    step, time_us = steps[boxes.frame], frames.timestamp_us[boxes.frame]
    order = np.lexsort((step, track))
    score = _mean_scores(boxes.score, track, order)

    before, after = order[:-1], order[1:]
    missing = np.where(track[before] == track[after], step[after] - step[before] - 1, 0).clip(0)
    nth = np.arange(missing.sum()) - np.repeat(np.cumsum(missing) - missing, missing)
    before, after = np.repeat(before, missing), np.repeat(after, missing)
    frame = frame_at[scene_of_frame[boxes.frame[before]], step[before] + 1 + nth]
    weight = (time_us[after] - frames.timestamp_us[frame]) / (time_us[after] - time_us[before])
    xy_m = (1.0 - weight)[:, None] * boxes.center_m[before, :2] + weight[:, None] * boxes.center_m[after, :2]

    # New boxes stand in the order in which their tracks began.
    _, began = np.unique(track[np.argsort(step, kind="stable")], return_index=True)
    rank = np.concatenate([np.arange(len(boxes)), len(boxes) + began[track[after]]])
    all_frames = np.concatenate([boxes.frame, frame])
    rows = np.lexsort((rank, steps[all_frames], scene_of_frame[all_frames]))
    return TrackPoints(
        frame=all_frames[rows],
        xy_m=np.concatenate([boxes.center_m[:, :2], xy_m])[rows],
        label=np.concatenate([boxes.label, boxes.label[after]])[rows],
        score=np.concatenate([score, (1.0 - weight) * score[before] + weight * score[after]])[rows],
        track=np.concatenate([track, track[after]])[rows],
    )


def numbered(names: np.ndarray) -> Int[np.ndarray, "N"]:
    """Numbers of the names in alphabetical order: `np.unique` with inverse, which is slow on text."""
    listed = names.tolist()
    number = {name: index for index, name in enumerate(sorted(set(listed)))}
    return np.fromiter(map(number.__getitem__, listed), np.int64, len(listed))


def _mean_scores(score: Float[np.ndarray, "N"], track: Int[np.ndarray, "N"], order: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Mean score of its track for every box, summed as of one track alone: scores are compared with thresholds made of them, to the bit."""
    count = np.bincount(track)
    score, begin, means = score[order], np.cumsum(count) - count, np.zeros(len(count))
    for length in np.unique(count):
        tracks = np.flatnonzero(count == length)
        means[tracks] = score[begin[tracks, None] + np.arange(length)].mean(1)
    return means[track]
