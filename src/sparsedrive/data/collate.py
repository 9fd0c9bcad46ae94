"""Loaded frames of several slots -> one batch: rows that only pad are masked out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsedrive.data.dataset import LoadedFrame
from sparsedrive.data.targets import LoadedTargets
from sparsedrive.structures import CameraRig, Frame
from sparsedrive.structures.targets import BoxTargets, FrameTargets, FutureTargets, MapTargets


def collate(frames: Sequence[LoadedFrame]) -> tuple[Frame, FrameTargets]:
    """Batch-first CPU tensors. Boxes and map elements are padded to the most in the batch; padding is zero and not valid."""
    if len({frame.camera_names for frame in frames}) != 1:
        raise ValueError(f"collate: expected frames of one rig, got {[frame.camera_names for frame in frames]}")
    rig = CameraRig(
        image_T_ego=_stack([frame.image_T_ego for frame in frames]),
        image_wh_px=_stack([frame.image_wh_px for frame in frames]),
        focal_px=_stack([frame.focal_px for frame in frames]),
        available=_stack([frame.available for frame in frames]),
        names=frames[0].camera_names,
    )
    frame = Frame(
        images=_stack([frame.images for frame in frames]),
        rig=rig,
        global_T_ego=_stack([frame.global_T_ego for frame in frames]),
        time_s=torch.tensor([frame.time_s for frame in frames], dtype=torch.float64),
        sequence_id=torch.tensor([frame.sequence_id for frame in frames]),
        ego_status=_stack([frame.ego_status for frame in frames]),
        command=torch.tensor([frame.command for frame in frames]),
    )
    return frame, _targets([frame.targets for frame in frames], _stack([frame.ego_status_known for frame in frames]))


def _targets(targets: list[LoadedTargets], ego_status_known: Tensor) -> FrameTargets:
    boxes = BoxTargets(
        box=_pad([target.box for target in targets]),
        label=_pad([target.label for target in targets]),
        instance=_pad([target.instance for target in targets]),
        lidar_returns=_pad([target.lidar_returns for target in targets]),
        valid=_pad([np.ones(len(target.box), bool) for target in targets]),
    )
    futures = FutureTargets(
        agent_m=_pad([target.agent_m for target in targets]),
        agent_valid=_pad([target.agent_valid for target in targets]),
        ego_m=_stack([target.ego_m for target in targets]),
        ego_valid=_stack([target.ego_valid for target in targets]),
    )
    depth_m = tuple(_stack(list(level)) for level in zip(*(target.depth_m for target in targets), strict=True))
    return FrameTargets(boxes=boxes, map=_map_targets(targets), futures=futures, depth_m=depth_m, ego_status_known=ego_status_known)


def _map_targets(targets: list[LoadedTargets]) -> MapTargets:
    lines = [line for target in targets for line in target.map_orders_m]
    elements = max(len(target.map_orders_m) for target in targets)
    orders, points = max((len(line) for line in lines), default=1), lines[0].shape[1] if lines else 1
    points_m = np.zeros((len(targets), elements, orders, points, 2), np.float32)
    order_valid = np.zeros((len(targets), elements, orders), bool)
    for row, target in enumerate(targets):
        for element, line in enumerate(target.map_orders_m):
            points_m[row, element, : len(line)] = line
            order_valid[row, element, : len(line)] = True
    return MapTargets(
        points_m=torch.from_numpy(points_m),
        order_valid=torch.from_numpy(order_valid),
        label=_pad([target.map_label for target in targets]),
        valid=torch.from_numpy(order_valid.any(-1)),
    )


def _stack(arrays: list[np.ndarray[Any, Any]]) -> Tensor:
    """One array is passed on without a copy."""
    return torch.from_numpy(np.stack(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0])[None])


def _pad(arrays: list[np.ndarray[Any, Any]]) -> Tensor:
    """Ragged rows as one array, zero (False) where there is none."""
    padded = np.zeros((len(arrays), max(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
