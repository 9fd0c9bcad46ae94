import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from writer_samples import CATEGORIES, FAR, NAME, RADIUS_M, SPEED_MPS, ego_at, hand_drive

from sparsedrive.world.can_bus import STEERING_RATIO, can_bus_messages
from sparsedrive.world.rig import CameraMount
from sparsedrive.world.tables import (
    TABLES,
    attribute_of,
    fixed_tables,
    location_tables,
    object_tables,
    sample_tables,
    state_at,
    visibility_of,
)

HAND = hand_drive()


def all_tables(key_frames=None):
    frames = HAND.key_frames(6) if key_frames is None else key_frames
    return (
        fixed_tables(HAND.rig)
        | location_tables(NAME.location, HAND.rig)
        | sample_tables(NAME, HAND.rig, HAND.drive, frames)
        | object_tables(NAME, HAND.cast, HAND.parked, frames)
    )


def test_all_thirteen_tables_can_be_written_as_json():
    tables = all_tables()
    assert sorted(tables) == sorted(TABLES) and len(TABLES) == 13
    assert json.loads(json.dumps(tables)) == tables


def test_every_token_is_unique_and_every_foreign_key_is_there():
    tables = all_tables()
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    assert all(len(tokens[name]) == len(rows) for name, rows in tables.items())
    for name, rows in tables.items():
        for row in rows:
            for field, value in row.items():
                if field in ("prev", "next"):
                    assert value == "" or value in tokens[name]
                elif field.endswith("_tokens"):
                    assert set(value) <= tokens[field[: -len("_tokens")]]
                elif field.endswith("_token"):
                    parent = field[: -len("_token")].removeprefix("first_").removeprefix("last_")
                    assert value in tokens["sample_annotation" if parent == "annotation" else parent], (name, field)


@pytest.mark.parametrize("name", ["sample", "sample_data", "sample_annotation"])
def test_chains_lead_from_the_first_row_to_the_last(name):
    tables = all_tables()
    rows = {row["token"]: row for row in tables[name]}
    time_of = {row["token"]: row["timestamp"] for row in tables["sample"]}
    chains = 0
    for row in rows.values():
        if row["prev"]:
            continue
        chains, count, step = chains + 1, 1, row
        while step["next"]:
            before, step = step, rows[step["next"]]
            assert step["prev"] == before["token"]
            times = [r.get("timestamp") or time_of[r["sample_token"]] for r in (before, step)]
            assert times[1] - times[0] == 500_000
            count += 1
        assert count == 6
    assert chains == {"sample": 1, "sample_data": 7, "sample_annotation": 5}[name]


def test_cameras_have_their_own_time_and_pose():
    tables = all_tables()
    poses = {row["token"]: row for row in tables["ego_pose"]}
    early_s = {mount.name: mount.early_s for mount in HAND.rig.cameras} | {"LIDAR_TOP": 0.0}
    samples = {row["token"]: row["timestamp"] for row in tables["sample"]}
    for row in tables["sample_data"]:
        channel = row["filename"].split("/")[1]
        assert row["timestamp"] == samples[row["sample_token"]] - round(1e6 * early_s[channel])
        pose = poses[row["ego_pose_token"]]
        assert pose["timestamp"] == row["timestamp"]
        true = ego_at((row["timestamp"] - NAME.start_us) * 1e-6)
        np.testing.assert_allclose(pose["translation"], [*true.position_m, 0], atol=1e-3)  # the circle is drawn every 0.4 m
        np.testing.assert_allclose(pose["rotation"], [np.cos(true.yaw_rad / 2), 0, 0, np.sin(true.yaw_rad / 2)], atol=1e-9)
        assert row["filename"].endswith("jpg" if channel.startswith("CAM") else "pcd.bin") and row["is_key_frame"]


def test_calibration_is_that_of_the_mounts():
    tables = location_tables(NAME.location, HAND.rig)
    for mount, row in zip((*HAND.rig.cameras, HAND.rig.lidar), tables["calibrated_sensor"], strict=True):
        car_T_sensor = mount.car_T_camera if isinstance(mount, CameraMount) else mount.car_T_lidar
        w, x, y, z = row["rotation"]
        np.testing.assert_allclose(Rotation.from_quat([x, y, z, w]).as_matrix(), car_T_sensor[:3, :3], atol=1e-12)
        assert row["translation"] == car_T_sensor[:3, 3].tolist()
        assert row["camera_intrinsic"] == (mount.intrinsic.tolist() if isinstance(mount, CameraMount) else [])


def test_boxes_are_the_actors_with_width_before_length():
    tables = all_tables()
    category_of = {row["token"]: row["name"] for row in tables["category"]}
    kinds = {row["token"]: category_of[row["category_token"]] for row in tables["instance"]}
    assert sorted(kinds.values()) == sorted(CATEGORIES[:FAR])
    first = {kinds[row["instance_token"]]: row for row in tables["sample_annotation"] if not row["prev"]}
    adult = first["human.pedestrian.adult"]
    assert adult["size"] == [0.6, 0.7, 1.8] and adult["num_lidar_pts"] == 7
    x_m, y_m = np.array([812, 1593]) + 0.1 * 1.4 * np.array([np.cos(1.5), np.sin(1.5)])
    np.testing.assert_allclose(adult["translation"], [x_m, y_m, 0.9], atol=1e-9)
    np.testing.assert_allclose(adult["rotation"], [np.cos(0.75), 0, 0, np.sin(0.75)])
    names = {row["token"]: row["name"] for row in tables["attribute"]}
    assert [names[t] for t in adult["attribute_tokens"]] == ["pedestrian.moving"]
    assert [names[t] for t in first["vehicle.bicycle"]["attribute_tokens"]] == ["cycle.without_rider"]
    assert first["movable_object.trafficcone"]["attribute_tokens"] == []


def test_a_hidden_actor_keeps_its_box_between_sightings_and_has_none_before_and_after():
    points, visible = np.zeros((6, 6), int), np.zeros((6, 6))
    points[1, 0], visible[4, 0] = 3, 0.5
    tables = all_tables(HAND.key_frames(6, points, visible))
    assert len(tables["instance"]) == 1
    rows = tables["sample_annotation"]
    assert [row["num_lidar_pts"] for row in rows] == [3, 0, 0, 0]
    assert [row["visibility_token"] for row in rows] == ["1", "1", "1", "2"]
    samples = [row["token"] for row in tables["sample"]]
    assert [row["sample_token"] for row in rows] == samples[1:5]
    assert tables["instance"][0]["nbr_annotations"] == 4


def test_far_actors_are_not_annotated():
    near = all_tables()["instance"]
    everyone_far = hand_drive()
    for state in everyone_far.drive:
        state.pose[:, 0] += 200
    assert len(near) == 5 and object_tables(NAME, everyone_far.cast, everyone_far.parked, everyone_far.key_frames(6))["instance"] == []


@pytest.mark.parametrize(
    ("category", "speed_mps", "parked", "expected"),
    [
        ("vehicle.car", 3.0, False, "vehicle.moving"),
        ("vehicle.truck", 0.0, False, "vehicle.stopped"),
        ("vehicle.trailer", 0.0, True, "vehicle.parked"),
        ("vehicle.bicycle", 0.0, False, "cycle.with_rider"),
        ("vehicle.motorcycle", 0.0, True, "cycle.without_rider"),
        ("human.pedestrian.child", 0.0, False, "pedestrian.standing"),
        ("movable_object.barrier", 0.0, False, None),
    ],
)
def test_attributes(category, speed_mps, parked, expected):
    assert attribute_of(category, speed_mps, parked) == expected


@given(st.floats(0, 1))
def test_visibility_is_the_level_that_holds_the_part(visible):
    level = next(row["level"] for row in fixed_tables(HAND.rig)["visibility"] if row["token"] == visibility_of(visible))
    low, high = map(int, level[1:].split("-"))
    assert low <= 100 * visible <= high


def test_states_outside_the_drive_are_refused():
    with pytest.raises(ValueError, match=r"from 0\.0 to 3\.0 s, got 3\.5"):
        state_at(HAND.drive, 3.5)


def test_can_bus_says_what_the_car_felt():
    messages = can_bus_messages(NAME, HAND.drive)
    assert [m["utime"] - NAME.start_us for m in messages["pose"]] == list(range(0, 3_000_001, 20_000))
    for message in messages["pose"]:
        true = ego_at((message["utime"] - NAME.start_us) * 1e-6)
        np.testing.assert_allclose(message["pos"][:2], true.position_m, atol=1e-3)
        np.testing.assert_allclose(message["vel"], [SPEED_MPS, 0, 0])
        np.testing.assert_allclose(message["accel"], [0.5, SPEED_MPS**2 / RADIUS_M, 9.81])
        np.testing.assert_allclose(message["rotation_rate"], [0, 0, SPEED_MPS / RADIUS_M])
    np.testing.assert_allclose([m["value"] for m in messages["steeranglefeedback"]], STEERING_RATIO * np.arctan(2.6 / RADIUS_M))
