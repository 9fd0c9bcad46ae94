"""Segmentation of LiDAR points: voxels of them through a sparse U-Net, or points and voxels together through SPVCNN."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsedrive.sparse.minkunet import MinkUNet, UNetConfig
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.spvcnn import SPVCNN
from sparsedrive.sparse.voxels import initial_voxelize


@dataclass(frozen=True, kw_only=True)
class LidarSegmentationConfig:
    """A network and the size of its voxels; the published networks for 64 beams use 0.05 m.

    `feature_scale`, one number a column, multiplies x, y, z and the other columns where they are features; None: as they are.
    """

    network: Literal["minkunet", "spvcnn"] = "minkunet"
    voxel_m: float = 0.1
    feature_scale: tuple[float, ...] | None = None
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        if self.network not in ("minkunet", "spvcnn"):
            raise ValueError(f"LidarSegmentationConfig.network: expected minkunet or spvcnn, got {self.network!r}; choose one of these")
        if not self.voxel_m > 0:
            raise ValueError(f"LidarSegmentationConfig.voxel_m: expected a size > 0, got {self.voxel_m}; give metres")
        if self.feature_scale is not None and len(self.feature_scale) != self.unet.in_channels:
            got = f"{len(self.feature_scale)} numbers for {self.unet.in_channels} columns"
            raise ValueError(f"LidarSegmentationConfig.feature_scale: expected one number a column, got {got}; match unet.in_channels")

    def build(self) -> "LidarSegmentation":
        """The model with fresh weights."""
        return LidarSegmentation(self)


class LidarSegmentation(nn.Module):
    """A class for every point."""

    def __init__(self, config: LidarSegmentationConfig) -> None:
        super().__init__()
        self.config = config
        self.network = MinkUNet(config.unet) if config.network == "minkunet" else SPVCNN(config.unet)

    def forward(self, points: Float[Tensor, "N C"], batch_index: Int[Tensor, " N"] | None = None) -> Float[Tensor, "N classes"]:
        """Class logits of every point.

        Args:
            points: x, y, z [m] and further features such as intensity, `unet.in_channels` columns in all. All of them are features.
            batch_index: sample of each point; None for one sample.

        Raises:
            ValueError: another number of columns, or places that are not finite.
        """
        if points.dim() != 2 or points.shape[1] != self.config.unet.in_channels:
            raise ValueError(
                f"LidarSegmentation.points: expected [N, {self.config.unet.in_channels}], got {list(points.shape)}; "
                "choose the columns, or set unet.in_channels"
            )
        batch = torch.zeros_like(points[:, 0]) if batch_index is None else batch_index.to(points.dtype)
        scale = self.config.feature_scale
        feats = points if scale is None else points * points.new_tensor(scale)
        places = PointTensor(coords=torch.cat([batch[:, None], points[:, :3] / self.config.voxel_m], 1), feats=feats)
        if isinstance(self.network, SPVCNN):
            return self.network(places)
        voxels, cell = initial_voxelize(places)
        return self.network(voxels)[cell]
