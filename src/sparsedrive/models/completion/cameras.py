"""Which cameras failed, and which are whose neighbours."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.structures import FailedCameras

DATA_ORDER_NEIGHBOURS = ((0, 1, 2), (1, 0, 3), (2, 0, 4), (3, 1, 5), (4, 2, 5), (5, 3, 4))


def failed_cameras(available: Bool[Tensor, "B C"], *, at_least: int = 0) -> FailedCameras | None:
    """The cameras to complete, `at_least` so many rows a stream; None for no row.

    How much is computed depends on how many failed, so this waits for the device once a frame. Compiled and exported programs have
    fixed shapes: they complete all cameras and use what is needed, with the same result.
    """
    failed = ~available
    if torch.compiler.is_compiling():
        most = failed.shape[1]
    else:
        most = max(int(failed.sum(dim=1).max()), at_least)
        if most == 0:
            return None
    camera = failed.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return FailedCameras(camera=camera, failed=failed.gather(1, camera))


def take_cameras(per_camera: Tensor, cameras: FailedCameras) -> Tensor:
    """[B, C, ...] -> [B, M, ...]: of every row its camera's."""
    index = cameras.camera.reshape(*cameras.camera.shape, *[1] * (per_camera.dim() - 2))
    return per_camera.gather(1, index.expand(-1, -1, *per_camera.shape[2:]))


def put_cameras(per_camera: Tensor, rows: Tensor, cameras: FailedCameras) -> Tensor:
    """[B, C, ...] with the rows [B, M, ...] of failed cameras in their places; all others keep their bits."""
    index = cameras.camera.reshape(*cameras.camera.shape, *[1] * (per_camera.dim() - 2)).expand_as(rows)
    failed = cameras.failed.reshape(*cameras.failed.shape, *[1] * (per_camera.dim() - 2))
    own = per_camera.gather(1, index)
    return per_camera.scatter(1, index, torch.where(failed, rows.to(per_camera.dtype), own))


def ring_neighbours(names: tuple[str, ...], ring: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """For every camera itself and the next ones to both sides along a ring of names, as indices into `names`.

    Cameras of the ring that the rig lacks are passed over. Of two cameras each is the other's only neighbour, listed twice.
    """
    around = [names.index(name) for name in ring if name in names]
    place = {camera: index for index, camera in enumerate(around)}
    count = len(around)
    return tuple((camera, around[(place[camera] - 1) % count], around[(place[camera] + 1) % count]) for camera in range(len(names)))


def seen_neighbours(image_T_ego: Float[Tensor, "B C 4 4"]) -> Int[Tensor, "B C 3"]:
    """As `ring_neighbours`, from where the cameras look: the nearest heading to the left and to the right."""
    yaw_rad = heading_rad(image_T_ego)
    turn = (yaw_rad[:, None, :] - yaw_rad[:, :, None]) % (2 * math.pi)  # from row to column, 0..2 pi to the left
    itself = torch.eye(turn.shape[1], dtype=torch.bool, device=turn.device)
    left = turn.masked_fill(itself, math.inf).argmin(-1)
    right = turn.masked_fill(itself, -math.inf).argmax(-1)
    own = torch.arange(turn.shape[1], device=turn.device).expand_as(left)
    return torch.stack([own, left, right], dim=-1)


def heading_rad(image_T_ego: Float[Tensor, "B C 4 4"]) -> Float[Tensor, "B C"]:
    """Direction of every optical axis seen from above, counter-clockwise from the ego frame's +x."""
    # The third row takes a point to its depth: its linear part is the optical axis.
    axis = image_T_ego[..., 2, :2]
    return torch.atan2(axis[..., 1], axis[..., 0])
