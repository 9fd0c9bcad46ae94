"""The generated log: what it holds, that the reader agrees with the painter, and that it is the same every time."""

import math
import shutil

import cv2
import numpy as np
import pytest

from sparsedrive.data import ImagePreprocess, NuScenesLog, make_frame, read_pictures, write_demo_log
from sparsedrive.data.demo_scene import COLOUR_BGR
from sparsedrive.data.nuscenes.annotations import CLASS_OF_CATEGORY
from sparsedrive.geometry import box_state, camera, se3
from sparsedrive.structures import DETECTION_CLASSES, NUSCENES_CAMERAS, Command

COLOUR_OF_CLASS = {CLASS_OF_CATEGORY[category]: np.array(bgr[::-1], float) for category, bgr in COLOUR_BGR.items()}


@pytest.fixture(scope="module")
def scene(demo_root):
    return NuScenesLog(demo_root).scene("scene-0001")


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_reads_as_one_scene_of_eight_frames(demo_root, scene):
    assert NuScenesLog(demo_root).scenes == ("scene-0001",)
    assert [record.timestamp_us - scene[0].timestamp_us for record in scene] == [500_000 * i for i in range(8)]
    for record in scene:
        frame = make_frame(record, ImagePreprocess(), 0)
        assert frame.rig.names == NUSCENES_CAMERAS and frame.rig.available.all()
        assert record.ego_status_known.all()
        assert all(0 < record.timestamp_us - camera.timestamp_us < 50_000 for camera in record.cameras)
        assert len(set(record.annotations.instance_tokens)) == len(record.annotations.box) >= 10
    assert {DETECTION_CLASSES[label] for label in scene[0].annotations.label} == set(COLOUR_OF_CLASS)


def test_same_seed_same_bytes_other_seed_other_log(demo_root, tmp_path):
    expected = files(demo_root)
    assert files(write_demo_log(tmp_path / "again")) == expected
    other = files(write_demo_log(tmp_path / "other", seed=1, seconds=0.5))
    name = next(name for name in expected if name.name == "sample_annotation.json")
    assert other[name] != expected[name]


def test_command_and_ego_status_fit_the_path(demo_root, scene):
    for before, now, after in zip(scene, scene[1:], scene[2:], strict=False):
        moved = se3.relative(before.global_T_car, after.global_T_car)
        yaw_rate = math.atan2(moved[1, 0], moved[0, 0]) / (after.time_s - before.time_s)
        speed_mps = moved[:2, 3].norm().item() / (after.time_s - before.time_s)
        assert now.ego_status[6].item() == pytest.approx(speed_mps, abs=0.5)
        assert now.ego_status[5].item() == pytest.approx(yaw_rate, abs=0.2)  # the bend begins between two key frames
        assert now.ego_status[5] * now.ego_status[9] >= 0  # steering to the left turns left
    turned_rad = se3.relative(scene[0].global_T_car, scene[-1].global_T_car)
    turn = Command.LEFT if turned_rad[1, 0] > 0.2 else Command.RIGHT
    assert [record.command for record in scene] == [Command.STRAIGHT] + [turn] * 4 + [Command.STRAIGHT] * 3


def hulls(record, image_T_ego, wh_px):
    """Per annotation: mask of the projected box, and whether it lies inside the picture as a whole."""
    masks = []
    for corners_m in box_state.corners(record.annotations.box):
        pixels, depth_m = camera.project_with_depth(corners_m, image_T_ego)
        inside = depth_m.min() > 1 and pixels.min() > 0 and (pixels.max(0).values.numpy() < wh_px).all()
        mask = np.zeros((wh_px[1], wh_px[0]), np.uint8)
        if depth_m.min() > 0.1:
            cv2.fillConvexPoly(mask, cv2.convexHull(np.round(pixels.numpy().clip(-2000, 4000)).astype(np.int32)), 1)
        masks.append((mask.astype(bool), bool(inside)))
    return masks


def is_colour(rgb, colour):
    """Where the picture has the hue of `colour`, whatever the shade."""
    return (rgb @ colour) / (np.linalg.norm(rgb, axis=-1) * np.linalg.norm(colour) + 1e-6) > 0.985


def test_boxes_project_onto_the_painted_objects(scene):
    """Inside the hull its colour, around the hull not.

    Left out: fast objects (the picture is a little older than the box), cars (no plain boxes), those close to another one's hull.
    """
    inside_share, outside_share = [], []
    for record in scene:
        pictures = read_pictures(record)
        for rgb, image_T_ego in zip(pictures.rgb, pictures.image_T_ego, strict=True):
            masks = hulls(record, image_T_ego, (rgb.shape[1], rgb.shape[0]))
            for index, (mask, inside) in enumerate(masks):
                name = DETECTION_CLASSES[record.annotations.label[index]]
                fast = record.annotations.box[index, 7:9].norm() > 0.7
                if not inside or fast or mask.sum() < 300 or name not in ("barrier", "traffic_cone", "pedestrian"):
                    continue
                around = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
                if any((around & other).any() for number, (other, _) in enumerate(masks) if number != index):
                    continue
                core = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
                ring = around & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
                found = is_colour(rgb.astype(float), COLOUR_OF_CLASS[name])
                inside_share.append(found[core].mean())
                outside_share.append(found[ring].mean())
    assert len(inside_share) >= 8
    assert min(inside_share) > 0.95
    assert max(outside_share) < 0.05


def test_velocities_are_those_of_the_actors(scene):
    record = scene[3]
    speed_mps = record.annotations.box[:, 7:9].norm(dim=-1)
    for label, limits in (("traffic_cone", (0, 1e-6)), ("barrier", (0, 1e-6)), ("pedestrian", (0, 2)), ("truck", (4, 7.5))):
        chosen = speed_mps[record.annotations.label == DETECTION_CLASSES.index(label)]
        assert len(chosen) and ((chosen >= limits[0]) & (chosen <= limits[1])).all()


def test_length_follows_seconds_and_limits(tmp_path):
    assert len(NuScenesLog(write_demo_log(tmp_path / "short", seconds=1.0)).scene("scene-0001")) == 2
    for seconds in (0.2, 11):
        with pytest.raises(ValueError, match=r"0\.5 to 10 seconds"):
            write_demo_log(tmp_path / "none", seconds=seconds)
    assert not (tmp_path / "none").exists()


def test_folder_with_other_tables_is_refused(tmp_path):
    (tmp_path / "v1.0-mini").mkdir()
    with pytest.raises(ValueError, match=r"already holds \['v1.0-mini'\]"):
        write_demo_log(tmp_path)
    shutil.rmtree(tmp_path / "v1.0-mini")
    write_demo_log(tmp_path, seconds=0.5)
    write_demo_log(tmp_path, seconds=0.5)  # its own files it writes again
