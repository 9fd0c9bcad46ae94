import numpy as np
import torch
from viz_samples import FOCAL_PX, HEIGHT_PX, WIDTH_PX, box, detections, lines, look_along, plan, scene

from sparsedrive.geometry import box_state
from sparsedrive.structures import Scene
from sparsedrive.viz import camera_view, draw_camera_view, select
from sparsedrive.viz.camera_view import GROUND_Z_M, draw_box

NOTHING = lines([])


def blank() -> np.ndarray:
    return np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)


def drawn(shown_scene: Scene, yaw_deg: float = 0.0, **options) -> np.ndarray:
    picture = blank()
    draw_camera_view(picture, look_along(yaw_deg).numpy(), select(shown_scene), **options)
    return picture


def only_boxes(*rows) -> Scene:
    return Scene(detections=detections([(row, 0, 0.9, -1) for row in rows]), map=NOTHING, forecasts=None, plan=None)


def columns_and_rows(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ink = picture.any(-1)
    return np.flatnonzero(ink.any(0)), np.flatnonzero(ink.any(1))


def test_box_covers_its_projection_and_nothing_else():
    item = box(0.0, 12.25, z=0.0, size=(4.5, 2.0, 2.0))
    shown = select(only_boxes(item))
    picture = blank()
    image = look_along().numpy()
    draw_box(picture, image, shown.boxes[0])
    columns, rows = columns_and_rows(picture)
    half_px = FOCAL_PX / 10  # 1 m at the near face, 10 m away
    assert abs(columns[0] - (WIDTH_PX / 2 - half_px)) <= 2 and abs(columns[-1] - (WIDTH_PX / 2 + half_px)) <= 2
    assert abs(rows[0] - (HEIGHT_PX / 2 - half_px)) <= 2 and abs(rows[-1] - (HEIGHT_PX / 2 + half_px)) <= 2


def test_front_face_is_the_tinted_one():
    towards_us = drawn(only_boxes(box(0.0, 12.25, z=0.0, yaw=-np.pi / 2, size=(4.5, 2.0, 2.0))))
    away = drawn(only_boxes(box(0.0, 12.25, z=0.0, yaw=np.pi / 2, size=(4.5, 2.0, 2.0))))
    near_face_px = (HEIGHT_PX // 2, WIDTH_PX // 2 + 35)  # inside the near face, outside the far one
    assert towards_us[near_face_px].any()
    assert not away[near_face_px].any()


def test_box_behind_the_camera_draws_nothing_and_shows_in_the_back_camera():
    behind = only_boxes(box(0.0, -12.0, z=0.0))
    assert not drawn(behind).any()
    assert drawn(behind, yaw_deg=180.0).any()


def test_box_around_the_camera_draws_finite_lines_only():
    picture = drawn(only_boxes(box(0.3, 0.2, z=0.1, size=(8.0, 6.0, 3.0))))
    columns, rows = columns_and_rows(picture)
    assert len(columns) and len(rows)


def test_map_line_lies_on_the_road():
    line = Scene(detections=detections([]), map=lines([([[-3.0, 10.0], [3.0, 10.0]], 2, 0.9)]), forecasts=None, plan=None)
    columns, rows = columns_and_rows(drawn(line))
    assert abs(rows.mean() - (HEIGHT_PX / 2 - GROUND_Z_M * FOCAL_PX / 10)) <= 1
    assert abs(columns[0] - (WIDTH_PX / 2 - 3 * FOCAL_PX / 10)) <= 3


def test_plan_ribbon_is_below_the_horizon_and_only_in_front():
    planned = Scene(detections=detections([]), map=NOTHING, forecasts=None, plan=plan())
    _, rows = columns_and_rows(drawn(planned))
    assert rows.min() > HEIGHT_PX / 2 and rows.max() == HEIGHT_PX - 1
    assert not drawn(planned, yaw_deg=180.0).any()


def test_standing_plan_draws_no_ribbon():
    planned = Scene(detections=detections([]), map=NOTHING, forecasts=None, plan=plan(speed_mps=0.0))
    assert not drawn(planned).any()


def test_annotations_are_white_wires():
    empty = Scene(detections=detections([]), map=NOTHING, forecasts=None, plan=None)
    corners_m = box_state.corners(torch.tensor([box(0.0, 12.0, z=0.0)])).numpy()
    picture = drawn(empty, annotation_corners_m=corners_m)
    assert picture.any()
    assert (picture[..., 0] == picture[..., 1]).all() and picture.max() > 250


def test_label_of_the_nearer_box_wins(monkeypatch):
    picture = blank()
    two = Scene(detections=detections([(box(0.0, 10.0), 0, 0.9, 1), (box(0.1, 10.5), 8, 0.8, 2)]), map=NOTHING, forecasts=None, plan=None)
    labels: list[str] = []
    monkeypatch.setattr(camera_view, "draw_text", lambda picture, text, *rest, **more: labels.append(text))
    draw_camera_view(picture, look_along().numpy(), select(two))
    assert labels == ["car 1"]


def test_the_full_scene_changes_the_picture_where_expected():
    assert drawn(scene()).any() and drawn(scene(), yaw_deg=55.0).any()
