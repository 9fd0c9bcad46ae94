from dataclasses import replace

import numpy as np
import pytest
import torch
from viz_samples import plan, scene

from sparsedrive.structures import Command
from sparsedrive.viz import select
from sparsedrive.viz.shown import smooth_path


def test_rows_below_the_threshold_are_left_out():
    shown = select(scene(), score_threshold=0.3)
    assert [item.track_id for item in shown.boxes] == [7, 11, 3]
    assert [line.label for line in shown.lines] == [1, 2]
    assert len(select(scene(), score_threshold=0.0).boxes) == 4


def test_invalid_rows_are_left_out():
    full = scene()
    valid = torch.tensor([[True, False, True, True]])
    shown = select(replace(full, detections=replace(full.detections, valid=valid)))
    assert [item.track_id for item in shown.boxes] == [7, 3]


def test_max_boxes_keeps_the_best():
    assert [item.track_id for item in select(scene(), max_boxes=1).boxes] == [7]


def test_futures_are_sorted_by_likelihood():
    first = select(scene(), max_futures=2).boxes[0]
    assert first.futures_m.shape == (2, 12, 2)
    assert first.future_score.tolist() == pytest.approx([0.5, 0.1])
    assert first.futures_m[0, 0] == pytest.approx([1.0, 15.0 + 2.5 + 1.0])  # mode 2


def test_plan_modes_are_those_of_the_command():
    straight = plan()
    turned = replace(straight, command=torch.tensor([1]), all_trajectories_m=straight.all_trajectories_m.clone())
    turned.all_trajectories_m[:, 1] += 100
    shown = select(replace(scene(), plan=turned)).plan
    assert shown is not None and shown.command == Command.LEFT
    assert shown.modes_m.min() >= 100


def test_a_larger_batch_is_refused():
    two = scene()
    twice = replace(two, detections=replace(two.detections, box=two.detections.box.repeat(2, 1, 1)))
    with pytest.raises(ValueError, match=r"batch of 1, got 2; pick a stream with scene\.stream"):
        select(twice)


def test_smooth_path_starts_at_the_car_and_goes_through_every_way_point():
    points = np.array([[0.0, 3.0], [1.0, 6.0], [3.0, 8.0]])
    path = smooth_path(points, steps=4)
    assert path.shape == (13, 2)
    assert np.allclose(path[[0, 4, 8, 12]], [[0, 0], *points])
    straight = smooth_path(np.array([[0.0, 2.0], [0.0, 4.0]]), steps=4)
    assert np.allclose(straight[:, 0], 0) and np.allclose(np.diff(straight[:, 1]), 0.5)
