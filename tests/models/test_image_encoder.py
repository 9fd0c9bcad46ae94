import pytest
import torch

from sparsedrive.layers.grid_mask import GridMaskConfig
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoder, ImageEncoderConfig, pack_levels
from sparsedrive.models.resnet import ResNetConfig

BATCH, CAMERAS, HEIGHT, WIDTH = 2, 3, 32, 64
LEVEL_HW = (8, 16, 4, 8, 2, 4, 1, 2)


def build(grid_mask: GridMaskConfig | None = None) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoderConfig(backbone=ResNetConfig(depth=18), neck=FPNConfig(out_channels=32), grid_mask=grid_mask).build()


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return build().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(BATCH, CAMERAS, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_packs_every_level_of_every_camera(encoder, images):
    features = encoder(images)
    assert features.level_hw == LEVEL_HW
    assert features.packed.shape == (BATCH, CAMERAS, 8 * 16 + 4 * 8 + 2 * 4 + 1 * 2, 32)
    assert features.packed.is_contiguous()
    for stream in range(BATCH):
        levels = encoder.neck(encoder.backbone(images[stream]))
        for index, level in enumerate(levels):
            torch.testing.assert_close(features.level(index)[stream], level, rtol=1e-4, atol=1e-4)


def test_packing_is_the_inverse_of_level():
    draw = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 3, 5, *size, generator=draw) for size in ((4, 6), (2, 3))]
    features = pack_levels(levels)
    assert all(torch.equal(features.level(index), level) for index, level in enumerate(levels))


@torch.no_grad()
def test_all_cameras_available_changes_nothing(encoder, images):
    every = torch.ones(BATCH, CAMERAS, dtype=torch.bool)
    assert torch.equal(encoder(images).packed, encoder(images, every).packed)


@torch.no_grad()
def test_failed_cameras_have_zero_features_whatever_their_picture_holds(encoder, images):
    available = torch.tensor([[True, False, True], [False, False, True]])
    healthy = encoder(images).packed
    poisoned = torch.where(available[:, :, None, None, None], images, float("nan"))
    found = encoder(poisoned, available).packed
    assert (found[~available] == 0).all()
    torch.testing.assert_close(found[available], healthy[available])


def test_failed_cameras_leave_no_trace_in_training(images):
    available = torch.tensor([[True, False, True], [True, True, True]])
    statistics, gradients = [], []
    for fill in (0.0, 1e6, float("nan")):
        model = build().train()
        filled = torch.where(available[:, :, None, None, None], images, fill)
        model(filled, available).packed.square().mean().backward()
        statistics.append(model.backbone.bn1.running_mean.clone())
        gradients.append(model.backbone.conv1.weight.grad)
    for other in (1, 2):
        assert torch.equal(statistics[0], statistics[other])
        assert torch.equal(gradients[0], gradients[other])
    assert gradients[0].isfinite().all()


def test_no_camera_at_all_gives_zeros_and_no_gradient(images):
    model = build().train()
    found = model(torch.full_like(images, float("nan")), torch.zeros(BATCH, CAMERAS, dtype=torch.bool))
    assert (found.packed == 0).all()
    found.packed.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_the_grid_mask_works_in_training_only(images):
    plain, masked = build().eval(), build(GridMaskConfig(probability=1.0)).eval()
    with torch.no_grad():
        assert torch.equal(plain(images).packed, masked(images).packed)
        plain.train(), masked.train()
        assert not torch.equal(plain(images).packed, masked(images).packed)


@torch.no_grad()
def test_exports_and_compiles(encoder, images):
    available = torch.tensor([[True, False, True], [True, True, True]])
    expected = encoder(images, available)
    exported = torch.export.export(encoder, (images, available)).module()
    torch.compiler.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    for run in (exported, compiled):
        found = run(images, available)
        assert found.level_hw == expected.level_hw
        torch.testing.assert_close(found.packed, expected.packed)


def test_training_step_compiles(images):
    torch.compiler.reset()
    model = build(GridMaskConfig()).train()
    torch.compile(model, fullgraph=True, backend="aot_eager")(images).packed.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("shape", "available", "message"),
    [
        ((6, 3, 64, 96), None, r"expected images \[B, C, 3, H, W\], got \[6, 3, 64, 96\]"),
        ((1, 6, 64, 96, 3), None, r"got \[1, 6, 64, 96, 3\]"),
        ((1, 6, 3, 64, 96), (6,), r"expected available \[1, 6\] for images \[1, 6, 3, 64, 96\], got \[6\]"),
    ],
)
def test_errors_say_what_came(encoder, shape, available, message):
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(shape), None if available is None else torch.ones(available, dtype=torch.bool))
