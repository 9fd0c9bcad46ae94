"""The lidar against geometry worked out by hand."""

import numpy as np
import pytest
from stage_samples import ORIGIN_M, SIZES, block, put, straight_town

from sparsedrive.world import lidar
from sparsedrive.world.lidar import ELEVATION_RAD, LidarScanner, cast_prism, count_points_in_boxes
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.town import Tree

MOUNT = nuscenes_rig().lidar
HEIGHT_M = 1.84
AHEAD_M = 0.94


def scan(town, cast, state, noise_m=0.0):
    return LidarScanner(town, cast, seed=3, noise_m=noise_m).scan(state, MOUNT)


def to_car(points):
    """Metres ahead of the ego vehicle's origin, to its left, and above the ground."""
    return points[:, :3] @ MOUNT.car_T_lidar[:3, :3].T + MOUNT.car_T_lidar[:3, 3]


def test_beams_are_those_of_the_sensor():
    assert len(ELEVATION_RAD) == 32
    np.testing.assert_allclose(np.degrees(ELEVATION_RAD[[0, -1]]), [-30.67, 10.67], atol=0.01)
    points = scan(straight_town(), *put())
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    np.testing.assert_allclose(elevation, ELEVATION_RAD[points[:, 4].astype(int)], atol=1e-5)
    assert points.dtype == np.float32 and points.shape[1] == 5


def test_ground_lies_at_the_height_of_the_sensor():
    points = scan(straight_town(), *put())
    np.testing.assert_allclose(points[:, 2], -HEIGHT_M, atol=1e-4)
    lowest = points[points[:, 4] == 0]
    np.testing.assert_allclose(np.hypot(lowest[:, 0], lowest[:, 1]), HEIGHT_M / np.tan(np.radians(92 / 3)), rtol=1e-5)
    assert len(lowest) == lidar.AZIMUTHS
    noisy = scan(straight_town(), *put(), noise_m=0.02)
    assert 0.001 < np.abs(noisy[:, 2] + HEIGHT_M).max() < 0.08


def test_nothing_comes_from_beyond_the_range():
    walls = (block((300, 310), (-20, 20), 200.0), block((60, 62), (-20, 20), 30.0))
    points = scan(straight_town(walls), *put(), noise_m=0.02)
    assert 50 < np.linalg.norm(points[:, :3], axis=1).max() <= lidar.RANGE_M


def test_points_lie_on_the_faces_of_a_box():
    cast, state = put(("movable_object.barrier", 10.0, 3.0, 0.4))
    points = scan(straight_town(), cast, state)
    off = to_car(points) - (10.0, 3.0, SIZES["movable_object.barrier"][2] / 2)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    off[:, :2] = off[:, :2] @ turn
    half = np.array(SIZES["movable_object.barrier"]) / 2
    mine = off[to_car(points)[:, 2] > 0.01]
    assert len(mine) > 40
    assert (np.abs(mine) <= half + 1e-4).all()
    assert (np.abs(np.abs(mine) - half).min(1) < 1e-4).all()
    assert count_points_in_boxes(off, np.zeros((1, 3)), 2 * half[None], np.zeros(1))[0] >= len(mine)


def test_a_wall_hides_what_is_behind():
    cast, state = put(("vehicle.truck", 30.0, 0.0, 0.0))
    clear, hidden = scan(straight_town(), cast, state), scan(straight_town((block((12, 13), (-10, 10), 8.0),)), cast, state)
    assert (to_car(clear)[:, 2] > 0.5).sum() > 50
    ahead = to_car(hidden)
    shadow = (ahead[:, 0] > 13.01) & (np.abs(ahead[:, 1]) < 0.7 * ahead[:, 0])
    assert not shadow.any()
    wall = ahead[(ahead[:, 0] > 11.9) & (ahead[:, 0] < 12.1) & (ahead[:, 2] > 0.1)]
    np.testing.assert_allclose(wall[:, 0], 12.0, atol=1e-4)


def test_a_beam_over_a_low_wall_meets_the_high_one_behind():
    low, high = block((10, 11), (-5, 5), 1.2), block((20, 21), (-5, 5), 10.0)
    points = to_car(scan(straight_town((low, high)), *put()))
    assert ((np.abs(points[:, 0] - 20) < 1e-3) & (points[:, 2] > 0.5)).any()
    roof = points[(points[:, 0] > 10.01) & (points[:, 0] < 10.99) & (np.abs(points[:, 1]) < 4.5)]
    np.testing.assert_allclose(roof[:, 2], 1.2, atol=1e-4)


def test_crowns_are_above_free_ground():
    tree = Tree(position_m=ORIGIN_M + np.array((12.0, 0.0)), height_m=6.0, crown_radius_m=2.0)
    points = to_car(scan(straight_town(trees=(tree,)), *put()))
    near = np.hypot(points[:, 0] - 12, points[:, 1]) < 2.1
    crown = points[near & (points[:, 2] > 2.0)]
    assert len(crown) > 20 and crown[:, 2].max() <= 6.0
    trunk = points[near & (points[:, 2] > 0.05) & (points[:, 2] < 2.0)]
    assert len(trunk) and (np.hypot(trunk[:, 0] - 12, trunk[:, 1]) < 0.3).all()


def test_rays_against_a_plain_reference():
    """Every ray is followed in small steps until it is inside the prism."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        place, turn = rng.uniform(6, 14) * np.array([np.cos(a := rng.uniform(-3.1, 3.1)), np.sin(a)]), rng.uniform(0, 1.5)
        size, low, high = rng.uniform(0.8, 3.0, 2), rng.uniform(-3.0, -0.5), rng.uniform(-0.3, 2.0)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        outline = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * size @ rotation.T + place
        reach, echo = np.full((32, lidar.AZIMUTHS), np.inf), np.zeros((32, lidar.AZIMUTHS))
        cast_prism(reach, echo, outline, low, high, 1.0)
        step_m = np.arange(0.01, 20, 0.01)
        for beam in (3, 15, 22, 25, 29):
            for column in range(0, lidar.AZIMUTHS, 9):
                azimuth = lidar.AZIMUTH_RAD[column]
                local = (step_m[:, None] * (np.cos(azimuth), np.sin(azimuth)) - place) @ rotation
                z = step_m * np.tan(ELEVATION_RAD[beam])
                inside = (np.abs(local) < size).all(1) & (z > low) & (z < high)
                if inside.sum() > 3:
                    assert reach[beam, column] == pytest.approx(step_m[np.argmax(inside)], abs=0.02)
                elif not inside.any():
                    assert not np.isfinite(reach[beam, column]) or _grazes(local, size, z, low, high)


def _grazes(local, size, z, low, high):
    return ((np.abs(local) < size + 0.03).all(1) & (z > low - 0.03) & (z < high + 0.03)).any()


def test_scans_repeat_and_depend_on_seed_and_time():
    cast, state = put(("vehicle.car", 9.0, 1.0, 0.0))
    town = straight_town()
    one = LidarScanner(town, cast, seed=1).scan(state, MOUNT)
    np.testing.assert_array_equal(one, LidarScanner(town, cast, seed=1).scan(state, MOUNT))
    assert not np.array_equal(one[:100], LidarScanner(town, cast, seed=2).scan(state, MOUNT)[:100])
    later = put(("vehicle.car", 9.0, 1.0, 0.0), time_s=0.05)[1]
    assert not np.array_equal(one[:100], LidarScanner(town, cast, seed=1).scan(later, MOUNT)[:100])


@pytest.mark.parametrize("category", SIZES)
def test_echoes_of_an_actor_lie_in_its_box(category):
    cast, state = put((category, 9.0, 2.0, 0.7))
    bare, points = scan(straight_town(), *put()), scan(straight_town(), cast, state)
    above = points[points[:, 2] > -HEIGHT_M + 1e-3]
    middle = np.array([[-2.0, 9.0 - AHEAD_M, cast.size_lwh_m[0, 2] / 2 - HEIGHT_M]])
    inside = count_points_in_boxes(above, middle, cast.size_lwh_m, np.array([0.7 + np.pi / 2]), margin_m=1e-3)
    assert inside[0] == len(above) > 4
    assert len(bare)


def test_points_in_boxes_are_counted():
    points = np.array([(0, 0, 0), (0.9, 0, 0), (1.2, 0, 0), (0, 0.6, 0), (0, 0, 0.6)], dtype=np.float32)
    size, flat, turned = np.array([[2.0, 1.0, 1.0]]), np.zeros(1), np.array([np.pi / 2])
    assert count_points_in_boxes(points, np.zeros((1, 3)), size, flat, margin_m=0.0).tolist() == [2]
    assert count_points_in_boxes(points, np.zeros((1, 3)), size, turned, margin_m=0.0).tolist() == [2]
    assert count_points_in_boxes(points, np.zeros((1, 3)), size, flat, margin_m=0.25).tolist() == [5]
    assert count_points_in_boxes(points, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)).shape == (0,)
    assert count_points_in_boxes(np.zeros((0, 5)), np.zeros((1, 3)), size, flat).tolist() == [0]
