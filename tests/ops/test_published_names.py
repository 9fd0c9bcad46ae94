"""The published code's names for the ops: its layout there and back, and the same numbers as our own function."""

import pytest
import torch

from sparsedrive import ops
from sparsedrive.ops.deformable_aggregation.samples import Sample, random_sample

SIZES = ((5, 7), (2, 3))


def maps(cameras: int = 3, sizes: tuple[tuple[int, int], ...] = SIZES, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, cameras, 12, height, width, generator=generator) for height, width in sizes]


def test_available_without_a_build():
    assert ops.DAF_AVAILABLE is True and ops.FOCAL_LOSS_AVAILABLE is True


def test_layout():
    levels = maps()
    features, spatial_shape, starts = ops.feature_maps_format(levels)
    assert features.shape == (2, 3 * 41, 12)
    assert spatial_shape.dtype == starts.dtype == torch.int64
    assert spatial_shape.tolist() == [[[5, 7], [2, 3]]] * 3
    assert starts.tolist() == [[0, 35], [41, 76], [82, 117]]
    for camera in range(3):
        for level, (_, width) in enumerate(SIZES):
            assert torch.equal(features[:, starts[camera, level] + width + 2], levels[level][:, camera, :, 1, 2])


def test_back_again():
    levels = maps()
    (back,) = ops.feature_maps_format(ops.feature_maps_format(levels), inverse=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(back, levels, strict=True))


def test_cameras_of_several_sizes():
    groups = [maps(2), maps(1, ((4, 4), (1, 9)), seed=1), maps(2, seed=2)]
    formatted = ops.feature_maps_format(groups)
    assert formatted[0].shape == (2, 2 * 41 + 25 + 2 * 41, 12)
    back = ops.feature_maps_format(formatted, inverse=True)
    assert [len(levels) for levels in back] == [2, 2, 2]
    for ours, theirs in zip(back, groups, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    with pytest.raises(ValueError, match="spatial_shape: expected the same level sizes in every camera"):
        ops.deformable_aggregation_function(*formatted, torch.zeros(2, 1, 1, 5, 2), torch.zeros(2, 1, 1, 5, 2, 4))


def test_same_numbers_and_gradients():
    sample = random_sample()
    tables = torch.tensor([[[5, 7], [2, 3]]] * 3, dtype=torch.int32), torch.tensor([[0, 35], [41, 76], [82, 117]], dtype=torch.int32)
    found = []
    for ported in (True, False):
        packed, points, weights = leaves = [tensor.clone().requires_grad_() for tensor in (sample.packed, sample.points, sample.weights)]
        if ported:
            output = ops.deformable_aggregation_function(packed.flatten(1, 2), *tables, points, weights)
        else:
            output = ops.deformable_aggregation(*Sample(packed, sample.level_hw, points, weights))
        found.append([output.detach(), *torch.autograd.grad(output.square().sum(), leaves)])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_maps": torch.zeros(2, 122, 12)}, r"feature_maps: expected \[B, 123, D\] for 3 cameras .* got \[2, 122, 12\]"),
        ({"spatial_shape": torch.zeros(3, 2, dtype=torch.int64)}, r"spatial_shape: expected \[C, L, 2\], got \[3, 2\]"),
        ({"scale_start_index": torch.tensor([[0, 35], [41, 76], [82, 200]])}, r"scale_start_index: expected .* got .*200"),
        ({"scale_start_index": torch.tensor([[-1, 35], [41, 76], [82, 117]])}, r"scale_start_index: expected .* got .*-1"),
        ({"scale_start_index": torch.tensor([[0, 35], [41, 76]])}, r"scale_start_index: expected .* got "),
    ],
)
def test_errors(change, message):
    features, spatial_shape, starts = ops.feature_maps_format(maps())
    arguments = {"feature_maps": features, "spatial_shape": spatial_shape, "scale_start_index": starts}
    sample = random_sample()
    with pytest.raises(ValueError, match=f"deformable_aggregation_function.{message}"):
        ops.deformable_aggregation_function(**{**arguments, **change}, sampling_location=sample.points, weights=sample.weights)
