"""SPVCNN: the sparse U-Net with a branch of points beside it, which keeps what voxels are too coarse for.

Source: Tang et al., SPVNAS (arXiv:2007.16100), section 3; names of the parameters of mit-han-lab/spvnas.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sparsedrive.sparse.minkunet import SparseResUNet42, UNetConfig, up
from sparsedrive.sparse.points import PointTensor
from sparsedrive.sparse.tensor import Range, SparseTensor
from sparsedrive.sparse.voxels import PointCells, find_cells, initial_voxelize, point_to_voxel, voxel_to_point

DROPOUT = 0.3


class SPVCNN(SparseResUNet42):
    """Point-voxel segmentation. Points and cells exchange features after the stem, after the fourth stage down, and after two and four
    stages up; in between the points go through a linear layer of their own."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.point_transforms = nn.ModuleList(
            nn.Sequential(nn.Linear(widths[before], widths[after]), nn.BatchNorm1d(widths[after]), nn.ReLU())
            for before, after in ((0, 4), (4, 6), (6, 8))
        )
        self.classifier = nn.Sequential(nn.Linear(widths[-1], config.num_classes))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, points: PointTensor, spatial_range: Range | None = None) -> Float[Tensor, "N classes"]:  # type: ignore[override]
        """Class logits of every point.

        Args:
            points: places in cells of the finest grid, with their features.
            spatial_range: (batch size, X, Y, Z) of that grid, if it is limited.
        """
        voxels, _ = initial_voxelize(points, spatial_range)
        fine = find_cells(points, voxels)
        full = self.stem(voxels)
        points = voxel_to_point(full, points, fine)
        half = self.stage1(point_to_voxel(points, full, fine))
        quarter = self.stage2(half)
        eighth = self.stage3(quarter)
        sixteenth = self.stage4(eighth)

        coarse = find_cells(points, sixteenth)
        points = self._mixed(0, sixteenth, points, coarse)
        x = self._dropped(point_to_voxel(points, sixteenth, coarse))
        x = up(self.up2, up(self.up1, x, eighth), quarter)

        middle = find_cells(points, x)
        points = self._mixed(1, x, points, middle)
        x = self._dropped(point_to_voxel(points, x, middle))
        x = up(self.up4, up(self.up3, x, half), full)
        return self.classifier(self._mixed(2, x, points, fine).feats)

    def _mixed(self, number: int, voxels: SparseTensor, points: PointTensor, cells: PointCells) -> PointTensor:
        """Features of the cells around each point, plus the transformed features of the point."""
        return points.with_feats(voxel_to_point(voxels, points, cells).feats + self.point_transforms[number](points.feats))

    def _dropped(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(self.dropout(x.feats))
