"""The small network on the vehicle's own status: it learns what can be learned from it, the same every time, and only from other scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from prepared_samples import write_prepared
from truth_samples import truth_as_predictions

from sparsedrive.evaluation import ego_mlp
from sparsedrive.evaluation.planning import EGO_MLP
from sparsedrive.evaluation.results import GROUND_TRUTH, MODEL
from sparsedrive.evaluation.run import evaluate
from sparsedrive.structures import EGO_FORWARD_SPEED, Command

TIME_S = 0.5 * np.arange(1, 7)


def drives(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of vehicles that keep their speed and turn as commanded, and their paths."""
    random = np.random.default_rng(seed)
    status = random.normal(size=(count, 10))
    status[:, EGO_FORWARD_SPEED] = speed = random.uniform(0, 10, count)
    command = random.integers(0, 3, count)
    side = np.array([1.0, -1.0, 0.0])[command]  # right, left, straight
    path_m = np.stack([side[:, None] * TIME_S**2, speed[:, None] * TIME_S], 2)
    return ego_mlp.features(status, np.ones((count, 10), bool), command), path_m


def test_speed_and_command_are_learned():
    seen, path_m = drives(800, seed=0)
    valid = np.ones(path_m.shape[:2], bool)
    network = ego_mlp.learn(seen, path_m, valid)
    new, new_m = drives(200, seed=1)
    error_m = np.linalg.norm(network.plan(new) - new_m, axis=2)
    assert error_m.mean() < 0.4 and np.linalg.norm(new_m - path_m.mean(0), axis=2).mean() > 3


def test_it_is_the_same_every_time_and_leaves_chance_alone():
    seen, path_m = drives(60, seed=0)
    valid = np.ones(path_m.shape[:2], bool)
    before = torch.random.get_rng_state()
    plans = [ego_mlp.learn(seen, path_m, valid).plan(seen) for _ in range(2)]
    assert np.array_equal(*plans) and torch.equal(before, torch.random.get_rng_state())


def test_what_the_recording_does_not_hold_teaches_nothing():
    seen, path_m = drives(60, seed=0)
    valid = np.tile(np.arange(6) < 4, (60, 1))
    spoilt_m = np.where(valid[..., None], path_m, 1e6)
    one, other = (ego_mlp.learn(seen, some_m, valid).plan(seen)[:, :4] for some_m in (path_m, spoilt_m))
    assert one == pytest.approx(other, abs=1e-3)
    assert ego_mlp.learn(seen, path_m, np.zeros_like(valid)) is None


def test_features_tell_what_is_known():
    status, known = np.full((2, 10), 7.0), np.zeros((2, 10), bool)
    known[1, 3] = True
    seen = ego_mlp.features(status, known, np.array([Command.LEFT, Command.STRAIGHT]))
    assert seen.shape == (2, 23) and (seen[0, :20] == 0).all() and seen[1, 3] == 7 and seen[1, 13] == 1 and seen[1, :20].sum() == 8
    assert seen[:, 20:].tolist() == [[0, 1, 0], [0, 0, 1]]


def test_it_never_learns_from_the_evaluated_scenes(numbers, tmp_path):
    result = evaluate(truth_as_predictions(numbers, "val"), numbers, date="d", tasks=["plan"])
    names = [planner.name for planner in result.planning.planners]
    assert names == [MODEL, "constant_velocity", "constant_turn_rate", EGO_MLP, GROUND_TRUTH]
    changed = write_prepared(tmp_path, frames=(9, 10, 8), wh_px=(64, 36))
    truth = truth_as_predictions(changed, "val")
    from prepared_samples import change_scene

    scene = changed.scene("scene-0002")
    change_scene(
        changed, "scene-0002", global_T_car=scene.global_T_car + 0.1 * np.arange(8)[:, None, None] * np.eye(4)[:, 3:] * [0, 0, 0, 1]
    )
    other = evaluate(replace(truth, split="val"), changed, date="d", tasks=["plan"])
    assert np.array_equal(*(some.planning.planner(EGO_MLP).plan_m for some in (result, other)))
    everything = evaluate(truth_as_predictions(numbers, "train"), numbers, date="d", tasks=["plan"])
    assert EGO_MLP not in [planner.name for planner in everything.planning.planners]
    assert any("no ego_status_mlp" in note for note in everything.header.notes)
