"""Records: the calibration chain, poses, commands, ego status and boxes, by hand and against what the public converter wrote."""

import gzip
import json
import math
import warnings

import numpy as np
import pytest
import torch

from sparsedrive.data import NuScenesLog
from sparsedrive.data.nuscenes.log import route_commands
from sparsedrive.data.nuscenes.poses import pose_matrix
from sparsedrive.geometry import box_state, camera, se3
from sparsedrive.structures import DETECTION_CLASSES, NUSCENES_CAMERAS, Command

pytestmark = pytest.mark.filterwarnings("ignore:scene-.*no steering messages:UserWarning")

SCENES = ("scene-0061", "scene-0103", "scene-0916")
RIGHT, LEFT, STRAIGHT = Command.RIGHT, Command.LEFT, Command.STRAIGHT


@pytest.fixture(scope="module")
def real_log(real_root):
    return NuScenesLog(real_root)


@pytest.fixture(scope="module")
def converted(real_root):
    """What the unmodified public converter wrote, by sample token."""
    infos = {}
    for split in ("train", "val"):
        with gzip.open(real_root / "reference" / f"sparsedrive_infos_{split}.json.gz") as file:
            infos.update({info["token"]: info for info in json.load(file)["infos"]})
    return infos


def array(stored):
    return torch.tensor(stored["__array__"], dtype=torch.float64).reshape(stored["shape"])


def quiet_log(root, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NuScenesLog(root, **options)


# ---- by hand ----


def test_pose_matrix_of_known_rotations():
    half = 0.5**0.5
    left_turn = pose_matrix([1, 2, 3], [half, 0, 0, half])
    assert torch.allclose(left_turn @ torch.tensor([1.0, 0, 0, 1]).double(), torch.tensor([1.0, 3, 3, 1]).double())
    pitch = pose_matrix([0, 0, 0], [half, 0, half, 0])  # about y: x goes to -z
    assert torch.allclose(pitch @ torch.tensor([1.0, 0, 0, 1]).double(), torch.tensor([0.0, 0, -1, 1]).double())
    assert torch.allclose(pose_matrix([0, 0, 0], [3 * half, 0, 3 * half, 0]), pitch)
    assert torch.equal(pose_matrix([[1, 2, 3], [0, 0, 0]], [[half, 0, 0, half], [half, 0, half, 0]]), torch.stack([left_turn, pitch]))


def test_chain_through_the_global_frame(tiny, tables_at):
    """The lidar looks along -y of the car, the camera saw the scene 0.2 m earlier: all numbers worked out on paper."""
    record = quiet_log(tables_at(tiny)).scene("scene-0001")[1]
    (front,) = record.cameras
    assert record.global_T_ego[:3, 3].tolist() == [5.5, 0.0, 2.0]
    assert record.time_s == 1.5
    assert front.timestamp_us == 1_480_000
    # A point 10 m ahead of the lidar (ego y), 1 m to the right (ego x), 1 m below it: global (15.5, -1, 1).
    # Camera at global (4.8 + 1, 0, 1): depth 9.7, 1 right, at the camera's height.
    pixels, depth_m = camera.project_with_depth(torch.tensor([[1.0, 10.0, -1.0]]).double(), front.image_T_ego)
    assert depth_m.item() == pytest.approx(9.7)
    assert pixels[0].tolist() == pytest.approx([8 + 10 / 9.7, 4.0])


def test_boxes_in_the_ego_frame(tiny, tables_at):
    first, second = quiet_log(tables_at(tiny)).scene("scene-0001")
    # Global (20, 3, 1) from the lidar at (0.5, 0, 2) with x right = -y, y forward = x; the car drives along global x at 4 m/s.
    expected = [-3.0, 19.5, -1.0, 4.0, 2.0, 1.5, math.pi / 2, 0.0, 4.0, 0.0]
    assert first.annotations.box[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert second.annotations.box[0].tolist() == pytest.approx([-3.0, 16.5, -1.0, *expected[3:]], abs=1e-12)
    assert first.annotations.label.tolist() == [DETECTION_CLASSES.index("car")]
    assert first.annotations.instance_tokens == ("i",)


def test_velocity_is_unknown_over_long_gaps_and_for_single_boxes(tiny, tables_at):
    tiny["sample"][1]["timestamp"] = 2_500_001  # one-sided: at most 1.5 s
    assert quiet_log(tables_at(tiny)).scene("scene-0001")[0].annotations.box[0, 7:].isnan().all()
    tiny["sample"][1]["timestamp"] = 2_500_000
    assert quiet_log(tables_at(tiny)).scene("scene-0001")[0].annotations.box[0, 8] == pytest.approx(2 / 1.5)
    tiny["sample_annotation"] = [{**row, "prev": "", "next": ""} for row in tiny["sample_annotation"]]
    assert quiet_log(tables_at(tiny)).scene("scene-0001")[0].annotations.box[0, 7:].isnan().all()


def test_categories_outside_the_detection_task_are_left_out(tiny, tables_at):
    tiny["category"][0]["name"] = "animal"
    annotations = quiet_log(tables_at(tiny)).scene("scene-0001")[0].annotations
    assert annotations.box.shape == (0, 10) and annotations.label.shape == (0,)
    assert quiet_log(tables_at(tiny), annotations=False).scene("scene-0001")[0].annotations is None


def test_route_commands():
    def drive(sides_m):
        """Poses with yaw -90 degrees (ego x = -global y), so that `sides_m` are metres to the right."""
        return [pose_matrix([4.0 * i, -side, 0], [0.5**0.5, 0, 0, -(0.5**0.5)]) for i, side in enumerate(sides_m)]

    assert route_commands(drive([0, 0, 0, 0, 0, 0, 2.001, 9])) == [RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, STRAIGHT]
    assert route_commands(drive([0, 0, 0, 0, 0, 0, -2.001]))[0] == LEFT
    assert route_commands(drive([0, 9, 9, 9, 9, 9, 1.999]))[0] == STRAIGHT  # only the sixth later key frame counts
    assert route_commands(drive([0, 0, 0, 0, 0, 0, 0, -9]))[0] == STRAIGHT
    assert route_commands(drive([0, -3])) == [LEFT, STRAIGHT]  # the last known position stands in
    assert route_commands([]) == []


def test_errors_name_what_is_missing(tiny, tables_at):
    log = quiet_log(tables_at(tiny))
    with pytest.raises(ValueError, match=r"no scene 'scene-001'.*'scene-0001'"):
        log.scene("scene-001")
    with pytest.raises(ValueError, match=r"scene-0001, sample s0: no key frame of camera 'CAM_BACK'.*CAM_FRONT"):
        log.scene("scene-0001")[0].camera("CAM_BACK")
    tiny["sample_data"] = [row for row in tiny["sample_data"] if row["token"] != "lid1"]
    with pytest.raises(ValueError, match="scene-0001, sample s1: no key frame of LIDAR_TOP"):
        quiet_log(tables_at(tiny)).scene("scene-0001")


def test_camera_without_matrix_is_an_error(tiny, tables_at):
    tiny["calibrated_sensor"][0]["camera_intrinsic"] = []
    with pytest.raises(ValueError, match=r"calibrated_sensor\.json, row 'c-cam'.*CAM_FRONT"):
        quiet_log(tables_at(tiny)).scene("scene-0001")


def test_missing_can_bus_warns_once_and_is_flagged(tiny, tables_at):
    root = tables_at(tiny)
    with pytest.warns(UserWarning, match="no can_bus folder"):
        log = NuScenesLog(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no second warning
        record = log.scene("scene-0001")[0]
    assert not record.ego_status_known.any() and record.ego_status.tolist() == [0.0] * 10
    (root / "can_bus").mkdir()
    log = NuScenesLog(root)
    with pytest.warns(UserWarning) as caught:
        log.scene("scene-0001")
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2 and all(text.startswith("scene-0001: no ") for text in texts)
    assert "pose" in texts[0] and "steering" in texts[1]


def test_partial_can_bus_is_partial_ego_status(tiny, tables_at):
    root = tables_at(tiny)
    (root / "can_bus").mkdir()
    message = {"utime": 990_000, "accel": [1, 2, 3], "rotation_rate": [4, 5, 6], "vel": [7, 8, 9]}
    (root / "can_bus" / "scene-0001_pose.json").write_text(json.dumps([message]))
    with pytest.warns(UserWarning, match="^scene-0001: no steering messages on the CAN bus: steering angle unknown$") as caught:
        first, second = NuScenesLog(root).scene("scene-0001")
    assert len(caught) == 1
    assert first.ego_status.tolist() == [*range(1, 10), 0] and first.ego_status_known.tolist() == [True] * 9 + [False]
    assert not second.ego_status_known.any() and not second.ego_status.any()  # the only message is 0.51 s old


def test_cameras_are_in_the_published_order(tiny, tables_at):
    for channel in ("CAM_BACK", "CAM_FRONT_LEFT", "CAM_0"):
        tiny["sensor"].append({"token": channel, "channel": channel, "modality": "camera"})
        tiny["calibrated_sensor"].append({**tiny["calibrated_sensor"][0], "token": f"c-{channel}", "sensor_token": channel})
        rows = [row for row in tiny["sample_data"] if row["calibrated_sensor_token"] == "c-cam" and row["is_key_frame"]]
        tiny["sample_data"] += [{**row, "token": f"{channel}{row['token']}", "calibrated_sensor_token": f"c-{channel}"} for row in rows]
    record = quiet_log(tables_at(tiny)).scene("scene-0001")[0]
    assert [camera.name for camera in record.cameras] == ["CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_0"]


@pytest.mark.parametrize("table", ["ego_pose", "calibrated_sensor"])
@pytest.mark.parametrize(
    "change", [{"translation": [float("nan"), 0, 0]}, {"rotation": [0, 0, 0, 0]}, {"rotation": [1, float("inf"), 0, 0]}]
)
def test_pose_that_is_none_names_scene_sample_table_and_row(tiny, tables_at, table, change):
    tiny[table][1] |= change
    sample = "s0"
    with pytest.raises(ValueError, match=rf"scene-0001, sample {sample}: {table}\.json, row '{tiny[table][1]['token']}': expected finite"):
        quiet_log(tables_at(tiny)).scene("scene-0001")


@pytest.mark.parametrize("change", [{"translation": [0, float("nan"), 0]}, {"size": [1, 0, 1]}, {"size": [float("nan")] * 3}])
def test_box_that_is_none_names_sample_and_row(tiny, tables_at, change):
    tiny["sample_annotation"][1] |= change
    with pytest.raises(ValueError, match=r"sample s1: sample_annotation\.json, row 'a1'"):
        quiet_log(tables_at(tiny)).scene("scene-0001")


def test_empty_scene_is_an_error(tiny, tables_at):
    tiny["scene"].append({"token": "empty", "name": "scene-0002", "log_token": "l"})
    log = quiet_log(tables_at(tiny))
    with pytest.raises(ValueError, match=r"scene-0002: no sample of this scene in .*sample\.json"):
        log.scene("scene-0002")


# ---- against real numbers ----


def test_real_scenes(real_log):
    assert real_log.scenes == SCENES
    assert [len(real_log.scene(name)) for name in SCENES] == [1, 40, 41]
    record = real_log.scene("scene-0103")[0]
    assert {camera.name for camera in record.cameras} == set(NUSCENES_CAMERAS)
    assert record.location == "boston-seaport"
    assert record.camera("CAM_BACK").wh_px == (1600, 900)


def records(log):
    return [record for name in SCENES for record in log.scene(name)]


def test_poses_and_commands_agree_with_the_converter(real_log, converted):
    counts = dict.fromkeys(Command, 0)
    for record in records(real_log):
        info = converted[record.sample_token]
        car_T_lidar = pose_matrix(info["lidar2ego_translation"], info["lidar2ego_rotation"])
        global_T_car = pose_matrix(info["ego2global_translation"], info["ego2global_rotation"])
        assert torch.allclose(record.global_T_ego, global_T_car @ car_T_lidar, rtol=0, atol=1e-9)
        assert torch.allclose(record.car_T_ego, car_T_lidar, rtol=0, atol=1e-12)
        assert record.timestamp_us == info["timestamp"]
        assert record.command == array(info["gt_ego_fut_cmd"]).argmax()
        counts[record.command] += 1
    assert min(counts.values()) > 0


def test_corner_pixels_agree_with_the_converter(real_log, converted):
    """Pixels of every annotated box corner in front of a camera, composed from the converter's lidar-to-camera transforms."""
    worst_px, compared = 0.0, 0
    for record in records(real_log):
        corners_m = box_state.corners(record.annotations.box).reshape(-1, 3)
        for ours in record.cameras:
            stored = converted[record.sample_token]["cams"][ours.name]
            lidar_T_camera = torch.eye(4, dtype=torch.float64)
            lidar_T_camera[:3, :3] = array(stored["sensor2lidar_rotation"])
            lidar_T_camera[:3, 3] = array(stored["sensor2lidar_translation"])
            image_T_camera = torch.eye(4, dtype=torch.float64)
            image_T_camera[:3, :3] = array(stored["cam_intrinsic"])
            expected, depth_m = camera.project_with_depth(corners_m, image_T_camera @ torch.linalg.inv(lidar_T_camera))
            pixels, _ = camera.project_with_depth(corners_m, ours.image_T_ego)
            front = depth_m > 0.5
            worst_px = max(worst_px, (pixels - expected)[front].abs().max().item() if front.any() else 0.0)
            compared += int(front.sum())
            assert ours.path.name == stored["data_path"].split("/")[-1]
    assert compared > 50_000
    assert worst_px < 1e-6


def test_corner_pixels_agree_with_an_independent_calibration(real_log, golden_root):
    """scene-0061 once more, with the calibration another project stores for it (float32 poses there)."""
    stored = np.load(golden_root / "sparsedrive" / "calib.npz")
    record = real_log.scene("scene-0061")[0]
    corners_m = box_state.corners(record.annotations.box).reshape(-1, 3)
    for index, name in enumerate(NUSCENES_CAMERAS):
        image_T_camera = torch.eye(4, dtype=torch.float64)
        image_T_camera[:3, :3] = torch.from_numpy(stored["cam2img"][index]).double()[:3, :3]
        expected, depth_m = camera.project_with_depth(corners_m, image_T_camera @ torch.from_numpy(stored["lidar2cam"][index]).double())
        pixels, _ = camera.project_with_depth(corners_m, record.camera(name).image_T_ego)
        inside = (depth_m > 1) & (expected > 0).all(-1) & (expected < torch.tensor([1600, 900])).all(-1)
        assert inside.sum() >= 5
        assert (pixels - expected)[inside].abs().max() < 0.01


def test_boxes_agree_with_the_converter(real_log, converted):
    compared = unknown = 0
    for record in records(real_log):
        info, ours = converted[record.sample_token], record.annotations
        names = info["gt_names"]["__array__"]
        kept = torch.tensor([name in DETECTION_CLASSES for name in names])
        box, velocity = array(info["gt_boxes"])[kept], array(info["gt_velocity"])[kept]
        assert [DETECTION_CLASSES[label] for label in ours.label] == [name for name, keep in zip(names, kept, strict=True) if keep]
        assert torch.allclose(ours.box[:, :6], box[:, :6], rtol=0, atol=1e-9)
        turn_rad = ours.box[:, 6] - box[:, 6]
        assert torch.atan2(turn_rad.sin(), turn_rad.cos()).abs().max() < 1e-9
        assert torch.allclose(ours.box[:, 7:9], velocity, rtol=0, atol=1e-5, equal_nan=True)
        assert ours.lidar_returns.tolist() == array(info["num_lidar_pts"])[kept].tolist()
        assert ours.radar_returns.tolist() == array(info["num_radar_pts"])[kept].tolist()
        compared, unknown = compared + len(box), unknown + int(velocity.isnan().any(-1).sum())
    assert compared == 4509 and unknown == 68 + 8  # every box of the one-frame scene, and 8 boxes seen once


def test_ego_status_fits_the_poses(real_log):
    """The CAN bus knows nothing of the pose table: its speed and yaw rate must be those of the car's path."""
    for name in SCENES[1:]:
        scene = real_log.scene(name)
        for before, now, after in zip(scene, scene[1:], scene[2:], strict=False):
            elapsed_s = after.time_s - before.time_s
            moved = se3.relative(before.global_T_car, after.global_T_car)
            assert now.ego_status_known.tolist() == [True] * 9 + [False]
            assert now.ego_status[6].item() == pytest.approx(moved[:3, 3].norm().item() / elapsed_s, abs=0.5)
            assert now.ego_status[5].item() == pytest.approx(math.atan2(moved[1, 0], moved[0, 0]) / elapsed_s, abs=0.06)
            assert now.ego_status[2].item() == pytest.approx(9.8, abs=1.5)
            assert now.ego_status[9] == 0  # no steering angle in these recordings
