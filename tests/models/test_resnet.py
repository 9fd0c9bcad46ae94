import copy

import pytest
import torch

from sparsedrive.models.resnet import Bottleneck, ResNetConfig, checkpointed


def build(seed: int = 0, **options):
    torch.manual_seed(seed)
    return ResNetConfig(**options).build()


def images(count: int = 2, size: tuple[int, int] = (32, 64)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160)])
def test_four_stages_and_the_known_number_of_parameters(depth, parameters):
    """The counts are those of the ImageNet classifiers without their last layer (512 or 2048 times 1000, plus 1000)."""
    with torch.device("meta"):
        config = ResNetConfig(depth=depth)
        model = config.build().eval()
        outputs = model(torch.empty(1, 3, 64, 96))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert [tuple(output.shape) for output in outputs] == [
        (1, channels, 64 // stride, 96 // stride) for channels, stride in zip(config.out_channels, (4, 8, 16, 32), strict=True)
    ]


def test_parameter_names_are_those_of_the_public_weights():
    with torch.device("meta"):
        names = ResNetConfig(depth=50).build().state_dict()
    assert {name.split(".")[0] for name in names} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert {name.removeprefix("layer3.0.") for name in names if name.startswith("layer3.0.")} == {
        *(f"conv{index}.weight" for index in (1, 2, 3)),
        "downsample.0.weight",
        *(
            f"{norm}.{entry}"
            for norm in ("bn1", "bn2", "bn3", "downsample.1")
            for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ),
    }
    assert not any(name.startswith("layer3.1.downsample") for name in names)


def test_the_stride_is_in_the_three_by_three():
    first = build(depth=50).layer2[0]
    assert (first.conv1.stride, first.conv2.stride, first.downsample[0].stride) == ((1, 1), (2, 2), (2, 2))


def test_initialised_for_relu():
    weight = build(depth=18).layer1[0].conv1.weight  # kaiming, fan out: variance 2 / (3 * 3 * 64)
    assert weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)


def test_checkpointing_changes_neither_gradients_nor_statistics():
    plain, saving = build(depth=18), build(depth=18, checkpoint_activations=True)
    for model in (plain, saving):
        sum(output.square().mean() for output in model(images())).backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
    assert saving.bn1.num_batches_tracked == saving.layer4[0].bn1.num_batches_tracked == 1


def test_a_checkpointed_bottleneck_keeps_only_its_input_and_updates_statistics_once():
    torch.manual_seed(0)
    plain = Bottleneck(64, 16, stride=1)
    saving = copy.deepcopy(plain)
    value = torch.randn(2, 64, 12, 16)
    kept = {}
    for name, run in (("plain", plain), ("saving", lambda value: checkpointed(saving, value))):
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = run(value)
        kept[name] = sum(sizes.values())
        output.square().mean().backward()
    assert kept["saving"] <= value.numel() < kept["plain"]
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for one, other in zip(plain.buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_checkpointing_compiles_with_statistics_updated_once():
    torch.compiler.reset()
    plain = build(depth=18)
    saving = build(depth=18, checkpoint_activations=True)
    compiled = torch.compile(saving, fullgraph=True, backend="aot_eager")
    for model in (plain, compiled):
        sum(output.square().mean() for output in model(images())).backward()
    for one, other in zip(plain.buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(plain.conv1.weight.grad, saving.conv1.weight.grad)


def test_frozen_stages_keep_weights_and_statistics():
    model = build(depth=18, frozen_stages=2)
    assert not model.layer2.training  # frozen from the start, before any call of train()
    model.train()
    before = copy.deepcopy(model.state_dict())
    sum(output.mean() for output in model(images())).backward()
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"layer3", "layer4"}
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"layer3", "layer4"}
    assert all(parameter.requires_grad for parameter in build(depth=18).parameters())


def test_a_stem_alone_can_be_frozen():
    model = build(depth=18, frozen_stages=0)
    frozen = {name.split(".")[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv1", "bn1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"depth": 52}, r"depth: expected one of \[18, 34, 50, 101\], got 52"), ({"frozen_stages": 5}, "frozen_stages: expected -1 .* got 5")],
)
def test_config_errors_name_the_field(options, message):
    with pytest.raises(ValueError, match=message):
        ResNetConfig(**options)
