"""Detections from the last layer of the box decoder."""

import torch
from jaxtyping import Int
from torch import Tensor

from sparsedrive.geometry import box_state
from sparsedrive.structures import DecoderStep, Detections, ParityOptions, take_rows
from sparsedrive.structures.instances import CENTERNESS


def decode_boxes(
    step: DecoderStep,
    track_id: Int[Tensor, "B N"],
    *,
    num_output: int = 300,
    score_threshold: float | None = None,
    with_track_ids: bool = True,
    parity: ParityOptions = ParityOptions(),  # noqa: B008 - frozen
) -> Detections:
    """The `min(num_output, candidates)` best boxes of every stream, ego frame, sorted by `score`, best first.

    With track ids a query has one box: its best class. Without, every (query, class) pair competes and `track_id` is -1.
    Candidates are chosen by class score; a predicted centerness then scales the score and orders them. `score_threshold`
    applies to the class score alone and only clears `valid`, so shapes never depend on data.

    Errors: ValueError for a `num_output` below 1.
    Source: decoding of Sparse4D v3 (arXiv:2311.11722, section 3.2) and SparseDrive (arXiv:2405.19620).
    """
    if num_output < 1:
        raise ValueError(f"decode_boxes: expected num_output >= 1, got {num_output}; ask for at least one box")
    class_score, query, label = _best_candidates(step.class_logits, num_output, with_track_ids)
    valid = torch.ones_like(class_score, dtype=torch.bool) if score_threshold is None else class_score >= score_threshold
    score = class_score
    if step.quality is not None:
        centerness = step.quality[..., CENTERNESS].gather(1, query).sigmoid()
        score, order = (class_score * centerness).sort(dim=1, descending=True)
        query, label, valid = query.gather(1, order), label.gather(1, order), valid.gather(1, order)
        if not parity.unsorted_class_scores:
            class_score = class_score.gather(1, order)
    return Detections(
        box=box_state.decode(take_rows(step.state, query)),
        score=score,
        class_score=class_score,
        label=label,
        track_id=track_id.gather(1, query) if with_track_ids else torch.full_like(query, -1),
        query_index=query,
        valid=valid,
    )


def _best_candidates(class_logits: Tensor, num_output: int, one_class: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Class score, query and label of the best candidates, each [B, K], best first."""
    num_classes = class_logits.shape[-1]
    scores = class_logits.sigmoid()
    if one_class:
        scores, labels = scores.max(dim=-1)
        best, query = scores.topk(min(num_output, scores.shape[1]), dim=1)
        return best, query, labels.gather(1, query)
    scores = scores.flatten(1)
    best, index = scores.topk(min(num_output, scores.shape[1]), dim=1)
    return best, torch.div(index, num_classes, rounding_mode="floor"), index % num_classes
