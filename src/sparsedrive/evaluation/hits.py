"""Predictions as hits and misses: all that average precision, counts a frame and a resampling of scenes need to know of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredHits:
    """N judged predictions over F frames, C classes, K thresholds of distance; and how much truth there was.

    Attributes:
        frame: [N] row of `Evaluation.frames`.
        label: [N] index into the section's classes.
        score: [N].
        hit: [N, K] whether the prediction is a true positive at each threshold.
        num_truth: [F, C] judged truth of every frame and class.
    """

    frame: Int[np.ndarray, "N"]
    label: Int[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]
    hit: Bool[np.ndarray, "N K"]
    num_truth: Int[np.ndarray, "F C"]

    def best_score(self, threshold: int) -> Float[np.ndarray, "C"]:
        """For every class the score that, taken as the lowest to believe, gives the highest F1 at a threshold; infinity without a hit."""
        chosen = np.full(self.num_truth.shape[1], np.inf)
        for label in range(len(chosen)):
            rows = np.flatnonzero(self.label == label)
            rows = rows[np.argsort(-self.score[rows], kind="stable")]
            found = np.cumsum(self.hit[rows, threshold])
            if len(rows) and found[-1]:
                f1 = 2 * found / (np.arange(1, len(rows) + 1) + self.num_truth[:, label].sum())
                last_of_score = np.append(np.diff(self.score[rows]) != 0, True)
                chosen[label] = self.score[rows[np.where(last_of_score, f1, -1).argmax()]]
        return chosen

    def counts(self, threshold: int, min_score: Float[np.ndarray, "C"]) -> Int[np.ndarray, "F C 3"]:
        """True positives, false positives and misses of every frame and class, of predictions with at least the class's score.

        Of two predictions for one truth only the best-scored is a hit, so leaving out low scores never turns a miss into a hit.
        """
        believed = self.score >= min_score[self.label]
        shape = self.num_truth.shape
        cell = self.frame * shape[1] + self.label
        said, found = (
            np.bincount(cell[rows], minlength=shape[0] * shape[1]).reshape(shape) for rows in (believed, believed & self.hit[:, threshold])
        )
        return np.stack([found, said - found, self.num_truth - found], -1)
