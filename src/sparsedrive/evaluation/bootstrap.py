"""How sure a difference between two models is: paired bootstrap over scenes.

Frames of a scene resemble each other, so a scene is the unit: S scenes are drawn S times with replacement, the same draw for both models,
and the score of each is made anew from what the drawn scenes contribute. Over many draws

    interval  the middle 95 % of the differences (percentile interval)
    p         twice the smaller share of draws on either side of no difference, at most 1; the draw itself counts once: (k + 1) / (R + 1)

With few scenes the interval is too narrow (with 10 scenes about 90 % instead of 95 %): a bootstrap cannot know scenes it has not seen.
Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapters 13 and 15.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

ROUNDS, SEED, LEVEL = 2000, 0, 0.95
ROUNDS_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneParts:
    """What each of S scenes contributes to a score, and how the sums over scenes become the score.

    `value` takes sums [R, K] to scores [R]; NaN where the sums leave the score open. Such sums are hits and boxes, or an error and its
    count: anything that adds up.
    """

    parts: Float[np.ndarray, "S K"]
    value: Callable[[Float[np.ndarray, "R K"]], Float[np.ndarray, "R"]]

    def score(self) -> float:
        """Of all scenes, each once."""
        return float(self.value(self.parts.sum(0, keepdims=True))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Score `b` less score `a`, its interval and p value."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


def paired_difference(
    a: SceneParts, b: SceneParts, *, rounds: int = ROUNDS, seed: int = SEED, stated: tuple[float, float] | None = None
) -> Difference:
    """Bootstrap of two scores over the same scenes (row i of both is one scene).

    `stated` are the scores by their exact definition, where the parts only come near them. Draws in which one of the scores is open do
    not count. `ValueError`: not the same scenes, or none.
    """
    scenes = len(a.parts)
    if scenes != len(b.parts) or not scenes:
        raise ValueError(f"paired_difference: expected the same scenes on both sides, at least one; got {scenes} and {len(b.parts)}")
    differences = np.concatenate([b.value(weights @ b.parts) - a.value(weights @ a.parts) for weights in _draws(scenes, rounds, seed)])
    differences = differences[np.isfinite(differences)]
    first, second = stated or (a.score(), b.score())
    if not len(differences) or not np.isfinite(second - first):
        return Difference(a=first, b=second, difference=second - first, low=np.nan, high=np.nan, p=np.nan)
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(differences) + 1))
    return Difference(a=first, b=second, difference=second - first, low=float(low), high=float(high), p=float(p))


def mean_parts(scene: np.ndarray, values: Float[np.ndarray, "N"], num_scenes: int) -> SceneParts:
    """Mean over all known rows; `scene` [N] is each row's scene, NaN rows do not count."""
    known = np.isfinite(values)
    total = np.bincount(scene[known], values[known], minlength=num_scenes)
    count = np.bincount(scene[known], minlength=num_scenes)
    return SceneParts(parts=np.stack([total, count], 1).astype(float), value=ratio)


def ratio(sums: Float[np.ndarray, "R 2"]) -> Float[np.ndarray, "R"]:
    """First column over the second; NaN where that is 0."""
    return np.where(sums[:, 1] > 0, sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], 1.0), np.nan)


def _draws(scenes: int, rounds: int, seed: int) -> list[Float[np.ndarray, "R S"]]:
    """How often each scene is drawn, in batches of rounds. The draws of a seed are the same for every score."""
    random = np.random.default_rng(seed)
    share = np.full(scenes, 1 / scenes)
    sizes = [min(ROUNDS_AT_ONCE, rounds - start) for start in range(0, rounds, ROUNDS_AT_ONCE)]
    return [random.multinomial(scenes, share, size=size).astype(float) for size in sizes]
