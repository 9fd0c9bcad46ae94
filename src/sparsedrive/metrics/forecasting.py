"""Forecasts of other road users: minADE, minFDE, miss rate and EPA of the classes "car" (all vehicles) and "pedestrian".

Predicted boxes are matched to true ones of their class and frame first. In descending score (equal scores: the later row goes first),
each takes the nearest true box that is not taken yet, if the centres are less than 2 m apart; otherwise it is a false positive. Of a
match, over the L steps that the true track goes on (0.5 s apart, up to 6 s) and the M modes:

    ADE = min over modes of the mean error    FDE = min over modes of the error at step L    miss = min over modes of the worst > 2 m

How matches become a number has two definitions, given side by side:

- `published` (UniAD, SparseDrive): as the true-positive errors of nuScenes. The mean of the best n matches, as n grows, is read at 101
  steps of recall and averaged from recall 0.1 to the highest reached; 1 if recall 0.1 is not reached. A true box without any future
  counts as a perfect match (0, 0, no miss) there. EPA = (hits - 0.5 * false positives) / true boxes, where hits come from another
  matching that also asks for FDE < 2 m before a box is taken.
- `plain`: the mean over the matches whose true box has a future. EPA over true boxes with a future, with the one matching: a prediction
  matched to a box without future counts neither way.

A class without true boxes has NaN everywhere. What a forecast is worth shows beside `constant_velocity`: the same boxes, each going on
at the velocity it is said to have, in one mode. Sources: evaluation of swc-17/SparseDrive and OpenDriveLab/UniAD; EPA: ViP3D
(arXiv:2208.01582), equation 10; recall averaging: nuScenes devkit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparsedrive.structures import DETECTION_CLASSES

FORECAST_CLASSES = ("car", "pedestrian")
RANGE_M = (50.0, 40.0)
"""How far from the vehicle's origin boxes of a class count, true and predicted ones."""
STEP_S, MATCH_M, MISS_M, FALSE_POSITIVE_COST = 0.5, 2.0, 2.0, 0.5
RECALL_STEPS, FIRST_STEP = 101, 11
_NOT_FORECAST = ("traffic_cone", "barrier")

Accept = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedAgents:
    """N boxes of many frames. `label` indexes `DETECTION_CLASSES`; any frame of reference, the same as the true ones'.

    `distance_m` is the horizontal distance to the vehicle's own origin (nuScenes: of the ego pose, not of the lidar). The published
    evaluation takes boxes with a score of at least 0.2.
    """

    frame: Int[np.ndarray, "N"]
    label: Int[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]
    center_m: Float[np.ndarray, "N 2"]
    distance_m: Float[np.ndarray, "N"]
    trajectory_m: Float[np.ndarray, "N M T 2"]

    def __post_init__(self) -> None:
        _check_rows(self, label=(), score=(), center_m=(2,), distance_m=(), trajectory_m=(None, None, 2))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrueAgents:
    """N boxes of many frames with the places where they will be; `steps` says how many of the T the track goes on for (maybe none).

    `returns` counts the lidar and radar returns in the box: boxes without any do not count.
    """

    frame: Int[np.ndarray, "N"]
    label: Int[np.ndarray, "N"]
    center_m: Float[np.ndarray, "N 2"]
    distance_m: Float[np.ndarray, "N"]
    returns: Int[np.ndarray, "N"]
    future_m: Float[np.ndarray, "N T 2"]
    steps: Int[np.ndarray, "N"]

    def __post_init__(self) -> None:
        _check_rows(self, label=(), center_m=(2,), distance_m=(), returns=(), future_m=(None, 2), steps=())
        if len(self.steps) and not 0 <= self.steps.min() <= self.steps.max() <= self.future_m.shape[1]:
            raise ValueError(f"TrueAgents.steps: expected 0 to {self.future_m.shape[1]}, got {self.steps.min()} to {self.steps.max()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastErrors:
    """The four numbers; miss rate and EPA are shares."""

    min_ade_m: float
    min_fde_m: float
    miss_rate: float
    epa: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastClassScore:
    """Result of one class, with its matches in descending score: rows of the inputs, and ADE, FDE and miss of each.

    `curve` are ADE, FDE and miss at 101 steps of recall, [3, 101], as the published definition reads them.
    """

    name: str
    num_truth: int
    num_predicted: int
    published: ForecastErrors
    plain: ForecastErrors
    predicted_row: Int[np.ndarray, "K"]
    true_row: Int[np.ndarray, "K"]
    errors: Float[np.ndarray, "K 3"]
    curve: Float[np.ndarray, "3 101"]


def evaluate_forecasts(predicted: PredictedAgents, truth: TrueAgents) -> tuple[ForecastClassScore, ...]:
    """One result for each of `FORECAST_CLASSES`. `ValueError` when the forecasts end before the true futures do."""
    have, need = predicted.trajectory_m.shape[2], int(truth.steps.max(initial=0))
    if len(predicted.frame) and have < need:
        raise ValueError(f"evaluate_forecasts: expected forecasts of {need} steps to go with the true futures, got {have}; cut `steps`")
    forecast_label = np.array([-1 if name in _NOT_FORECAST else int(name == "pedestrian") for name in DETECTION_CLASSES])
    scores = []
    for label, name in enumerate(FORECAST_CLASSES):
        rows = np.flatnonzero((forecast_label[predicted.label] == label) & (predicted.distance_m < RANGE_M[label]))
        true_rows = np.flatnonzero((forecast_label[truth.label] == label) & (truth.distance_m < RANGE_M[label]) & (truth.returns > 0))
        rows = rows[np.argsort(predicted.score[rows], kind="stable")[::-1]]
        scores.append(_evaluate_class(name, predicted, truth, rows, true_rows))
    return tuple(scores)


def constant_velocity(
    center_m: Float[np.ndarray, "N 2"], velocity_mps: Float[np.ndarray, "N 2"], steps: int
) -> Float[np.ndarray, "N 1 steps 2"]:
    """The baseline: every box goes straight on, one mode, positions 0.5 s apart in the frame of reference of the centres."""
    time_s = STEP_S * np.arange(1, steps + 1)
    return (center_m[:, None] + velocity_mps[:, None] * time_s[:, None])[:, None]


def forecast_errors(
    trajectory_m: Float[np.ndarray, "K M T 2"], future_m: Float[np.ndarray, "K S 2"], steps: Int[np.ndarray, "K"]
) -> Float[np.ndarray, "K 3"]:
    """ADE [m], FDE [m] and miss (0 or 1) of each forecast over the first `steps` steps; zeros where there are none."""
    horizon = min(trajectory_m.shape[2], future_m.shape[1])
    known = (np.arange(horizon) < steps[:, None])[:, None]
    error_m = np.linalg.norm(np.where(known[..., None], trajectory_m[:, :, :horizon] - future_m[:, None, :horizon], 0.0), axis=3)
    ade_m = error_m.sum(2) / np.maximum(steps, 1)[:, None]
    fde_m = np.take_along_axis(error_m, np.maximum(steps - 1, 0)[:, None, None], 2)[..., 0]
    return np.stack([ade_m.min(1), fde_m.min(1), error_m.max(2).min(1) > MISS_M], 1)


def _evaluate_class(
    name: str, predicted: PredictedAgents, truth: TrueAgents, rows: np.ndarray, true_rows: np.ndarray
) -> ForecastClassScore:
    """Score predictions `rows`, best first, against true boxes `true_rows`."""

    def errors_of(predictions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return forecast_errors(predicted.trajectory_m[predictions], truth.future_m[boxes], truth.steps[boxes])

    def arrives(predictions: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return (errors_of(predictions, boxes)[:, 1] < MATCH_M) & (truth.steps[boxes] > 0)

    taken = _match(predicted, truth, rows, true_rows)
    matched = taken >= 0
    errors = errors_of(rows[matched], taken[matched])
    has_future = truth.steps[taken[matched]] > 0
    averages, curve = _recall_averages(predicted.score[rows], matched, errors, len(true_rows))
    cost = FALSE_POSITIVE_COST * int((~matched).sum())
    hits = int((_match(predicted, truth, rows, true_rows, arrives) >= 0).sum())
    plain_hits = int((errors[has_future, 1] < MATCH_M).sum())
    mean = errors[has_future].mean(0) if has_future.any() else np.full(3, np.nan)
    return ForecastClassScore(
        name=name, num_truth=len(true_rows), num_predicted=len(rows), curve=curve,
        published=_errors(averages, hits - cost, len(true_rows)),
        plain=_errors(mean, plain_hits - cost, int((truth.steps[true_rows] > 0).sum())),
        predicted_row=rows[matched], true_row=taken[matched], errors=errors,
    )  # fmt: skip


def _errors(means: np.ndarray, gain: float, num_truth: int) -> ForecastErrors:
    ade_m, fde_m, miss_rate = (float(value) for value in means)
    return ForecastErrors(min_ade_m=ade_m, min_fde_m=fde_m, miss_rate=miss_rate, epa=gain / num_truth if num_truth else float("nan"))


def _match(
    predicted: PredictedAgents, truth: TrueAgents, rows: np.ndarray, true_rows: np.ndarray, accept: Accept | None = None
) -> Int[np.ndarray, "R"]:
    """True box that each prediction of `rows`, best first, takes; -1 for none.

    Frames do not see each other, so the n-th best prediction of every frame takes its box at the same time as the others'.
    """
    frames = np.unique(np.concatenate([predicted.frame[rows], truth.frame[true_rows]]))
    frame, true_frame = np.searchsorted(frames, predicted.frame[rows]), np.searchsorted(frames, truth.frame[true_rows])
    turn, true_slot = _place_in_group(frame), _place_in_group(true_frame)
    box = np.full((len(frames), true_slot.max(initial=-1) + 1), -1)
    box[true_frame, true_slot] = true_rows
    free = box >= 0
    taken = np.full(len(rows), -1)
    if not box.size:
        return taken
    by_turn = np.argsort(turn, kind="stable")
    for now in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        offered = box[frame[now]]
        gap_m = np.linalg.norm(predicted.center_m[rows[now], None] - truth.center_m[offered], axis=2)
        gap_m[~free[frame[now]]] = np.inf
        slot = gap_m.argmin(1)
        nearest = offered[np.arange(len(now)), slot]
        ok = gap_m[np.arange(len(now)), slot] < MATCH_M
        if accept is not None:
            ok[ok] = accept(rows[now[ok]], nearest[ok])
        free[frame[now[ok]], slot[ok]] = False
        taken[now[ok]] = nearest[ok]
    return taken


def _place_in_group(group: Int[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """How many rows of the same group come before each row."""
    order = np.argsort(group, kind="stable")
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return place


def _recall_averages(
    score: Float[np.ndarray, "R"], matched: np.ndarray, errors: Float[np.ndarray, "K 3"], num_truth: int
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 101"]]:
    """Errors averaged over recall, and the curves they are averages of. All in descending score."""
    if not num_truth:
        return np.full(3, np.nan), np.full((3, RECALL_STEPS), np.nan)
    if not matched.any():
        return np.ones(3), np.ones((3, RECALL_STEPS))
    recall = np.cumsum(matched) / num_truth
    score_at = np.interp(np.linspace(0.0, 1.0, RECALL_STEPS), recall, score, right=0.0)
    running = np.cumsum(errors, axis=0) / np.arange(1, len(errors) + 1)[:, None]
    rising = slice(None, None, -1)  # np.interp wants scores that rise
    curve = np.stack([np.interp(score_at[rising], score[matched][rising], column[rising])[rising] for column in running.T])
    last = int(np.flatnonzero(score_at).max(initial=0))
    return (curve[:, FIRST_STEP : last + 1].mean(1) if last >= FIRST_STEP else np.ones(3)), curve


def _check_rows(agents: PredictedAgents | TrueAgents, **shapes: tuple[int | None, ...]) -> None:
    """That every field has a row for each box, of the shape given (None: any size). Raises ValueError."""
    kind, boxes = type(agents).__name__, len(agents.frame)
    for name, shape in shapes.items():
        value = getattr(agents, name)
        wanted = (boxes, *shape)
        if value.ndim != len(wanted) or any(size not in (have, None) for size, have in zip(wanted, value.shape, strict=True)):
            text = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ValueError(f"{kind}.{name}: expected [{text}] to go with {boxes} boxes, got {list(value.shape)}")
        if not np.isfinite(value).all():
            raise ValueError(f"{kind}.{name}: expected finite numbers, got NaN or infinity; drop those boxes, pad unknown futures with 0")
    if boxes and not 0 <= agents.label.min() <= agents.label.max() < len(DETECTION_CLASSES):
        raise ValueError(f"{kind}.label: expected indices into {DETECTION_CLASSES}, got {agents.label.min()} to {agents.label.max()}")
