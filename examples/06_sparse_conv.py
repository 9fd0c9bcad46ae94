"""Sparse convolution on a generated LiDAR sweep: voxels, submanifold and strided layers, back to the cells, gradients, a U-Net."""

import torch
from torch import nn

from sparsedrive.ops.voxelize import Grid, voxelize
from sparsedrive.sparse.activation import ReLU
from sparsedrive.sparse.conv import Conv3d
from sparsedrive.sparse.minkunet import MinkUNet, UNetConfig, scaled_widths
from sparsedrive.sparse.norm import BatchNorm
from sparsedrive.sparse.tensor import SparseTensor, cat
from sparsedrive.world import LidarScanner, World, nuscenes_rig

GRID = Grid(low_m=(-40.0, -40.0, -4.0), high_m=(40.0, 40.0, 4.0), voxel_m=(0.4, 0.4, 0.4))


def main() -> None:
    """One sweep through some layers."""
    world = World.create(seed=1)
    sweep = torch.from_numpy(LidarScanner(world.town, world.cast).scan(world.state, nuscenes_rig().lidar))
    voxels = voxelize(sweep[:, :4], GRID)
    x = SparseTensor(coords=voxels.coords, feats=voxels.feats / torch.tensor([40, 40, 4, 50]), spatial_range=(1, *GRID.shape))
    print(f"{len(sweep)} points in {len(x)} cells of a grid of {GRID.shape}")

    torch.manual_seed(0)
    stem = nn.Sequential(Conv3d(4, 16), BatchNorm(16), ReLU())  # submanifold: outputs at the inputs' cells
    down = Conv3d(16, 32, 3, stride=2, padding=1)
    up = Conv3d(32, 16, 3, stride=2, transposed=True)  # back to the cells `down` came from, in their order
    fine = stem(x)
    coarse = down(fine)
    both = cat([fine, up(coarse)])
    print(f"strided: {len(coarse)} cells, stride {coarse.stride}; back: {len(both)} cells with {both.feats.shape[1]} features each")
    both.feats.square().mean().backward()
    print(f"gradient of the strided kernel {list(down.kernel.shape)}: norm {down.kernel.grad.norm():.4f}")

    network = MinkUNet(UNetConfig(widths=scaled_widths(0.25), num_classes=8)).eval()
    with torch.inference_mode():
        logits = network(x)
    print(f"MinkUNet: {list(logits.shape)}, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
