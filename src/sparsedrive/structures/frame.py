"""What a model sees at one instant: images, cameras, where and when."""

from dataclasses import replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.structures._structure import structure

NUSCENES_CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")

EGO_STATUS_DIM = 10
"""Columns of `Frame.ego_status`: acceleration x y z [m/s^2], rotation rate x y z [rad/s], velocity x y z [m/s], steering angle
[rad, positive left]; all in the vehicle frame of the CAN bus (x forward, y left, z up)."""
EGO_FORWARD_SPEED = 6


class Command(IntEnum):
    """Navigation command; the order of the published plan anchors."""

    RIGHT = 0
    LEFT = 1
    STRAIGHT = 2


@structure
class CameraRig:
    """Calibrated cameras, as they are for the images of one `Frame`.

    `image_T_ego` takes ego metres to (pixel_x * depth, pixel_y * depth, depth, 1) of the *network-resolution* image, so resizing,
    cropping and flipping are already in it. `available` says which cameras deliver pictures: failure is data.
    """

    image_T_ego: Float[Tensor, "B C 4 4"]
    image_wh_px: Float[Tensor, "B C 2"]
    focal_px: Float[Tensor, "B C"]
    available: Bool[Tensor, "B C"]
    names: tuple[str, ...]


@structure
class Frame:
    """One instant of B streams. Ego frame: the frame the model's boxes live in (nuScenes: LIDAR_TOP, x right, y forward, z up).

    `images` are normalised network input. `global_T_ego` and `time_s` are float64: float32 has 128 s resolution at epoch seconds.
    A stream whose `sequence_id` changes starts cold. `command` is a `Command`.
    """

    images: Float[Tensor, "B C 3 H W"]
    rig: CameraRig
    global_T_ego: Float[Tensor, "B 4 4"]
    time_s: Float[Tensor, "B"]
    sequence_id: Int[Tensor, "B"]
    ego_status: Float[Tensor, "B 10"]
    command: Int[Tensor, "B"]

    @property
    def batch_size(self) -> int:
        """Number of streams B."""
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> "Frame":
        """The same frame on another device."""
        return torch.utils._pytree.tree_map(lambda leaf: leaf.to(device, non_blocking=True) if isinstance(leaf, Tensor) else leaf, self)


def check_shapes(frame: Frame) -> None:
    """That all parts of a frame have the batch size and the number of cameras of its images. Raises ValueError."""
    if frame.images.dim() != 5:
        raise ValueError(f"Frame.images: expected [B, C, 3, H, W], got {list(frame.images.shape)}; add a batch dimension with [None]")
    batch, cameras = frame.images.shape[:2]
    expected = (
        ("CameraRig.image_T_ego", frame.rig.image_T_ego, (batch, cameras, 4, 4)),
        ("CameraRig.image_wh_px", frame.rig.image_wh_px, (batch, cameras, 2)),
        ("CameraRig.focal_px", frame.rig.focal_px, (batch, cameras)),
        ("CameraRig.available", frame.rig.available, (batch, cameras)),
        ("Frame.global_T_ego", frame.global_T_ego, (batch, 4, 4)),
        ("Frame.time_s", frame.time_s, (batch,)),
        ("Frame.sequence_id", frame.sequence_id, (batch,)),
        ("Frame.ego_status", frame.ego_status, (batch, EGO_STATUS_DIM)),
        ("Frame.command", frame.command, (batch,)),
    )
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name}: expected {list(shape)} to go with images of {batch} streams and {cameras} cameras, got {list(tensor.shape)}; "
                "give every stream its own row (a single stream has B = 1)"
            )


def cat_frames(frames: list[Frame]) -> Frame:
    """Frames of several streams as one batch. All must have the same cameras and picture size."""
    first = frames[0]
    for frame in frames[1:]:
        if frame.rig.names != first.rig.names or frame.images.shape[1:] != first.images.shape[1:]:
            raise ValueError(
                f"cat_frames: expected every frame to have cameras {first.rig.names} and images {tuple(first.images.shape[1:])}, "
                f"got {frame.rig.names} and {tuple(frame.images.shape[1:])}; run rigs that differ in separate sessions"
            )
    leaves, spec = torch.utils._pytree.tree_flatten(first)
    columns = zip(*(torch.utils._pytree.tree_leaves(frame) for frame in frames), strict=True)
    merged = [torch.cat(list(column)) if isinstance(column[0], Tensor) else column[0] for column in columns]
    assert len(merged) == len(leaves)
    return torch.utils._pytree.tree_unflatten(merged, spec)


def with_available(frame: Frame, available: Bool[Tensor, "B C"]) -> Frame:
    """The same frame with other camera availability."""
    return replace(frame, rig=replace(frame.rig, available=available))
