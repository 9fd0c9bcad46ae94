"""Map elements from the last layer of the map decoder."""

import torch

from sparsedrive.geometry import polyline
from sparsedrive.structures import DecoderStep, MapElements, take_rows


def decode_polylines(step: DecoderStep, *, score_threshold: float | None = None) -> MapElements:
    """As many elements as there are queries, ego frame (metres), best first.

    Every (query, class) pair competes, so one query may answer twice. A score below `score_threshold` only clears `valid`.
    Source: the map decoder of SparseDrive (arXiv:2405.19620).
    """
    num_queries, num_classes = step.class_logits.shape[1:]
    score, index = step.class_logits.sigmoid().flatten(1).topk(num_queries, dim=1)
    query = torch.div(index, num_classes, rounding_mode="floor")
    return MapElements(
        points_m=polyline.points(take_rows(step.state, query)),
        score=score,
        label=index % num_classes,
        valid=torch.ones_like(score, dtype=torch.bool) if score_threshold is None else score >= score_threshold,
    )
