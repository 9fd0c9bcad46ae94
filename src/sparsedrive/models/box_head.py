"""Detection: boxes as instances."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsedrive.geometry import box_state
from sparsedrive.layers.embed import BoxEncoder
from sparsedrive.layers.keypoints import BoxKeyPoints
from sparsedrive.layers.refine import BoxRefine
from sparsedrive.structures import DETECTION_CLASSES


@dataclass(frozen=True, kw_only=True)
class BoxKind:
    """Instances are boxes (`geometry.box_state`). The embedding splits its width 4:1:1:2 over position, size, yaw, velocity.

    What the generations of Sparse4D differ in: `summed_embedding`, `adds_to_yaw` and `with_quality` (see `BoxEncoder`, `BoxRefine`).
    `swaps_moved_heading`: a remembered box has sine and cosine of its yaw exchanged, as the weights published for Sparse4D v3 were
    trained; without it they would read every remembered heading wrong.
    """

    num_classes: int = len(DETECTION_CLASSES)
    num_learned_points: int = 6
    range_m: float = 55.0
    state_dim: int = box_state.STATE_DIM
    summed_embedding: bool = False
    adds_to_yaw: bool = True
    with_quality: bool = True
    swaps_moved_heading: bool = False

    def encoder(self, dim: int) -> nn.Module:
        """Box embedding."""
        if self.summed_embedding:
            return BoxEncoder((dim, dim, dim, dim), blocks=2, summed=True)
        return BoxEncoder((dim // 2, dim // 8, dim // 8, dim // 4))

    def key_points(self, dim: int) -> tuple[nn.Module, int]:
        """Fixed and learned key points."""
        module = BoxKeyPoints(dim, self.num_learned_points)
        return module, module.num_points

    def refine(self, dim: int) -> nn.Module:
        """Box refinement, with quality estimation where there is such."""
        return BoxRefine(dim, self.num_classes, adds_to_yaw=self.adds_to_yaw, with_quality=self.with_quality)

    def transform(self, state: Tensor, dst_T_src: Tensor, elapsed_s: Tensor) -> Tensor:
        """Boxes moved by their velocity and the ego motion."""
        moved = box_state.transform(state, dst_T_src, elapsed_s)
        if not self.swaps_moved_heading:
            return moved
        before, heading, after = moved.split([box_state.SIN_YAW, 2, box_state.STATE_DIM - box_state.VX], dim=-1)
        return torch.cat([before, heading.flip(-1), after], dim=-1)

    def default_anchors(self, num_anchors: int) -> Tensor:
        """Car-sized boxes on a sunflower spiral: even cover of the detection disc without any data set's statistics."""
        index = torch.arange(num_anchors, dtype=torch.float64) + 0.5
        radius_m = self.range_m * (index / num_anchors).sqrt()
        angle_rad = index * math.pi * (3 - math.sqrt(5))
        anchors = torch.zeros(num_anchors, box_state.STATE_DIM, dtype=torch.float64)
        anchors[:, box_state.X], anchors[:, box_state.Y] = radius_m * angle_rad.cos(), radius_m * angle_rad.sin()
        anchors[:, box_state.Z] = -1.0
        anchors[:, 3:6] = torch.tensor([4.5, 1.9, 1.7], dtype=torch.float64).log()
        anchors[:, box_state.COS_YAW] = 1.0
        return anchors.float()
