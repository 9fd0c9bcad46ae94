"""Ground truth from tables: the same boxes as the reader of the data package, and tables that are wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from metric_boxes import unpack_golden

from sparsedrive.data import NuScenesLog
from sparsedrive.metrics.nuscenes_truth import read_ground_truth
from sparsedrive.metrics.records import ATTRIBUTES


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    """Table folder of the synthetic log."""
    return unpack_golden(tmp_path_factory.mktemp("synthetic"))[0]


@pytest.mark.filterwarnings("ignore:.*CAN bus")
def test_the_boxes_are_those_of_the_data_package(synthetic):
    log = NuScenesLog(synthetic.parent)
    truth = read_ground_truth(synthetic)
    records = {record.sample_token: record for name in log.scenes for record in log.scene(name)}
    assert set(records) == set(truth.frames.tokens) and len(truth.boxes) > 0
    for frame, token in enumerate(truth.frames.tokens):
        record, rows = records[token], truth.boxes[truth.boxes.frame == frame]
        assert record.annotations is not None
        pose, box = record.global_T_ego.numpy(), record.annotations.box.numpy()
        assert truth.frames.timestamp_us[frame] == record.timestamp_us
        assert truth.frames.car_xy_m[frame] == pytest.approx(record.global_T_car.numpy()[:2, 3])
        assert rows.track_id.tolist() == list(record.annotations.instance_tokens)
        assert rows.label.tolist() == record.annotations.label.tolist()
        assert rows.center_m == pytest.approx(box[:, :3] @ pose[:3, :3].T + pose[:3, 3])
        assert rows.size_wlh_m == pytest.approx(box[:, [4, 3, 5]])
        points = record.annotations.lidar_returns + record.annotations.radar_returns
        assert rows.num_points.tolist() == points.tolist()
        velocity = box[:, 7:] @ pose[:3, :3].T
        assert np.allclose(rows.velocity_mps, velocity[:, :2], atol=1e-4, equal_nan=True)
        heading = np.stack([np.cos(box[:, 6]), np.sin(box[:, 6]), np.zeros(len(box))], -1) @ pose[:3, :3].T
        turned = rows.yaw_rad - np.arctan2(heading[:, 1], heading[:, 0])
        assert np.abs((turned + np.pi) % (2 * np.pi) - np.pi).max(initial=0) < 5e-3  # the ego frame is a little tilted


def test_scenes_can_be_chosen(synthetic):
    everything = read_ground_truth(synthetic)
    parts = [read_ground_truth(synthetic, [name]) for name in ("scene-0103", "scene-0916")]
    assert [len(part.frames) for part in parts] == [20, 20] and len(everything.frames) == 40
    assert sum(len(part.boxes) for part in parts) == len(everything.boxes)
    with pytest.raises(ValueError, match=r"no scenes \['scene-9999'\] \(1 of 2 missing\)"):
        read_ground_truth(synthetic, ["scene-0103", "scene-9999"])


CATEGORIES = {"k": "vehicle.car", "r": "static_object.bicycle_rack", "x": "animal"}


def write_tiny(folder: Path, **changes: object) -> Path:
    """One scene of two frames, a car driving 2 m along x in half a second, a bicycle rack turned by a quarter."""
    half = 0.5**0.5
    box = {
        "size": [2.0, 4.0, 1.5],
        "rotation": [half, 0.0, 0.0, half],
        "num_lidar_pts": 3,
        "num_radar_pts": 2,
        "attribute_tokens": ["moving"],
    }
    car = {**box, "instance_token": "car"}
    rack = {**box, "instance_token": "rack", "attribute_tokens": [], "prev": "", "next": ""}
    tables: dict[str, list[dict]] = {
        "scene": [{"token": "scene", "name": "scene-0001"}],
        "sample": [{"token": f"s{i}", "scene_token": "scene", "timestamp": 10**15 + 500_000 * i} for i in (0, 1)],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP"}, {"token": "cam", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [{"token": f"c-{name}", "sensor_token": name} for name in ("lidar", "cam")],
        "sample_data": [
            {"sample_token": f"s{i}", "token": f"{name}{i}", "ego_pose_token": f"{name}{i}", "calibrated_sensor_token": f"c-{name}",
             "is_key_frame": True} for i in (0, 1) for name in ("cam", "lidar")
        ],
        "ego_pose": [
            {"token": f"{name}{i}", "translation": [i + 0.5 * (name == "cam"), 7.0, 0.0]} for i in (0, 1) for name in ("cam", "lidar")
        ],
        "category": [{"token": token, "name": name} for token, name in CATEGORIES.items()],
        "instance": [{"token": name, "category_token": token} for token, name in (("k", "car"), ("r", "rack"), ("x", "cat"))],
        "attribute": [{"token": "moving", "name": "vehicle.moving"}],
        "sample_annotation": [
            {**car, "token": "a0", "sample_token": "s0", "translation": [20.0, 3.0, 1.0], "prev": "", "next": "a1"},
            {**car, "token": "a1", "sample_token": "s1", "translation": [22.0, 3.0, 1.0], "prev": "a0", "next": ""},
            {**rack, "token": "r0", "sample_token": "s1", "translation": [5.0, 6.0, 0.0]},
            {**rack, "token": "x0", "sample_token": "s1", "translation": [5.0, 6.0, 0.0], "instance_token": "cat"},
        ],
    }  # fmt: skip
    tables |= changes  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


def test_a_tiny_log_read_by_hand(tmp_path):
    truth = read_ground_truth(write_tiny(tmp_path / "v1.0-tiny"))
    assert truth.frames.tokens == ("s0", "s1") and truth.frames.car_xy_m.tolist() == [[0, 7], [1, 7]]
    assert truth.boxes.track_id.tolist() == ["car", "car"] and truth.boxes.num_points.tolist() == [5, 5]
    assert truth.boxes.velocity_mps == pytest.approx(np.array([[4.0, 0], [4, 0]]), abs=1e-5)
    assert truth.boxes.yaw_rad == pytest.approx([np.pi / 2] * 2)
    assert [ATTRIBUTES[index] for index in truth.boxes.attribute] == ["vehicle.moving"] * 2
    assert truth.racks.frame.tolist() == [1] and truth.racks.rotation[0, :, 0] == pytest.approx([0, 1, 0])


@pytest.mark.parametrize(("gap_s", "inner", "outer"), [(1.4, 2 / 1.4, 2 / 1.4), (1.55, np.nan, np.nan), (0.5, 4.0, 4.0)])
def test_velocities_over_long_gaps_are_unknown(tmp_path, gap_s, inner, outer):
    folder = write_tiny(tmp_path / "v1.0-tiny")
    tables = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("sample_annotation", "sample_data", "ego_pose")}
    first, last = tables["sample_annotation"][:2]
    middle = {**last, "next": "a2"}
    tables["sample_annotation"] = [
        first,
        middle,
        {**last, "token": "a2", "sample_token": "s2", "translation": [24.0, 3.0, 1.0], "prev": "a1"},
    ]
    tables["sample_data"].append({**tables["sample_data"][-1], "token": "lidar2", "sample_token": "s2"})
    times = [{"token": f"s{i}", "scene_token": "scene", "timestamp": 10**15 + round(1e6 * gap_s) * i} for i in range(3)]
    speed_mps = read_ground_truth(write_tiny(folder, sample=times, **tables)).boxes.velocity_mps[:, 0]
    assert speed_mps == pytest.approx([outer, inner, outer], abs=1e-5, nan_ok=True)


def test_wrong_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"scene\.json: cannot be read"):
        read_ground_truth(tmp_path)
    with pytest.raises(ValueError, match="no key frame of LIDAR_TOP for sample 's0'"):
        read_ground_truth(write_tiny(tmp_path / "a", sensor=[{"token": "cam", "channel": "CAM_FRONT"}]))
    with pytest.raises(ValueError, match=r"sample\.json: not the nuScenes table 'sample' \(KeyError"):
        read_ground_truth(write_tiny(tmp_path / "b", sample=[{"token": "s0"}]))
    folder = write_tiny(tmp_path / "c")
    annotations = json.loads((folder / "sample_annotation.json").read_text())
    annotations[1]["attribute_tokens"] = ["moving", "moving"]
    with pytest.raises(ValueError, match="row 'a1' has 2 attributes"):
        read_ground_truth(write_tiny(folder, sample_annotation=annotations))
    (folder / "category.json").write_text("[{")
    with pytest.raises(ValueError, match=r"category\.json: not the nuScenes table"):
        read_ground_truth(folder)
