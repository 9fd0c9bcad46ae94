"""The result of an evaluation: numbers by task and protocol, curves for plots, values by frame for comparisons and for the worst frames.

F frames are the rows of `Evaluation.frames` everywhere. Distances in metres, times in seconds, rates are shares. NaN: not defined.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from sparsedrive.evaluation import storage
from sparsedrive.evaluation.hits import ScoredHits

SCHEMA, SCHEMA_VERSION = "sparsedrive-evaluation", 2
TASKS = ("det", "track", "map", "motion", "plan")
FORECAST_NUMBERS = ("min_ade_m", "min_fde_m", "miss_rate", "epa")
MODEL, GROUND_TRUTH = "model", "ground_truth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What was evaluated on what, by whom.

    Attributes:
        data, version, split: the prepared folder, its log's version, and which scenes.
        preset, weights: of the model; weights is the file's name, None for random weights.
        parity: names of the `ParityOptions` that were on.
        library: version of sparsedrive.
        date: as the caller gave it.
        notes: what a reader must know before believing a number, in words.
    """

    data: str
    version: str
    split: str
    num_scenes: int
    num_frames: int
    preset: str
    weights: str | None
    parity: tuple[str, ...]
    library: str
    date: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameIndex:
    """The frames, scene by scene in order of time: `scene` [F] indexes `scene_names`, `number` [F] counts within the prepared scene."""

    scene_names: tuple[str, ...]
    tokens: tuple[str, ...]
    scene: Int[np.ndarray, "F"]
    number: Int[np.ndarray, "F"]
    time_s: Float[np.ndarray, "F"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxMatches:
    """M true positives at `DetectionSection.tp_distance_m`: errors as `DetectionSection.error_names`, distance of the truth to the car."""

    frame: Int[np.ndarray, "M"]
    label: Int[np.ndarray, "M"]
    score: Float[np.ndarray, "M"]
    distance_m: Float[np.ndarray, "M"]
    errors: Float[np.ndarray, "M 5"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectionSection:
    """Detection for C classes, D distances, curves over 101 recalls 0 .. 1 (as `metrics.detection`).

    Attributes:
        truth: what the annotations were taken from, in words.
        ap: [C, D]; error: [C, 5], NaN where a class has none; mean_error: [5].
        precision, confidence: [C, D, 101]; error_curve: [C, 5, 101].
        hits: all judged predictions (labels index `classes`, thresholds are `distances_m`).
    """

    protocol: str
    truth: str
    classes: tuple[str, ...]
    distances_m: tuple[float, ...]
    tp_distance_m: float
    error_names: tuple[str, ...]
    mean_ap: float
    nds: float
    mean_error: Float[np.ndarray, "5"]
    ap: Float[np.ndarray, "C D"]
    error: Float[np.ndarray, "C 5"]
    num_truth: Int[np.ndarray, "C"]
    num_predictions: Int[np.ndarray, "C"]
    precision: Float[np.ndarray, "C D 101"]
    confidence: Float[np.ndarray, "C D 101"]
    error_curve: Float[np.ndarray, "C 5 101"]
    hits: ScoredHits
    matches: BoxMatches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackingSection:
    """Tracking for C classes and T = 40 recalls; S numbers named `score_names` (as `metrics.tracking.SCORES`).

    Attributes:
        mean: [S] over classes (summed for counts); best: [C, S]; curves: [C, T, S] at `recall_target`, NaN where not reached.
        scene_amota, scene_amotp_m: [scenes] of each scene alone; NaN where nothing is annotated.
    """

    protocol: str
    truth: str
    classes: tuple[str, ...]
    score_names: tuple[str, ...]
    mean_amota: float
    mean_amotp_m: float
    amota: Float[np.ndarray, "C"]
    amotp_m: Float[np.ndarray, "C"]
    mean: Float[np.ndarray, "S"]
    best: Float[np.ndarray, "C S"]
    curves: Float[np.ndarray, "C T S"]
    recall_target: Float[np.ndarray, "T"]
    threshold: Float[np.ndarray, "C T"]
    scene_amota: Float[np.ndarray, "scenes"]
    scene_amotp_m: Float[np.ndarray, "scenes"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapSection:
    """Map for C classes and K chamfer thresholds; `precision` [C, K, 101] is the envelope at recalls 0 .. 1, 0 beyond the highest.

    `chamfer_m` [N]: of each prediction of `hits` to its nearest truth; infinite where certainly beyond all thresholds.
    """

    protocol: str
    classes: tuple[str, ...]
    thresholds_m: tuple[float, ...]
    mean_ap: float
    ap: Float[np.ndarray, "C K"]
    num_truth: Int[np.ndarray, "C"]
    num_predictions: Int[np.ndarray, "C"]
    precision: Float[np.ndarray, "C K 101"]
    hits: ScoredHits
    chamfer_m: Float[np.ndarray, "N"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastMatches:
    """M matched boxes: class of the section, ADE, FDE, miss (0 or 1) over `steps` steps (0: no future), distance of the truth."""

    frame: Int[np.ndarray, "M"]
    label: Int[np.ndarray, "M"]
    score: Float[np.ndarray, "M"]
    distance_m: Float[np.ndarray, "M"]
    steps: Int[np.ndarray, "M"]
    errors: Float[np.ndarray, "M 3"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastSection:
    """Forecasts for C classes: [C, 4] columns `FORECAST_NUMBERS`, in both definitions of `metrics.forecasting`.

    Attributes:
        min_score: boxes below were left out, as published.
        horizon_s: of the forecasts and truths compared.
        baseline_published, baseline_plain: [C, 4] the same of `metrics.forecasting.constant_velocity` on the same boxes.
        curve: [C, 3, 101] minADE, minFDE, miss rate over recall, as the published definition reads them.
        scene_truth, scene_false_positives: [scenes, C] judged true boxes, and judged predictions without one.
    """

    protocols: tuple[str, ...]
    classes: tuple[str, ...]
    min_score: float
    horizon_s: float
    published: Float[np.ndarray, "C 4"]
    plain: Float[np.ndarray, "C 4"]
    baseline_published: Float[np.ndarray, "C 4"]
    baseline_plain: Float[np.ndarray, "C 4"]
    num_truth: Int[np.ndarray, "C"]
    num_predictions: Int[np.ndarray, "C"]
    curve: Float[np.ndarray, "C 3 101"]
    matches: ForecastMatches
    scene_truth: Int[np.ndarray, "scenes C"]
    scene_false_positives: Int[np.ndarray, "scenes C"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanNumbers:
    """One planner in one protocol on one subset ("all" or "turning"), T steps of 0.5 s; `boundary_rate` None without a map.

    `mean_*` are over the whole seconds up to `horizon_s`: with 3 s the "avg" of tables in papers.
    """

    protocol: str
    subset: str
    horizon_s: float
    num_plans: int
    mean_l2_m: float
    mean_collision_rate: float
    mean_boundary_rate: float
    l2_m: Float[np.ndarray, "T"]
    collision_rate: Float[np.ndarray, "T"]
    boundary_rate: Float[np.ndarray, "T"] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannerResult:
    """A planner: the model or a baseline. `ground_truth` shows how often the driven path itself "collides".

    Attributes:
        numbers: every protocol, subset and horizon.
        plan_m: [F, T, 2] in the frame's ego frame.
        frame_l2_m: [F, T] distance to the driven path at each step; NaN where the recording has ended.
        frame_collides: [F, T] whether it has touched an object by each step (protocol "plain"); NaN as above.
        frame_change_m: [F, T - 1] distance to the plan of the frame before at the instants both speak of; NaN at starts.
        mean_change_m: mean of the above, the planner's inconsistency.
    """

    name: str
    numbers: tuple[PlanNumbers, ...]
    plan_m: Float[np.ndarray, "F T 2"]
    frame_l2_m: Float[np.ndarray, "F T"]
    frame_collides: Float[np.ndarray, "F T"]
    frame_change_m: Float[np.ndarray, "F changes"]
    mean_change_m: float

    def get(self, protocol: str, subset: str = "all", horizon_s: float = 3.0) -> PlanNumbers:
        """The numbers of a protocol; `ValueError` lists what there is."""
        for numbers in self.numbers:
            if (numbers.protocol, numbers.subset, numbers.horizon_s) == (protocol, subset, horizon_s):
                return numbers
        known = sorted({(numbers.protocol, numbers.subset, numbers.horizon_s) for numbers in self.numbers})
        raise ValueError(f"plan of {self.name}: no numbers for {(protocol, subset, horizon_s)}; there are {known}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanSection:
    """Planning: the model first, then the baselines. `turning` [F] frames form the subset of that name; the rest is the driven path."""

    protocols: tuple[str, ...]
    planners: tuple[PlannerResult, ...]
    turning: Bool[np.ndarray, "F"]
    truth_m: Float[np.ndarray, "F T 2"]
    truth_valid: Bool[np.ndarray, "F T"]

    def planner(self, name: str) -> PlannerResult:
        """A planner by name; `ValueError` lists them."""
        for planner in self.planners:
            if planner.name == name:
                return planner
        raise ValueError(f"plan: no planner {name!r}; there are {[planner.name for planner in self.planners]}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """Everything one run of `sparsedrive eval` found out. Tasks that were not asked for, or that the model lacks, are None."""

    header: Header
    frames: FrameIndex
    detection: DetectionSection | None
    tracking: TrackingSection | None
    map: MapSection | None
    forecasting: ForecastSection | None
    planning: PlanSection | None

    def save(self, path: Path | str) -> Path:
        """Write `path` (.json) and its arrays (.npz beside it)."""
        return storage.save(self, path, SCHEMA, SCHEMA_VERSION)

    @classmethod
    def load(cls, path: Path | str) -> "Evaluation":
        """Read what `save` wrote. `ValueError`: unknown or missing keys, another version, arrays missing."""
        return storage.load(cls, path, SCHEMA, SCHEMA_VERSION)
