import pytest
import torch
from torch.nn import functional as F

from sparsedrive.config import from_json, to_json
from sparsedrive.data import ImagePreprocess
from sparsedrive.models import efficientnet
from sparsedrive.models.efficientnet import ConvNorm, EfficientNetLite0Config
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig


def build(**options):
    torch.manual_seed(0)
    return EfficientNetLite0Config(**options).build()


def images(size: tuple[int, int] = (32, 64)) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def test_strides_channels_and_the_known_number_of_parameters():
    """4.65 M parameters with the classifier (1280 x 1000 + 1000) and the head before it (320 x 1280 + 2 x 1280)."""
    with torch.device("meta"):
        config = EfficientNetLite0Config()
        model = config.build().eval()
        outputs = model(torch.empty(1, 3, 64, 96))
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008 - 1_281_000 - 412_160
    assert [tuple(output.shape) for output in outputs] == [
        (1, channels, 64 // stride, 96 // stride) for channels, stride in zip(config.out_channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 8), (5, 1, 8), (3, 2, 8), (5, 2, 8), (3, 2, 7), (5, 2, 9), (1, 1, 5)])
def test_padding_is_tensorflows(kernel, stride, size):
    """Output is ceil(size / stride); the padding in all is (out - 1) * stride + kernel - size, the odd one at the end."""
    module = ConvNorm(1, 1, kernel, stride=stride).eval()
    torch.nn.init.ones_(module.conv.weight)
    value = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    padded = F.pad(value, (total // 2, total - total // 2, total // 2, total - total // 2))
    expected = F.conv2d(padded, module.conv.weight, stride=stride) / (1 + efficientnet.NORM_EPS) ** 0.5
    torch.testing.assert_close(module(value), expected)
    assert expected.shape[-1] == out


def test_pictures_arrive_as_the_library_normalises_them():
    preprocess = ImagePreprocess()
    assert (preprocess.mean_rgb, preprocess.std_rgb) == (efficientnet.IMAGENET_MEAN_RGB, efficientnet.IMAGENET_STD_RGB)
    model = build()
    rgb = torch.tensor([0.0, 127.0, 255.0])[:, None, None]
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean_rgb, preprocess.std_rgb))
    scaled = (rgb - mean) / std * model.own_scale + model.own_shift
    torch.testing.assert_close(scaled.flatten(), torch.tensor([-127 / 128, 0.0, 1.0]), rtol=0, atol=1e-5)
    assert not {"own_scale", "own_shift"} & set(model.state_dict())


def test_checkpointing_changes_neither_gradients_nor_statistics():
    plain, saving = build(), build(checkpoint_activations=True)
    for model in (plain, saving):
        sum(output.square().mean() for output in model(images())).backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)


def test_it_takes_the_place_of_a_resnet():
    config = ImageEncoderConfig(backbone=EfficientNetLite0Config(), neck=FPNConfig(out_channels=16))
    assert from_json(to_json(config)) == config
    features = config.build().eval()(images()[None])
    assert features.level_hw == (8, 16, 4, 8, 2, 4, 1, 2) and features.packed.shape[-1] == 16
    assert features.packed.isfinite().all()
