"""What a stream remembers from frame to frame. Plain values: a model holds weights only."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsedrive.structures._structure import structure
from sparsedrive.structures.completion_memory import CompletionMemory
from sparsedrive.structures.denoising import DenoisingMemory


@structure
class StreamClock:
    """When and where each stream's memory was made; `started` is False for a slot that has seen nothing yet."""

    global_T_ego: Float[Tensor, "B 4 4"]
    time_s: Float[Tensor, "B"]
    sequence_id: Int[Tensor, "B"]
    started: Bool[Tensor, "B"]


@structure
class ImageHistory:
    """Image features of the last H frames with their cameras (see `ImageFeatures`, `CameraRig`), oldest first.

    `then_T_last` takes ego coordinates of the last frame to those of the stored one, which is `age_s` older. What is not `valid` has not
    been seen.
    """

    packed: Float[Tensor, "B H C S D"]
    image_T_ego: Float[Tensor, "B H C 4 4"]
    image_wh_px: Float[Tensor, "B H C 2"]
    available: Bool[Tensor, "B H C"]
    then_T_last: Float[Tensor, "B H 4 4"]
    age_s: Float[Tensor, "B H"]
    valid: Bool[Tensor, "B H"]


@structure
class InstanceMemory:
    """The K most confident instances of the last frame, in its ego frame. `next_id` is the next unused track id of the stream.

    `denoising` is there while training with denoising queries, `history` where past pictures are looked at again (Sparse4D v1).
    """

    feature: Float[Tensor, "B K D"]
    state: Float[Tensor, "B K S"]
    confidence: Float[Tensor, "B K"]
    track_id: Int[Tensor, "B K"]
    next_id: Int[Tensor, "B"]
    denoising: DenoisingMemory | None = None
    history: ImageHistory | None = None


@structure
class MotionMemory:
    """The last H frames of every detection instance and of the ego vehicle, oldest first, in the last ego frame.

    `period` and `ego_period` count how many of the H entries are real.
    """

    feature: Float[Tensor, "B N H D"]
    state: Float[Tensor, "B N H 11"]
    period: Int[Tensor, "B N"]
    track_id: Int[Tensor, "B N"]
    confidence: Float[Tensor, "B N"]
    ego_feature: Float[Tensor, "B H D"]
    ego_state: Float[Tensor, "B H 11"]
    ego_period: Int[Tensor, "B"]
    ego_status: Float[Tensor, "B 10"]


@structure
class StreamState:
    """State of B streams between two frames. What a model does not have is `None`."""

    clock: StreamClock
    detection: InstanceMemory
    map: InstanceMemory | None
    motion: MotionMemory | None
    completion: CompletionMemory | None = None

    def reset_where(self, mask: Bool[Tensor, "B"]) -> "StreamState":
        """The streams where `mask` is True forget everything: their next frame starts cold."""
        fresh = pytree.tree_map(torch.zeros_like, self)
        return pytree.tree_map(lambda new, old: torch.where(mask.reshape(-1, *[1] * (old.dim() - 1)), new, old), fresh, self)

    def detach(self) -> "StreamState":
        """The same state outside the autograd graph."""
        return pytree.tree_map(lambda leaf: leaf.detach(), self)

    def to(self, device: torch.device | str) -> "StreamState":
        """The same state on another device."""
        return pytree.tree_map(lambda leaf: leaf.to(device), self)

    def stream(self, index: int) -> "StreamState":
        """State of one stream, as a batch of one."""
        return pytree.tree_map(lambda leaf: leaf[index : index + 1], self)


def cat_states(states: list[StreamState]) -> StreamState:
    """States of several streams as one batch."""
    spec = pytree.tree_structure(states[0])
    columns = zip(*(pytree.tree_leaves(state) for state in states), strict=True)
    return pytree.tree_unflatten([torch.cat(list(column)) for column in columns], spec)
