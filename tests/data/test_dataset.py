"""Frames of a prepared folder: pictures, calibration and targets that agree with each other whatever was done to them."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from prepared_samples import change_scene, write_picture, write_prepared
from torch.utils import _pytree as pytree

from sparsedrive.data.augment import AugmentConfig, draw_augmentation
from sparsedrive.data.collate import collate
from sparsedrive.data.dataset import DrivingDataset, LoadConfig, LoadedFrame
from sparsedrive.data.failures import RandomFailures
from sparsedrive.data.nuscenes import make_frame
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.records import to_record
from sparsedrive.data.sampler import FrameRequest
from sparsedrive.data.targets import TargetConfig
from sparsedrive.geometry import box_state
from sparsedrive.geometry.camera import project_with_depth

SCENE = "scene-0000"
PLAIN = LoadConfig(preprocess=ImagePreprocess(final_wh_px=(96, 32)))
ALL_BOXES = TargetConfig(returns="none", max_range_m=1e3, depth_strides=(4, 8))
TURNING = replace(PLAIN, augment=AugmentConfig(turn_deg=(-40, 40)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def own_data(tmp_path):
    """One to break."""
    return write_prepared(tmp_path, frames=(5,))


def load(data, config: LoadConfig, frame: int = 3, sequence_id: int = 0, **options) -> LoadedFrame:
    return DrivingDataset(data, "train", config, **options)[FrameRequest(scene=SCENE, frame=frame, sequence_id=sequence_id)]


def global_xy(frame: LoadedFrame, points_m: np.ndarray) -> np.ndarray:
    """Points in the ego plane, in the global frame."""
    return points_m @ frame.global_T_ego[:2, :2].T + frame.global_T_ego[:2, 3]


def test_without_augmentation_the_pixels_are_those_of_evaluation(data):
    frame, scene = load(data, PLAIN), data.scene(SCENE)
    for camera, path in enumerate(scene.image_paths[3]):
        rgb = cv2.cvtColor(cv2.imread(str(data.root / path)), cv2.COLOR_BGR2RGB)
        assert torch.equal(torch.from_numpy(frame.images[camera]), PLAIN.preprocess(rgb))
        network_T_image = PLAIN.preprocess.network_T_image((160, 90)).numpy()
        image_T_camera = np.eye(4)
        image_T_camera[:3, :3] = scene.intrinsic[3, camera]
        expected = network_T_image @ image_T_camera @ scene.camera_T_ego[3, camera]
        np.testing.assert_allclose(frame.image_T_ego[camera], expected, rtol=1e-6, atol=1e-5)
        assert frame.focal_px[camera] == pytest.approx(0.6 * 80)
    np.testing.assert_array_equal(frame.global_T_ego, scene.global_T_ego[3])
    assert frame.time_s == scene.timestamp_us[3] * 1e-6 and frame.command == scene.command[3]
    np.testing.assert_array_equal(frame.ego_status_known, scene.ego_status_known[3])


def test_evaluation_frames_are_those_of_streaming(data):
    """Bit for bit what the log's own reader gives a model."""
    frame, _ = collate([load(data, PLAIN, sequence_id=5)])
    expected = make_frame(to_record(data, data.scene(SCENE), 3), PLAIN.preprocess, 5)
    for ours, theirs in zip(pytree.tree_leaves(frame), pytree.tree_leaves(expected), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


@pytest.mark.parametrize("sequence_id", range(4))
def test_turned_frames_mean_the_same_world(data, sequence_id):
    """Boxes, velocities, futures, map and ego future: other numbers in the ego frame, the same ones in the global frame."""
    config = replace(TURNING, targets=ALL_BOXES)
    plain, turned = load(data, replace(PLAIN, targets=ALL_BOXES)), load(data, config, sequence_id=sequence_id)
    assert np.abs(turned.global_T_ego - plain.global_T_ego).max() > 0.01
    ours, expected = turned.targets, plain.targets
    for name in ("label", "instance", "lidar_returns", "agent_valid", "ego_valid"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))
    close = {"atol": 1e-4, "rtol": 0}
    np.testing.assert_allclose(global_xy(turned, ours.box[:, :2]), global_xy(plain, expected.box[:, :2]), **close)
    np.testing.assert_allclose(ours.box[:, 2:6], expected.box[:, 2:6])
    rotations = [frame.global_T_ego[:2, :2].T for frame in (turned, plain)]
    headings = [np.stack([np.cos(box[:, 6]), np.sin(box[:, 6])], 1) for box in (ours.box, expected.box)]
    np.testing.assert_allclose(headings[0] @ rotations[0], headings[1] @ rotations[1], **close)
    assert np.abs(ours.box[:, 6]).max() <= np.pi + 1e-6
    np.testing.assert_allclose(ours.box[:, 7:9] @ rotations[0], expected.box[:, 7:9] @ rotations[1], **close)
    assert np.isnan(ours.box[:, 7]).any()  # what is not known stays unknown
    np.testing.assert_allclose(global_xy(turned, ours.agent_m), global_xy(plain, expected.agent_m), **close)
    np.testing.assert_allclose(global_xy(turned, ours.ego_m), global_xy(plain, expected.ego_m), **close)


@pytest.mark.parametrize("sequence_id", range(4))
def test_boxes_are_seen_at_the_same_pixels_after_turning(data, sequence_id):
    """Corners of every box in every picture, against the draw's pixel transform of where they were."""
    plain, config = load(data, replace(PLAIN, targets=ALL_BOXES)), replace(TURNING, targets=ALL_BOXES)
    turned = load(data, config, sequence_id=sequence_id)
    augmentation = draw_augmentation(config.augment, 0, sequence_id, 3)
    moved = augmentation.network_T_image((160, 90), (96, 32)) @ np.linalg.inv(PLAIN.preprocess.network_T_image((160, 90)).numpy())
    corners = [box_state.corners(torch.from_numpy(frame.targets.box).double()).reshape(-1, 3) for frame in (plain, turned)]
    seen = 0
    for camera in range(6):
        before_px, depth_m = project_with_depth(corners[0], torch.from_numpy(plain.image_T_ego[camera]).double())
        after_px, _ = project_with_depth(corners[1], torch.from_numpy(turned.image_T_ego[camera]).double())
        near = (depth_m > 1) & (before_px.abs().amax(-1) < 500)
        expected = before_px.numpy() @ moved[:2, :2].T + moved[:2, 2]
        seen += int(near.sum())
        np.testing.assert_allclose(after_px[near].numpy(), expected[near.numpy()], atol=1e-3)
    assert seen > 20


@pytest.mark.parametrize("sequence_id", range(4))
def test_map_lines_are_cut_after_turning(data, sequence_id):
    """All of the region is filled in the turned frame, from lines that reach beyond it in the plain one."""
    frame, scene = load(data, TURNING, sequence_id=sequence_id), data.scene(SCENE)
    dense_m = [np.linspace(begin, end, 400) for _, points_m in scene.lines_of(3) for begin, end in pairwise(points_m)]
    line_xy = global_xy(load(data, PLAIN), np.concatenate(dense_m))
    spans = []
    for orders_m in frame.targets.map_orders_m:
        assert np.abs(orders_m[..., 0]).max() <= 15 + 1e-4 and np.abs(orders_m[..., 1]).max() <= 30 + 1e-4
        distance_m = np.linalg.norm(global_xy(frame, orders_m[0])[:, None] - line_xy, axis=-1).min(1)
        assert distance_m.max() < 0.25  # half the spacing of the dense points, and corners that resampling cuts
        spans.append(np.abs(orders_m[..., :]).reshape(-1, 2).max(0))
    at_edge = [x > 14.7 or y > 29.7 for x, y in spans]
    assert sum(at_edge) >= 3
    assert {len(orders_m) for orders_m in frame.targets.map_orders_m} == {2, 38}


def test_depth_belongs_to_the_pictures(data):
    """What the maps hold is where the scan's points fall, with or without a turned ego frame."""
    config = replace(TURNING, targets=replace(ALL_BOXES, depth_strides=(1, 4)))
    frame, scene = load(data, config, sequence_id=2), data.scene(SCENE)
    points = np.fromfile(data.root / scene.lidar_paths[3], np.float32).reshape(-1, 5)[:, :3].astype(float)
    turned_T_ego = draw_augmentation(config.augment, 0, 2, 3).turned_T_ego()
    turned_m = torch.from_numpy(points @ turned_T_ego[:3, :3].T)
    hits = 0
    for camera, level in enumerate(frame.targets.depth_m[0]):
        at_px, depth_m = project_with_depth(turned_m, torch.from_numpy(frame.image_T_ego[camera]).double())
        column, line = at_px.round().long().unbind(-1)
        seen = (depth_m > 0.2) & (column >= 0) & (column < 96) & (line >= 0) & (line < 32) & (turned_m[:, :2].abs().amin(-1) > 1.5)
        stored = level[line[seen], column[seen]]
        assert (stored <= depth_m[seen].clamp(max=60).numpy() + 1e-3).all() and (stored > 0).all()
        hits += int(seen.sum())
    assert hits > 50
    assert [level.shape for level in frame.targets.depth_m] == [(6, 32, 96), (6, 8, 24)]


def test_more_scans_give_more_depth(data):
    counts = [(load(data, replace(PLAIN, targets=TargetConfig(depth_sweeps=sweeps))).targets.depth_m[0] > 0).sum() for sweeps in (0, 1)]
    assert counts[1] > 1.3 * counts[0] > 0


def test_a_missing_scan_is_no_depth(own_data):
    change_scene(own_data, SCENE, lidar_present=np.zeros(5, bool))
    assert not any(level.any() for level in load(own_data, PLAIN).targets.depth_m)
    assert load(own_data, replace(PLAIN, targets=TargetConfig(depth_strides=()))).targets.depth_m == ()


def test_boxes_that_count(data):
    scene = data.scene(SCENE)
    rows = scene.boxes_of(3)
    far = np.linalg.norm(scene.box[rows, :2], axis=1)
    for returns, keep in (("lidar", scene.lidar_returns[rows] > 0), ("none", np.ones(len(far), bool))):
        for range_m in (20.0, 55.0):
            found = load(data, replace(PLAIN, targets=TargetConfig(returns=returns, max_range_m=range_m))).targets
            np.testing.assert_array_equal(found.instance, scene.box_instance[rows][keep & (far <= range_m)])
            assert len(found.agent_m) == len(found.label) == len(found.box)
    valid = load(data, replace(PLAIN, targets=TargetConfig(returns="lidar or radar"))).targets
    assert 0 in valid.instance and (valid.lidar_returns > 0).all()  # the radar sees it


def test_a_sequence_looks_the_same_from_frame_to_frame(data):
    rigs = [load(data, TURNING, frame=frame, sequence_id=1).image_T_ego for frame in (0, 1, 2)]
    np.testing.assert_array_equal(rigs[0], rigs[1])
    assert np.abs(load(data, TURNING, frame=0, sequence_id=2).image_T_ego - rigs[0]).max() > 1
    each = replace(TURNING, augment=replace(TURNING.augment, per_sequence=False))
    assert np.abs(load(data, each, frame=0).image_T_ego - load(data, each, frame=1).image_T_ego).max() > 1
    colours = [load(data, TURNING, frame=0, sequence_id=sequence).images.mean((2, 3)) for sequence in (1, 1, 2)]
    np.testing.assert_array_equal(colours[0], colours[1])
    assert np.abs(colours[0] - colours[2]).max() > 0.1


def test_decoding_smaller_changes_pixels_little(data):
    config = replace(PLAIN, preprocess=ImagePreprocess(final_wh_px=(64, 32)), augment=AugmentConfig(colour=None))
    reduced, full = (load(data, replace(config, reduced_decode=choice)).images for choice in (True, False))
    assert np.abs(reduced - full).mean() < 0.03 and (reduced != full).any()


@pytest.mark.parametrize("config", [PLAIN, TURNING], ids=["evaluation", "training"])
def test_failed_cameras_are_black_and_said_to_be_missing(data, config):
    failures = RandomFailures(probability=1.0)
    frame, whole = load(data, config, failures=failures), load(data, config)
    lost = failures.failed(0, 3, frame.camera_names)
    np.testing.assert_array_equal(frame.available, ~lost)
    assert lost.any()
    np.testing.assert_array_equal(frame.images[~lost], whole.images[~lost])
    grey = -np.array(PLAIN.preprocess.mean_rgb) / PLAIN.preprocess.std_rgb
    np.testing.assert_allclose(frame.images[lost], np.broadcast_to(grey[:, None, None], frame.images[lost].shape), rtol=1e-6)
    assert all(not level[lost].any() and level[~lost].any() for level in frame.targets.depth_m)
    np.testing.assert_array_equal(frame.image_T_ego, whole.image_T_ego)


def test_missing_pictures_are_an_error_skipped_or_black(own_data):
    present = np.ones((5, 6), bool)
    present[2, 1] = present[4, :] = False
    change_scene(own_data, SCENE, image_present=present)
    (own_data.root / own_data.scene(SCENE).image_paths[2][1]).unlink()
    with pytest.raises(
        ValueError, match=r"scene-0000: 2 of 5 frames lack pictures.*CAM_FRONT_RIGHT/scene-0000-2\.jpg.*missing_images='skip'"
    ):
        DrivingDataset(own_data, "train", PLAIN)
    skipping = DrivingDataset(own_data, "train", replace(PLAIN, missing_images="skip"))
    assert [(run.start, run.stop) for run in skipping.runs] == [(0, 2), (3, 4)] and len(skipping) == 3
    black = replace(PLAIN, missing_images="black")
    assert [(run.start, run.stop) for run in DrivingDataset(own_data, "train", black).runs] == [(0, 5)]
    frame = load(own_data, black, frame=2)
    assert frame.available.tolist() == [True, False, True, True, True, True] and frame.images[1].max() < -1
    change_scene(own_data, SCENE, image_present=np.zeros((5, 6), bool))
    with pytest.raises(ValueError, match="no frame to load"):
        DrivingDataset(own_data, "train", replace(PLAIN, missing_images="skip"))


def test_only_the_cameras_asked_for_count(own_data):
    names = ("CAM_BACK", "CAM_FRONT")
    present = np.ones((5, 6), bool)
    present[:, 1] = False
    change_scene(own_data, SCENE, image_present=present)
    frame = load(own_data, replace(PLAIN, camera_names=names))
    assert frame.camera_names == names
    whole = load(own_data, replace(PLAIN, missing_images="black"))
    np.testing.assert_array_equal(frame.images, whole.images[[3, 0]])
    np.testing.assert_array_equal(frame.image_T_ego, whole.image_T_ego[[3, 0]])


def test_another_rig(tmp_path):
    cameras = ("left", "ahead", "right")
    data = write_prepared(tmp_path, frames=(2,), cameras=cameras, wh_px=(193, 121))
    frame = load(data, replace(TURNING, camera_names=cameras), frame=1)
    assert frame.images.shape == (3, 3, 32, 96) and frame.available.all()
    with pytest.raises(ValueError, match=r"no camera \['CAM_FRONT'.*there is \['left', 'ahead', 'right'\]"):
        DrivingDataset(data, "train", PLAIN)


def test_a_padding_row_has_nothing_to_learn_from(data):
    frame = DrivingDataset(data, "train", PLAIN)[FrameRequest(scene=SCENE, frame=1, sequence_id=9, padding=True)]
    assert not frame.available.any() and not len(frame.targets.box) and not frame.targets.map_orders_m
    assert not frame.targets.ego_valid.any() and not any(level.any() for level in frame.targets.depth_m)


@pytest.mark.parametrize("config", [PLAIN, TURNING], ids=["evaluation", "training"])
def test_a_damaged_picture_is_named(own_data, config):
    path = own_data.root / own_data.scene(SCENE).image_paths[3][4]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"CAM_BACK_LEFT/scene-0000-3\.jpg: .*cut short"):
        load(own_data, config)
    write_picture(path, np.zeros((30, 60, 3), np.uint8))
    with pytest.raises(ValueError, match=r"scene-0000-3\.jpg: expected a picture of 160 x 90 pixels"):
        load(own_data, config)
    path.unlink()
    with pytest.raises(ValueError, match=r"scene-0000-3\.jpg: cannot be read"):
        load(own_data, config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoadConfig(missing_images="none"), "missing_images"),
        (lambda: LoadConfig(camera_names=("a", "a")), "camera_names"),
        (lambda: TargetConfig(returns="radar"), "returns"),
        (lambda: TargetConfig(max_range_m=0), "max_range_m"),
        (lambda: TargetConfig(map_roi_wh_m=(60.0, 60.0)), "within 34.0 m"),
        (lambda: TargetConfig(map_points=1), "map_points"),
        (lambda: TargetConfig(depth_strides=(4, 0)), "depth_strides"),
    ],
)
def test_impossible_configurations_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
