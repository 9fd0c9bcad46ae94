"""Detections from a map of centres."""

import torch
import torch.nn.functional as F

from sparsedrive.structures import Detections
from sparsedrive.structures.centres import CentreGrid, CentreMaps


def decode_centres(maps: CentreMaps, grid: CentreGrid, *, num_output: int = 200, score_threshold: float = 0.0) -> Detections:
    """The best `num_output` peaks of every sample: cells that no neighbour (of eight, same class) surpasses. Ego frame, best first.

    A shape that does not depend on data: rows that are no peak or have a score below the threshold are not `valid`.

    Errors: ValueError where the maps are not of the grid's shape, or `num_output` is less than 1.
    Source: Zhou et al., Objects as Points (arXiv:1904.07850), section 4; CenterPoint (arXiv:2006.11275).
    """
    columns, rows = grid.shape
    if maps.class_logits.shape[2:] != (rows, columns) or num_output < 1:
        got = f"{list(maps.class_logits.shape[2:])} and {num_output}"
        raise ValueError(f"decode_centres: expected maps of [{rows}, {columns}] and num_output >= 1, got {got}; give the model's grid")
    score = maps.class_logits.sigmoid()
    peak = F.max_pool2d(score, 3, stride=1, padding=1) == score
    flat = (score * peak).flatten(1)
    best, number = flat.topk(min(num_output, flat.shape[1]), dim=1)
    label, cell = number // (rows * columns), number % (rows * columns)
    said = maps.box.flatten(2).gather(2, cell[:, None].expand(-1, maps.box.shape[1], -1)).transpose(1, 2)
    corner = torch.stack([cell % columns, cell // columns], -1)
    centre = (corner + said[..., :2]) * said.new_tensor(grid.cell_m) + said.new_tensor(grid.low_m)
    yaw = torch.atan2(said[..., 6], said[..., 7])[..., None]
    box = torch.cat([centre, said[..., 2:3], said[..., 3:6].exp(), yaw, said[..., 8:10], torch.zeros_like(yaw)], -1)
    return Detections(
        box=box,
        score=best,
        class_score=best,
        label=label,
        track_id=torch.full_like(label, -1),
        query_index=cell,
        valid=(best > 0) & (best >= score_threshold),
    )
