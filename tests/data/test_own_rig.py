import json
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedrive.data import ImagePreprocess, NuScenesLog, read_pictures, to_frame
from sparsedrive.data.calibration import CameraCalibration, ego_T_car
from sparsedrive.data.dgp import read_dgp
from sparsedrive.data.own_rig import OwnRig
from sparsedrive.geometry import box_state
from sparsedrive.geometry.camera import project_with_depth
from sparsedrive.structures import DETECTION_CLASSES, Command, check_shapes

WH_PX = (640, 400)
INTRINSIC = np.array([[500.0, 0, 322], [0, 505, 205], [0, 0, 1]])


def looking(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0, place_m=(0.1, 0.8, -0.3)) -> np.ndarray:
    """Pose of a camera that looks along +y turned to the left by yaw, up by pitch."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_z = cv2.Rodrigues(np.array([0, 0, yaw]))[0]
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    pose = np.eye(4)
    pose[:3, :3] = about_z @ level @ cv2.Rodrigues(np.array([pitch, 0, 0]))[0] @ cv2.Rodrigues(np.array([0, 0, roll]))[0]
    pose[:3, 3] = place_m
    return pose


def camera(name: str = "front", **changes) -> CameraCalibration:
    values = {"name": name, "intrinsic": INTRINSIC, "ego_T_camera": looking(), "wh_px": WH_PX}
    return CameraCalibration(**(values | changes))


def grey(wh_px=WH_PX, value: int = 90) -> np.ndarray:
    return np.full((wh_px[1], wh_px[0], 3), value, np.uint8)


def moved(matrix: np.ndarray, *, factor: float = 1.0, shift=(0, 0, 0)) -> np.ndarray:
    matrix = matrix.copy()
    matrix[:3, 3] = matrix[:3, 3] * factor + shift
    return matrix


FRONT = looking()
CAR_T_FRONT = np.linalg.inv(ego_T_car()) @ FRONT
BODY_T_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intrinsic": INTRINSIC.T}, "intrinsic: expected .* give its transpose"),
        ({"intrinsic": INTRINSIC * 2}, "divide by its last element"),
        ({"intrinsic": INTRINSIC[:2]}, "expected a finite 3x3 matrix"),
        ({"intrinsic": INTRINSIC * [[-1, 1, 1], [1, 1, 1], [1, 1, 1]]}, "positive focal lengths"),
        ({"intrinsic": INTRINSIC / [[640], [640], [1]]}, "are no pixels of a picture"),
        ({"wh_px": (300, 200)}, r"principal point inside the picture of 300 x 200, got \[322.0, 205.0\]; .* about 644 x 410"),
        ({"wh_px": (0, 5)}, "expected a positive"),
        ({"distortion": (0.1, 0.2)}, r"expected \(0, 4, 5, 8\) finite coefficients for a radial-tangential lens, got \(0.1, 0.2\)"),
        ({"distortion": (0.1,) * 5, "fisheye": True}, r"expected \(4,\) finite coefficients for a fisheye"),
        ({"ego_T_camera": FRONT.T}, "last row of 0 0 0 1, .* give its transpose"),
        ({"ego_T_camera": np.linalg.inv(FRONT)}, "camera_T_ego seems to have been given for ego_T_camera, invert it"),
        ({"ego_T_camera": FRONT @ np.linalg.inv(BODY_T_OPTICAL)}, "x forward, y left, z up multiply the rotation on the right"),
        ({"ego_T_camera": FRONT @ np.diag([-1.0, 1, 1, 1])}, "mirror image"),
        ({"ego_T_camera": FRONT @ np.diag([-1.0, -1, 1, 1])}, "mounted on its side or head"),
        ({"ego_T_camera": np.diag([*INTRINSIC.diagonal(), 1]) @ FRONT}, "hold the intrinsic too"),
        ({"ego_T_camera": FRONT * 1.01 - np.diag([0, 0, 0, 0.01])}, "rows of length .* normalise the quaternion"),
        ({"ego_T_camera": moved(FRONT, factor=1000)}, "within 30 m .* millimetres"),
        ({"ego_T_camera": moved(FRONT, shift=(600, 1600, 0))}, "a pose in the world"),
        ({"ego_T_camera": FRONT * np.nan}, "expected a finite 4x4 matrix"),
    ],
)
def test_wrong_calibration_is_named(changes, message):
    with pytest.raises(ValueError, match=rf"(?s)^front: .*{message}"):
        camera(**changes)


def test_intrinsic_of_another_size_warns():
    with pytest.warns(UserWarning, match="is the intrinsic for another size"):
        camera(wh_px=(1280, 800))


def test_rig_needs_a_forward_camera_first():
    with pytest.raises(ValueError, match=r"car frame with x forward: give ego_T_car\(\) @ car_T_camera"):
        OwnRig([camera(ego_T_camera=CAR_T_FRONT)])
    with pytest.raises(ValueError, match=r"back: expected the first camera to look forward .* put the front camera first"):
        OwnRig([camera("back", ego_T_camera=looking(180)), camera()])
    with pytest.raises(ValueError, match="every name once"):
        OwnRig([camera(), camera()])
    with pytest.raises(ValueError, match="at least one camera"):
        OwnRig([])
    with pytest.warns(UserWarning, match="seems to be on the ground"):
        OwnRig([camera(ego_T_camera=looking(place_m=(0, 1.5, 1.6)))])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-180, 180), st.floats(-35, 35), st.floats(-20, 20)), max_size=5),
    st.tuples(st.floats(-35, 35), st.floats(-30, 30), st.floats(-20, 20)),
)
def test_right_rigs_pass_and_inverted_ones_do_not(others, first):
    poses = [looking(*angles) for angles in (first, *others)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OwnRig([camera(str(index), ego_T_camera=pose) for index, pose in enumerate(poses)])
    with pytest.raises(ValueError, match="invert it"):
        OwnRig([camera(str(index), ego_T_camera=np.linalg.inv(pose)) for index, pose in enumerate(poses)])


def test_car_frame_to_ego_frame():
    """A point 10 m ahead, 2 m to the left, on the road."""
    ego = ego_T_car() @ [10.0, 2.0, 0.0, 1.0]
    assert np.allclose(ego[:3], [-2.0, 10.0 - 0.94, -1.84])
    assert np.allclose(ego_T_car((0.0, 0.0, 0.0)) @ [1.0, 0.0, 0.0, 1.0], [0, 1, 0, 1])


def test_projection_is_the_pinhole_formula():
    rig = OwnRig([camera(), camera("left", ego_T_camera=looking(70, 5, 3))])
    pictures = rig.pictures({"front": grey(), "left": grey()})
    for calibration, image_T_ego in zip(rig.cameras, pictures.image_T_ego, strict=True):
        local = np.random.default_rng(0).uniform((-2, -2, 3), (2, 2, 30), (50, 3))
        points_m = local @ calibration.ego_T_camera[:3, :3].T + calibration.ego_T_camera[:3, 3]
        pixels, depth_m = project_with_depth(torch.from_numpy(points_m), image_T_ego)
        expected, _ = cv2.projectPoints(local, np.zeros(3), np.zeros(3), INTRINSIC, None)
        assert np.allclose(pixels, expected[:, 0], atol=1e-9) and np.allclose(depth_m, local[:, 2])
        assert pictures.rgb[0] is not None


LENSES = [
    ((-0.3, 0.1, 0.001, -0.002), False),
    ((-0.32, 0.12, 0.001, -0.0005, -0.02), False),
    ((0.2, -0.05, 0.0, 0.0, 0.01, 0.5, -0.02, 0.005), False),
    ((0.05, -0.02, 0.01, -0.003), True),
]


@pytest.mark.parametrize(("distortion", "fisheye"), LENSES)
def test_undistorted_picture_fits_its_projection(distortion, fisheye):
    """Dots where the real lens would show points of the world are, after undistortion, where the pinhole projection says."""
    rig = OwnRig([camera(distortion=distortion, fisheye=fisheye, ego_T_camera=looking(10, 4, 2))])
    local = np.array([[x, y, 10.0] for x in (-4.5, -2, 0.3, 2, 4.5) for y in (-2.5, 0.2, 2.5)])
    raw = np.zeros((WH_PX[1], WH_PX[0], 3), np.uint8)
    coefficients, still = np.array(distortion), np.zeros(3)
    if fisheye:
        seen, _ = cv2.fisheye.projectPoints(local[:, None], still, still, INTRINSIC, coefficients)
    else:
        seen, _ = cv2.projectPoints(local[:, None], still, still, INTRINSIC, coefficients)
    for x, y in seen.reshape(-1, 2):
        cv2.circle(raw, (round(x * 16), round(y * 16)), 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    pictures = rig.pictures({"front": raw})
    calibration = rig.cameras[0]
    points_m = local @ calibration.ego_T_camera[:3, :3].T + calibration.ego_T_camera[:3, 3]
    pixels, _ = project_with_depth(torch.from_numpy(points_m), pictures.image_T_ego[0])
    checked = 0
    for (x, y), (raw_x, raw_y) in zip(pixels.tolist(), seen.reshape(-1, 2), strict=True):
        if not (20 < x < WH_PX[0] - 20 and 20 < y < WH_PX[1] - 20):
            continue
        left, top = round(x) - 12, round(y) - 12
        patch = pictures.rgb[0][top : top + 25, left : left + 25, 0].astype(float)
        rows, columns = np.mgrid[top : top + 25, left : left + 25]
        found = np.array([(patch * columns).sum(), (patch * rows).sum()]) / patch.sum()
        assert np.abs(found - (x, y)).max() < 0.35
        checked += 1
        assert np.isfinite(raw_x + raw_y)
    assert checked >= 6
    assert not np.allclose(rig.lenses[0].intrinsic, INTRINSIC) and not np.allclose(seen.reshape(-1, 2), pixels, atol=2)


def test_no_black_pixels_unless_asked_for():
    bent = (-0.3, 0.1, 0.0, 0.0)
    assert OwnRig([camera(distortion=bent)]).pictures({"front": grey()}).rgb[0].min() > 80
    wide = INTRINSIC * [[0.4, 1, 1], [1, 0.4, 1], [1, 1, 1]]
    chosen = OwnRig([camera(distortion=bent, pinhole_intrinsic=wide)])
    assert np.array_equal(chosen.lenses[0].intrinsic, wide)
    assert chosen.pictures({"front": grey()}).rgb[0].min() == 0


def test_picture_without_distortion_is_untouched():
    raw = np.random.default_rng(0).integers(0, 255, (WH_PX[1], WH_PX[0], 3), np.uint8)
    assert OwnRig([camera()]).pictures({"front": raw}).rgb[0] is raw


def test_pictures_taken_later_see_the_world_from_further_on():
    """The vehicle drove 1 m ahead until the picture: a post 10 m ahead of the frame's origin is 1 m closer to the camera."""
    rig = OwnRig([camera(ego_T_camera=looking(place_m=(0, 0, 0)))])
    now, then = np.eye(4), np.eye(4)
    now[:2, 3], then[:2, 3] = (500.0, 100.0), (500.0, 101.0)
    post_m = torch.tensor([[0.0, 10.0, 0.0]], dtype=torch.float64)
    for poses, expected_m in (({}, 10.0), ({"global_T_ego": now, "global_T_ego_then": {"front": then}}, 9.0)):
        pictures = rig.pictures({"front": grey()}, **poses)
        assert project_with_depth(post_m, pictures.image_T_ego[0])[1].item() == pytest.approx(expected_m)


def test_same_frame_as_the_nuscenes_reader_makes(drive_root):
    record = NuScenesLog(drive_root).scene("scene-0001")[1]
    names = ("CAM_FRONT", "CAM_BACK_LEFT", "CAM_FRONT_RIGHT")
    preprocess, source = ImagePreprocess(final_wh_px=(352, 128)), read_pictures(record, names)
    theirs = to_frame(record, source, preprocess, sequence_id=3)
    parts = [record.camera(name) for name in names]
    rig = OwnRig(
        [CameraCalibration(name=p.name, intrinsic=p.intrinsic, ego_T_camera=torch.linalg.inv(p.camera_T_ego), wh_px=p.wh_px) for p in parts]
    )
    pictures = rig.pictures(dict(zip(names, source.rgb, strict=True)))
    moment = {"global_T_ego": record.global_T_ego, "time_s": record.time_s, "command": record.command}
    ours = rig.frame(pictures, preprocess, sequence_id=3, ego_status=record.ego_status.tolist(), **moment)
    check_shapes(ours)
    assert ours.rig.names == theirs.rig.names
    for one, other in zip(torch.utils._pytree.tree_leaves(ours), torch.utils._pytree.tree_leaves(theirs), strict=True):
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-4)


def test_a_failed_camera_is_black_and_not_available():
    rig = OwnRig([camera(), camera("left", ego_T_camera=looking(90), wh_px=(720, 420))])
    pictures = rig.pictures({"front": grey(), "left": None})
    frame = rig.frame(pictures, ImagePreprocess(final_wh_px=(64, 32)), global_T_ego=np.eye(4), time_s=1.0, command=Command.LEFT)
    assert frame.rig.available.tolist() == [[True, False]] and pictures.rgb[1].shape == (420, 720, 3) and not pictures.rgb[1].any()
    assert frame.command.tolist() == [Command.LEFT] and not frame.ego_status.any()


def test_wrong_pictures_and_poses():
    rig = OwnRig([camera()])
    pictures, preprocess = rig.pictures({"front": grey()}), ImagePreprocess(final_wh_px=(64, 32))
    with pytest.raises(ValueError, match=r"expected one \(or None\) for each of \('front',\), got \('frnt',\)"):
        rig.pictures({"frnt": grey()})
    with pytest.raises(ValueError, match="front: expected an RGB picture uint8 of 640 x 400 as calibrated"):
        rig.pictures({"front": grey((320, 200))})
    with pytest.raises(ValueError, match="got no global_T_ego"):
        rig.pictures({"front": grey()}, global_T_ego_then={"front": np.eye(4)})
    with pytest.raises(ValueError, match="a pose in global_T_ego_then for each"):
        rig.pictures({"front": grey()}, global_T_ego=np.eye(4), global_T_ego_then={})
    with pytest.raises(ValueError, match="global_T_ego: expected a finite 4x4 pose"):
        rig.frame(pictures, preprocess, global_T_ego=moved(np.eye(4), shift=(1, 2, 3)).T, time_s=0.0)
    with pytest.raises(ValueError, match="ego_status: expected 10 numbers"):
        rig.frame(pictures, preprocess, global_T_ego=np.eye(4), time_s=0.0, ego_status=[0.0] * 3)


def dgp_pose(matrix: np.ndarray) -> dict:
    """As DGP writes one; only turns about z and the optical rotation are needed."""
    w = 0.5 * np.sqrt(max(0.0, 1 + np.trace(matrix[:3, :3])))
    x, y, z = (np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]) / (4 * w)).tolist()
    return {"translation": dict(zip("xyz", matrix[:3, 3].tolist(), strict=True)), "rotation": {"qw": w, "qx": x, "qy": y, "qz": z}}


def write_dgp(folder: Path) -> Path:
    """One frame, a front and a left camera; the vehicle looks north, 20 m from the world's origin; a car 10 m ahead."""
    for name in ("calibration", "ontology", "bounding_box_3d"):
        (folder / name).mkdir(parents=True)
    world_T_car = np.array([[0.0, -1, 0, 20], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    car_T = {"CAMERA_05": np.linalg.inv(ego_T_car()) @ looking(60), "CAMERA_01": np.linalg.inv(ego_T_car()) @ looking()}
    lens = {"fx": 500.0, "fy": 505.0, "cx": 322.0, "cy": 205.0, "skew": 0.0}
    calibration = {
        "names": ["LIDAR", *car_T],
        "intrinsics": [dict.fromkeys(lens, 0.0), lens, lens],
        "extrinsics": [dgp_pose(np.eye(4)), *map(dgp_pose, car_T.values())],
    }
    size = {"length": 4.5, "width": 1.9, "height": 1.6}
    rows = [
        {"class_id": label, "instance_id": 7 + label, "box": {**size, "pose": dgp_pose(moved(np.eye(4), shift=(10, 0, 0.8)))}}
        for label in (2, 6)
    ]
    stamp = "2019-07-01T00:00:01.250000Z"
    scan = {"filename": "scan.npz", "pose": dgp_pose(world_T_car), "annotations": {"1": "bounding_box_3d/0.json"}}
    data = [{"key": "l", "id": {"name": "LIDAR", "timestamp": stamp}, "datum": {"point_cloud": scan}}]
    for name, car_T_camera in car_T.items():
        image = {"filename": f"{name}.png", "width": WH_PX[0], "height": WH_PX[1], "pose": dgp_pose(world_T_car @ car_T_camera)}
        data.append({"key": name, "id": {"name": name, "timestamp": stamp}, "datum": {"image": image}})
        cv2.imwrite(str(folder / f"{name}.png"), grey()[..., ::-1])
    np.savez(folder / "scan.npz", data=np.array([[10.0, 0.0, 0.8, 0.5]], np.float32))
    (folder / "scene_x.json").write_text(json.dumps({"data": data, "samples": [{"datum_keys": [row["key"] for row in data]}]}))
    (folder / "calibration" / "x.json").write_text(json.dumps(calibration))
    (folder / "ontology" / "x.json").write_text(json.dumps({"items": [{"id": 2, "name": "Car"}, {"id": 6, "name": "Train"}]}))
    (folder / "bounding_box_3d" / "0.json").write_text(json.dumps({"annotations": rows}))
    return folder


def test_a_dgp_scene_becomes_a_rig(tmp_path):
    rig, (frame,) = read_dgp(write_dgp(tmp_path / "scene"))
    assert rig.names == ("CAMERA_01", "CAMERA_05"), "the forward camera first"
    assert np.allclose(rig.cameras[1].ego_T_camera, looking(60))
    assert frame.box_label.tolist() == [DETECTION_CLASSES.index("car")] and frame.box_instance.tolist() == [9]
    assert np.allclose(frame.box[0, :7], [0.0, 10 - 0.94, 0.8 - 1.84, 4.5, 1.9, 1.6, np.pi / 2]) and np.isnan(frame.box[0, 7:]).all()
    assert np.allclose(frame.read_lidar(), frame.box[:, :3], atol=1e-6)
    assert np.allclose(frame.global_T_ego_then["CAMERA_05"], frame.global_T_ego, atol=1e-9)
    pictures = rig.pictures(frame.read_pictures(), global_T_ego=frame.global_T_ego, global_T_ego_then=frame.global_T_ego_then)
    assert pictures.available == (True, True) and frame.time_s == 1_561_939_201.25
    with pytest.raises(ValueError, match=r"expected one file scene_\*.json, found 0"):
        read_dgp(tmp_path)
    (tmp_path / "scene" / "scene_x.json").write_text("{}")
    with pytest.raises(ValueError, match="not a scene in the DGP format"):
        read_dgp(tmp_path / "scene")


def dgp_root() -> Path:
    shared = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("SPARSEDRIVE_DATA", shared)) / "dgp_surround"
    if not root.is_dir():
        pytest.skip(f"no DGP scenes at {root}; set SPARSEDRIVE_DATA to the folder that holds dgp_surround")
    return root


@pytest.mark.parametrize(("scene", "num_cameras", "num_boxes"), [("scene_01", 3, 159), ("scene_02", 6, 39)])
def test_boxes_land_where_another_makes_annotations_say(scene, num_cameras, num_boxes):
    """Lidar-frame boxes, through our rig and poses, against the recording's own boxes in each camera's frame (metres) and in its picture
    (pixels; whole ones, and ours lack the boxes' slight roll and pitch)."""
    folder = dgp_root() / scene
    rig, frames = read_dgp(folder)
    assert len(rig.names) == num_cameras
    content = json.loads(next(folder.glob("scene_*.json")).read_text())
    data = {row["key"]: row for row in content["data"]}
    centre_error_m, edge_error_px = [], []
    for frame, sample in zip(frames, content["samples"], strict=True):
        part = {data[key]["id"]["name"]: data[key]["datum"] for key in sample["datum_keys"]}
        blank = dict.fromkeys(rig.names)
        pictures = rig.pictures(blank, global_T_ego=frame.global_T_ego, global_T_ego_then=frame.global_T_ego_then)
        row_of = {instance: row for row, instance in enumerate(frame.box_instance.tolist())}
        for calibration, image_T_ego in zip(rig.cameras, pictures.image_T_ego.numpy(), strict=True):
            files = part[calibration.name]["image"]["annotations"]
            flat, solid = (json.loads((folder / files[kind]).read_text())["annotations"] for kind in "01")
            for annotation in solid:
                at = annotation["box"]["pose"]["translation"]
                centre = image_T_ego[:3, :3] @ frame.box[row_of[annotation["instance_id"]], :3] + image_T_ego[:3, 3]
                centre_error_m.append(np.abs(np.linalg.solve(calibration.intrinsic, centre) - [at[axis] for axis in "xyz"]).max())
            for annotation in flat:
                corners_m = box_state.corners(torch.from_numpy(frame.box[row_of[annotation["instance_id"]]]))
                pixels, depth_m = project_with_depth(corners_m, torch.from_numpy(image_T_ego))
                if depth_m.min() < 0.5:
                    continue
                low, high = (limit.numpy().clip(0, calibration.wh_px) for limit in (pixels.amin(0), pixels.amax(0)))
                x, y, w, h = (annotation["box"][key] for key in "xywh")
                edge_error_px += np.abs(np.array([*low, *high]) - [x, y, x + w, y + h]).tolist()
    assert len(centre_error_m) == num_boxes
    assert max(centre_error_m) < 1e-9
    assert len(edge_error_px) == 4 * num_boxes
    assert np.median(edge_error_px) < 1.0 and np.percentile(edge_error_px, 90) < 4.0
