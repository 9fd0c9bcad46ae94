"""What a frame should have been answered with: padded, masked, in the ego frame of the frame they belong to."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.structures._structure import structure


@structure
class BoxTargets:
    """Boxes x y z l w h yaw_rad vx vy vz (velocity NaN where the track is too short to know it).

    `instance` numbers the objects of a scene, the same number in all its frames. `lidar_returns` counts lidar and radar returns inside
    the box. Rows that only pad the batch are not `valid`.
    """

    box: Float[Tensor, "B N 10"]
    label: Int[Tensor, "B N"]
    instance: Int[Tensor, "B N"]
    lidar_returns: Int[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]


@structure
class MapTargets:
    """Map elements as P points each, in all V orders that mean the same element (both directions; of a ring also every start).

    Orders and elements that only pad are not `order_valid`, not `valid`.
    """

    points_m: Float[Tensor, "B L V P 2"]
    order_valid: Bool[Tensor, "B L V"]
    label: Int[Tensor, "B L"]
    valid: Bool[Tensor, "B L"]


@structure
class FutureTargets:
    """Where the N boxes of `BoxTargets` and the ego frame's origin will be: positions in ego metres, 0.5 s apart.

    A step is valid while the track goes on without a gap; positions of other steps are those of the last valid one.
    """

    agent_m: Float[Tensor, "B N T 2"]
    agent_valid: Bool[Tensor, "B N T"]
    ego_m: Float[Tensor, "B E 2"]
    ego_valid: Bool[Tensor, "B E"]


@structure
class FrameTargets:
    """Everything a frame can be trained on. `depth_m` has one tensor a feature level, 0 where no lidar point fell.

    `ego_status_known` says which columns of `Frame.ego_status` were recorded.
    """

    boxes: BoxTargets
    map: MapTargets
    futures: FutureTargets
    depth_m: tuple[Float[Tensor, "B C h w"], ...]
    ego_status_known: Bool[Tensor, "B 10"]

    def to(self, device: torch.device | str) -> "FrameTargets":
        """The same targets on another device."""
        return pytree.tree_map(lambda leaf: leaf.to(device, non_blocking=True), self)
