"""Labels of points against the geometry of what was put there."""

import numpy as np
from stage_samples import ORIGIN_M, SIZES, block, put, straight_town

from sparsedrive.world import LidarScanner, World, nuscenes_rig
from sparsedrive.world import point_labels as labels
from sparsedrive.world.lidar import count_points_in_boxes
from sparsedrive.world.point_labels import POINT_CLASSES, PointLabeller
from sparsedrive.world.rig import LIDAR_ABOVE_M
from sparsedrive.world.town import Tree

MOUNT = nuscenes_rig().lidar
BEHIND_EACH_OTHER = {category: (8.0 * (1 + number // 4), -9.0 + 6 * (number % 4), 0.3) for number, category in enumerate(SIZES)}


def labelled(town, cast, state):
    points = LidarScanner(town, cast, seed=1).scan(state, MOUNT)
    return points, PointLabeller(town, cast).label(points, state, MOUNT)


def test_every_category_gets_the_class_of_its_echoes():
    for category, place in BEHIND_EACH_OTHER.items():
        points, label = labelled(straight_town(), *put((category, *place)))
        assert set(np.unique(label)) == {labels.GROUND, labels._actor_class(category)}
        ground = points[label == labels.GROUND, 2] + LIDAR_ABOVE_M
        assert np.abs(ground).max() < 0.06
        length_m, width_m, height_m = SIZES[category]
        thing = points[label != labels.GROUND, :3] @ MOUNT.car_T_lidar[:3, :3].T + MOUNT.car_T_lidar[:3, 3]
        assert (np.linalg.norm(thing[:, :2] - place[:2], axis=1) < np.hypot(length_m, width_m) / 2 + 0.1).all()
        assert thing[:, 2].min() > -0.1 and thing[:, 2].max() < height_m + 0.1


def test_walls_trees_and_ground_are_told_apart():
    tree = Tree(position_m=ORIGIN_M + np.array((12.0, -6.0)), height_m=6.0, crown_radius_m=2.0)
    points, label = labelled(straight_town((block((20, 30), (-10, 10), 8.0),), (tree,)), *put())
    assert set(np.unique(label)) == {labels.GROUND, labels.BUILDING, labels.VEGETATION}
    car = points[:, :3] @ MOUNT.car_T_lidar[:3, :3].T + MOUNT.car_T_lidar[:3, 3]
    assert np.abs(car[label == labels.BUILDING, 0] - 20).max() < 0.1
    assert (np.linalg.norm(car[label == labels.VEGETATION, :2] - (12, -6), axis=1) < 2.1).all()


def test_labels_of_a_town_agree_with_its_boxes():
    """Where a point is well inside one actor's box it has that actor's class, and the other way round."""
    world = World.create(seed=5)
    points, label = labelled(world.town, world.cast, world.state)
    assert len(label) == len(points) and len(np.unique(label)) >= 6
    car_T_lidar = np.linalg.inv(MOUNT.car_T_lidar)
    ego = world.state.ego
    turn = np.array([[np.cos(ego.yaw_rad), np.sin(ego.yaw_rad)], [-np.sin(ego.yaw_rad), np.cos(ego.yaw_rad)]])
    size = world.cast.size_lwh_m
    centre = np.column_stack([(world.state.pose[:, :2] - ego.position_m) @ turn.T, size[:, 2] / 2])
    centre = centre @ car_T_lidar[:3, :3].T + car_T_lidar[:3, 3]
    yaw = world.state.pose[:, 2] - ego.yaw_rad + np.pi / 2
    kinds = np.array([labels._actor_class(category) for category in world.cast.categories])
    for kind, name in enumerate(POINT_CLASSES):
        mine, others = points[label == kind], points[(label != kind) & (points[:, 2] > 0.3 - LIDAR_ABOVE_M)]
        boxes = kinds == kind
        if boxes.any():
            inside = count_points_in_boxes(mine, centre[boxes], size[boxes], yaw[boxes], margin_m=0.1).sum()
            assert inside == len(mine), name
            assert count_points_in_boxes(others, centre[boxes], size[boxes] * 0.8, yaw[boxes], margin_m=0.0).sum() == 0, name


def test_order_and_selection_of_points_do_not_matter():
    cast, state = put(("vehicle.car", 9.0, 1.0, 0.0))
    points, label = labelled(straight_town(), cast, state)
    order = np.random.default_rng(0).permutation(len(points))[:500]
    np.testing.assert_array_equal(PointLabeller(straight_town(), cast).label(points[order], state, MOUNT), label[order])
