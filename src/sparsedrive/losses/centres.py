"""Targets and losses of boxes found as centres on a map from above.

Source: Yin et al., CenterPoint (arXiv:2006.11275), section 4; the radius of a target after CornerNet (arXiv:1808.01244), section 3.2.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsedrive.losses.elementwise import averaged, gaussian_focal, l1
from sparsedrive.structures import BoxTargets
from sparsedrive.structures.centres import CentreGrid, CentreMaps, CentreTargets


@dataclass(frozen=True, kw_only=True)
class CentreLossConfig:
    """Weights as published for CenterPoint on nuScenes. `min_overlap` and `least_radius` [cells] say how wide a target is."""

    box_weight: float = 0.25
    velocity_weight: float = 0.2
    min_overlap: float = 0.1
    least_radius: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class CentreLosses:
    """The two terms, weighted."""

    classification: Float[Tensor, ""]
    box: Float[Tensor, ""]


def centre_targets(boxes: BoxTargets, grid: CentreGrid, num_classes: int, config: CentreLossConfig | None = None) -> CentreTargets:
    """What the maps should say about these boxes.

    Args:
        boxes: ego frame, metres; labels of `num_classes` and above are left out.
    """
    config = config or CentreLossConfig()
    columns, rows = grid.shape
    place = (boxes.box[..., :2] - boxes.box.new_tensor(grid.low_m)) / boxes.box.new_tensor(grid.cell_m)
    size = boxes.box[..., 3:5] / boxes.box.new_tensor(grid.cell_m).mean()
    inside = ((place >= 0) & (place < place.new_tensor(grid.shape))).all(-1)
    valid = boxes.valid & inside & (boxes.label >= 0) & (boxes.label < num_classes)
    index = place.where(valid[..., None], 0).floor().long()
    radius = gaussian_radius(size, config.min_overlap).floor().clamp(min=config.least_radius)
    heat = boxes.box.new_zeros(len(boxes.box), num_classes, rows, columns)
    for sample in range(len(heat)):
        mine = valid[sample]
        spot = _spots(index[sample, mine], radius[sample, mine], rows, columns)
        label = boxes.label[sample, mine].long()[:, None, None].expand_as(spot)
        heat[sample].scatter_reduce_(0, label, spot, "amax")
    yaw = boxes.box[..., 6:7]
    box = torch.cat([place - index, boxes.box[..., 2:3], boxes.box[..., 3:6].log(), yaw.sin(), yaw.cos(), boxes.box[..., 7:9]], -1)
    return CentreTargets(heat=heat, cell=index[..., 1] * columns + index[..., 0], box=box, valid=valid)


def centre_losses(maps: CentreMaps, targets: CentreTargets, config: CentreLossConfig | None = None) -> CentreLosses:
    """Focal loss of the map, summed over cells and averaged over boxes; L1 of the boxes at their centres, averaged over boxes."""
    config = config or CentreLossConfig()
    count = targets.valid.sum().clamp(min=1)
    classification = averaged(gaussian_focal(maps.class_logits.sigmoid(), targets.heat), count=count)
    said = maps.box.flatten(2).gather(2, targets.cell[:, None].expand(-1, maps.box.shape[1], -1)).transpose(1, 2)
    known = targets.valid[..., None] & targets.box.isfinite()
    weight = said.new_ones(said.shape[-1])
    weight[-2:] = config.velocity_weight
    box = averaged(l1(said, targets.box.where(known, 0)), weight * known, count)
    return CentreLosses(classification=classification, box=box * config.box_weight)


def gaussian_radius(size: Float[Tensor, "*batch 2"], min_overlap: float) -> Float[Tensor, "*batch"]:
    """How far both corners of a box of that size may move for an intersection over union of `min_overlap` with where they were.

    The least over three cases: one corner moves in and the other out, both in, both out.
    """
    total, area = size.sum(-1), size.prod(-1)

    def root(a: float, b: Tensor, c: Tensor) -> Tensor:
        # As published: (b + sqrt) / 2, not divided by a.
        return (b + (b * b - 4 * a * c).clamp(min=0).sqrt()) / 2

    shifted = root(1, total, area * (1 - min_overlap) / (1 + min_overlap))
    smaller = root(4, 2 * total, area * (1 - min_overlap))
    larger = root(4 * min_overlap, -2 * min_overlap * total, area * (min_overlap - 1))
    return torch.minimum(torch.minimum(shifted, smaller), larger)


def _spots(index: Tensor, radius: Tensor, rows: int, columns: int) -> Float[Tensor, "N Y X"]:
    """Round bells of standard deviation (2 r + 1) / 6, cut off at r cells to each side."""
    x = (torch.arange(columns, device=index.device) - index[:, :1])[:, None]
    y = (torch.arange(rows, device=index.device) - index[:, 1:])[:, :, None]
    reach = radius[:, None, None]
    bell = torch.exp(-(x * x + y * y) / (2 * ((2 * reach + 1) / 6) ** 2))
    return bell * ((x.abs() <= reach) & (y.abs() <= reach))
