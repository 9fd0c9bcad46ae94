"""Shapes of actors: inside their boxes, filling them, and turned outwards."""

import numpy as np
import pytest
from stage_samples import SIZES

from sparsedrive.world.mesh import Builder, Lamp, inset
from sparsedrive.world.shapes import actor_mesh

GREEN = np.array([20.0, 200.0, 40.0])


def walking_corners(mesh, step: float) -> np.ndarray:
    points = mesh.points_m.copy()
    points[..., 0] += step * mesh.swing
    return points.reshape(-1, 3)


@pytest.mark.parametrize("scale", [(1, 1, 1), (0.9, 1.1, 1.05), (1.15, 0.9, 0.9)])
@pytest.mark.parametrize("category", SIZES)
def test_shapes_stay_in_their_box_and_fill_it(category, scale):
    size = np.array(SIZES[category]) * scale
    mesh = actor_mesh(category, size, GREEN)
    half = size / 2
    for step in (-1.0, 0.0, 1.0):
        corners = walking_corners(mesh, step) - (0, 0, half[2])
        assert (np.abs(corners) <= half + 1e-5).all()
    spans = np.ptp(np.concatenate([walking_corners(mesh, -1.0), walking_corners(mesh, 1.0)]), axis=0)
    assert (spans > 0.85 * size).all()
    assert mesh.points_m[..., 2].min() < 0.05 * size[2]


@pytest.mark.parametrize("category", SIZES)
def test_faces_are_flat_and_look_outwards(category):
    mesh = actor_mesh(category, np.array(SIZES[category]), GREEN)
    off_m = ((mesh.points_m - mesh.points_m[:, :1]) * mesh.normals[:, None]).sum(-1)
    assert np.abs(off_m).max() < 0.02
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, rtol=1e-5)
    away = mesh.points_m.mean(1) - mesh.part_centre_m[mesh.part]
    assert ((away * mesh.normals).sum(1) > 0).all()


def test_vehicles_have_lamps_in_front_and_behind():
    for category in ("vehicle.car", "vehicle.truck", "vehicle.bus.rigid", "vehicle.motorcycle"):
        mesh = actor_mesh(category, np.array(SIZES[category]), GREEN)
        x = mesh.points_m[..., 0].mean(1)
        assert (x[mesh.lamp == Lamp.HEAD] > 0).all() and (mesh.lamp == Lamp.HEAD).any()
        assert (x[mesh.lamp == Lamp.TAIL] < 0).all() and (mesh.lamp == Lamp.TAIL).any()


def test_only_people_swing():
    walkers = {category for category in SIZES if actor_mesh(category, np.array(SIZES[category]), GREEN).walks}
    assert walkers == {"human.pedestrian.adult"}


def test_a_longer_barrier_side_carries_the_stripes():
    for size, axis in (((0.5, 2.5, 1.0), 0), ((2.5, 0.5, 1.0), 1)):
        mesh = actor_mesh("movable_object.barrier", np.array(size), GREEN)
        stripes = mesh.rgb[:, 0] - mesh.rgb[:, 1] > 100
        assert stripes.sum() >= 8 and (np.abs(mesh.normals[stripes, axis]) > 0.99).all()


def test_an_unknown_category_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"vehicle\.car.*got 'vehicle\.boat'"):
        actor_mesh("vehicle.boat", np.ones(3), GREEN)
    with pytest.raises(ValueError, match=r"got 'vehicle\.carriage'"):
        actor_mesh("vehicle.carriage", np.ones(3), GREEN)


def test_inset_takes_parts_of_a_side():
    side = Builder().box((0, 2), (0, 4), (0, 1), GREEN).front
    np.testing.assert_allclose(inset(side, (0, 1), (0, 1)), side)
    np.testing.assert_allclose(inset(side, (0.25, 0.5), (0, 0.5)), [(2, 1, 0), (2, 2, 0), (2, 2, 0.5), (2, 1, 0.5)])


def test_what_rests_on_another_part_has_no_underside():
    b = Builder()
    b.box((0, 1), (0, 1), (0, 1), GREEN)
    b.layer = 1
    b.box((0, 1), (0, 1), (1, 2), GREEN)
    mesh = b.build()
    assert mesh.layer[mesh.normals[:, 2] < -0.5].tolist() == [0]
    assert len(mesh.facing(np.array([5.0, 0.5, 0.5]))) == 2


def test_far_parts_of_a_layer_are_painted_first():
    b = Builder()
    for x in (0.0, 5.0, 10.0):
        b.box((x, x + 1), (0, 1), (0, 1), GREEN)
    mesh = b.build()
    parts = mesh.part[mesh.facing(np.array([20.0, 0.5, 0.5]))]
    assert parts.tolist() == sorted(parts.tolist())
    parts = mesh.part[mesh.facing(np.array([-20.0, 0.5, 0.5]))]
    assert parts.tolist() == sorted(parts.tolist(), reverse=True)
