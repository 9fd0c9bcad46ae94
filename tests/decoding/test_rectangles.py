import math

import pytest
import torch

from sparsedrive.decoding import rectangles_touch


def touch(first, second):
    return bool(rectangles_touch(torch.tensor(first), torch.tensor(second)))


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


def test_a_plus_sign_is_not_found():
    assert not touch([0.0, 0.0, 10.0, 1.0, 0.0], [0.0, 0.0, 10.0, 1.0, math.pi / 2])


def test_independent_of_the_frame():
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 500, 5, generator=draw).mul(6).unbind()
    angle, shift = 0.7, torch.tensor([30.0, -12.0])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def moved(box):
        return torch.cat([box[:, :2] @ turn.T + shift, box[:, 2:4], box[:, 4:] + angle], dim=-1)

    before = rectangles_touch(first, second)
    assert 50 < before.sum() < 450
    assert torch.equal(before, rectangles_touch(moved(first), moved(second)))


def test_shapes_broadcast():
    draw = torch.Generator().manual_seed(1)
    first, second = torch.rand(3, 1, 4, 5, generator=draw) * 5, torch.rand(3, 7, 1, 5, generator=draw) * 5
    all_pairs = rectangles_touch(first, second)
    assert all_pairs.shape == (3, 7, 4)
    for stream in range(3):
        for row in range(7):
            assert torch.equal(all_pairs[stream, row], rectangles_touch(first[stream, 0], second[stream, row].expand(4, 5)))
