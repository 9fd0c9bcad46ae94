"""Frames: what a model gets, from real pictures where they are there, and what happens when pictures are not."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from sparsedrive.data import ImagePreprocess, NuScenesLog, make_frame, read_pictures
from sparsedrive.geometry import box_state, camera
from sparsedrive.structures import NUSCENES_CAMERAS, cat_frames


@pytest.fixture(scope="module")
def real_scene(real_root):
    return NuScenesLog(real_root).scene("scene-0103")


@pytest.fixture
def demo_record(drive_root):
    return NuScenesLog(drive_root).scene("scene-0001")[0]


def in_place_of_front(record, path):
    """The record with another file as its front picture."""
    cameras = tuple(replace(camera, path=path) if camera.name == "CAM_FRONT" else camera for camera in record.cameras)
    return replace(record, cameras=cameras)


def test_real_frames(real_scene):
    for index in (0, 1):
        record, preprocess = real_scene[index], ImagePreprocess()
        frame = make_frame(record, preprocess, sequence_id=7)
        assert frame.images.shape == (1, 6, 3, 256, 704) and frame.images.dtype == torch.float32
        assert frame.rig.names == NUSCENES_CAMERAS and frame.rig.available.all()
        assert frame.global_T_ego.dtype == frame.time_s.dtype == torch.float64
        assert frame.time_s.item() == record.timestamp_us / 1e6
        assert frame.sequence_id.tolist() == [7] and frame.command.tolist() == [int(record.command)]
        assert frame.ego_status.shape == (1, 10) and frame.ego_status[0, 6] > 7
        assert torch.equal(frame.global_T_ego[0], record.global_T_ego)
        focal_px = torch.stack([record.camera(name).intrinsic[0, 0] for name in NUSCENES_CAMERAS]) * 0.44
        assert torch.allclose(frame.rig.focal_px[0].double(), focal_px)
        assert frame.rig.image_wh_px.tolist() == [[[704.0, 256.0]] * 6]


def test_real_pictures_are_the_cameras_own(real_scene):
    """An independent resize of each file gives the same picture to within a grey level; another camera's does not."""
    frame, preprocess = make_frame(real_scene[0], ImagePreprocess(), 0), ImagePreprocess()
    mean, std = torch.tensor(preprocess.mean_rgb), torch.tensor(preprocess.std_rgb)
    rgb = (frame.images[0] * std[:, None, None] + mean[:, None, None]).movedim(1, -1).numpy()
    for name, ours in zip(NUSCENES_CAMERAS, rgb, strict=True):
        bgr = cv2.imread(str(real_scene[0].camera(name).path))
        expected = cv2.resize(bgr, (704, 396), interpolation=cv2.INTER_AREA)[140:, :, ::-1]
        assert np.abs(ours - expected).mean() < 1


def test_network_pixels_are_original_pixels_scaled(real_scene):
    """Box corners through the frame's float32 matrices, against the original picture's pixels in float64."""
    record = real_scene[0]
    frame, pictures = make_frame(record, ImagePreprocess(), 0), read_pictures(record)
    corners_m = box_state.corners(record.annotations.box).reshape(-1, 3)
    for index in range(6):
        original, depth_m = camera.project_with_depth(corners_m, pictures.image_T_ego[index])
        network, _ = camera.project_with_depth(corners_m.float(), frame.rig.image_T_ego[0, index])
        inside = (depth_m > 1) & (original > 0).all(-1) & (original < torch.tensor([1600, 900])).all(-1)
        expected = original[inside] * 0.44 - torch.tensor([0.0, 140.0])
        assert torch.allclose(network[inside].double(), expected, rtol=0, atol=0.01)


def test_missing_picture_names_the_file(real_scene):
    record = real_scene[2]
    with pytest.raises(ValueError, match=r"scene-0103, sample \w+: no picture .*CAM_FRONT__\d+\.jpg \(6 of 6.*allow_missing"):
        make_frame(record, ImagePreprocess(), 0)


def test_missing_picture_is_black_and_not_available_when_allowed(demo_record, tmp_path):
    record = in_place_of_front(demo_record, tmp_path / "lost.jpg")
    with pytest.raises(ValueError, match=r"lost\.jpg \(1 of 6"):
        make_frame(record, ImagePreprocess(), 0)
    frame, whole = make_frame(record, ImagePreprocess(), 0, allow_missing=True), make_frame(demo_record, ImagePreprocess(), 0)
    assert frame.rig.available.tolist() == [[False, True, True, True, True, True]]
    assert torch.equal(frame.images[:, 1:], whole.images[:, 1:])
    assert torch.equal(frame.rig.image_T_ego, whole.rig.image_T_ego)
    black = -torch.tensor(ImagePreprocess().mean_rgb) / torch.tensor(ImagePreprocess().std_rgb)
    assert torch.allclose(frame.images[0, 0], black[:, None, None].expand(3, 256, 704))
    assert not read_pictures(record, allow_missing=True).rgb[0].any()


def test_damaged_pictures_are_errors(demo_record, tmp_path):
    content = demo_record.camera("CAM_FRONT").path.read_bytes()
    for name, damaged in (("empty.jpg", b""), ("half.jpg", content[: len(content) // 2]), ("text.jpg", b"not a picture")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name}: (not a picture|JPEG cut short)"):
            make_frame(in_place_of_front(demo_record, tmp_path / name), ImagePreprocess(), 0, allow_missing=True)


def test_picture_of_another_size_is_an_error(demo_record, tmp_path):
    cv2.imwrite(str(tmp_path / "small.jpg"), np.zeros((99, 176, 3), np.uint8))
    with pytest.raises(ValueError, match=r"small\.jpg: expected a picture of 352 x 198 .* got 176 x 99"):
        make_frame(in_place_of_front(demo_record, tmp_path / "small.jpg"), ImagePreprocess(), 0)


def test_camera_order_and_choice(demo_record):
    frame = make_frame(demo_record, ImagePreprocess(), 0, ("CAM_BACK", "CAM_FRONT"))
    whole = make_frame(demo_record, ImagePreprocess(), 0)
    assert frame.rig.names == ("CAM_BACK", "CAM_FRONT")
    assert torch.equal(frame.images, whole.images[:, [3, 0]])
    assert torch.equal(frame.rig.focal_px, whole.rig.focal_px[:, [3, 0]])
    with pytest.raises(ValueError, match=r"scene-0001, sample \w+: no key frame of camera 'CAM_SIDE'"):
        make_frame(demo_record, ImagePreprocess(), 0, ("CAM_SIDE",), allow_missing=True)


def test_frames_of_two_streams_make_a_batch(demo_record):
    frame = make_frame(demo_record, ImagePreprocess(), 0)
    assert cat_frames([frame, make_frame(demo_record, ImagePreprocess(), 1)]).sequence_id.tolist() == [0, 1]
