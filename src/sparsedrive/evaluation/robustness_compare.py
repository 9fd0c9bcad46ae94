"""Two models through the same failures: what one gains over the other in the blind sector, and how sure that is.

difference  blind-sector mAP of the boxes, mean over the scenarios of a group: method less baseline; paired bootstrap over scenes
gain G      (method - baseline) / (clean - baseline), of the same means; clean: the baseline on the clean pictures of the same sectors.
            0: of no use, 1: as if nothing had failed, negative: worse than the baseline
clean       difference of the clean mAP, so that nobody wins by being worse when nothing fails
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsedrive.evaluation.bootstrap import ROUNDS, SEED, Difference, SceneParts, paired_difference
from sparsedrive.evaluation.resampling import box_map_of_sums
from sparsedrive.evaluation.robustness_metrics import averaged
from sparsedrive.evaluation.robustness_results import RobustnessResult, ScenarioResult, SceneSums, check_comparable
from sparsedrive.evaluation.robustness_scenarios import CLEAN

HEADLINE = ("S1", "S2a")


@dataclass(frozen=True, kw_only=True)
class GroupGain:
    """A group of scenarios, `names` those that both models ran and in whose sectors there is something to find."""

    group: str
    names: tuple[str, ...]
    blind: Difference
    clean: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Gains:
    """What a method gains over a baseline: `groups` in the order of the suite, then S1 and S2a together if both are there."""

    method: str
    baseline: str
    clean: Difference
    groups: tuple[GroupGain, ...]


def gains(method: RobustnessResult, baseline: RobustnessResult, *, rounds: int = ROUNDS, seed: int = SEED) -> Gains:
    """Compare by group. `ValueError`: results of other frames, or of other lists of failures."""
    check_comparable(method, baseline)
    common = [one.name for one in method.scenarios if one.blind.num_boxes and baseline.get(one.name) is not None]
    group_of = {one.name: one.group for one in method.scenarios}
    groups = {
        group: tuple(name for name in common if group_of[name] == group) for group in dict.fromkeys(group_of[name] for name in common)
    }
    if all(group in groups for group in HEADLINE):
        groups[" + ".join(HEADLINE)] = tuple(name for group in HEADLINE for name in groups[group])
    sides = [averaged([_parts(side.clean.box_sums)]) for side in (baseline, method)]
    stated = (baseline.clean.whole.box_map, method.clean.whole.box_map)
    return Gains(
        method=method.label,
        baseline=baseline.label,
        clean=paired_difference(sides[0], sides[1], rounds=rounds, seed=seed, stated=stated),
        groups=tuple(_gain(group, names, method, baseline, rounds, seed) for group, names in groups.items()),
    )


def _gain(group: str, names: tuple[str, ...], method: RobustnessResult, baseline: RobustnessResult, rounds: int, seed: int) -> GroupGain:
    ours, theirs = (_found(side, names) for side in (method, baseline))
    parts = [averaged([_parts(one.blind_sums) for one in side]) for side in (theirs, ours)]
    means = [float(np.mean([one.blind.box_map for one in side])) for side in (theirs, ours)]
    clean = float(np.mean([one.clean_blind.box_map for one in theirs]))
    lost = clean - means[0]
    return GroupGain(
        group=group,
        names=names,
        blind=paired_difference(parts[0], parts[1], rounds=rounds, seed=seed, stated=(means[0], means[1])),
        clean=clean,
        gain=(means[1] - means[0]) / lost if lost > 0 else math.nan,
    )


def _found(result: RobustnessResult, names: Sequence[str]) -> list[ScenarioResult]:
    return [one for one in result.scenarios if one.name in names and one.name != CLEAN]


def _parts(sums: SceneSums) -> SceneParts:
    return SceneParts(parts=sums.parts, value=box_map_of_sums(sums.classes, sums.thresholds))
