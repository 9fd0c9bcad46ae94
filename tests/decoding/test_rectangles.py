import math

import pytest
import shapely
import torch

from sparsedrive.decoding import corners_inside, rectangles_overlap
from sparsedrive.geometry import box_state


def touch(first, second):
    return bool(rectangles_overlap(torch.tensor(first), torch.tensor(second)))


CAR = [0.0, 0.0, 4.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([3.9, 0.0, 4.0, 2.0, 0.0], True),
        ([4.1, 0.0, 4.0, 2.0, 0.0], False),
        ([0.0, 1.9, 4.0, 2.0, 0.0], True),
        ([0.0, 2.1, 4.0, 2.0, 0.0], False),
        ([4.0, 0.0, 4.0, 2.0, 0.0], True),  # edge on edge counts
        ([0.3, 0.1, 0.5, 0.5, 1.0], True),  # wholly inside
        ([0.0, 0.0, 40.0, 20.0, 1.0], True),  # wholly around
        ([0.0, 2.3, 4.0, 2.0, math.pi / 2], True),  # its corner is 0.3 m past our side, turned by a quarter
        ([0.0, 3.1, 4.0, 2.0, math.pi / 2], False),
        ([3.3, 0.0, 2.0, 2.0, math.pi / 4], True),  # diagonal 1.41 m: its tip reaches 1.89 m
        ([3.5, 0.0, 2.0, 2.0, math.pi / 4], False),
    ],
)
def test_hand_made_pairs(other, expected):
    assert touch(CAR, other) is expected
    assert touch(other, CAR) is expected


def test_a_plus_sign_overlaps_without_corners():
    plus = torch.tensor([[0.0, 0.0, 10.0, 1.0, 0.0], [0.0, 0.0, 10.0, 1.0, math.pi / 2]])
    assert rectangles_overlap(*plus)
    assert not corners_inside(*plus)


def test_agrees_with_exact_geometry():
    first, second = torch.rand(2, 400, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).mul(6).unbind()

    def polygons(boxes):
        state = torch.zeros(len(boxes), 10, dtype=torch.float64)
        state[:, :2], state[:, 3:5], state[:, 6] = boxes[:, :2], boxes[:, 2:4], boxes[:, 4]
        return shapely.polygons(box_state.corners(state)[:, :4, :2].numpy())

    expected = torch.from_numpy(shapely.intersects(polygons(first), polygons(second)))
    found = rectangles_overlap(first, second)
    assert 50 < expected.sum() < 350
    assert torch.equal(found, expected)
    assert not (corners_inside(first, second) & ~found).any()
    assert (found & ~corners_inside(first, second)).any()


def test_independent_of_the_frame():
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 500, 5, generator=draw).mul(6).unbind()
    angle, shift = 0.7, torch.tensor([30.0, -12.0])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def moved(box):
        return torch.cat([box[:, :2] @ turn.T + shift, box[:, 2:4], box[:, 4:] + angle], dim=-1)

    before = rectangles_overlap(first, second)
    assert 50 < before.sum() < 450
    assert torch.equal(before, rectangles_overlap(moved(first), moved(second)))


def test_shapes_broadcast():
    draw = torch.Generator().manual_seed(1)
    first, second = torch.rand(3, 1, 4, 5, generator=draw) * 5, torch.rand(3, 7, 1, 5, generator=draw) * 5
    all_pairs = rectangles_overlap(first, second)
    assert all_pairs.shape == (3, 7, 4)
    for stream in range(3):
        for row in range(7):
            assert torch.equal(all_pairs[stream, row], rectangles_overlap(first[stream, 0], second[stream, row].expand(4, 5)))
