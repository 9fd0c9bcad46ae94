"""The frames that Sparse4D v1 looks at again, as pure functions: what is seen now, remember it.

Source: the feature queue of Sparse4D (arXiv:2211.10581, section 3.3), with the state passed in and out as a value.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedrive.geometry import se3
from sparsedrive.layers.past_aggregation import View, bordered
from sparsedrive.models.memory_ops import Tick
from sparsedrive.structures import CameraRig, ImageFeatures, ImageHistory


@dataclass(frozen=True, kw_only=True)
class HistoryConfig:
    """Sampling as in Sparse4D v1: besides this frame `num_past` others, from exactly `num_cameras` cameras each (see `PastAggregation`)."""

    num_past: int = 3
    num_cameras: int = 6
    output_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.num_past < 0:
            raise ValueError(f"HistoryConfig.num_past: expected 0 or more, got {self.num_past}; 0 looks at this frame only")
        if self.num_cameras < 1:
            raise ValueError(f"HistoryConfig.num_cameras: expected at least 1, got {self.num_cameras}; nuScenes has 6")


def present(images: ImageFeatures, rig: CameraRig, now: Tick) -> View:
    """This frame."""
    identity = torch.eye(4, dtype=now.now_T_then.dtype, device=now.now_T_then.device)
    return View(
        levels=bordered(images),
        image_T_ego=rig.image_T_ego,
        image_wh_px=rig.image_wh_px,
        available=rig.available,
        then_T_now=identity.expand_as(now.now_T_then),
        age_s=torch.zeros_like(now.elapsed_s),
        valid=torch.ones_like(now.warm),
    )


def advance(history: ImageHistory, now: Tick) -> ImageHistory:
    """The history relative to this frame; that of a stream that starts cold is not valid."""
    last_T_now = se3.invert(now.now_T_then)
    return ImageHistory(
        packed=history.packed,
        image_T_ego=history.image_T_ego,
        image_wh_px=history.image_wh_px,
        available=history.available,
        then_T_last=history.then_T_last @ last_T_now[:, None],
        age_s=history.age_s + now.elapsed_s[:, None],
        valid=history.valid & now.attends[:, None],
    )


def past(history: ImageHistory, level_hw: tuple[int, ...]) -> tuple[View, ...]:
    """Every frame of an advanced history, oldest first."""
    # A picture without size would make NaN gradients where a reset stream has zeros.
    image_wh_px = torch.where(history.valid[..., None, None], history.image_wh_px, 1.0)
    return tuple(
        View(
            levels=bordered(ImageFeatures(packed=history.packed[:, index], level_hw=level_hw)),
            image_T_ego=history.image_T_ego[:, index],
            image_wh_px=image_wh_px[:, index],
            available=history.available[:, index],
            then_T_now=history.then_T_last[:, index],
            age_s=history.age_s[:, index],
            valid=history.valid[:, index],
        )
        for index in range(history.packed.shape[1])
    )


def remember(history: ImageHistory, images: ImageFeatures, view: View) -> ImageHistory:
    """An advanced history without its oldest frame and with this one, outside the graph."""

    def append(rows: Tensor, new: Tensor) -> Tensor:
        return torch.cat([rows[:, 1:], new.detach()[:, None]], dim=1)

    return ImageHistory(
        packed=append(history.packed, images.packed),
        image_T_ego=append(history.image_T_ego, view.image_T_ego),
        image_wh_px=append(history.image_wh_px, view.image_wh_px),
        available=append(history.available, view.available),
        then_T_last=append(history.then_T_last, view.then_T_now),
        age_s=append(history.age_s, view.age_s),
        valid=append(history.valid, view.valid),
    )


def initial(
    batch_size: int, config: HistoryConfig, num_pixels: int, dim: int, dtype: torch.dtype, device: torch.device | str
) -> ImageHistory:
    """History of streams that have seen nothing; `num_pixels` of all levels of a camera's features."""
    shape = (batch_size, config.num_past)
    per_camera = (*shape, config.num_cameras)
    eye = torch.eye(4, dtype=dtype, device=device)
    return ImageHistory(
        packed=torch.zeros(*per_camera, num_pixels, dim, dtype=dtype, device=device),
        image_T_ego=eye.repeat(*per_camera, 1, 1),
        image_wh_px=torch.ones(*per_camera, 2, dtype=dtype, device=device),
        available=torch.zeros(per_camera, dtype=torch.bool, device=device),
        then_T_last=eye.repeat(*shape, 1, 1),
        age_s=torch.zeros(shape, dtype=dtype, device=device),
        valid=torch.zeros(shape, dtype=torch.bool, device=device),
    )
