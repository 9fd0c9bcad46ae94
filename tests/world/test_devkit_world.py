"""The official devkit opens the same folder and answers the same."""

import shutil

import numpy as np
import pytest
from world_samples import CONFIG, SCENES

from sparsedrive.world.can_bus import STEERING_RATIO
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.tables import state_at, token

devkit = pytest.importorskip("nuscenes.nuscenes", reason="no devkit; pip install --no-deps -r requirements-oracle.txt")
pytestmark = pytest.mark.xdist_group("little_world")
PLAN = CONFIG.scene(0)
CITY = "singapore-onenorth"


@pytest.fixture(scope="module")
def nusc(little_world):
    return devkit.NuScenes(version="v1.0-world", dataroot=str(little_world), verbose=False)


def samples(nusc):
    sample = nusc.get("sample", nusc.scene[0]["first_sample_token"])
    while sample:
        yield sample
        sample = nusc.get("sample", sample["next"]) if sample["next"] else None


def test_devkit_loads_all_tables_and_walks_the_scene(nusc):
    assert [scene["name"] for scene in nusc.scene] == [f"scene-{index + 1:04d}" for index in range(SCENES)]
    found = list(samples(nusc))
    assert len(found) == nusc.scene[0]["nbr_samples"] == 3
    assert all(set(sample["data"]) == {"LIDAR_TOP", *(mount.name for mount in nuscenes_rig().cameras)} for sample in found)
    for row in nusc.sample_data:
        path, boxes, intrinsic = nusc.get_sample_data(row["token"])
        assert path.endswith(row["filename"]) and (intrinsic is not None) == (row["sensor_modality"] == "camera")
        assert row["sensor_modality"] == "lidar" or all(box.center[2] > 0 for box in boxes)


def test_boxes_and_velocities_of_the_devkit_are_the_worlds(nusc, truth):
    world, states = truth
    number_of = {token("instance", PLAN.name.scene, actor): actor for actor in range(len(world.cast))}
    sample = list(samples(nusc))[1]
    state = state_at(states, (sample["timestamp"] - PLAN.name.start_us) * 1e-6)
    for name in sample["anns"]:
        row, box = nusc.get("sample_annotation", name), nusc.get_box(name)
        actor = number_of[row["instance_token"]]
        assert row["category_name"] == world.cast.categories[actor]
        np.testing.assert_allclose(box.center, [*state.pose[actor, :2], world.cast.size_lwh_m[actor, 2] / 2], atol=1e-3)
        np.testing.assert_allclose(box.wlh[[1, 0, 2]], world.cast.size_lwh_m[actor], atol=1e-3)
        assert abs(np.sin(box.orientation.yaw_pitch_roll[0] - state.pose[actor, 2])) < 1e-4
        if row["prev"] and row["next"]:
            before, after = (state_at(states, state.time_s + step_s).pose[actor, :2] for step_s in (-0.5, 0.5))
            np.testing.assert_allclose(nusc.box_velocity(name)[:2], after - before, atol=1e-6)  # 1 s apart


def test_points_in_the_boxes_are_counted_as_the_devkit_counts(nusc):
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    sample = next(samples(nusc))
    path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    points = LidarPointCloud.from_file(path).points[:3]
    for box in boxes:
        # Ours are counted with 5 cm around the box, for the scanner's noise.
        assert points_in_box(box, points).sum() <= nusc.get("sample_annotation", box.token)["num_lidar_pts"]


def test_can_bus_of_the_devkit(little_world, truth):
    can_bus_api = pytest.importorskip("nuscenes.can_bus.can_bus_api")
    can, (_, states) = can_bus_api.NuScenesCanBus(dataroot=str(little_world)), truth
    for message in can.get_messages(PLAN.name.scene, "pose"):
        ego = state_at(states, (message["utime"] - PLAN.name.start_us) * 1e-6).ego
        np.testing.assert_allclose(message["pos"][:2], ego.position_m, atol=1e-9)
        np.testing.assert_allclose(message["vel"], [ego.speed_mps, 0, 0], atol=1e-9)
    angles_rad = {message["utime"]: message["value"] for message in can.get_messages(PLAN.name.scene, "steeranglefeedback")}
    for state in (states[10], states[20]):
        expected_rad = STEERING_RATIO * state.ego.steering_rad
        assert abs(angles_rad[PLAN.name.time_us(state.time_s)] - expected_rad) < 1e-9


def test_map_of_the_devkit_is_the_town(little_world, truth, tmp_path):
    from nuscenes.map_expansion.map_api import NuScenesMap

    town, states = truth[0].town, truth[1]
    (tmp_path / "maps" / "expansion").mkdir(parents=True)
    shutil.copy(little_world / "maps" / "expansion" / "town-001.json", tmp_path / "maps" / "expansion" / f"{CITY}.json")
    city = NuScenesMap(dataroot=str(tmp_path), map_name=CITY)
    x_m, y_m = states[0].ego.position_m
    found = city.get_records_in_radius(x_m, y_m, 1000, ["road_divider", "lane_divider", "ped_crossing"])

    def lines(layer: str) -> list:
        return [np.array(city.extract_line(city.get(layer, name)["line_token"]).coords).tolist() for name in found[layer]]

    for kind in ("road", "lane"):
        assert sorted(lines(f"{kind}_divider")) == sorted(d.points_m.tolist() for d in town.dividers if d.kind == kind)
    crossings = [city.extract_polygon(city.get("ped_crossing", name)["polygon_token"]) for name in found["ped_crossing"]]
    outlines = [np.array(crossing.exterior.coords)[:-1].tolist() for crossing in crossings]
    assert sorted(outlines) == sorted(crossing.outline_m.tolist() for crossing in town.crossings)
    assert all(city.layers_on_point(*state.ego.position_m)["road_segment"] for state in states[::10])
    lane = city.get_closest_lane(x_m, y_m, radius=3)
    centre_m = np.array(city.discretize_lanes([lane], 0.5)[lane])[:, :2]
    assert np.linalg.norm(centre_m - (x_m, y_m), axis=1).min() < 2


def test_semantic_mask_is_white_under_the_car(nusc, truth):
    mask = nusc.map[0]["mask"]
    places = np.array([state.ego.position_m for state in truth[1][::5]])
    assert mask.is_on_mask(places[:, 0], places[:, 1]).all()
    x_min, y_min, *_ = truth[0].town.extent_m
    assert not mask.is_on_mask(np.array([x_min + 1.0]), np.array([y_min + 1.0])).any()
    assert nusc.map[0]["log_tokens"] == [nusc.log[0]["token"]]
