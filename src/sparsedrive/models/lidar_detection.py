"""Boxes from LiDAR: voxels, sparse encoder, a small network on the map from above, and a centre head on it.

Source: Yin et al., CenterPoint (arXiv:2006.11275); the network on the map after SECOND (Yan et al., Sensors 2018).
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsedrive.ops.voxelize import Grid, voxelize
from sparsedrive.sparse.sparse_encoder import NORM_EPS, NORM_MOMENTUM, SparseEncoder, SparseEncoderConfig
from sparsedrive.sparse.tensor import SparseTensor
from sparsedrive.structures import DETECTION_CLASSES
from sparsedrive.structures.centres import CENTRE_DIM, CentreGrid, CentreMaps

CELLS = 8
"""Voxels to a cell of the map."""
RARE = 0.1
"""Probability of a centre that the untrained head gives."""


@dataclass(frozen=True, kw_only=True)
class LidarDetectionConfig:
    """Space, encoder and widths of the network on the map; by default those of CenterPoint with voxels of 0.1 m on nuScenes."""

    grid: Grid = field(default_factory=lambda: Grid(low_m=(-51.2, -51.2, -5.0), high_m=(51.2, 51.2, 3.0), voxel_m=(0.1, 0.1, 0.2)))
    encoder: SparseEncoderConfig = field(default_factory=SparseEncoderConfig)
    widths: tuple[int, int] = (128, 256)
    depth: int = 5
    head_width: int = 64
    num_classes: int = len(DETECTION_CLASSES)

    def __post_init__(self) -> None:
        if self.encoder.axes != "zyx":
            raise ValueError(f"LidarDetectionConfig.encoder.axes: expected zyx, got {self.encoder.axes!r}; the maps are y by x")
        if self.grid.shape[0] % (2 * CELLS) or self.grid.shape[1] % (2 * CELLS):
            got = self.grid.shape
            raise ValueError(f"LidarDetectionConfig.grid: expected multiples of {2 * CELLS} voxels in x and y, got {got}; change the range")

    def centre_grid(self) -> CentreGrid:
        """Cells of the map that the head answers for."""
        low, size, shape = self.grid.low_m, self.grid.voxel_m, self.grid.shape
        cell_m = (CELLS * size[0], CELLS * size[1])
        return CentreGrid(low_m=(low[0], low[1]), cell_m=cell_m, shape=(shape[0] // CELLS, shape[1] // CELLS))

    def build(self) -> "LidarDetection":
        """The model with fresh weights."""
        return LidarDetection(self)


class LidarDetection(nn.Module):
    """Points of a LiDAR sweep -> class and box for every cell of a map from above. `decoding.centres` makes boxes of it."""

    def __init__(self, config: LidarDetectionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SparseEncoder(config.encoder)
        heights = _out_height(config.grid.shape[2] + 1)
        if heights < 1:
            raise ValueError(f"LidarDetectionConfig.grid: expected 30 or more voxels of height, got {config.grid.shape[2]}; 40 is usual")
        fine, coarse = config.widths
        self.fine = _convs(config.encoder.out_channels * heights, fine, config.depth)
        self.coarse = _convs(fine, coarse, config.depth, stride=2)
        self.fine_out = nn.Sequential(nn.Conv2d(fine, coarse, 1, bias=False), _norm(coarse), nn.ReLU())
        self.coarse_out = nn.Sequential(nn.ConvTranspose2d(coarse, coarse, 2, 2, bias=False), _norm(coarse), nn.ReLU())
        self.shared = _convs(2 * coarse, config.head_width, 1)
        self.class_branch = _branch(config.head_width, config.num_classes)
        self.box_branch = _branch(config.head_width, CENTRE_DIM)
        assert isinstance(self.class_branch[-1].bias, Tensor)
        nn.init.constant_(self.class_branch[-1].bias, torch.logit(torch.tensor(RARE)).item())

    def forward(self, points: Float[Tensor, "N C"], batch_index: Int[Tensor, " N"], batch_size: int) -> CentreMaps:
        """Maps of every sample.

        Args:
            points: x, y, z [m, ego frame] and further features, `encoder.in_channels` columns in all.
            batch_index: sample of each point; a sample may have none.

        Raises:
            ValueError: as `ops.voxelize.voxelize`.
        """
        voxels = voxelize(points, self.config.grid, batch_index)
        x, y, z = self.config.grid.shape
        # One cell of height more than the grid has, as the published encoders were trained.
        sparse = SparseTensor(coords=voxels.coords[:, [0, 3, 2, 1]], feats=voxels.feats, spatial_range=(batch_size, z + 1, y, x))
        fine = self.fine(self.encoder(sparse))
        both = torch.cat([self.fine_out(fine), self.coarse_out(self.coarse(fine))], 1)
        shared = self.shared(both)
        return CentreMaps(class_logits=self.class_branch(shared), box=self.box_branch(shared))


def _out_height(cells: int) -> int:
    """What the encoder leaves of the height: two halvings with padding, two without."""
    for padding in (1, 1, 0, 0):
        cells = (cells + 2 * padding - 3) // 2 + 1
    return cells


def _convs(before: int, after: int, depth: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for place in range(depth):
        conv = nn.Conv2d(after if place else before, after, 3, 1 if place else stride, padding=1, bias=False)
        layers += [conv, _norm(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _branch(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_convs(before, before, 1), nn.Conv2d(before, after, 3, padding=1))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
