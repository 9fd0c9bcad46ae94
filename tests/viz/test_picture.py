import numpy as np
import pytest
import torch
from viz_samples import NAMES, box, look_along, pictures, rig, scene

from sparsedrive.viz import BevView, render_scene
from sparsedrive.viz.picture import _camera_grid


def test_size_and_type():
    picture = render_scene(pictures(), rig(), NAMES, scene(), title="scene", time_s=1.0, speed_mps=5.0)
    assert picture.dtype == np.uint8 and picture.shape[1] == 1920
    assert 600 < picture.shape[0] < 820 and picture.shape[0] % 2 == 0  # video codecs want even sizes


@pytest.mark.parametrize("width_px", [1000, 1280, 2560])
def test_other_widths(width_px):
    assert render_scene(pictures(), rig(), NAMES, scene(), width_px=width_px).shape[1] == width_px


def test_nuscenes_cameras_stand_as_seen_from_above():
    columns, rows, order = _camera_grid(list(NAMES))
    assert (columns, rows) == (3, 2)
    assert [NAMES[index] for index in order] == [
        "CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT",
    ]  # fmt: skip


def test_each_picture_lands_in_its_slot():
    marked = pictures(0)
    marked[NAMES.index("CAM_FRONT")][:] = (200, 10, 10)
    picture = render_scene(marked, rig(), NAMES, scene(), score_threshold=2.0)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 60) & (picture[..., 2] < 60)
    rows, columns = np.nonzero(red[:, :1400])  # the bird's-eye view, on the right, has red lines too
    assert rows.mean() < picture.shape[0] / 2
    assert picture.shape[1] * 0.25 < columns.min() and columns.max() < picture.shape[1] * 0.52


def test_by_name_and_by_order_are_the_same():
    images = pictures()
    images[3][:] = 30
    by_name = render_scene(dict(zip(NAMES, images, strict=True)), rig(), NAMES, scene())
    assert np.array_equal(by_name, render_scene(images, rig(), NAMES, scene()))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_other_rigs(count):
    names = tuple(f"ring_{index}" for index in range(count))
    images = [np.full((90 + 30 * index, 120, 3), 80, np.uint8) for index in range(count)]
    matrices = torch.eye(4).repeat(count, 1, 1)
    picture = render_scene(images, matrices, names, scene(), view=BevView(right_m=20, back_m=10, forward_m=30))
    assert picture.shape[1] == 1920


def test_nothing_is_drawn_beside_a_narrow_picture():
    narrow = np.full((900, 400, 3), 90, np.uint8)
    around = torch.tensor([box(0.0, 0.2, z=0.0, size=(8.0, 6.0, 3.0))])
    picture = render_scene([narrow], look_along()[None], ["FRONT"], scene(), annotation_boxes=around)
    before = render_scene([narrow], look_along()[None], ["FRONT"], scene(), score_threshold=2.0)
    columns = np.flatnonzero((picture != before).any(-1)[60:400, :1000].any(0))
    tile = np.flatnonzero((before == 90).all(-1)[200])
    assert len(columns) and tile[0] <= columns.min() and columns.max() <= tile[-1]


def test_failed_camera_shows_as_an_empty_tile():
    images = [*pictures()[:5], None]
    picture = render_scene(images, rig(), NAMES, scene())
    assert not np.array_equal(picture, render_scene(pictures(), rig(), NAMES, scene()))


def test_annotations_add_white_wires():
    annotated = render_scene(pictures(), rig(), NAMES, scene(), annotation_boxes=torch.tensor([box(3.0, 18.0)]))
    assert not np.array_equal(annotated, render_scene(pictures(), rig(), NAMES, scene()))


def test_inputs_are_not_changed():
    images = pictures()
    render_scene(images, rig(), NAMES, scene())
    assert all((image == 90).all() for image in images)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="got 5 images"):
        render_scene(pictures()[:5], rig(), NAMES, scene())
    with pytest.raises(ValueError, match=r"CAM_FRONT: expected an RGB picture \[H, W, 3\] uint8, got \(360, 640, 3\) float64"):
        render_scene([pictures()[0] / 255, *pictures()[1:]], rig(), NAMES, scene())
    with pytest.raises(ValueError, match="width_px 300 is too small"):
        render_scene(pictures(), rig(), NAMES, scene(), width_px=300)
