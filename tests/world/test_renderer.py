"""Pictures against geometry: where things are, what hides what, and that looks are what they say."""

from dataclasses import replace

import numpy as np
import pytest
from stage_samples import ORIGIN_M, SIZES, block, box_corners, front_camera, pixels_of, put, straight_town

from sparsedrive.world import stage
from sparsedrive.world.camera import Renderer
from sparsedrive.world.looks import LOOKS, Look
from sparsedrive.world.painter import Projection, area_px, clip, far_to_near
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.town import Tree

CLEAR = Look(
    name="clear", sun_direction=(0.0, 0.0, 1.0), sun_rgb=(0.0, 0.0, 0.0), ambient_rgb=(1.0, 1.0, 1.0), zenith_rgb=(90, 140, 200),
    horizon_rgb=(200, 210, 220), clouds=0.0, visibility_m=1e6, shadow=0.0, grain=0.0,
)  # fmt: skip
"""No haze, no shadows, no grain."""
SLENDER = ("human.pedestrian.adult", "vehicle.bicycle", "vehicle.motorcycle")


def extent(mask: np.ndarray) -> np.ndarray:
    """Lowest and highest column, lowest and highest row of the pixels that are set."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), columns.max(), rows.min(), rows.max()])


def expected_extent(mount, pose, size) -> np.ndarray:
    pixels = pixels_of(mount, box_corners(pose, size))
    return np.array([pixels[:, 0].min(), pixels[:, 0].max(), pixels[:, 1].min(), pixels[:, 1].max()])


@pytest.mark.parametrize("place", [(12.0, 0.5, 0.3), (25.0, -6.0, 2.0), (30.0, 4.0, -1.2)])
def test_a_red_bus_is_where_its_box_projects(place):
    cast, state = put(("vehicle.bus.rigid", *place))
    mount = front_camera((704, 396))
    renderer = Renderer(straight_town(paint=False), cast, CLEAR)
    image, ids = renderer.render(state, mount).astype(int), renderer.identify(state, mount)
    expected = np.clip(expected_extent(mount, state.pose[0], cast.size_lwh_m[0]), 0, (703, 703, 395, 395))
    red = image[..., 0] - image[..., 1] > 80
    np.testing.assert_allclose(extent(red)[:2], expected[:2], atol=1.6)
    np.testing.assert_allclose(extent(ids == 0)[:3], expected[:3], atol=1.6)
    # The wheels stand a little inside of the lower edge.
    assert extent(ids == 0)[3] == pytest.approx(expected[3], abs=0.12 * (expected[3] - expected[2]))
    assert (ids[red] == 0).mean() > 0.98


@pytest.mark.parametrize("category", SIZES)
def test_the_pixels_of_every_shape_fill_its_projected_box(category):
    cast, state = put((category, 11.0, 1.0, 0.6))
    mount = front_camera((704, 396))
    mine = Renderer(straight_town(), cast, CLEAR).identify(state, mount) == 0
    expected = np.clip(expected_extent(mount, state.pose[0], cast.size_lwh_m[0]), 0, (703, 703, 395, 395))
    found = extent(mine)
    assert (found[[0, 2]] >= expected[[0, 2]] - 1.5).all() and (found[[1, 3]] <= expected[[1, 3]] + 1.5).all()
    span = expected[[1, 3]] - expected[[0, 2]]
    assert (found[[1, 3]] - found[[0, 2]] > (0.6 if category in SLENDER else 0.8) * span - 2).all()


def test_a_divider_is_painted_where_it_projects():
    cast, state = put()
    mount = front_camera((704, 396))
    image = Renderer(straight_town(), cast, CLEAR).render(state, mount).astype(int)
    yellow = (image[..., 0] - image[..., 2] > 60) & (image[..., 1] - image[..., 2] > 40)
    for ahead_m in (7.0, 8.0, 12.0, 20.0, 25.0, 35.0):
        left, right = pixels_of(mount, np.array([(ahead_m, 2.075, 0.0), (ahead_m, 1.925, 0.0)]))
        row = round(left[1])
        columns = np.flatnonzero(yellow[row])
        assert columns.mean() == pytest.approx((left[0] + right[0]) / 2, abs=1.0)
        assert np.ptp(columns) + 1 == pytest.approx(right[0] - left[0], abs=2.5)


def test_the_crossing_lies_between_its_rows():
    cast, state = put()
    mount = front_camera((704, 396))
    striped = Renderer(straight_town(), cast, CLEAR).render(state, mount).astype(int)
    bare = Renderer(straight_town(paint=False), cast, CLEAR).render(state, mount).astype(int)
    white = (striped - bare).min(-1) > 60
    rows = np.flatnonzero(white.sum(1) > 60)
    expected = pixels_of(mount, np.array([(17.0, 0.0, 0.0), (14.0, 0.0, 0.0)]))[:, 1]
    np.testing.assert_allclose((rows.min(), rows.max()), expected, atol=1.5)


def test_the_nearer_hides_the_farther():
    mount = front_camera()
    cast, state = put(("vehicle.bus.rigid", 30.0, 0.0, np.pi / 2), ("vehicle.truck", 14.0, 0.0, 0.0))
    renderer = Renderer(straight_town(), cast, CLEAR)
    ids = renderer.identify(state, mount)
    alone = renderer.identify(replace(state, pose=state.pose + np.array([[500, 0, 0], [0, 0, 0]])), mount)
    assert (ids[alone == 1] == 1).all() and (ids == 0).any()
    seen, whole = renderer.visible_pixels(state, mount, scale=0.5)
    assert seen[1] == whole[1] and 0 < seen[0] < whole[0]
    hidden = Renderer(straight_town((block((20, 21), (-15, 15), 9.0),)), cast, CLEAR)
    seen, whole = hidden.visible_pixels(state, mount)
    assert seen[0] == 0 and seen[1] == whole[1] > 0


def test_half_hidden_is_half_visible():
    """A wall that covers what is right of the middle of a bus seen from behind."""
    cast, state = put(("vehicle.bus.rigid", 30.0, 0.0, 0.0))
    wall = block((9.0, 9.5), (-20.0, 0.0), 8.0)
    fraction = Renderer(straight_town((wall,)), cast, CLEAR).visible_fraction(state, nuscenes_rig((704, 396)), scale=1.0)
    assert fraction.shape == (1,) and fraction[0] == pytest.approx(0.5, abs=0.03)


def test_long_things_are_ordered_by_the_line_of_sight():
    """The middle of the long wall is nearer than the car, but the car is in front of it; then the other way round."""
    long_wall = np.array([(1.0, 4.0), (2.0, 4.0), (2.0, 60.0), (1.0, 60.0)])
    car = np.array([(-0.5, 45.0), (0.8, 45.0), (0.8, 49.0), (-0.5, 49.0)])
    assert far_to_near(np.stack([long_wall, car]), 2.0) == [0, 1] or far_to_near(np.stack([car, long_wall]), 2.0) == [1, 0]
    behind = car + np.array((3.0, 0.0))
    for first, second in ((long_wall, behind), (behind, long_wall)):
        order = far_to_near(np.stack([first, second]), 2.0)
        assert np.array_equal((first, second)[order[0]], behind)


def test_order_of_many_agrees_with_rays():
    """Boxes on a grid with turns: along any ray, nearer boxes come later."""
    rng = np.random.default_rng(2)
    places = np.stack(np.meshgrid(np.arange(-20, 21, 8.0), np.arange(4, 60, 8.0)), -1).reshape(-1, 2)
    turn = rng.uniform(0, 3, len(places))
    rotation = np.stack([np.stack([np.cos(turn), -np.sin(turn)], -1), np.stack([np.sin(turn), np.cos(turn)], -1)], -2)
    half_m = rng.uniform(0.3, 2.6, (len(places), 1, 2))
    boxes = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * half_m @ rotation.swapaxes(1, 2) + places[:, None]
    order = far_to_near(boxes, 0.9)
    assert sorted(order) == list(range(len(boxes)))
    rank = np.argsort(order)
    steps = np.arange(0.3, 70, 0.05)
    for slope in np.linspace(-0.85, 0.85, 41):
        local = (np.stack([slope * steps, steps], -1)[None] - places[:, None]) @ rotation
        inside = (np.abs(local) < half_m).all(-1)
        met = np.flatnonzero(inside.any(1))
        first = steps[np.argmax(inside[met], axis=1)]
        assert (np.diff(rank[met[np.argsort(first)]]) < 0).all()


def test_leaving_out_the_hidden_changes_no_pixel(monkeypatch):
    near = block((12, 20), (6, 18), 9.0), block((25, 40), (-20, -8), 12.0)
    walls = (*near, block((60, 64), (-30, 30), 6.0), block((80, 90), (-30, 30), 25.0))
    trees = tuple(Tree(position_m=ORIGIN_M + np.array((x, 9.0 + x / 3)), height_m=7.0, crown_radius_m=2.0) for x in (8.0, 23.0, 50.0, 70.0))
    cast, state = put(*[("vehicle.car", 8.0 + 9 * i, (-1) ** i * 2.0 * i, 0.4 * i) for i in range(9)])
    renderer = Renderer(straight_town(walls, trees), cast, LOOKS["day"]())
    mount = front_camera((352, 198))
    picture = renderer.render(state, mount)
    monkeypatch.setattr(stage, "hidden", lambda footprints_m, *_: np.zeros(len(footprints_m), bool))
    # The smooth edge of a wall lets a little of what is behind it through.
    other = np.abs(picture.astype(int) - renderer.render(state, mount))
    assert other.max() <= 12 and (other > 0).mean() < 1e-3


@pytest.mark.parametrize("left_m", [2.2, -1.95])
def test_things_beside_the_camera_stay_on_their_side(left_m):
    """A truck whose box passes the camera plane: nothing of it beyond the line its side draws to the horizon."""
    cast, state = put(("vehicle.truck", 1.7, left_m, 0.0))
    mount = front_camera()
    ids = Renderer(straight_town(), cast, CLEAR).identify(state, mount)
    rows, columns = np.nonzero(ids == 0)
    assert len(rows) > 500
    end = pixels_of(mount, box_corners(state.pose[0], cast.size_lwh_m[0])[4:])
    if left_m > 0:
        assert columns.max() <= end[:, 0].max() + 1.5
    else:
        assert columns.min() >= end[:, 0].min() - 1.5


@pytest.mark.parametrize("ahead_m", [1.75, 2.2, 3.0])
def test_things_touching_the_near_plane_do_no_harm(ahead_m):
    for look in LOOKS.values():
        cast, state = put(("vehicle.car", ahead_m + 2.3, 0.0, 0.0), ("human.pedestrian.adult", ahead_m, 0.4, 0.0))
        image = Renderer(straight_town(), cast, look()).render(state, front_camera((176, 99)))
        assert image.shape == (99, 176, 3) and image.dtype == np.uint8


def test_clipped_polygons_keep_their_area():
    square = np.array([[(0, 0, 0), (2, 0, 0), (2, 2, 0), (0, 2, 0)]], dtype=float)
    cut = clip(square, square[..., 0] - 0.5)
    assert cut[..., 0].min() == 0.5 and cut.shape == (1, 5, 3)
    corner = clip(square, 1.0 - square[..., 0] - square[..., 1])
    assert area_px(corner[..., :2])[0] == pytest.approx(0.5)
    assert (clip(square, -1 - square[..., 0])[..., 2] == -1).all()


def test_projection_drops_what_is_behind():
    mount = front_camera()
    behind = np.array([[(-1, -1, -5), (1, -1, -5), (1, 1, -5)]], dtype=float)
    seen, pixels, _ = Projection(mount.intrinsic, mount.wh_px).project(np.concatenate([behind, -behind]), np.array([3, 3]))
    assert seen.tolist() == [1] and np.isfinite(pixels).all()


def test_looks_repeat_and_differ():
    cast, state = put(("vehicle.car", 10.0, 1.5, 0.1))
    mount, town = front_camera((352, 198)), straight_town()
    pictures = {}
    for name, look in LOOKS.items():
        pictures[name] = Renderer(town, cast, look(), seed=5).render(state, mount)
        fresh = Renderer(town, cast, look(), seed=5)
        fresh.render(replace(state, time_s=3.0), mount)
        np.testing.assert_array_equal(pictures[name], fresh.render(state, mount))
    means = {name: picture.astype(float).mean((0, 1)) for name, picture in pictures.items()}
    assert means["dusk"].sum() < 0.7 * means["day"].sum() and means["rain"].sum() < means["day"].sum()
    for one in LOOKS:
        for other in LOOKS:
            assert one == other or np.abs(pictures[one].astype(int) - pictures[other]).mean() > 8
    later = Renderer(town, cast, LOOKS["rain"](), seed=5).render(replace(state, time_s=0.5), mount)
    assert np.abs(later.astype(int) - pictures["rain"]).max() > 20


def test_fog_takes_far_things_to_the_colour_of_the_haze():
    look = replace(LOOKS["fog"](), grain=0.0, lamps_on=False)
    distances, contrast = (8.0, 20.0, 45.0), []
    for ahead_m in distances:
        cast, state = put(("vehicle.bus.rigid", ahead_m + 5.55, 0.0, 0.0), rgb=(20.0, 20.0, 20.0))
        renderer = Renderer(straight_town(), cast, look)
        mount = front_camera()
        image, mine = renderer.render(state, mount), renderer.identify(state, mount) == 0
        contrast.append(np.abs(image[mine].mean(0) - look.horizon_rgb).max())
    eye_m = np.array(distances) - 1.7
    np.testing.assert_allclose(np.array(contrast) / contrast[0], np.exp(-(eye_m - eye_m[0]) / look.visibility_m), atol=0.08)


def test_brake_lamps_shine():
    cast, state = put(("vehicle.car", 12.0, 0.0, 0.0), rgb=(30.0, 30.0, 30.0))
    renderer, mount = Renderer(straight_town(), cast, LOOKS["day"]()), front_camera()

    def red(state) -> int:
        image = renderer.render(state, mount).astype(int)
        return int((image[..., 0] - image[..., 1] > 150).sum())

    assert red(state) == 0 and red(replace(state, acceleration_mps2=np.array([-2.5]))) > 20


def test_walkers_move_their_legs():
    cast, state = put(("human.pedestrian.adult", 6.0, 0.0, np.pi / 2))
    renderer, mount = Renderer(straight_town(), cast, CLEAR), front_camera()
    walking = replace(state, speed_mps=np.array([1.4]))
    spread = [np.ptp(np.nonzero(renderer.identify(s, mount) == 0)[1]) for s in (state, walking)]
    for step in np.linspace(0, 1.5, 7):
        moved = replace(walking, pose=walking.pose + np.array([[0, 0.1 * step, 0]]))
        spread[1] = max(spread[1], np.ptp(np.nonzero(renderer.identify(moved, mount) == 0)[1]))
    assert spread[1] > 1.3 * spread[0]


def test_a_tilted_camera_sees_the_horizon_tilted():
    """Cameras of other rigs roll and pitch; ground and sky still meet on a straight line."""
    mount = front_camera((176, 99))
    roll = 0.2
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]
    tilted = replace(mount, car_T_camera=mount.car_T_camera @ turn)
    cast, state = put()
    pink = replace(CLEAR, horizon_rgb=(255, 0, 255), zenith_rgb=(255, 0, 255))
    image = Renderer(straight_town(), cast, pink).render(state, tilted).astype(int)
    sky = image[..., 2] - image[..., 1] > 120
    first = np.array([np.flatnonzero(~sky[:, column]).min() for column in (30, 150)])
    assert abs((first[0] - first[1]) / 120) == pytest.approx(np.tan(roll), abs=0.08)


def test_an_empty_world_and_a_camera_that_looks_up():
    cast, state = put()
    mount = front_camera((64, 36))
    up = mount.car_T_camera.copy()
    up[:3, :3] = up[:3, :3] @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    for tilted in (mount, replace(mount, car_T_camera=up)):
        assert Renderer(straight_town(), cast, CLEAR).render(state, tilted).shape == (36, 64, 3)
    assert Renderer(straight_town(), cast).visible_fraction(state, nuscenes_rig((64, 36))).shape == (0,)
