"""A model through the scenarios of CamFail: it streams each one, and everything it says is judged, the blind sector apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from sparsedrive.data.failure_script import FailureScript
from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.hits import ScoredHits
from sparsedrive.evaluation.predictions import PredictionSet, box_records, map_lines
from sparsedrive.evaluation.results import FORECAST_NUMBERS, Header
from sparsedrive.evaluation.robustness_metrics import NEAR_M, Sector, box_ap_parts, box_sectors, line_sectors
from sparsedrive.evaluation.robustness_results import (
    ONSET_FRAMES,
    PLAN_SECONDS,
    OnsetCurve,
    RobustnessResult,
    ScenarioResult,
    SceneSums,
    SectorScores,
    WholeScores,
)
from sparsedrive.evaluation.robustness_scenarios import CLEAN, Scenario
from sparsedrive.evaluation.run import Progress, predict
from sparsedrive.evaluation.sections import detection_section, forecast_section
from sparsedrive.evaluation.truth import SplitTruth, TruthSource, box_truth, driven_path, future_objects, map_truth, read_split
from sparsedrive.metrics.detection import DetectionConfig
from sparsedrive.metrics.forecasting import FORECAST_CLASSES
from sparsedrive.metrics.mapping import MapLines, MapScores, evaluate_map
from sparsedrive.metrics.planning import (
    PLAIN,
    PROTOCOLS,
    STEP_S,
    FutureObjects,
    PlanFrames,
    PlanProtocol,
    PlanScores,
    evaluate_plans,
)
from sparsedrive.metrics.records import GroundTruth
from sparsedrive.metrics.tracking import evaluate_tracking
from sparsedrive.models.sparsedrive import SparseDrive

NEAR = DetectionConfig().distances_m.index(NEAR_M)
PLAN_STEPS = 2 * max(PLAN_SECONDS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """The truth of a split, to judge one scenario after the other."""

    truth: SplitTruth
    boxes: GroundTruth
    lines: MapLines
    path_m: Float[np.ndarray, "F T 2"]
    path_valid: Bool[np.ndarray, "F T"]
    objects: FutureObjects
    camera_names: tuple[str, ...]

    @classmethod
    def of(cls, data: PreparedData, split: str, camera_names: Sequence[str], source: TruthSource = "auto") -> "Judge":
        """Read the split. `ValueError`: no such split, or no tables where `source` asks for them."""
        truth = read_split(data, split)
        path_m, valid = driven_path(truth, PLAN_STEPS)
        return cls(
            truth=truth,
            boxes=box_truth(truth, source)[0],
            lines=map_truth(truth),
            path_m=path_m,
            path_valid=valid,
            objects=future_objects(truth, valid),
            camera_names=tuple(camera_names),
        )

    def lost(self, script: FailureScript) -> Bool[np.ndarray, "F C"]:
        """At which frames of the split something is wrong with which camera."""
        return np.concatenate([script.lost(scene.name, scene.num_frames, self.camera_names) for scene in self.truth.scenes])


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a model said of one scenario. `lines`: its map lines judged, None without any."""

    predictions: PredictionSet
    lines: MapScores | None

    @classmethod
    def of(cls, judge: Judge, said: PredictionSet) -> "Answers":
        """Judge the lines, which takes longest, once for all uses."""
        return cls(predictions=said, lines=None if said.lines is None else evaluate_map(map_lines(said), judge.lines))


def run_suite(
    model: SparseDrive,
    data: PreparedData,
    split: str,
    scenarios: Sequence[Scenario],
    *,
    suite: str,
    seed: int,
    weights: str | None,
    library: str,
    date: str,
    label: str,
    batch_size: int = 1,
    workers: int = 2,
    truth_source: TruthSource = "auto",
    progress: Progress | None = None,
) -> RobustnessResult:
    """Every scenario through the model and all metrics.

    Args:
        scenarios: of `suite_scenarios` for this split; the clean one first.
        suite, seed, date, label: as they shall be noted.
        weights, library, batch_size, workers: as `predict`.

    `ValueError`: the first scenario is not the clean one, a list does not fit the data, or the model says NaN.
    """
    if not scenarios or scenarios[0].name != CLEAN:
        raise ValueError(f"run_suite: expected the clean scenario {CLEAN} first, got {[one.name for one in scenarios]}")
    judge = Judge.of(data, split, model.config.camera_names, truth_source)
    for scenario in scenarios:
        scenario.script.check(judge.truth.scenes, judge.camera_names)
    results: list[ScenarioResult] = []
    for number, scenario in enumerate(scenarios):
        said = predict(
            model, data, split, weights=weights, library=library, batch_size=batch_size, workers=workers, failures=scenario.script,
            progress=_part(progress, scenario.name, number, len(scenarios)),
        )  # fmt: skip
        answers = Answers.of(judge, said)
        if number == 0:
            clean, believed = answers, best_scores(judge, said)
        results.append(judge_scenario(judge, scenario, answers, clean, believed))
    truth = judge.truth
    header = Header(
        data=str(data.folder), version=data.version, split=split, num_scenes=len(truth.scenes), num_frames=len(truth.frames.tokens),
        preset=model.config.name, weights=weights, parity=said.parity, library=library, date=date, notes=tuple(_notes(said)),
    )  # fmt: skip
    classes = tuple(DetectionConfig().range_of_class_m)
    return RobustnessResult(
        header=header, suite=suite, seed=seed, label=label, classes=classes, frames=truth.frames, scenarios=tuple(results)
    )  # fmt: skip


def judge_scenario(
    judge: Judge, scenario: Scenario, said: Answers, clean: Answers, believed: Float[np.ndarray, "classes"]
) -> ScenarioResult:
    """All numbers of one scenario: `said` with the failures, `clean` without any; boxes are `believed` from these scores of classes on."""
    lost = judge.lost(scenario.script)
    whole, box_hits, ap = whole_scores(judge, said)
    sectors, clean_sectors = (_sectors(judge, one, lost) for one in (said, clean))
    failing = int(lost.any(1).sum()) or len(lost)
    blind, rest, clean_blind, clean_rest = (
        _sector_scores(boxes, lines, believed, failing) for boxes, lines in (*sectors, *clean_sectors)
    )  # fmt: skip
    collided, judged = _collisions(judge, said.predictions)
    every = Sector(classes=tuple(DetectionConfig().range_of_class_m), ap=np.zeros((0, 0)), hits=box_hits)
    return ScenarioResult(
        name=scenario.name,
        group=scenario.group,
        text=scenario.text,
        digest=scenario.script.digest,
        lost_share=float(lost.mean()),
        whole=whole,
        collided=collided,
        judged=judged,
        ap=ap,
        blind=blind,
        rest=rest,
        clean_blind=clean_blind,
        clean_rest=clean_rest,
        blind_sums=_sums(judge, sectors[0][0]),
        box_sums=_sums(judge, every),
        onset=_onset(judge, lost, sectors[0][0].hits, clean_sectors[0][0].hits, believed) if scenario.group == "O" else None,
    )


def whole_scores(judge: Judge, answers: Answers) -> tuple[WholeScores, ScoredHits, Float[np.ndarray, "classes"]]:
    """Scores of the whole scene, the boxes as hits, and AP by class."""
    truth, said = judge.truth, answers.predictions
    boxes = box_records(said, truth.global_T_ego)
    detection = detection_section(judge.boxes, boxes, "")
    forecasts = dict.fromkeys(FORECAST_NUMBERS, np.nan)
    if said.forecasts is not None:
        car = FORECAST_CLASSES.index("car")
        forecasts = dict(zip(FORECAST_NUMBERS, forecast_section(truth, said, boxes).plain[car].tolist(), strict=True))
    l2_m = [np.nan, np.nan]
    if said.plan_m is not None:
        scores = [_judged_plans(judge, said.plan_m, protocol) for protocol in PROTOCOLS if protocol.name in ("uniad", "st-p3")]
        by_name = {one.protocol.name: one.average(one.l2_m) for one in scores}
        l2_m = [by_name["uniad"], by_name["st-p3"]]
    whole = WholeScores(
        box_map=detection.mean_ap,
        nds=detection.nds,
        amota=evaluate_tracking(judge.boxes, boxes).mean_amota if said.tracked else np.nan,
        line_map=np.nan if answers.lines is None else answers.lines.mean_ap,
        l2_m=l2_m[0],
        mean_l2_m=l2_m[1],
        **forecasts,
    )
    return whole, detection.hits, detection.ap.mean(1)


def _part(progress: Progress | None, name: str, number: int, total: int) -> Progress | None:
    """Progress of one scenario as part of all."""
    if progress is None:
        return None
    return lambda _, done, frames: progress(f"{name} ({number + 1} of {total})", number * frames + done, total * frames)


def best_scores(judge: Judge, said: PredictionSet) -> Float[np.ndarray, "classes"]:
    """Lowest score to believe of every class: that of the best F1."""
    return detection_section(judge.boxes, box_records(said, judge.truth.global_T_ego), "").hits.best_score(NEAR)


def _sectors(judge: Judge, answers: Answers, lost: np.ndarray) -> list[tuple[Sector, Sector | None]]:
    """(boxes, lines) of the blind sector, and of the rest."""
    said = answers.predictions
    boxes = box_sectors(judge.truth, judge.boxes, box_records(said, judge.truth.global_T_ego), lost, judge.camera_names)
    if answers.lines is None:
        return [(sector, None) for sector in boxes]
    lines = line_sectors(judge.truth, judge.lines, map_lines(said), lost, judge.camera_names, whole=answers.lines)
    return list(zip(boxes, lines, strict=True))


def _sector_scores(boxes: Sector, lines: Sector | None, believed: np.ndarray, frames: int) -> SectorScores:
    right, wrong, missed = boxes.hits.counts(NEAR, believed).sum((0, 1)).tolist()
    rows = boxes.hits.score >= believed[boxes.hits.label]
    return SectorScores(
        num_boxes=boxes.num_truth,
        num_lines=0 if lines is None else lines.num_truth,
        box_map=boxes.mean_ap,
        line_map=np.nan if lines is None else lines.mean_ap,
        recall=right / (right + missed) if right + missed else np.nan,
        false_alarms=wrong / frames,
        overconfidence=float(boxes.hits.score[rows].mean()) - right / (right + wrong) if rows.any() else np.nan,
    )


def _sums(judge: Judge, sector: Sector) -> SceneSums:
    parts = box_ap_parts(sector, judge.truth.frames).parts if sector.num_truth else np.zeros((len(judge.truth.scenes), 0))
    return SceneSums(
        classes=int((sector.hits.num_truth.sum(0) > 0).sum()), thresholds=sector.hits.hit.shape[1], parts=parts
    )  # fmt: skip


def _onset(judge: Judge, lost: np.ndarray, hits: ScoredHits, clean: ScoredHits, believed: np.ndarray) -> OnsetCurve:
    """Recall by frames since the first failure of the scene."""
    frames = judge.truth.frames
    since = np.full(len(frames.tokens), -1)
    for scene in range(len(judge.truth.scenes)):
        rows = np.flatnonzero(frames.scene == scene)
        if lost[rows].any():
            since[rows] = np.arange(len(rows)) - lost[rows].any(1).argmax()
    recalls = []
    for one in (hits, clean):
        right, _, missed = one.counts(NEAR, believed).sum(1).T
        past = since >= 0
        found, there = (np.bincount(since[past], count[past], ONSET_FRAMES)[:ONSET_FRAMES] for count in (right, right + missed))
        recalls.append(np.where(there > 0, found / np.maximum(there, 1), np.nan))
    return OnsetCurve(recall=recalls[0], clean_recall=recalls[1], num_truth=there.astype(np.int64))


def _judged_plans(judge: Judge, plan_m: np.ndarray, protocol: PlanProtocol) -> PlanScores:
    """Plans up to 3 s, or as far as they go in whole seconds."""
    steps = min(PLAN_STEPS, plan_m.shape[1] // 2 * 2)
    frames = PlanFrames(
        plan_m=plan_m[:, :steps].astype(np.float64),
        truth_m=judge.path_m[:, :steps],
        truth_valid=judge.path_valid[:, :steps],
        objects=judge.objects.take(np.flatnonzero(judge.objects.step < steps)),
    )
    return evaluate_plans(frames, protocol, steps * STEP_S)


def _collisions(judge: Judge, said: PredictionSet) -> tuple[np.ndarray, np.ndarray]:
    """Plans that have collided by 1, 2 and 3 s, and plans that were judged so far (protocol "plain")."""
    counts = np.zeros((2, len(PLAN_SECONDS)), np.int64)
    if said.plan_m is not None:
        collision = _judged_plans(judge, said.plan_m, PLAIN).frame_collision[:, 1::2]
        counts[:, : collision.shape[1]] = np.nansum(collision, 0), np.isfinite(collision).sum(0)
    return counts[0], counts[1]


def _notes(said: PredictionSet) -> list[str]:
    notes = ["the weights were random: the numbers mean nothing"] if said.weights is None else []
    return notes + ["this is the split the model may have been trained on"] * (said.split == "train")


def custom_scenario(path: Path) -> Scenario:
    """A list of one's own as a scenario named after its file. `ValueError`: see `FailureScript.load`."""
    return Scenario(name=path.stem, group="own", text=f"the list {path.name}", script=FailureScript.load(path))
