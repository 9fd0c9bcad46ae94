"""The teacher of the completion: what failed cameras would have given, where a training picture is there all the same."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sparsedrive.losses.completion import CompletionTeacher
from sparsedrive.models.completion.health import flat_pictures
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import Frame


@torch.no_grad()
def completion_teacher(model: SparseDrive, frame: Frame) -> CompletionTeacher | None:
    """Features of cameras that are not `available` but whose true picture is in the frame (failures with fill "intact"): by the same
    weights, from the same augmented picture, in evaluation mode. None without such a camera.

    The model itself never looks at these pictures.
    """
    known = ~frame.rig.available & ~flat_pictures(frame.images)
    if not bool(known.any()):
        return None
    with _evaluating(model.image_encoder):
        return CompletionTeacher(packed=model.image_encoder(frame.images, known).packed, known=known)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Within this context batch norms use, and leave alone, what they have learned."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
