"""Loaded frames -> a batch: padded rows are masked, everything else is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from prepared_samples import change_scene, write_prepared

from sparsedrive.data.collate import collate
from sparsedrive.data.dataset import DrivingDataset, LoadConfig
from sparsedrive.data.preprocess import ImagePreprocess
from sparsedrive.data.sampler import FrameRequest
from sparsedrive.structures import NUSCENES_CAMERAS, check_shapes
from sparsedrive.structures.frame import with_available

CONFIG = LoadConfig(preprocess=ImagePreprocess(final_wh_px=(96, 32)))
FRAMES = [("scene-0000", 4), ("scene-0001", 0), ("scene-0002", 2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def loaded(data):
    dataset = DrivingDataset(data, "train", CONFIG)
    return [dataset[FrameRequest(scene=scene, frame=frame, sequence_id=10 + n)] for n, (scene, frame) in enumerate(FRAMES)]


def test_shapes_and_types(loaded):
    frame, targets = collate(loaded)
    check_shapes(frame)
    assert frame.rig.names == NUSCENES_CAMERAS and frame.sequence_id.tolist() == [10, 11, 12]
    assert frame.images.dtype == frame.rig.image_T_ego.dtype == targets.boxes.box.dtype == targets.map.points_m.dtype == torch.float32
    assert frame.global_T_ego.dtype == frame.time_s.dtype == torch.float64
    assert frame.command.dtype == targets.boxes.label.dtype == targets.map.label.dtype == torch.int64
    assert frame.rig.available.dtype == targets.boxes.valid.dtype == targets.map.order_valid.dtype == torch.bool
    assert [tuple(level.shape) for level in targets.depth_m] == [(3, 6, 8, 24), (3, 6, 4, 12), (3, 6, 2, 6)]
    assert targets.futures.agent_m.shape == (3, targets.boxes.box.shape[1], 12, 2) and targets.futures.ego_m.shape == (3, 6, 2)


def test_every_row_is_found_again_and_the_rest_is_zero(loaded):
    _, targets = collate(loaded)
    most = max(len(frame.targets.box) for frame in loaded)
    assert targets.boxes.box.shape == (3, most, 10)
    assert len({len(frame.targets.box) for frame in loaded}) == 3
    for row, frame in enumerate(loaded):
        ours, count = frame.targets, len(frame.targets.box)
        assert targets.boxes.valid[row].tolist() == [True] * count + [False] * (most - count)
        np.testing.assert_array_equal(targets.boxes.box[row, :count], ours.box)
        np.testing.assert_array_equal(targets.boxes.instance[row, :count], ours.instance)
        np.testing.assert_array_equal(targets.futures.agent_m[row, :count], ours.agent_m)
        np.testing.assert_array_equal(targets.futures.agent_valid[row, :count], ours.agent_valid)
        assert not targets.boxes.box[row, count:].any() and not targets.futures.agent_valid[row, count:].any()
        elements = len(ours.map_orders_m)
        assert targets.map.valid[row].sum() == elements and targets.map.valid[row, :elements].all()
        for element, orders_m in enumerate(ours.map_orders_m):
            np.testing.assert_array_equal(targets.map.points_m[row, element, : len(orders_m)], orders_m)
            assert targets.map.order_valid[row, element].sum() == len(orders_m)
            assert not targets.map.points_m[row, element, len(orders_m) :].any()


def test_a_batch_of_one_is_a_row_of_a_larger_one(loaded):
    whole, _ = collate(loaded)
    alone, targets = collate(loaded[1:2])
    assert torch.equal(alone.images[0], whole.images[1]) and torch.equal(alone.rig.image_T_ego[0], whole.rig.image_T_ego[1])
    assert targets.boxes.valid.all() and targets.map.valid.all()


def test_a_frame_without_boxes_and_lines(tmp_path):
    data = write_prepared(tmp_path, frames=(2,))
    rows = ("box", "box_label", "box_instance", "lidar_returns", "radar_returns", "agent_future_m", "agent_future_valid")
    empty = {name: getattr(data.scene("scene-0000"), name)[:0] for name in (*rows, "map_label", "map_points_m")}
    change_scene(data, "scene-0000", **empty, box_splits=np.zeros(3, int), map_splits=np.zeros(3, int), point_splits=np.zeros(1, int))
    loaded = DrivingDataset(data, "train", CONFIG)[FrameRequest(scene="scene-0000", frame=1, sequence_id=0)]
    _, targets = collate([loaded])
    assert targets.boxes.box.shape == (1, 0, 10) and targets.futures.agent_m.shape == (1, 0, 12, 2)
    assert targets.map.points_m.shape[:2] == (1, 0) and targets.map.valid.shape == (1, 0)


def test_with_available_takes_a_collated_frame(loaded):
    frame, _ = collate(loaded)
    lost = torch.zeros(3, 6, dtype=torch.bool)
    assert not with_available(frame, lost).rig.available.any() and frame.rig.available.all()


def test_rigs_do_not_mix(loaded):
    with pytest.raises(ValueError, match="one rig"):
        collate([loaded[0], replace(loaded[1], camera_names=("a",))])
