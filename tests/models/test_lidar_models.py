"""LiDAR segmentation and detection: shapes, learning, and decoding as the inverse of the targets."""

import math

import pytest
import torch

from sparsedrive.decoding.centres import decode_centres
from sparsedrive.losses.centres import CentreLossConfig, centre_losses, centre_targets, gaussian_radius
from sparsedrive.models.lidar_detection import LidarDetectionConfig
from sparsedrive.models.lidar_segmentation import LidarSegmentationConfig
from sparsedrive.ops.voxelize import Grid
from sparsedrive.sparse.minkunet import UNetConfig
from sparsedrive.sparse.sparse_encoder import SparseEncoderConfig
from sparsedrive.structures import BoxTargets
from sparsedrive.structures.centres import CentreGrid, CentreMaps

GRID = CentreGrid(low_m=(-8.0, -4.0), cell_m=(1.0, 0.5), shape=(16, 12))
NARROW = UNetConfig(widths=(4, 4, 6, 8, 8, 8, 6, 6, 4), num_classes=3)
ENCODER = SparseEncoderConfig(in_channels=4, widths=((4, 4, 8), (8, 8), (8, 8), (8,)), base_channels=4, out_channels=8)
SMALL = LidarDetectionConfig(
    grid=Grid(low_m=(-6.4, -6.4, -3.0), high_m=(6.4, 6.4, 3.0), voxel_m=(0.1, 0.1, 0.15)),
    encoder=ENCODER, widths=(8, 8), depth=1, head_width=8, num_classes=2,
)  # fmt: skip


def boxes() -> BoxTargets:
    box = torch.tensor(
        [
            [[-2.3, 0.1, 0.5, 4.0, 2.0, 1.5, 0.4, 1.0, 0.5, 0.0], [6.0, -3.9, 0.0, 0.6, 0.6, 1.7, -3.0, math.nan, math.nan, 0.0]],
            [[0.4, 1.3, 1.0, 8.0, 2.5, 3.0, 1.7, 0.0, -2.0, 0.0], [50.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]],
        ]
    )
    label = torch.tensor([[0, 1], [0, 0]])
    zero = torch.zeros(2, 2, dtype=torch.int64)
    return BoxTargets(box=box, label=label, instance=zero, lidar_returns=zero + 5, valid=torch.ones(2, 2, dtype=torch.bool))


def test_targets_decode_to_the_boxes_they_were_made_of():
    truth = boxes()
    targets = centre_targets(truth, GRID, 2)
    assert targets.valid.tolist() == [[True, True], [True, False]]  # the last is off the map
    assert targets.heat.amax((2, 3)).tolist() == [[1, 1], [1, 0]] and (targets.heat == 1).sum() == 3
    maps = torch.zeros(2, 10, 12, 16)
    for sample, row in targets.valid.nonzero().tolist():
        y, x = divmod(int(targets.cell[sample, row]), 16)
        maps[sample, :, y, x] = targets.box[sample, row].nan_to_num()
    found = decode_centres(CentreMaps(class_logits=torch.logit(targets.heat, eps=1e-6), box=maps), GRID, num_output=2, score_threshold=0.5)
    assert found.valid.tolist() == [[True, True], [True, False]]
    for sample, row in targets.valid.nonzero().tolist():
        at = (found.label[sample] == truth.label[sample, row]).nonzero()[0, 0]
        torch.testing.assert_close(found.box[sample, at], truth.box[sample, row].nan_to_num(), atol=1e-4, rtol=1e-4)
    right = centre_losses(CentreMaps(class_logits=torch.logit(targets.heat, eps=1e-6), box=maps), targets)
    assert right.box == pytest.approx(0, abs=1e-6) and right.classification < 1
    wrong = centre_losses(CentreMaps(class_logits=torch.zeros(2, 2, 12, 16), box=maps + 1), targets)
    assert wrong.classification > 10
    # 8 columns wrong by 1 and two of weight 0.2; one velocity of three is unknown
    assert wrong.box == pytest.approx(0.25 * (3 * 8 + 2 * 0.4) / 3, rel=1e-5)


def test_unknown_velocity_and_no_boxes_give_no_gradient_and_no_nan():
    truth = boxes()
    maps = CentreMaps(class_logits=torch.zeros(2, 2, 12, 16, requires_grad=True), box=torch.zeros(2, 10, 12, 16, requires_grad=True))
    targets = centre_targets(truth, GRID, 2)
    losses = centre_losses(maps, targets)
    (losses.classification + losses.box).backward()
    assert maps.box.grad.isfinite().all()
    y, x = divmod(int(targets.cell[0, 1]), 16)
    assert not maps.box.grad[0, 8:, y, x].any() and maps.box.grad[0, :8, y, x].any()
    none = centre_targets(
        BoxTargets(box=truth.box, label=truth.label, instance=truth.label, lidar_returns=truth.label, valid=truth.valid & False), GRID, 2
    )
    assert not none.heat.any() and centre_losses(maps, none).box == 0


def test_radius_is_the_published_one():
    """CenterPoint's formula worked out for a box of 4 x 2 cells and an overlap of 0.1."""
    shifted = (6 + math.sqrt(36 - 4 * 8 * 0.9 / 1.1)) / 2
    smaller = (12 + math.sqrt(144 - 16 * 8 * 0.9)) / 2
    larger = (-1.2 + math.sqrt(1.44 + 4 * 0.4 * 0.9 * 8)) / 2
    assert float(gaussian_radius(torch.tensor([4.0, 2.0]), 0.1)) == pytest.approx(min(shifted, smaller, larger), rel=1e-6)
    assert CentreLossConfig().least_radius == 2


def test_only_peaks_are_decoded():
    logits = torch.full((1, 1, 12, 16), -8.0)
    logits[0, 0, 5, 5], logits[0, 0, 5, 6], logits[0, 0, 9, 9] = 2.0, 1.0, 0.5
    found = decode_centres(CentreMaps(class_logits=logits, box=torch.zeros(1, 10, 12, 16)), GRID, num_output=3, score_threshold=0.3)
    assert found.query_index[0, :2].tolist() == [5 * 16 + 5, 9 * 16 + 9] and found.valid.tolist() == [[True, True, False]]
    with pytest.raises(ValueError, match="maps of"):
        decode_centres(CentreMaps(class_logits=logits[:, :, :3], box=torch.zeros(1, 10, 3, 16)), GRID)


def sweep(count: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 4, generator=generator) * torch.tensor([12.0, 12.0, 5.0, 1.0]) - torch.tensor([6.0, 6.0, 2.5, 0.0])
    return points, torch.arange(count) % 2


def test_detection_learns_two_boxes():
    torch.manual_seed(0)
    model = SMALL.build()
    points, batch = sweep()
    truth = boxes()
    truth = BoxTargets(
        box=truth.box.nan_to_num() * torch.tensor([0.5, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]), label=truth.label, instance=truth.instance,
        lidar_returns=truth.lidar_returns, valid=truth.valid,
    )  # fmt: skip
    targets = centre_targets(truth, SMALL.centre_grid(), 2)
    optimiser, totals = torch.optim.Adam(model.parameters(), 5e-3), []
    for _ in range(12):
        losses = centre_losses(model(points, batch, 2), targets)
        total = losses.classification + losses.box
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.6 * totals[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_detection_of_a_batch_with_an_empty_sample():
    model = SMALL.build().eval()
    points, _ = sweep()
    maps = model(points, torch.zeros(len(points), dtype=torch.int64), 2)
    assert maps.class_logits.shape == (2, 2, 16, 16) and maps.box.shape == (2, 10, 16, 16)
    assert bool(maps.class_logits.isfinite().all())
    torch.testing.assert_close(model(points, torch.zeros(len(points), dtype=torch.int64), 1).box[0], maps.box[0])
    with pytest.raises(ValueError, match="multiples of 16"):
        LidarDetectionConfig(grid=Grid(low_m=(0, 0, 0), high_m=(1, 1, 8), voxel_m=(0.1, 0.1, 0.2)))
    with pytest.raises(ValueError, match="expected zyx"):
        LidarDetectionConfig(encoder=SparseEncoderConfig(axes="xyz"))


@pytest.mark.parametrize("network", ["minkunet", "spvcnn"])
def test_segmentation_answers_for_every_point(network):
    torch.manual_seed(0)
    model = LidarSegmentationConfig(network=network, voxel_m=0.5, unet=NARROW).build().eval()
    points, batch = sweep()
    logits = model(points, batch)
    assert logits.shape == (600, 3)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(points[order], batch[order]), logits[order])
    torch.testing.assert_close(model(points[batch == 0]), logits[batch == 0])
    assert model(points[:0], batch[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="finite places"):
        model(torch.full((1, 4), float("nan")))
    with pytest.raises(ValueError, match=r"expected \[N, 4\]"):
        model(points[:, :3])
    scaled = LidarSegmentationConfig(network=network, voxel_m=0.5, unet=NARROW, feature_scale=(0.0, 0.0, 0.0, 1.0)).build().eval()
    scaled.load_state_dict(model.state_dict())
    assert not torch.equal(scaled(points, batch), logits)
    with pytest.raises(ValueError, match="one number a column"):
        LidarSegmentationConfig(unet=NARROW, feature_scale=(1.0,))
    with pytest.raises(ValueError, match="minkunet or spvcnn"):
        LidarSegmentationConfig(network="unet")
