"""LiDAR files: what is read, dropped, moved, refused."""

import gzip
import json

import numpy as np
import pytest

from sparsedrive.data.lidar import gather_sweeps, read_lidar

FAR = np.array([[5, 1, 0, 10, 0], [-3, 20, 1, 20, 31]], np.float32)


def write(path, points):
    path.write_bytes(np.asarray(points, "<f4").tobytes())
    return path


def test_reading_gives_what_was_written(tmp_path):
    points = read_lidar(write(tmp_path / "scan.pcd.bin", FAR))
    np.testing.assert_array_equal(points, FAR)
    assert points.dtype == np.float32 and points.flags.writeable


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_returns_that_are_not_finite_are_dropped_and_counted(bad, tmp_path):
    broken = FAR.copy()
    broken[0, 2] = bad
    with pytest.warns(UserWarning, match=r"scan\.bin: dropped 1 of 2"):
        points = read_lidar(write(tmp_path / "scan.bin", broken))
    np.testing.assert_array_equal(points, FAR[1:])


@pytest.mark.parametrize("size", [0, 1, 36])
def test_a_file_cut_short_is_named(size, tmp_path):
    path = write(tmp_path / "short.pcd.bin", FAR)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"short\.pcd\.bin.*{size} bytes.*cut short"):
        read_lidar(path)
    with pytest.raises(ValueError, match=r"short\.pcd\.bin"):
        gather_sweeps([(path, np.eye(4))])


def test_returns_on_the_own_car_are_left_out(tmp_path):
    near = [[0.9, -0.9, 3, 0, 0], [0.9, 1.1, 0, 1, 0], [-1.1, 0, 0, 2, 0]]
    points, missing = gather_sweeps([(write(tmp_path / "scan.bin", near), np.eye(4))])
    assert points[:, 3].tolist() == [1, 2] and missing == 0


def test_sweeps_move_to_the_ego_frame_and_missing_ones_are_counted(tmp_path):
    ego_T_sweep = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], np.float64)
    first, second = write(tmp_path / "a.bin", FAR), write(tmp_path / "b.bin", FAR)
    points, missing = gather_sweeps([(first, np.eye(4)), (tmp_path / "none.bin", np.eye(4)), (second, ego_T_sweep)])
    assert missing == 1 and points.dtype == np.float32
    np.testing.assert_array_equal(points[:2], FAR)
    np.testing.assert_allclose(points[2:], [[0, 7, 3, 10, 0], [-19, -1, 4, 20, 31]])


def test_nothing_to_read_is_none(tmp_path):
    assert gather_sweeps([(tmp_path / "none.bin", np.eye(4))]) == (None, 1)
    assert gather_sweeps([]) == (None, 0)


def test_real_scan_fills_the_annotated_boxes(real_root):
    """The tables say how many returns each box holds; the published index has the boxes in the frame of the lidar."""
    (path,) = (real_root / "samples" / "LIDAR_TOP").iterdir()
    points = read_lidar(path)
    assert points.shape == (34688, 5)
    assert points[:, 4].min() == 0 and points[:, 4].max() == 31
    with gzip.open(real_root / "reference" / "sparsedrive_infos_train.json.gz") as file:
        (info,) = json.load(file)["infos"]
    boxes, returns = (np.array(info[name]["__array__"]) for name in ("gt_boxes", "num_lidar_pts"))
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    offset = points[:, None, :3] - boxes[:, :3]
    along, across = offset[..., 0] * cos + offset[..., 1] * sin, offset[..., 1] * cos - offset[..., 0] * sin
    inside = (np.abs(np.stack([along, across, offset[..., 2]], -1)) <= boxes[:, 3:6] / 2).all(-1).sum(0)
    # Boxes are rounded to a millimetre and stand upright here, tilted with the car there: a few returns change sides.
    assert (inside == returns).mean() > 0.85
    assert abs(inside.sum() - returns.sum()) < 0.03 * returns.sum()
