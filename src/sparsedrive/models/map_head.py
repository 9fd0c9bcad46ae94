"""Online map: polylines as instances."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsedrive.geometry import polyline
from sparsedrive.layers.embed import PolylineEncoder
from sparsedrive.layers.keypoints import PolylineKeyPoints
from sparsedrive.layers.refine import PolylineRefine
from sparsedrive.structures import MAP_CLASSES


@dataclass(frozen=True, kw_only=True)
class PolylineKind:
    """Instances are polylines of `num_points` points inside a region of `roi_m` (x, y) metres around the ego vehicle."""

    num_classes: int = len(MAP_CLASSES)
    num_points: int = 20
    num_learned_points: int = 3
    heights_m: tuple[float, ...] = (0.0, 0.5, -0.5, 1.0, -1.0)
    ground_height_m: float = -1.84023
    roi_m: tuple[float, float] = (30.0, 60.0)

    @property
    def state_dim(self) -> int:
        """Coordinates of one polyline."""
        return 2 * self.num_points

    def encoder(self, dim: int) -> nn.Module:
        """Polyline embedding."""
        return PolylineEncoder(self.num_points, dim)

    def key_points(self, dim: int) -> tuple[nn.Module, int]:
        """Key points at several heights."""
        module = PolylineKeyPoints(dim, self.num_points, self.heights_m, self.ground_height_m, self.num_learned_points)
        return module, module.num_points

    def refine(self, dim: int) -> nn.Module:
        """Polyline refinement."""
        return PolylineRefine(dim, self.state_dim, self.num_classes)

    def transform(self, state: Tensor, dst_T_src: Tensor, elapsed_s: Tensor) -> Tensor:
        """Polylines moved by the ego motion; they stand still themselves."""
        return polyline.transform(state, dst_T_src)

    def default_anchors(self, num_anchors: int) -> Tensor:
        """Straight lines of 20 m, along and across the road in turn, spread over the region by a Halton-like sequence."""
        index = torch.arange(num_anchors, dtype=torch.float64)
        golden = (math.sqrt(5) - 1) / 2
        centre_x_m = ((index + 0.5) / num_anchors - 0.5) * (self.roi_m[0] - 4)
        centre_y_m = (((index * golden) % 1) - 0.5) * (self.roi_m[1] - 4)
        along = torch.linspace(-10, 10, self.num_points, dtype=torch.float64)
        across = (index % 3 == 2)[:, None]
        x_m = centre_x_m[:, None] + torch.where(across, along, 0.0)
        y_m = centre_y_m[:, None] + torch.where(across, 0.0, along)
        return torch.stack([x_m, y_m], dim=-1).flatten(1).float()
