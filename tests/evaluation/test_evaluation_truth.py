"""Truth from prepared scenes: equal to the tables', to the prepared futures, and to what can be computed by hand."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from prepared_samples import change_scene, write_prepared

from sparsedrive.data.prepared import PreparedData
from sparsedrive.evaluation.truth import (
    FROM_PREPARED,
    FROM_TABLES,
    agent_truth,
    box_truth,
    driven_path,
    ego_motion,
    future_objects,
    kerbs,
    map_truth,
    read_split,
    scene_rows,
)


def test_prepared_boxes_are_those_of_the_tables(drive):
    truth = read_split(drive, "train")
    (tables, from_tables), (prepared, from_prepared) = (box_truth(truth, source) for source in ("auto", "prepared"))
    assert (from_tables, from_prepared) == (FROM_TABLES, FROM_PREPARED)
    assert tables.frames.tokens == prepared.frames.tokens == truth.frames.tokens
    assert tables.frames.car_xy_m == pytest.approx(prepared.frames.car_xy_m)
    assert len(tables.boxes) == len(prepared.boxes) > 50
    sides = [side.boxes[np.lexsort((side.boxes.center_m[:, 0].round(3), side.boxes.frame))] for side in (tables, prepared)]
    for name in ("frame", "label", "num_points"):
        assert np.array_equal(*(getattr(side, name) for side in sides)), name
    for name in ("center_m", "size_wlh_m", "yaw_rad"):
        np.testing.assert_allclose(*(getattr(side, name) for side in sides), atol=1e-9)
    np.testing.assert_allclose(*(side.velocity_mps for side in sides), atol=1e-4)
    assert (sides[0].attribute >= 0).any() and (sides[1].attribute == -1).all()
    for one, other in (sides, sides[::-1]):  # the same boxes have the same names, though the names are others
        names = dict(zip(one.track_id, other.track_id, strict=True))
        assert [names[name] for name in one.track_id] == other.track_id.tolist()


def test_tables_that_do_not_fit(drive, numbers, tmp_path):
    with pytest.raises(ValueError, match=r"expected the nuScenes tables in .*tiny, found none"):
        box_truth(read_split(numbers, "val"), "tables")
    shutil.copytree(drive.root / drive.version, tmp_path / "log" / drive.version)
    truth = read_split(PreparedData(drive.folder, tmp_path / "log", drive.version, drive.splits), "train")
    shorter = replace(truth, frames=replace(truth.frames, tokens=("another", *truth.frames.tokens[1:])))
    with pytest.raises(
        ValueError, match=r"have 4 samples, 4 were prepared \(1 of them not in the tables\).*run `sparsedrive prepare` again"
    ):
        box_truth(shorter)
    (tmp_path / "log" / drive.version / "sample.json").write_text("[]")
    with pytest.raises(ValueError, match="have 0 samples, 4 were prepared"):
        box_truth(truth)


def test_the_driven_path_is_the_prepared_one(drive, numbers):
    truth = read_split(drive, "train")
    path_m, valid = driven_path(truth, 6)
    assert np.array_equal(path_m, truth.scenes[0].ego_future_m) and np.array_equal(valid, truth.scenes[0].ego_future_valid)
    path_m, valid = driven_path(read_split(numbers, "train"), 12)
    assert valid.sum(1).max() == 9 and not valid[:, 9:].any()
    assert np.array_equal(path_m[0, 9:], path_m[0, 8:9].repeat(3, 0))


def test_a_gap_in_the_recording_ends_the_path(numbers, tmp_path):
    data = write_prepared(tmp_path, frames=(6,), wh_px=(64, 36))
    scene = data.scene("scene-0000")
    change_scene(data, "scene-0000", timestamp_us=scene.timestamp_us + 10**6 * (np.arange(6) >= 3))
    truth = read_split(data, "train")
    _, valid = driven_path(truth, 4)
    assert valid.sum(1).tolist() == [2, 1, 0, 2, 1, 0]
    objects = future_objects(truth, valid)
    assert set(zip(objects.frame.tolist(), objects.step.tolist(), strict=True)) == {(0, 0), (0, 1), (1, 0), (3, 0), (3, 1), (4, 0)}


def test_objects_of_later_frames_in_the_frame_of_the_plan(numbers):
    truth = read_split(numbers, "val")
    scene, (_, valid) = truth.scenes[0], driven_path(truth, 6)
    objects = future_objects(truth, valid)
    pose = scene.global_T_ego
    for frame, step in ((0, 0), (2, 3), (1, 5)):
        rows = np.flatnonzero((objects.frame == frame) & (objects.step == step))
        then = scene.boxes_of(frame + step + 1)
        seen = scene.lidar_returns[then] > 0
        assert len(rows) == seen.sum() and objects.label[rows].tolist() == scene.box_label[then][seen].tolist()
        box = scene.box[then][seen]
        place = np.linalg.inv(pose[frame]) @ pose[frame + step + 1] @ np.c_[box[:, :3], np.ones(len(box))].T
        assert objects.box[rows, :2] == pytest.approx(place[:2].T) and objects.box[rows, 2:4] == pytest.approx(box[:, 3:5])
        turn = np.arctan2(*(np.linalg.inv(pose[frame]) @ pose[frame + step + 1])[[1, 0], 0])
        assert np.exp(1j * objects.box[rows, 4]) == pytest.approx(np.exp(1j * (box[:, 6] + turn)))


def test_distances_are_from_the_car_not_from_the_lidar(numbers):
    truth = read_split(numbers, "val")
    scene, agents = truth.scenes[0], agent_truth(truth)
    car_T_ego = scene.car_T_ego[0]  # in the plane
    places = scene.box[:, :2] @ car_T_ego[:2, :2].T + car_T_ego[:2, 3]
    assert agents.distance_m == pytest.approx(np.linalg.norm(places, axis=1))
    assert agents.distance_m != pytest.approx(np.linalg.norm(scene.box[:, :2], axis=1))
    assert agents.returns.tolist() == (scene.lidar_returns + scene.radar_returns).tolist()
    gone = ~scene.agent_future_valid
    assert agents.steps.tolist() == [int(np.append(row, True).argmax()) for row in gone]


def test_lines_are_cut_to_the_region_and_kerbs_are_not(numbers):
    truth = read_split(numbers, "val")
    lines, boundary = map_truth(truth), kerbs(truth)
    assert (np.abs(lines.points_m) <= [15 + 1e-9, 30 + 1e-9]).all() and len(lines) > 20
    assert boundary is not None and np.abs(boundary.points_m[:, 1]).max() > 30
    scene = truth.scenes[0]
    nothing = replace(truth, scenes=(replace(scene, map_label=np.where(scene.map_label == 2, 1, scene.map_label)),))
    assert kerbs(nothing) is None


def test_motion_comes_from_poses_where_the_status_is_not_known(numbers):
    truth = read_split(numbers, "val")
    scene = truth.scenes[0]
    unknown = replace(truth, scenes=(replace(scene, ego_status_known=np.zeros_like(scene.ego_status_known)),))
    motion = ego_motion(unknown)
    assert motion.known.tolist() == [False] + [True] * 7  # the first frame has none before
    known = replace(truth, scenes=(replace(scene, ego_status_known=np.ones_like(scene.ego_status_known)),))
    assert ego_motion(known).velocity_mps[:, 1] == pytest.approx(scene.ego_status[:, 6])


def test_rows_of_scenes(numbers):
    truth = read_split(numbers, "train")
    frame = np.array([26, 0, 9, 8, 19, 18])
    assert [rows.tolist() for rows in scene_rows(frame, truth)] == [[1, 3], [2, 5], [0, 4]]
    assert [rows.tolist() for rows in scene_rows(np.array([26, 25]), truth)] == [[], [], [0, 1]]
