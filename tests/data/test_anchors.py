import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anchor_samples import folder_of, scene_of

from sparsedrive.config import preset, presets
from sparsedrive.data.anchors import AnchorSamples, cluster_anchors, collect_samples, fit_anchors, spread_out
from sparsedrive.models.anchors import anchor_sizes
from sparsedrive.structures import DETECTION_CLASSES, Command
from sparsedrive.structures.anchors import Anchors, AnchorSizes

SMALL = AnchorSizes(detection=20, map_lines=8, map_vertices=5, motion_modes=3, plan_modes=2)
CAR, PEDESTRIAN = DETECTION_CLASSES.index("car"), DETECTION_CLASSES.index("pedestrian")


def boxes(centres_m: np.ndarray, yaw_rad: float | np.ndarray = 0.0) -> np.ndarray:
    box = np.zeros((len(centres_m), 10))
    box[:, : centres_m.shape[1]], box[:, 3:6], box[:, 6] = centres_m, (4.5, 1.9, 1.6), yaw_rad
    return box


def scattered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(-35, 35, (count, 2)), rng.normal(-1, 0.3, (count, 1))], axis=1)


def many(seed: int = 0) -> AnchorSamples:
    """More samples of everything than any anchor set takes."""
    rng = np.random.default_rng(seed)
    return AnchorSamples(
        box_centre_m=scattered(3000, seed),
        line_centre_m=rng.uniform((-15, -30), (15, 30), (400, 2)),
        motion_m=tuple(rng.normal(0, 5, (60, 12, 2)).cumsum(1) for _ in DETECTION_CLASSES),
        plan_m=tuple(rng.normal(0, 1, (50, 6, 2)).cumsum(1) for _ in Command),
    )


def none() -> AnchorSamples:
    return AnchorSamples(
        box_centre_m=np.zeros((0, 3)),
        line_centre_m=np.zeros((0, 2)),
        motion_m=tuple(np.zeros((0, 12, 2)) for _ in DETECTION_CLASSES),
        plan_m=tuple(np.zeros((0, 6, 2)) for _ in Command),
    )


def nearest_neighbour_m(points: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance.min(1)


@pytest.mark.parametrize("name", presets())
def test_sizes_of_every_preset(name):
    sizes = anchor_sizes(preset(name))
    anchors = cluster_anchors(many(), sizes)
    assert anchors.sizes == sizes
    assert [group.from_data for group in anchors.groups] == [group.count for group in anchors.groups]


def test_anchors_lie_where_the_boxes_are():
    centres = np.repeat([[10.0, 5.0, -1.0], [-20.0, 30.0, 0.0], [0.0, -8.0, -1.0]], 50, axis=0)
    centres += np.random.default_rng(0).normal(0, 0.05, centres.shape)
    samples = collect_samples([scene_of(box=boxes(centres))])
    anchors = cluster_anchors(samples, replace(SMALL, detection=3))
    found = anchors.detection[np.lexsort(anchors.detection[:, :2].T)]
    assert np.allclose(found[:, :3], [[0.0, -8.0, -1.0], [10.0, 5.0, -1.0], [-20.0, 30.0, 0.0]], atol=0.05)
    assert (anchors.detection[:, 3:] == [1, 1, 1, 1, 0, 0, 0, 0]).all()


def test_far_boxes_and_lines_outside_the_region_do_not_count():
    inside, outside = np.array([[3.0, 0.0], [3.0, 20.0]]), np.array([[20.0, 0.0], [20.0, 10.0]])
    samples = collect_samples([scene_of(box=boxes(np.array([[54.9, 0.0], [55.1, 0.0], [40.0, 40.0]])), lines=[(1, inside), (1, outside)])])
    assert samples.box_centre_m[:, 0].tolist() == [54.9]
    assert samples.line_centre_m.tolist() == [[3.0, 10.0]]
    assert sum(map(len, samples.motion_m)) == 1


def test_middle_of_a_line_does_not_depend_on_its_vertices():
    few = np.array([[0.0, -10.0], [0.0, 10.0]])
    uneven = np.concatenate([few[:1], np.stack([np.zeros(50), np.linspace(8, 10, 50)], 1)])
    ring = np.array([[-2.0, -1.0], [2.0, -1.0], [2.0, 1.0], [-2.0, 1.0], [-2.0, -1.0]])
    samples = collect_samples([scene_of(lines=[(1, few), (1, uneven), (0, ring)])])
    assert np.abs(samples.line_centre_m).max() < 1e-9


def test_map_anchors_are_straight_lines_along_the_road():
    lines = cluster_anchors(many(), SMALL).map_lines_m
    assert (lines[..., 0] == lines[:, :1, 0]).all()
    assert np.allclose(lines[:, -1, 1] - lines[:, 0, 1], 8.0, atol=1e-5)


def test_futures_are_turned_to_the_heading():
    """A car that drives along its heading, whatever that is, has its modes on the x axis; one that drifts left has y > 0."""
    yaw_rad = np.array([0.0, 1.0, -2.5])
    centre_m = np.array([[1.0, 2.0], [-20.0, 7.0], [5.0, -30.0]])
    heading = np.stack([np.cos(yaw_rad), np.sin(yaw_rad)], -1)[:, None]
    left = np.stack([-np.sin(yaw_rad), np.cos(yaw_rad)], -1)[:, None]
    along_m = np.arange(1, 13)[None, :, None]
    future_m = centre_m[:, None] + 2.0 * along_m * heading + 0.25 * along_m * left
    scene = scene_of(box=boxes(centre_m, yaw_rad), box_label=[CAR, CAR, PEDESTRIAN], agent_future_m=future_m)
    samples = collect_samples([scene])
    expected = np.stack([2.0 * np.arange(1, 13), 0.25 * np.arange(1, 13)], -1)
    assert np.allclose(np.concatenate(samples.motion_m), expected)
    assert [len(samples.motion_m[label]) for label in (CAR, PEDESTRIAN)] == [2, 1]


def test_only_complete_futures_count():
    valid = np.ones((2, 12), bool)
    valid[1, 11] = False
    scene = scene_of(
        box=boxes(np.zeros((2, 2))), agent_future_valid=valid, ego_future_valid=[True] * 5 + [False], ego_future_m=np.ones((6, 2))
    )
    samples = collect_samples([scene])
    assert len(samples.motion_m[CAR]) == 1 and sum(map(len, samples.plan_m)) == 0


def test_plans_are_kept_apart_by_command():
    right, ahead = np.stack([np.arange(6.0), np.arange(6.0)], -1), np.stack([np.zeros(6), np.arange(6.0)], -1)
    samples = collect_samples([scene_of(ego_future_m=right, command=0), scene_of(ego_future_m=ahead, command=2)])
    plan_m = cluster_anchors(samples, SMALL).plan_m
    assert np.allclose(plan_m[Command.RIGHT, 0], right) and np.allclose(plan_m[Command.STRAIGHT, 0], ahead)
    assert np.allclose(plan_m[Command.LEFT, 0], right * [-1, 1]), "no left turn: the mirrored right one"


def test_same_seed_same_anchors():
    first, same, other = (cluster_anchors(many(), SMALL, seed=seed) for seed in (1, 1, 2))
    for name in ("detection", "map_lines_m", "motion_m", "plan_m"):
        assert (getattr(first, name) == getattr(same, name)).all()
    assert (first.detection != other.detection).any()


@pytest.mark.parametrize("count", [0, 1, 12, 19])
def test_fewer_boxes_than_anchors(count):
    """Every box is an anchor; the others keep their distance and cover the disc."""
    centres = scattered(count)
    samples = replace(none(), box_centre_m=centres)
    anchors = cluster_anchors(samples, replace(SMALL, detection=100))
    group = anchors.groups[0]
    assert (group.name, group.samples, group.from_data, group.count) == ("detection", count, count, 100)
    kept = anchors.detection[:count, :3]
    assert sorted(map(tuple, kept)) == sorted(map(tuple, centres.astype(np.float32)))
    assert np.isfinite(anchors.detection).all()
    added = anchors.detection[count:, :2]
    assert nearest_neighbour_m(added).min() > 3.0
    assert np.hypot(*added.T).max() < 55.0 and np.hypot(*added.T).max() > 45.0
    for quadrant in ((added[:, 0] > 0) ^ (added[:, 1] > 0), added[:, 0] > 0, added[:, 1] > 0):
        assert 0.3 < quadrant.mean() < 0.7


def test_no_lines_cover_the_region():
    middles = cluster_anchors(none(), replace(SMALL, map_lines=100)).map_lines_m.mean(1)
    assert len(np.unique(middles, axis=0)) == 100
    assert np.abs(middles).max(0)[0] < 15 and np.abs(middles).max(0)[1] < 30
    assert nearest_neighbour_m(middles).min() > 2.0


def test_a_class_without_futures_takes_the_modes_of_all():
    samples = many()
    empty = replace(samples, motion_m=(*samples.motion_m[:CAR], np.zeros((0, 12, 2)), *samples.motion_m[CAR + 1 :]))
    anchors = cluster_anchors(empty, SMALL)
    group = next(group for group in anchors.groups if group.name == "motion car")
    assert (group.from_data, group.count) == (0, 3)
    paths = anchors.motion_m[CAR].reshape(3, -1)
    assert len(np.unique(paths, axis=0)) == 3
    assert paths[:, -2:].std() > 0.5, "not the constant speeds on the x axis"
    assert np.abs(anchors.motion_m[CAR, :, :, 1]).max() > 0.1


def test_nothing_at_all_is_straight_on_at_several_speeds():
    anchors = cluster_anchors(none(), AnchorSizes())
    assert all(group.from_data == group.samples == 0 for group in anchors.groups)
    for paths, axis in ((anchors.motion_m, 0), (anchors.plan_m, 1)):
        assert (paths[..., 1 - axis] == 0).all()
        ends = np.sort(paths[:, :, -1, axis])
        assert (np.diff(ends, axis=1) > 1).all() and (np.diff(paths[..., axis], axis=2) > 0).all()


def test_standing_agents_are_one_mode_not_six():
    scene = scene_of(box=boxes(scattered(50)))
    anchors = cluster_anchors(collect_samples([scene]), SMALL)
    group = next(group for group in anchors.groups if group.name == "motion car")
    assert (group.samples, group.count) == (50, 3)
    assert len(np.unique(anchors.motion_m[CAR].round(3), axis=0)) == 3


def test_spread_out_takes_the_farthest_and_never_one_twice():
    candidates = np.array([[0.0], [1.0], [9.0], [10.0], [5.0]])
    assert spread_out(np.array([[0.0]]), candidates, 3).ravel().tolist() == [0.0, 10.0, 5.0]
    assert len(spread_out(np.array([[0.0]]), candidates, 99)) == 5
    assert spread_out(np.zeros((2, 1)), candidates, 1).shape == (2, 1)


def test_longer_futures_than_recorded_are_refused():
    with pytest.raises(ValueError, match=r"AnchorSizes\.motion_steps: expected at most the 12 steps that are recorded, got 13"):
        cluster_anchors(many(), replace(SMALL, motion_steps=13))
    assert cluster_anchors(many(), replace(SMALL, motion_steps=4)).motion_m.shape[2] == 4
    with pytest.raises(ValueError, match=r"AnchorSizes\.detection: expected at least 1, got 0"):
        AnchorSizes(detection=0)


def test_from_a_prepared_folder(tmp_path):
    scenes = [scene_of(name=f"scene-{i}", box=boxes(scattered(30, i)), lines=[(1, np.array([[i, 0.0], [i, 9.0]]))]) for i in range(3)]
    data = folder_of(tmp_path, scenes)
    told: list[tuple[str, float]] = []
    anchors = fit_anchors(data, "train", SMALL, seed=4, progress=lambda text, share: told.append((text, share)))
    by_name = {group.name: group for group in anchors.groups}
    assert by_name["detection"].samples == 90 and by_name["map"].from_data == 3 and by_name["motion car"].samples == 90
    assert (anchors.data, anchors.split, anchors.seed) == ("v1.0-made", "train", 4)
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] < 1 and told[0][0] == "reading scene-0"
    with pytest.raises(ValueError, match="expected one of"):
        fit_anchors(data, "val", SMALL)
    with pytest.raises(ValueError, match="expected at least one scene"):
        fit_anchors(data, "empty", SMALL)


def published() -> Path:
    shared = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SPARSEDRIVE_DATA", shared)) / "sparsedrive_kmeans"
    if not folder.is_dir():
        pytest.skip(f"no published anchors at {folder}; set SPARSEDRIVE_DATA to the folder that holds sparsedrive_kmeans")
    return folder


def test_published_anchors_have_our_form():
    """Shapes, constant columns and axes of ours are those of the published files."""
    folder, ours = published(), cluster_anchors(many(), AnchorSizes())
    names = {"detection": "det_900", "map_lines_m": "map_100", "motion_m": "motion_6", "plan_m": "plan_6"}
    theirs = {name: np.load(folder / f"kmeans_{file}.npy", allow_pickle=False) for name, file in names.items()}
    for name, value in theirs.items():
        assert getattr(ours, name).shape == value.shape
    assert (theirs["detection"][:, 3:] == ours.detection[:, 3:]).all()
    assert np.hypot(*theirs["detection"][:, :2].T).max() < 55
    offsets = [lines - lines.mean(1, keepdims=True) for lines in (theirs["map_lines_m"], ours.map_lines_m)]
    assert np.allclose(*offsets, atol=1e-5)
    assert theirs["motion_m"][CAR, :, -1, 0].max() > 60, "x along the heading"
    assert theirs["plan_m"][Command.RIGHT, :, -1, 0].min() > 2 > -2 > theirs["plan_m"][Command.LEFT, :, -1, 0].max()
    Anchors(**{name: value.astype(np.float32) for name, value in theirs.items()})
