"""The prepared real frames against what the unmodified published converter wrote for the same tables, field by field.

Kept: order of cameras and boxes, futures turned in the plane, the last known ego place at a scene's end, sweeps whether or not their
files are there. Different on purpose: boxes of no detection class are left out (there: kept under their category), ego status is partial
(there: ten zeros), instances are numbered by scene (there: over the log), scenes without lidar files count (there: left out).
"""

import gzip
import json
from collections import Counter

import numpy as np
import pytest
import torch

from sparsedrive.data import NuScenesLog
from sparsedrive.data.nuscenes.poses import pose_matrix
from sparsedrive.data.nuscenes.prepare import prepare
from sparsedrive.data.prepared import PreparedData
from sparsedrive.data.records import to_record
from sparsedrive.geometry import box_state
from sparsedrive.structures import DETECTION_CLASSES, NUSCENES_CAMERAS

SCENES = ("scene-0061", "scene-0103", "scene-0916")


@pytest.fixture(scope="module")
def report(real_root, tmp_path_factory):
    return prepare(real_root, None, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def data(report):
    return PreparedData.open(report.out)


@pytest.fixture(scope="module")
def pairs(data, real_root):
    """(prepared scene, frame, what the published converter wrote) of every sample."""
    infos = {}
    for split in ("train", "val"):
        with gzip.open(real_root / "reference" / f"sparsedrive_infos_{split}.json.gz") as file:
            infos.update({info["token"]: info for info in json.load(file)["infos"]})
    scenes = [data.scene(name) for name in data.scenes]
    found = [(scene, frame, infos.pop(scene.sample_tokens[frame])) for scene in scenes for frame in range(scene.num_frames)]
    assert not infos and len(found) == 82
    return found


def array(stored):
    return np.array(stored["__array__"], dtype=stored["dtype"]).reshape(stored["shape"])


def kept(info):
    return np.array([name in DETECTION_CLASSES for name in info["gt_names"]["__array__"]])


def transform(info):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = array(info["sensor2lidar_rotation"]), array(info["sensor2lidar_translation"])
    return matrix


def test_poses_times_and_commands(pairs):
    for scene, frame, info in pairs:
        assert scene.timestamp_us[frame] == info["timestamp"] and scene.location == info["map_location"]
        car_T_lidar = pose_matrix(info["lidar2ego_translation"], info["lidar2ego_rotation"]).numpy()
        global_T_car = pose_matrix(info["ego2global_translation"], info["ego2global_rotation"]).numpy()
        assert np.allclose(scene.car_T_ego[frame], car_T_lidar, rtol=0, atol=1e-12)
        assert np.allclose(scene.global_T_car[frame], global_T_car, rtol=0, atol=1e-9)
        assert np.eye(3)[scene.command[frame]].tolist() == array(info["gt_ego_fut_cmd"]).tolist()
        assert info["lidar_path"] == f"./{scene.lidar_paths[frame]}"


def test_cameras(pairs):
    for scene, frame, info in pairs:
        assert scene.camera_names == NUSCENES_CAMERAS == tuple(info["cams"])
        for index, stored in enumerate(info["cams"].values()):
            assert stored["data_path"] == f"./{scene.image_paths[frame][index]}"
            assert stored["timestamp"] == scene.image_time_us[frame, index]
            assert np.allclose(scene.intrinsic[frame, index], array(stored["cam_intrinsic"]), rtol=0, atol=1e-12)
            assert np.allclose(scene.camera_T_ego[frame, index] @ transform(stored), np.eye(4), rtol=0, atol=1e-6)
        assert (scene.image_wh_px[frame] == (1600, 900)).all()


def test_sweeps(pairs):
    count = 0
    for scene, frame, info in pairs:
        rows = range(scene.sweep_splits[frame], scene.sweep_splits[frame + 1])
        assert len(rows) == len(info["sweeps"])
        for row, stored in zip(rows, info["sweeps"], strict=True):
            assert stored["data_path"] == f"./{scene.sweep_paths[row]}" and stored["timestamp"] == scene.sweep_time_us[row]
            assert np.allclose(scene.ego_T_sweep[row], transform(stored), rtol=0, atol=1e-6)
            count += 1
    assert count == 700


def test_boxes(pairs):
    names, unknown, left_out, without_returns = Counter(), 0, 0, 0
    for scene, frame, info in pairs:
        keep, rows = kept(info), scene.boxes_of(frame)
        expected, velocity = array(info["gt_boxes"])[keep], array(info["gt_velocity"])[keep]
        box, labels = scene.box[rows], [DETECTION_CLASSES[label] for label in scene.box_label[rows]]
        assert labels == array(info["gt_names"])[keep].tolist()
        assert np.allclose(box[:, :6], expected[:, :6], rtol=0, atol=1e-9)
        assert np.allclose(np.exp(1j * box[:, 6]), np.exp(1j * expected[:, 6]), rtol=0, atol=1e-9)
        assert np.allclose(box[:, 7:9], velocity, rtol=0, atol=1e-5, equal_nan=True)
        assert (scene.lidar_returns[rows] == array(info["num_lidar_pts"])[keep]).all()
        assert (scene.radar_returns[rows] == array(info["num_radar_pts"])[keep]).all()
        counted = scene.lidar_returns[rows] + scene.radar_returns[rows] > 0
        assert (counted == array(info["valid_flag"])[keep]).all()
        names.update(labels)
        unknown, left_out = unknown + int(np.isnan(velocity).any(1).sum()), left_out + int((~keep).sum())
        without_returns += int((~counted).sum())
    assert sum(names.values()) == 4509 and left_out == 1 and unknown == 76
    assert names["car"] == 2576 and names["pedestrian"] == 1388 and names["trailer"] == 0 and without_returns > 0


def test_instances_are_the_same_objects_under_other_numbers(pairs):
    ours_of: dict[int, str] = {}
    for scene, frame, info in pairs:
        numbers = np.array(info["instance_inds"])[kept(info)]
        for row, number in zip(range(*scene.boxes_of(frame).indices(len(scene.box))), numbers, strict=True):
            token = scene.instance_tokens[scene.box_instance[row]]
            assert ours_of.setdefault(int(number), token) == token
    assert len(set(ours_of.values())) == len(ours_of) == 283


def test_agent_futures(pairs):
    known = 0
    for scene, frame, info in pairs:
        keep, rows = kept(info), scene.boxes_of(frame)
        valid = scene.agent_future_valid[rows]
        assert (valid == array(info["gt_agent_fut_masks"])[keep].astype(bool)).all()
        places_m = np.concatenate([scene.box[rows, None, :2], scene.agent_future_m[rows]], 1)
        assert np.allclose(np.diff(places_m, axis=1), array(info["gt_agent_fut_trajs"])[keep], rtol=0, atol=2e-5)
        known += int(valid.sum())
    assert known == 38395


def test_ego_futures(pairs):
    known = 0
    for scene, frame, info in pairs:
        valid = scene.ego_future_valid[frame]
        assert (valid == array(info["gt_ego_fut_masks"]).astype(bool)).all()
        steps_m = np.diff(scene.ego_future_m[frame], axis=0, prepend=np.zeros((1, 2)))
        assert np.allclose(steps_m, array(info["gt_ego_fut_trajs"]), rtol=0, atol=2e-5)
        known += int(valid.sum())
    assert known == 6 * 82 - (6 + 21 + 21)  # the last six frames of a scene know 5, 4, 3, 2, 1, 0 steps


def test_ego_status_is_partial_where_the_published_one_is_zero(pairs):
    for scene, frame, info in pairs:
        assert not array(info["ego_status"]).any()  # no steering file, so it gives up
        assert scene.ego_status_known[frame].tolist() == [True] * 9 + [False]
        assert 8 < scene.ego_status[frame, 2] < 12 and scene.ego_status[frame, 9] == 0


def test_velocities_agree_with_the_next_place(data):
    errors_mps = []
    for name in data.scenes:
        scene = data.scene(name)
        pose, time_s = scene.global_T_ego, scene.timestamp_us * 1e-6
        frame = np.repeat(np.arange(scene.num_frames), np.diff(scene.box_splits))
        place = np.einsum("nij,nj->ni", pose[frame], np.concatenate([scene.box[:, :3], np.ones((len(frame), 1))], 1))[:, :2]
        velocity = np.einsum("nij,nj->ni", pose[frame, :3, :3], np.nan_to_num(scene.box[:, 7:10]))[:, :2]
        row = {key: n for n, key in enumerate(zip(frame, scene.box_instance, strict=True))}
        later = np.array([row.get((f + 1, i), -1) for f, i in zip(frame, scene.box_instance, strict=True)])
        now = np.flatnonzero(later >= 0)
        moved = (place[later[now]] - place[now]) / (time_s[frame[now] + 1] - time_s[frame[now]])[:, None]
        errors_mps += list(np.linalg.norm(moved - velocity[now], axis=1))
    assert len(errors_mps) > 4000 and np.median(errors_mps) < 0.1


def test_missing_files_are_counted_not_fatal(report, data, real_root):
    counts = report.counts()
    assert counts["frames"] == 82 and counts["pictures"] == [18, 492] and counts["lidar_scans"] == [1, 82]
    assert [counts[f"samples_{kind}_pictures"] for kind in ("with_all", "with_some", "without")] == [3, 0, 79]
    listed = json.loads((report.out / "report.json").read_text())
    second = data.scene("scene-0103")
    assert listed["scenes"][1]["samples_without_pictures"] == list(second.sample_tokens[2:])
    assert listed["scenes"][1]["samples_without_lidar"] == list(second.sample_tokens)
    assert listed["counts"] == counts == json.loads((report.out / "prepared.json").read_text())["counts"]
    on_disk = {row["sample_token"]: row for row in json.loads((real_root / "AVAILABLE.json").read_text())["samples_with_files"]}
    for name in data.scenes:
        scene = data.scene(name)
        for token, pictures, lidar in zip(scene.sample_tokens, scene.image_present, scene.lidar_present, strict=True):
            row = on_disk.get(token)
            assert pictures.all() == pictures.any() == (row is not None) and lidar == (row is not None and row["lidar"])
    line = next(line for line in (report.out / "report.md").read_text().splitlines() if line.startswith("| scene-0103"))
    assert line.endswith("| 0-1 | - | 2-39 | - |")
    assert report.all_warnings() == [f"no steering messages on the CAN bus: steering angle unknown (3 scenes: {', '.join(SCENES)})"]


def test_splits_and_map_lines(report, data):
    assert dict(data.splits) == {"mini_train": ("scene-0061",), "mini_val": ("scene-0103", "scene-0916")}
    lines = report.counts()["map_lines"]
    assert lines["ped_crossing"] == 0 and lines["divider"] > 500 and lines["boundary"] > 200  # the map given has no crossings


@pytest.mark.filterwarnings("ignore:scene-.*no steering messages:UserWarning")
def test_records_are_those_of_the_log(data, real_root):
    log = NuScenesLog(real_root)
    for name in data.scenes:
        scene = data.scene(name)
        for frame, expected in enumerate(log.scene(name)):
            record = to_record(data, scene, frame)
            assert (record.scene, record.location, record.sample_token) == (expected.scene, expected.location, expected.sample_token)
            assert record.timestamp_us == expected.timestamp_us and record.command is expected.command
            for field in ("car_T_ego", "global_T_car", "ego_status", "ego_status_known"):
                assert torch.equal(getattr(record, field), getattr(expected, field)), field
            for field in ("box", "label", "lidar_returns", "radar_returns"):
                ours, theirs = getattr(record.annotations, field), getattr(expected.annotations, field)
                assert ours.dtype == theirs.dtype and torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True), field
            assert record.annotations.instance_tokens == expected.annotations.instance_tokens
            for ours, theirs in zip(record.cameras, expected.cameras, strict=True):
                assert (ours.name, ours.timestamp_us, ours.wh_px) == (theirs.name, theirs.timestamp_us, theirs.wh_px)
                assert ours.path.resolve() == theirs.path.resolve()
                assert torch.equal(ours.image_T_ego, theirs.image_T_ego) and torch.equal(ours.intrinsic, theirs.intrinsic)
    with pytest.raises(IndexError, match=r"scene-0916: expected a frame of 0\.\.40, got 41"):
        to_record(data, scene, 41)


def test_boxes_project_to_the_pixels_of_the_published_frames(pairs, data):
    """Corners of every box in every camera, through our calibration and through the published one."""
    count, errors_px = 0, []
    for scene, frame, info in pairs:
        record, reference = to_record(data, scene, frame), array(info["gt_boxes"])[kept(info)]
        state = torch.cat([torch.from_numpy(reference), torch.zeros(len(reference), 3)], 1)
        ours_m, published_m = (homogeneous(box_state.corners(box)) for box in (record.annotations.box, state))
        for camera, stored in zip(record.cameras, info["cams"].values(), strict=True):
            published = array(stored["cam_intrinsic"]) @ np.linalg.inv(transform(stored))[:3]
            ours, expected = ours_m @ camera.image_T_ego.numpy()[:3].T, published_m @ published.T
            pixel = expected[:, :2] / expected[:, 2:]
            seen = (expected[:, 2] > 1) & (pixel >= 0).all(1) & (pixel < camera.wh_px).all(1)
            errors_px.append(np.abs(ours[seen, :2] / ours[seen, 2:] - pixel[seen]).max(initial=0))
            count += int(seen.sum())
    assert count > 30_000 and max(errors_px) < 0.01


def homogeneous(points_m):
    points_m = points_m.reshape(-1, 3).numpy()
    return np.concatenate([points_m, np.ones((len(points_m), 1))], 1)
