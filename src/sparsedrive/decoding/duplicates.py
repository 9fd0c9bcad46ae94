"""A second box on an object that already has a better one."""

from dataclasses import replace

import torch

from sparsedrive.geometry import box_state
from sparsedrive.structures import Detections


def drop_duplicates(found: Detections) -> Detections:
    """`valid` cleared for boxes that share their place with a better box (an earlier row) that stays, of whatever class.

    Two boxes share a place when the centre of one lies inside the footprint of the other: solid things cannot. Matching one query to
    one object teaches a model to answer once, but only late in training; a model trained for long does not need this.
    The number of rounds depends on data: the device is asked after each whether anything changed.
    """
    shares = box_state.centres_inside(found.box)
    shares = (shares | shares.transpose(1, 2)) & found.valid[:, None, :]
    better = torch.tril(shares, diagonal=-1)
    stays = found.valid
    while True:  # at most as many rounds as boxes wait for one another in a chain
        now = found.valid & ~(better & stays[:, None, :]).any(-1)
        if torch.equal(now, stays):
            return replace(found, valid=now)
        stays = now
