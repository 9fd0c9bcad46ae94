"""Two evaluations of the same data side by side: which differences are more than the luck of the scenes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsedrive.evaluation import resampling
from sparsedrive.evaluation.bootstrap import ROUNDS, SEED, Difference, SceneParts, mean_parts, paired_difference
from sparsedrive.evaluation.results import MODEL, DetectionSection, Evaluation, ForecastSection, FrameIndex, PlannerResult, TrackingSection

SECTIONS = ("detection", "tracking", "map", "forecasting", "planning")
MIN_SCENES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedNumber:
    """A number of both evaluations (as they state it), and how sure their difference is. `task` as in `TASKS`."""

    task: str
    name: str
    protocol: str
    higher_is_better: bool
    result: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All numbers both evaluations have. `scenes` were drawn `rounds` times with `seed`; `left_out` says what could not be compared."""

    a: str
    b: str
    data: str
    version: str
    split: str
    scenes: int
    rounds: int
    seed: int
    numbers: tuple[ComparedNumber, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Number:
    """A number as an evaluation states it, and as parts of scenes."""

    task: str
    name: str
    protocol: str
    stated: float
    parts: SceneParts
    higher_is_better: bool = False


def compare(a: Evaluation, b: Evaluation, *, rounds: int = ROUNDS, seed: int = SEED) -> Comparison:
    """Paired bootstrap over scenes of every number both have.

    `ValueError`: they are of other data, another split, other truth or other protocols, or have no task in common.
    """
    check_comparable(a, b)
    common = [name for name in SECTIONS if getattr(a, name) is not None and getattr(b, name) is not None]
    left_out = [f"{name}: only in {'A' if getattr(a, name) is not None else 'B'}" for name in SECTIONS if _only_in_one(a, b, name)]
    first, second = ({(one.task, one.name): one for one in _numbers(evaluation, common)} for evaluation in (a, b))
    left_out += [f"{name}: not in both" for _, name in first.keys() ^ second.keys()]
    order = np.argsort(a.frames.scene_names)
    numbers = []
    for key in (key for key in first if key in second):
        one, other = first[key], second[key]
        parts = (SceneParts(parts=side.parts.parts[order], value=side.parts.value) for side in (one, other))
        result = paired_difference(*parts, rounds=rounds, seed=seed, stated=(one.stated, other.stated))
        numbers.append(
            ComparedNumber(task=one.task, name=one.name, protocol=one.protocol, higher_is_better=one.higher_is_better, result=result)
        )
    header = a.header
    return Comparison(
        a=_who(a), b=_who(b), data=header.data, version=header.version, split=header.split, scenes=len(order), rounds=rounds, seed=seed,
        numbers=tuple(numbers), left_out=tuple(sorted(left_out)),
    )  # fmt: skip


def check_comparable(a: Evaluation, b: Evaluation) -> None:
    """That both judge the same frames, with the same truth and by the same rules. `ValueError` says what differs."""
    for name in ("version", "split"):
        ours, theirs = getattr(a.header, name), getattr(b.header, name)
        if ours != theirs:
            raise ValueError(f"compare: {name} differs: A has {ours!r}, B has {theirs!r}; evaluate both on the same data")
    if a.frames.tokens != b.frames.tokens:
        only = len(set(a.frames.tokens) ^ set(b.frames.tokens))
        raise ValueError(
            f"compare: data differ: A has {len(a.frames.tokens)} frames, B {len(b.frames.tokens)}, and {only} are in one of them only "
            "(0: another order); evaluate both on the same prepared data"
        )
    common = [name for name in SECTIONS if getattr(a, name) is not None and getattr(b, name) is not None]
    if not common:
        raise ValueError("compare: A and B have no task in common; evaluate both with the same --tasks")
    if len(a.frames.scene_names) < MIN_SCENES:
        raise ValueError(f"compare: expected at least {MIN_SCENES} scenes to draw from, got {len(a.frames.scene_names)}; evaluate more")
    for section in common:
        for name in _RULES[section]:
            ours, theirs = getattr(getattr(a, section), name), getattr(getattr(b, section), name)
            if not np.array_equal(ours, theirs):
                what = "truth" if isinstance(ours, np.ndarray) else "protocol"
                shown = "" if isinstance(ours, np.ndarray) else f": A has {ours!r}, B has {theirs!r}"
                raise ValueError(f"compare: {what} of {section} differs ({name}){shown}; evaluate both with the same version and options")


_RULES = {
    "detection": ("protocol", "truth", "classes", "distances_m", "num_truth"),
    "tracking": ("protocol", "truth", "classes"),
    "map": ("protocol", "classes", "thresholds_m", "num_truth"),
    "forecasting": ("protocols", "classes", "min_score", "horizon_s", "num_truth"),
    "planning": ("protocols",),
}
"""What has to be the same. Plans may go further in one than in the other: only what both have is compared."""


def _numbers(evaluation: Evaluation, sections: list[str]) -> Iterator[_Number]:
    """Every number of these sections that is made of scenes."""
    frames = evaluation.frames
    if evaluation.detection is not None and "detection" in sections:
        yield from _detection_numbers(evaluation.detection, frames)
    if evaluation.tracking is not None and "tracking" in sections:
        yield from _tracking_numbers(evaluation.tracking)
    if evaluation.map is not None and "map" in sections:
        found = evaluation.map
        parts = resampling.line_map(found, frames)
        yield _Number(task="map", name="map mAP", protocol=found.protocol, stated=found.mean_ap, parts=parts, higher_is_better=True)
    if evaluation.forecasting is not None and "forecasting" in sections:
        yield from _forecast_numbers(evaluation.forecasting, frames)
    if evaluation.planning is not None and "planning" in sections:
        yield from _plan_numbers(evaluation.planning.planner(MODEL), frames)


def _detection_numbers(found: DetectionSection, frames: FrameIndex) -> Iterator[_Number]:
    for name, stated, parts in (
        ("NDS", found.nds, resampling.nds(found, frames)),
        ("mAP", found.mean_ap, resampling.detection_map(found, frames)),
    ):
        yield _Number(task="det", name=name, protocol=found.protocol, stated=stated, parts=parts, higher_is_better=True)


def _tracking_numbers(found: TrackingSection) -> Iterator[_Number]:
    """Association is not a sum over scenes, so these are means of what each scene has alone."""
    for name, values in (("AMOTA, mean of scenes", found.scene_amota), ("AMOTP [m], mean of scenes", found.scene_amotp_m)):
        parts, better = mean_parts(np.arange(len(values)), values, len(values)), name.startswith("AMOTA")
        yield _Number(task="track", name=name, protocol=found.protocol, stated=parts.score(), parts=parts, higher_is_better=better)


def _forecast_numbers(found: ForecastSection, frames: FrameIndex) -> Iterator[_Number]:
    """By the plain definition."""
    for row, kind in enumerate(found.classes):
        for column, name in enumerate(("minADE [m]", "minFDE [m]", "miss rate")):
            parts, stated = resampling.forecast_error(found, frames, row, column), float(found.plain[row, column])
            yield _Number(task="motion", name=f"{name}, {kind}", protocol=found.protocols[-1], stated=stated, parts=parts)


def _plan_numbers(planner: PlannerResult, frames: FrameIndex) -> Iterator[_Number]:
    """L2 in every protocol, and collisions in the plain one."""
    scenes = len(frames.scene_names)
    for numbers in (numbers for numbers in planner.numbers if numbers.subset == "all"):
        protocol, horizon_s = numbers.protocol, numbers.horizon_s
        parts = resampling.plan_l2(planner.frame_l2_m, frames.scene, scenes, protocol, horizon_s)
        name = f"L2 [m], {protocol}, {horizon_s:g} s"
        yield _Number(task="plan", name=name, protocol=protocol, stated=numbers.mean_l2_m, parts=parts)
        if protocol == "plain":
            parts = resampling.plan_collisions(planner.frame_collides, frames.scene, scenes, horizon_s)
            name = f"collisions, {protocol}, {horizon_s:g} s"
            yield _Number(task="plan", name=name, protocol=protocol, stated=numbers.mean_collision_rate, parts=parts)


def _only_in_one(a: Evaluation, b: Evaluation, name: str) -> bool:
    return (getattr(a, name) is None) != (getattr(b, name) is None)


def _who(evaluation: Evaluation) -> str:
    return f"{evaluation.header.preset}, {evaluation.header.weights or 'random weights'}"
