import numpy as np
import pytest
from viz_samples import FOCAL_PX, HEIGHT_PX, NAMES, WIDTH_PX, box, look_along, rig

from sparsedrive.viz.calibration import (
    HORIZON,
    camera_colour,
    distance_colours,
    draw_ground,
    draw_lidar,
    field_of_view_m,
    horizon_px,
    render_calibration,
)
from sparsedrive.viz.camera_view import GROUND_Z_M


def blank() -> np.ndarray:
    return np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)


def tilted(pitch_rad: float = 0.0, roll_rad: float = 0.0) -> np.ndarray:
    """Camera at the origin, looking ahead, turned up by pitch, rolled clockwise."""
    c, s, rc, rs = np.cos(pitch_rad), np.sin(pitch_rad), np.cos(roll_rad), np.sin(roll_rad)
    right, down, forward = np.array([1.0, 0, 0]), np.array([0, s, -c]), np.array([0, c, s])
    rolled = np.stack([rc * right + rs * down, rc * down - rs * right, forward])
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[FOCAL_PX, 0, WIDTH_PX / 2], [0, FOCAL_PX, HEIGHT_PX / 2], [0, 0, 1]]) @ rolled
    return matrix


def test_horizon_of_a_level_camera_is_at_its_middle():
    ends = horizon_px(look_along(30).numpy(), WIDTH_PX, HEIGHT_PX)
    assert np.allclose(ends[:, 1], HEIGHT_PX / 2, atol=1e-6) and sorted(ends[:, 0].round().tolist()) == [0, WIDTH_PX]


@pytest.mark.parametrize("pitch_rad", [-0.2, 0.1])
def test_horizon_moves_with_pitch_and_turns_with_roll(pitch_rad):
    ends = horizon_px(tilted(pitch_rad), WIDTH_PX, HEIGHT_PX)
    assert np.allclose(ends[:, 1], HEIGHT_PX / 2 + FOCAL_PX * np.tan(pitch_rad), atol=1e-6)
    left, right = sorted(horizon_px(tilted(0, 0.1), WIDTH_PX, HEIGHT_PX).tolist())
    assert left[1] - right[1] == pytest.approx(WIDTH_PX * np.tan(0.1), abs=1e-6)


def test_no_horizon_when_it_is_not_in_the_picture():
    assert horizon_px(tilted(-1.2), WIDTH_PX, HEIGHT_PX) is None
    assert horizon_px(tilted(-np.pi / 2), WIDTH_PX, HEIGHT_PX) is None


def test_rings_lie_on_the_road():
    picture = blank()
    draw_ground(picture, look_along().numpy())
    yellow = (picture[:, WIDTH_PX // 4, :2].min(1) > 120) & (picture[:, WIDTH_PX // 4, 2] < 200)
    found = np.flatnonzero(yellow)
    x_share = (WIDTH_PX / 4 - WIDTH_PX / 2) / FOCAL_PX
    for radius_m in (10.0, 20.0):
        depth_m = radius_m / np.hypot(1, x_share)
        assert np.abs(found - (HEIGHT_PX / 2 - GROUND_Z_M * FOCAL_PX / depth_m)).min() <= 1.5
    assert found.min() > HEIGHT_PX / 2
    assert np.abs(picture[HEIGHT_PX // 2 - 1 : HEIGHT_PX // 2 + 1, WIDTH_PX // 3].astype(int) - HORIZON).max(1).min() < 40


def test_ground_below_another_height():
    low, high = blank(), blank()
    draw_ground(low, look_along().numpy(), -3.0)
    draw_ground(high, look_along().numpy(), -1.0)
    assert (low != high).any()


def test_lidar_returns_are_where_they_project_near_over_far():
    picture = blank()
    points_m = np.array([[0.0, 5.0, 0.0], [0.0, 50.0, 0.0], [2.0, 10.0, 1.0], [0.0, -5.0, 0.0], [90.0, 5.0, 0.0]])
    draw_lidar(picture, look_along().numpy(), points_m)
    near, far = distance_colours(np.array([5.0, 50.0]))
    assert (picture[HEIGHT_PX // 2, WIDTH_PX // 2] == near).all()
    assert near[0] > near[2] and far[2] > far[0], "red near, blue far"
    assert picture[HEIGHT_PX // 2 - 40, WIDTH_PX // 2 + 80].any()
    size = round(WIDTH_PX / 350)
    assert np.count_nonzero(picture.any(-1)) == 2 * size * size


def test_field_of_view_points_where_the_camera_looks():
    for yaw_deg in (0.0, 60.0, -120.0):
        moved = look_along(yaw_deg).numpy()
        moved[:3, 3] = -moved[:3, :3] @ [3.0, 1.0, 0.5]
        place, left, right = field_of_view_m(moved, (WIDTH_PX, HEIGHT_PX), 10.0)
        assert np.allclose(place, [3.0, 1.0])
        half = np.arctan(WIDTH_PX / 2 / FOCAL_PX)
        for edge, turn in ((left, half), (right, -half)):
            angle = np.radians(yaw_deg) + turn
            assert np.allclose(edge - place, [-10 * np.sin(angle), 10 * np.cos(angle)], atol=1e-6)


@pytest.mark.parametrize("yaws", [[0], [0, 180], [0, 50, -50], [0, 50, -50, 130, -130], [0, 72, -72, 144, -144, 36, -36, 180]])
def test_any_number_of_cameras_of_any_size(yaws):
    images = [np.full((200 + 40 * i, 300 + 20 * i, 3), 90, np.uint8) for i in range(len(yaws))]
    names = [f"C{i}" for i in range(len(yaws))]
    transforms = np.stack([look_along(yaw).numpy() for yaw in yaws])
    picture = render_calibration(images, transforms, names, points_m=np.zeros((1, 3)), boxes=np.array([box(0, 12)]), width_px=1500)
    assert picture.shape[1] == 1500 and picture.dtype == np.uint8
    assert (picture == 90).all(-1).sum() > 0.03 * picture.shape[0] * picture.shape[1]


def test_cameras_stand_where_they_look(monkeypatch):
    """Swapping two calibrations swaps the places of their pictures."""
    from sparsedrive.viz import calibration

    drawn: list[str] = []
    monkeypatch.setattr(calibration, "draw_text", lambda picture, text, *rest, **more: drawn.append(text) or 0)

    def order(transforms: np.ndarray) -> list[str]:
        drawn.clear()
        render_calibration([None] * 6, transforms, NAMES)
        return [text for text in drawn if text in NAMES][:6]

    right = rig().numpy()
    assert order(right) == ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"]
    swapped = right[[0, 2, 1, 3, 4, 5]]
    assert order(swapped)[:3] == ["CAM_FRONT_RIGHT", "CAM_FRONT", "CAM_FRONT_LEFT"]


def test_what_is_given_is_drawn():
    images = [np.full((HEIGHT_PX, WIDTH_PX, 3), 90, np.uint8)] * 6
    bare = render_calibration(images, rig().numpy(), NAMES)
    boxes = np.array([box(0.0, 15.0), [*box(-12.0, 4.0)[:7], np.nan, np.nan, np.nan]])
    with_boxes = render_calibration(images, rig().numpy(), NAMES, boxes=boxes, labels=np.array([0, 8]))
    with_lidar = render_calibration(images, rig().numpy(), NAMES, points_m=np.random.default_rng(0).uniform(-20, 20, (500, 3)))
    wrong = rig().numpy()
    wrong[0] = look_along(3.0).numpy()
    turned = render_calibration(images, wrong, NAMES, boxes=boxes, labels=np.array([0, 8]))
    for other in (with_boxes, with_lidar):
        assert (other != bare).any(-1).sum() > 500
    assert (turned != with_boxes).any(-1).sum() > 500
    assert len({camera_colour(index) for index in range(8)}) == 8


def test_bad_input_is_refused():
    image = blank()
    with pytest.raises(ValueError, match="one picture and one 4x4 transform for each"):
        render_calibration([image], rig().numpy(), NAMES)
    with pytest.raises(ValueError, match=r"CAM_FRONT: expected an RGB picture \[H, W, 3\] uint8"):
        render_calibration([image[..., 0]] + [None] * 5, rig().numpy(), NAMES)
    with pytest.raises(ValueError, match="one label a box"):
        render_calibration([image] * 6, rig().numpy(), NAMES, boxes=np.array([box(0, 9)]), labels=np.zeros(3, int))
    with pytest.raises(ValueError, match="too small for 3 columns"):
        render_calibration([image] * 6, rig().numpy(), NAMES, width_px=300)
