"""Depth maps of LiDAR returns, the targets of the dense depth head."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

MIN_DEPTH_M = 0.1


def depth_maps(
    points_m: Float[np.ndarray, "N 3"],
    image_T_ego: Float[np.ndarray, "C 4 4"],
    wh_px: tuple[int, int],
    strides: Sequence[int] = (4, 8, 16),
    *,
    max_depth_m: float = 60.0,
) -> list[Float[np.ndarray, "C h w"]]:
    """Depth in metres of the nearest return in every cell, float32, one map [C, ceil(H / stride), ceil(W / stride)] a stride; 0: none.

    Args:
        points_m: returns in the ego frame.
        image_T_ego: as in `CameraRig`, to pixels of the network image of size `wh_px`; motion between sensors is in it already.
        max_depth_m: what is farther counts as this far, as the loss clips its predictions.

    A return belongs to the pixel whose centre, at whole numbers, is nearest, and with it to a cell.
    Source: Sparse4D v2 (arXiv:2305.14018) and its published code. On purpose otherwise: empty is 0, not -1, and sizes round up.
    """
    projection = np.asarray(image_T_ego, np.float32)
    found = [_returns_in_picture(np.asarray(points_m, np.float32), camera, wh_px) for camera in projection]
    column, line, depth_m = (np.concatenate(part) for part in zip(*found, strict=True))
    camera = np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
    # Far ones first: where several fall into a cell the last one written, the nearest, stays.
    order = np.argsort(-depth_m, kind="stable")
    camera, column, line, depth_m = camera[order], column[order], line[order], np.minimum(depth_m[order], max_depth_m)
    maps = []
    for stride in strides:
        target = np.zeros((len(found), -(-wh_px[1] // stride), -(-wh_px[0] // stride)), np.float32)
        target[camera, line // stride, column // stride] = depth_m
        maps.append(target)
    return maps


def _returns_in_picture(points_m: np.ndarray, image_T_ego: np.ndarray, wh_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel column, pixel line and depth of the returns that a camera sees."""
    depth_m = points_m @ image_T_ego[2, :3] + image_T_ego[2, 3]
    ahead = np.flatnonzero(depth_m >= MIN_DEPTH_M)
    depth_m = depth_m[ahead]
    xy_px = np.rint((points_m[ahead] @ image_T_ego[:2, :3].T + image_T_ego[:2, 3]) / depth_m[:, None])
    seen = np.flatnonzero(((xy_px >= 0) & (xy_px < wh_px)).all(-1))
    xy_px = xy_px[seen].astype(np.int64)
    return xy_px[:, 0], xy_px[:, 1], depth_m[seen]
