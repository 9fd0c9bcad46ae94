"""Plans in every protocol side by side, the model's and those of baselines that see nothing."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation import ego_mlp
from sparsedrive.evaluation.results import MODEL, PlannerResult, PlanNumbers, PlanSection
from sparsedrive.evaluation.truth import SplitTruth, driven_path, ego_motion, ego_status, future_objects, kerbs, read_split
from sparsedrive.metrics.baselines import baseline_plans
from sparsedrive.metrics.planning import (
    PLAIN,
    PROTOCOLS,
    STEP_S,
    PathHits,
    PlanFrames,
    PlanProtocol,
    PlanScores,
    driven_path_hits,
    evaluate_plans,
    plan_changes_m,
    turning,
)

ALL, TURNING = "all", "turning"
USUAL_HORIZON_S = 3.0
EGO_MLP, TRAIN = "ego_status_mlp", "train"


def plan_section(truth: SplitTruth, plan_m: np.ndarray) -> tuple[PlanSection, list[str]]:
    """Numbers of the model's plans [F, T, 2] and of every baseline; and what the reader must know, in words.

    Plans are cut to whole seconds. `ValueError` when they are shorter than one.
    """
    steps = plan_m.shape[1] // 2 * 2
    if not steps:
        raise ValueError(f"plan: expected at least one second (2 steps), got {plan_m.shape[1]} steps")
    truth_m, valid = driven_path(truth, steps)
    planners = {MODEL: plan_m[:, :steps].astype(np.float64)} | baseline_plans(ego_motion(truth), truth_m)
    learned, notes = _mlp_plan(truth, steps)
    if learned is not None:
        planners = _before_last(planners, EGO_MLP, learned)
    boundary = kerbs(truth)
    if boundary is None:
        notes.append("plan: no kerb in the whole split (no map?), so kerb crossings are not judged")
    frames = PlanFrames(
        plan_m=planners[MODEL], truth_m=truth_m, truth_valid=valid, objects=future_objects(truth, valid), boundary=boundary
    )  # fmt: skip
    turns = turning(frames)
    longest_s = steps * STEP_S
    horizons_s = [min(USUAL_HORIZON_S, longest_s)] + [longest_s] * (longest_s > USUAL_HORIZON_S)
    driven = {(protocol, horizon_s): driven_path_hits(frames, protocol, horizon_s) for horizon_s in horizons_s for protocol in PROTOCOLS}
    section = PlanSection(
        protocols=tuple(protocol.name for protocol in PROTOCOLS),
        planners=tuple(_planner(name, replace(frames, plan_m=plan_m), driven, turns, truth) for name, plan_m in planners.items()),
        turning=turns,
        truth_m=truth_m,
        truth_valid=valid,
    )
    return section, notes


def _before_last(planners: Mapping[str, np.ndarray], name: str, plan_m: np.ndarray) -> dict[str, np.ndarray]:
    """With one more planner, the ground truth still last."""
    *others, last = planners.items()
    return dict([*others, (name, plan_m), last])


def _planner(
    name: str, frames: PlanFrames, driven: Mapping[tuple[PlanProtocol, float], PathHits], turns: np.ndarray, truth: SplitTruth
) -> PlannerResult:
    """Numbers of one planner in every protocol and horizon of `driven`, where the driven path touches something."""
    scores = {key: evaluate_plans(frames, *key, truth_hits=hits) for key, hits in driven.items()}
    horizons_s = dict.fromkeys(horizon_s for _, horizon_s in driven)
    subsets = {ALL: np.ones_like(turns), TURNING: turns}
    numbers = [
        _numbers(scores[protocol, horizon_s].subset(chosen), subset, horizon_s)
        for horizon_s in horizons_s
        for subset, chosen in subsets.items()
        for protocol in PROTOCOLS
    ]
    plain = scores[PLAIN, max(horizons_s)]
    changes_m = plan_changes_m(frames.plan_m, truth.global_T_ego, truth.frames.time_s, truth.frames.scene)
    return PlannerResult(
        name=name,
        numbers=tuple(numbers),
        plan_m=frames.plan_m,
        frame_l2_m=plain.frame_l2_m,
        frame_collides=plain.frame_collision,
        frame_change_m=changes_m,
        mean_change_m=float(np.nanmean(changes_m)) if np.isfinite(changes_m).any() else float("nan"),
    )


def _numbers(scores: PlanScores, subset: str, horizon_s: float) -> PlanNumbers:
    l2_m, collision_rate, boundary_rate = scores.l2_m, scores.collision_rate, scores.boundary_rate
    return PlanNumbers(
        protocol=scores.protocol.name,
        subset=subset,
        horizon_s=horizon_s,
        num_plans=len(scores.rows),
        mean_l2_m=scores.average(l2_m),
        mean_collision_rate=scores.average(collision_rate),
        mean_boundary_rate=float("nan") if boundary_rate is None else scores.average(boundary_rate),
        l2_m=l2_m,
        collision_rate=collision_rate,
        boundary_rate=boundary_rate,
    )


def _mlp_plan(truth: SplitTruth, steps: int) -> tuple[np.ndarray | None, list[str]]:
    """Plans of the network that learned from the other scenes of the split "train"."""
    others = [name for name in truth.data.splits.get(TRAIN, ()) if name not in truth.frames.scene_names]
    network = None
    if others:
        training = read_split(PreparedData(truth.data.folder, truth.data.root, truth.data.version, {TRAIN: tuple(others)}), TRAIN)
        network = ego_mlp.learn(_seen(training), *driven_path(training, steps))
    if network is None:
        return None, [f"plan: no {EGO_MLP}, as split {TRAIN!r} has fewer than {ego_mlp.MIN_FRAMES} frames beside the evaluated ones"]
    return network.plan(_seen(truth)), []


def _seen(truth: SplitTruth) -> np.ndarray:
    command = np.concatenate([scene.command for scene in truth.scenes]).astype(np.int64)
    return ego_mlp.features(*ego_status(truth), command)
