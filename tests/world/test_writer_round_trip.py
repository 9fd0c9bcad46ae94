"""World -> folder -> our reader gives back what the world knew."""

import json

import cv2
import numpy as np
import pytest
import shapely
from world_samples import CONFIG, SCENES

from sparsedrive.data import NuScenesLog
from sparsedrive.data.nuscenes.map_expansion import load_city_map
from sparsedrive.data.nuscenes.prepare import prepare
from sparsedrive.data.prepared import PreparedData
from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES, NUSCENES_CAMERAS
from sparsedrive.world.camera import Renderer
from sparsedrive.world.can_bus import STEERING_RATIO
from sparsedrive.world.looks import LOOKS
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.tables import state_at, token
from sparsedrive.world.writer import WorldConfig, split

pytestmark = pytest.mark.xdist_group("little_world")
PLAN = CONFIG.scene(0)
RIG = nuscenes_rig(CONFIG.wh_px)


@pytest.fixture(scope="module")
def log(little_world):
    return NuScenesLog(little_world)


@pytest.fixture(scope="module")
def records(log):
    return log.scene(PLAN.name.scene)


def state_of(truth, record):
    return state_at(truth[1], (record.timestamp_us - PLAN.name.start_us) * 1e-6)


def car_pose(ego) -> np.ndarray:
    cos, sin = np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)
    x_m, y_m = ego.position_m
    return np.array([[cos, -sin, 0, x_m], [sin, cos, 0, y_m], [0, 0, 1, 0], [0, 0, 0, 1]])


def actor_of(scene: str, count: int) -> dict[str, int]:
    return {token("instance", scene, actor): actor for actor in range(count)}


def test_scenes_and_frames(log, records, little_world):
    assert log.scenes == tuple(f"scene-{index + 1:04d}" for index in range(SCENES))
    assert len(records) == 3 and np.diff([record.timestamp_us for record in records]).tolist() == [500_000] * 2
    assert {record.location for record in records} == {"town-001"}
    splits = json.loads((little_world / "v1.0-world" / "splits.json").read_text())
    assert splits == {"train": ["scene-0001"], "val": ["scene-0002"]}


@pytest.mark.parametrize(("scenes", "held_out"), [(1, 0), (2, 1), (5, 1), (7, 2), (30, 5)])
def test_held_out_scenes_drive_through_towns_of_their_own(scenes, held_out):
    plans = [WorldConfig().scene(index) for index in range(scenes)]
    parts = split(plans)
    assert parts["train"] + parts["val"] == [plan.name.scene for plan in plans] and len(parts["val"]) == held_out
    if scenes > WorldConfig().scenes_per_town:
        town_of = {plan.name.scene: plan.name.location for plan in plans}
        assert not {town_of[name] for name in parts["train"]} & {town_of[name] for name in parts["val"]}


def test_poses_are_those_of_the_ego_vehicle(records, truth):
    for record in records:
        ego = state_of(truth, record).ego
        np.testing.assert_allclose(record.global_T_car.numpy(), car_pose(ego), atol=1e-9)
        np.testing.assert_allclose(record.global_T_ego.numpy(), car_pose(ego) @ RIG.lidar.car_T_lidar, atol=1e-9)


def test_boxes_are_the_actors_seen_from_the_ego_frame(records, truth):
    world, _ = truth
    number_of = actor_of(PLAN.name.scene, len(world.cast))
    total = 0
    for record in records:
        state = state_of(truth, record)
        ego_T_global = np.linalg.inv(car_pose(state.ego) @ RIG.lidar.car_T_lidar)
        boxes = record.annotations
        actors = [number_of[token] for token in boxes.instance_tokens]
        assert len(set(actors)) == len(actors)
        total += len(actors)
        size_m = world.cast.size_lwh_m[actors]
        middle_m = np.column_stack([state.pose[actors, :2], size_m[:, 2] / 2, np.ones(len(actors))]) @ ego_T_global.T
        np.testing.assert_allclose(boxes.box[:, :3], middle_m[:, :3], atol=1e-3)
        np.testing.assert_allclose(boxes.box[:, 3:6], size_m, atol=1e-3)
        # Ego axes: x to the right, so headings count from there: a quarter turn more than from the car's nose.
        turn_rad = boxes.box[:, 6].numpy() - (state.pose[actors, 2] - state.ego.yaw_rad + np.pi / 2)
        assert np.abs((turn_rad + np.pi) % (2 * np.pi) - np.pi).max() < 1e-4
    assert total > 30


def test_futures_are_where_the_actors_went(little_world, truth, tmp_path):
    world, states = truth
    number_of = actor_of(PLAN.name.scene, len(world.cast))
    scene = PreparedData.open(prepare(little_world, None, tmp_path / "prepared").out).scene(PLAN.name.scene)
    then = [state_at(states, (int(time_us) - PLAN.name.start_us) * 1e-6) for time_us in scene.timestamp_us]
    known = 0
    for frame in range(scene.num_frames):
        ego_T_global, rows = np.linalg.inv(scene.global_T_ego[frame]), scene.boxes_of(frame)
        assert scene.ego_future_valid[frame].sum() == scene.num_frames - 1 - frame
        for step, later in enumerate(then[frame + 1 :]):
            own_m = ego_T_global @ car_pose(later.ego) @ RIG.lidar.car_T_lidar[:, 3]
            np.testing.assert_allclose(scene.ego_future_m[frame, step], own_m[:2], atol=1e-3)
            actors = [number_of[scene.instance_tokens[number]] for number in scene.box_instance[rows]]
            place_m = np.column_stack([later.pose[actors, :2], np.zeros(len(actors)), np.ones(len(actors))]) @ ego_T_global.T
            valid = scene.agent_future_valid[rows, step]
            np.testing.assert_allclose(scene.agent_future_m[rows, step][valid], place_m[valid, :2], atol=1e-3)
            known += int(valid.sum())
    assert known > 30


def test_classes_are_those_of_the_cast(records, truth):
    world, _ = truth
    number_of = actor_of(PLAN.name.scene, len(world.cast))
    word_of = {"construction_vehicle": "construction", "traffic_cone": "trafficcone"}
    for label, name in zip(records[0].annotations.label, records[0].annotations.instance_tokens, strict=True):
        word = DETECTION_CLASSES[int(label)]
        assert word_of.get(word, word) in world.cast.categories[number_of[name]]


def test_velocities_are_the_true_speeds(records, truth):
    world, states = truth
    number_of, errors_mps = actor_of(PLAN.name.scene, len(world.cast)), []
    middle = records[1]
    before, after = (state_at(states, (record.timestamp_us - PLAN.name.start_us) * 1e-6) for record in (records[0], records[2]))
    state = state_of(truth, middle)
    ego_R_global = np.linalg.inv(car_pose(state.ego) @ RIG.lidar.car_T_lidar)[:2, :2]
    for name, velocity_mps in zip(middle.annotations.instance_tokens, middle.annotations.box[:, 7:9].numpy(), strict=True):
        actor = number_of[name]
        there = [name in record.annotations.instance_tokens for record in records]
        assert np.isfinite(velocity_mps).all() == (sum(there) > 1)
        if all(there):
            moved_m = after.pose[actor, :2] - before.pose[actor, :2]
            np.testing.assert_allclose(velocity_mps, ego_R_global @ moved_m, atol=1e-6)  # 1 s apart
            errors_mps.append(abs(np.linalg.norm(velocity_mps) - state.speed_mps[actor]))
    assert len(errors_mps) > 10 and np.median(errors_mps) < 0.1 and np.max(errors_mps) < 1.5


def test_projection_is_that_of_the_mounts(records, truth):
    _, states = truth
    rng = np.random.default_rng(0)
    for record in records:
        points_m = rng.uniform([-40, -40, -2], [40, 40, 4], (50, 3))
        homogeneous = np.column_stack([points_m, np.ones(50)])
        assert [camera.name for camera in record.cameras] == list(NUSCENES_CAMERAS)
        for camera in record.cameras:
            (mount,) = (mount for mount in RIG.cameras if mount.name == camera.name)
            assert camera.wh_px == CONFIG.wh_px and camera.timestamp_us == record.timestamp_us - round(1e6 * mount.early_s)
            taken = state_at(states, (camera.timestamp_us - PLAN.name.start_us) * 1e-6)
            in_camera = homogeneous @ (np.linalg.inv(car_pose(taken.ego) @ mount.car_T_camera) @ record.global_T_ego.numpy()).T
            np.testing.assert_allclose(homogeneous @ camera.image_T_ego.numpy()[:3].T, in_camera[:, :3] @ mount.intrinsic.T, atol=1e-6)


def test_pictures_show_the_moment_of_their_time_stamp(records, truth):
    world, states = truth
    renderer = Renderer(world.town, world.cast, LOOKS[PLAN.look](), PLAN.seed)
    record = records[2]
    for name in ("CAM_FRONT_LEFT", "CAM_BACK"):
        camera = record.camera(name)
        (mount,) = (mount for mount in RIG.cameras if mount.name == name)
        stored = cv2.cvtColor(cv2.imread(str(camera.path)), cv2.COLOR_BGR2RGB).astype(float)

        def error(time_us: int, stored=stored, mount=mount) -> float:
            painted = renderer.render(state_at(states, (time_us - PLAN.name.start_us) * 1e-6), mount)
            return float(np.abs(painted - stored).mean())

        assert error(camera.timestamp_us) < 4 and error(camera.timestamp_us) < error(record.timestamp_us - 500_000)


def test_ego_status_is_what_the_car_felt(records, truth):
    for record in records:
        ego = state_of(truth, record).ego
        expected = [ego.acceleration_mps2, ego.speed_mps * ego.yaw_rate_radps, 9.81, 0, 0, ego.yaw_rate_radps, ego.speed_mps, 0, 0]
        np.testing.assert_allclose(record.ego_status, [*expected, STEERING_RATIO * ego.steering_rad], atol=1e-6)


def test_lidar_files_hold_the_counted_points(little_world, records, truth):
    world, _ = truth
    number_of = actor_of(PLAN.name.scene, len(world.cast))
    name = PLAN.name.file("LIDAR_TOP", records[1].timestamp_us)
    points = np.fromfile(little_world / name, np.float32).reshape(-1, 5)
    assert len(points) > 5000 and np.isfinite(points).all() and set(points[:, 4]) <= set(range(32))
    boxes = records[1].annotations
    for box, returns, instance in zip(boxes.box.numpy(), boxes.lidar_returns.tolist(), boxes.instance_tokens, strict=True):
        cos, sin = np.cos(box[6]), np.sin(box[6])
        offset = points[:, :3] - box[:3]
        local = np.column_stack([offset[:, :2] @ np.array([[cos, -sin], [sin, cos]]), offset[:, 2]])
        inside, around = ((np.abs(local) <= box[3:6] / 2 + margin).all(1).sum() for margin in (0.04, 0.06))
        assert inside <= returns <= around, world.cast.categories[number_of[instance]]
    assert (boxes.lidar_returns > 0).float().mean() > 0.5


def test_the_map_is_the_town(little_world, truth):
    town, city = truth[0].town, load_city_map(little_world, "town-001")
    assert city.invalid_polygons == 0

    def found(name: str) -> list[shapely.LineString]:
        return [line for line, label in zip(city.lines_m, city.labels, strict=True) if MAP_CLASSES[label] == name]

    rings = [shapely.LinearRing(crossing.outline_m) for crossing in town.crossings]
    dividers = [shapely.LineString(divider.points_m) for divider in town.dividers]
    for name, lines in {"ped_crossing": rings, "divider": dividers}.items():
        assert len(found(name)) == len(lines)
        assert shapely.hausdorff_distance(shapely.MultiLineString(found(name)), shapely.MultiLineString(lines)) < 1e-9
    boundaries = shapely.MultiLineString([shapely.LineString(ring) for ring in town.boundaries])
    assert shapely.hausdorff_distance(shapely.MultiLineString(found("boundary")), boundaries) < 0.01
    assert len(found("boundary")) == len(town.boundaries)
