"""What `sparsedrive robustness` found out about one model, and how much of a clean score is kept.

Distances in metres; NaN: not defined (no truth, or the model lacks the task). *Retention* is failing / clean for scores, clean / failing
for errors: 1 is all kept, whichever way is up.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from sparsedrive.evaluation import storage
from sparsedrive.evaluation.results import FrameIndex, Header
from sparsedrive.evaluation.robustness_scenarios import CLEAN

SCHEMA, SCHEMA_VERSION = "sparsedrive-robustness", 1
ONSET_FRAMES = 21
PLAN_SECONDS = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeScores:
    """Scores of the whole scene, by the protocols of `sparsedrive eval`; forecasts are those of cars, plain definition; `l2_m` the mean
    over 1, 2 and 3 s of the distance at that time ("uniad"), `mean_l2_m` of the mean up to that time ("st-p3")."""

    box_map: float
    nds: float
    amota: float
    line_map: float
    min_ade_m: float
    min_fde_m: float
    miss_rate: float
    epa: float
    l2_m: float
    mean_l2_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SectorScores:
    """Scores of one sector (see `robustness_metrics`).

    Attributes:
        num_boxes, num_lines: how much there was.
        box_map, line_map: mAP over the annotated classes.
        recall: of boxes within 2 m, of predictions that are believed: with at least the score that has the best F1 of its class on the
            clean pictures.
        false_alarms: believed boxes without truth within 2 m, for every frame with failures (every frame, where there are none):
            hallucinations, in the blind sector.
        overconfidence: mean score of the believed boxes less the share of them that is right; 0 is honest.
    """

    num_boxes: int
    num_lines: int
    box_map: float
    line_map: float
    recall: float
    false_alarms: float
    overconfidence: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneSums:
    """mAP as sums over scenes: parts of `evaluation.bootstrap.SceneParts` for C classes and K thresholds. None of either: no truth."""

    classes: int
    thresholds: int
    parts: Float[np.ndarray, "S sums"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnsetCurve:
    """Recall of boxes in the blind sector 0, 1, .. frames after the failure began; NaN where there is nothing to find."""

    recall: Float[np.ndarray, "frames"]
    clean_recall: Float[np.ndarray, "frames"]
    num_truth: Int[np.ndarray, "frames"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScenarioResult:
    """One scenario. `clean_*` are the clean pictures judged on the same sectors.

    Attributes:
        digest: of the scenario's list.
        lost_share: share of all pictures that something was done to.
        collided, judged: plans that have touched an object by 1, 2 and 3 s (protocol "plain"), of so many.
        ap: [classes] whole-scene AP of boxes, mean over distances.
        blind_sums, box_sums: for intervals: boxes of the blind sector, of the whole scene.
        onset: only where every scene has one onset.
    """

    name: str
    group: str
    text: str
    digest: str
    lost_share: float
    whole: WholeScores
    collided: Int[np.ndarray, "3"]
    judged: Int[np.ndarray, "3"]
    ap: Float[np.ndarray, "classes"]
    blind: SectorScores
    rest: SectorScores
    clean_blind: SectorScores
    clean_rest: SectorScores
    blind_sums: SceneSums
    box_sums: SceneSums
    onset: OnsetCurve | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RobustnessResult:
    """One model through a suite; the first scenario is the clean one. `header.notes` say what to know before believing a number."""

    header: Header
    suite: str
    seed: int
    label: str
    classes: tuple[str, ...]
    frames: FrameIndex
    scenarios: tuple[ScenarioResult, ...]

    @property
    def clean(self) -> ScenarioResult:
        """Nothing fails."""
        return self.scenarios[0]

    def get(self, name: str) -> ScenarioResult | None:
        """A scenario by name."""
        return next((one for one in self.scenarios if one.name == name), None)

    def save(self, path: Path | str) -> Path:
        """Write `path` (.json) and its arrays (.npz beside it)."""
        return storage.save(self, path, SCHEMA, SCHEMA_VERSION)

    @classmethod
    def load(cls, path: Path | str) -> "RobustnessResult":
        """Read what `save` wrote. `ValueError`: unknown or missing keys, another version, arrays missing, no clean scenario."""
        result = storage.load(cls, path, SCHEMA, SCHEMA_VERSION)
        if not result.scenarios or result.scenarios[0].name != CLEAN:
            raise ValueError(f"{path}: expected the clean scenario {CLEAN} first; run `sparsedrive robustness` again")
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A column of the tables: a field of `WholeScores`, or of `SectorScores` where `blind`."""

    field: str
    title: str
    blind: bool = False
    higher_is_better: bool = True

    def value(self, scenario: ScenarioResult) -> float:
        """With failures."""
        return float(getattr(scenario.blind if self.blind else scenario.whole, self.field))

    def clean(self, scenario: ScenarioResult, of: RobustnessResult) -> float:
        """Of the clean pictures: in the scenario's own sector where `blind`. NaN where `of` does not have the scenario."""
        found = of.get(scenario.name) if self.blind else of.clean
        return math.nan if found is None else float(getattr(found.clean_blind if self.blind else found.whole, self.field))

    def retention(self, scenario: ScenarioResult, reference: RobustnessResult) -> float:
        """How much of the reference's clean value is kept; NaN where that is 0 or not known."""
        now, before = self.value(scenario), self.clean(scenario, reference)
        above, below = (now, before) if self.higher_is_better else (before, now)
        return above / below if below > 0 else math.nan


MEASURES = (
    Measure(field="box_map", title="boxes mAP"),
    Measure(field="nds", title="NDS"),
    Measure(field="amota", title="AMOTA"),
    Measure(field="line_map", title="map mAP"),
    Measure(field="epa", title="car EPA"),
    Measure(field="l2_m", title="plan L2", higher_is_better=False),
    Measure(field="box_map", title="boxes mAP", blind=True),
    Measure(field="recall", title="recall", blind=True),
    Measure(field="line_map", title="map mAP", blind=True),
)


def check_comparable(a: RobustnessResult, b: RobustnessResult) -> None:
    """`ValueError` unless both are of the same frames and, where both have a scenario, of the same list."""
    if a.frames.tokens != b.frames.tokens:
        raise ValueError(
            f"robustness: {a.label!r} is of {len(a.frames.tokens)} frames of {a.header.data}, split {a.header.split!r}, {b.label!r} of "
            f"{len(b.frames.tokens)} other ones of {b.header.data}, split {b.header.split!r}; compare results of the same data"
        )
    for one in a.scenarios:
        other = b.get(one.name)
        if other is not None and other.digest != one.digest:
            raise ValueError(
                f"robustness: scenario {one.name} of {a.label!r} and of {b.label!r} are different lists (seeds {a.seed} and {b.seed}); "
                "compare results of the same seed"
            )


def robobev(result: RobustnessResult, plain: RobustnessResult | None) -> tuple[float, float]:
    """mRR and mCE of RoboBEV over its two corruptions that lose cameras (crash and lost frames, levels 2, 4 and 5).

    RR = sum NDS / (3 NDS of the clean pictures); CE = sum (1 - NDS) / sum (1 - NDS of the plain model); means over both corruptions.
    RoboBEV itself averages over eight corruptions and relates to DETR3D, so these are not its published numbers. NaN without the six
    scenarios (suite "full"), mCE also without the plain model's result.
    """
    ours, theirs = ([_corruption(of, group) for group in ("CC", "FL")] if of is not None else [] for of in (result, plain))
    clean = result.clean.whole.nds
    if any(row is None for row in ours) or not clean > 0:
        return math.nan, math.nan
    retained = float(np.mean([np.mean(row) / clean for row in ours if row is not None]))
    if not theirs or any(row is None for row in theirs):
        return retained, math.nan
    errors = [np.sum(1 - row) / np.sum(1 - other) for row, other in zip(ours, theirs, strict=True) if row is not None and other is not None]
    return retained, float(np.mean(errors))


def _corruption(result: RobustnessResult, group: str) -> Float[np.ndarray, "3"] | None:
    found = [result.get(f"{group}-{level}") for level in (2, 4, 5)]
    return None if any(one is None for one in found) else np.array([one.whole.nds for one in found if one is not None])
