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
    """Instances are boxes (`geometry.box_state`). The embedding splits its width 4:1:1:2 over position, size, yaw, velocity."""

    num_classes: int = len(DETECTION_CLASSES)
    num_learned_points: int = 6
    range_m: float = 55.0
    state_dim: int = box_state.STATE_DIM

    def encoder(self, dim: int) -> nn.Module:
        """Box embedding."""
        return BoxEncoder((dim // 2, dim // 8, dim // 8, dim // 4))

    def key_points(self, dim: int) -> tuple[nn.Module, int]:
        """Fixed and learned key points."""
        module = BoxKeyPoints(dim, self.num_learned_points)
        return module, module.num_points

    def refine(self, dim: int) -> nn.Module:
        """Box refinement with quality estimation."""
        return BoxRefine(dim, self.num_classes)

    def transform(self, state: Tensor, dst_T_src: Tensor, elapsed_s: Tensor) -> Tensor:
        """Boxes moved by their velocity and the ego motion."""
        return box_state.transform(state, dst_T_src, elapsed_s)

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
