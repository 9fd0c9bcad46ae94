"""Who carries the id of an object that several instances stand for."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsedrive.geometry import box_state

NEAR_M, MAX_SIZE_M = 2.0, 20.0  # 2 m: as tracks are matched with true ones in nuScenes


def hand_over_ids(
    track_id: Int[Tensor, "B N"], state: Float[Tensor, "B N 11"], confidence: Float[Tensor, "B N"], last_confidence: Float[Tensor, "B K"]
) -> Int[Tensor, "B N"]:
    """Of the instances in one place the most confident one gets the id of the one that was most confident in the last frame, which gets
    its id in return; ids stay different.

    The first K instances are remembered ones, with the confidence they were remembered with; the others are new. Instances share a place
    where the centre of one lies inside the other's footprint, or within `NEAR_M`. Fixed shapes and no loops: exporters know all of it.
    """
    count = track_id.shape[1]
    together = same_place(state)
    shown = together * (confidence[:, None] + 1.0)  # the mates of every row; a row is its own
    leader = shown.argmax(-1)
    row = torch.arange(count, device=track_id.device)
    leads = leader == row
    new = last_confidence.new_full((last_confidence.shape[0], count - last_confidence.shape[1]), -1.0)
    before = torch.cat([last_confidence, new], dim=1)
    member = (leader[:, None] == row[:, None]) & leads[..., None]  # [B, leader, member]
    known = torch.where(member, before[:, None], -2.0)
    most, holder = known.max(-1)
    changes = leads & (most > before) & (most >= 0.0)
    takes = (holder[..., None] == row) & changes[..., None]  # [B, leader, holder]
    got = torch.where(changes, track_id.gather(1, holder), track_id)
    gives = takes.any(1)
    return torch.where(gives, track_id.gather(1, takes.int().argmax(1)), got)


def same_place(state: Float[Tensor, "B N 11"]) -> Bool[Tensor, "B N N"]:
    """Which instances are in one place, from above."""
    box = box_state.decode(state)
    inside = box_state.centres_inside(torch.cat([box[..., :3], box[..., 3:6].clamp(max=MAX_SIZE_M), box[..., 6:]], dim=-1))
    offset = state[:, None, :, :2] - state[:, :, None, :2]
    return inside | inside.transpose(1, 2) | (offset.square().sum(-1) < NEAR_M**2)
