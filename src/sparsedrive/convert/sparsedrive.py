"""Names of the official checkpoints (swc-17/SparseDrive, and Sparse4D) and ours, one readable table, both directions.

The table is a list of prefix pairs (ours, official), tried from top to bottom. The official heads keep their layers in one flat
list, so decoder layers are expanded with the position each operation has there.
"""

import torch
from torch import Tensor

from sparsedrive.layers.keypoints import BOX_FIXED_POINTS
from sparsedrive.models.box_head import BoxKind
from sparsedrive.models.instance_decoder import DecoderConfig
from sparsedrive.models.sparsedrive import SparseDriveConfig

Table = list[tuple[str, str]]

ATTENTION: Table = [("in_proj_", "attn.in_proj_"), ("out_proj.", "attn.out_proj.")]
AGGREGATION: Table = [
    ("key_points.fixed_points", "kps_generator.fix_scale"),
    ("key_points.learned_points.", "kps_generator.learnable_fc."),
    ("key_points.learned_offsets.", "kps_generator.learnable_fc."),
    ("camera_encoder.", "camera_encoder."),
    ("fusion.", "temp_module.fusion_layer."),
    ("weights.", "weights_fc."),
    ("output.", "output_proj."),
]
FFN: Table = [("norm.", "pre_norm."), ("expand.", "layers.0.0."), ("reduce.", "layers.1."), ("shortcut.", "identity_fc.")]
NORM: Table = [("", "")]
REFINE: Table = [
    ("state_branch.", "layers."),
    ("state_scale", "layers.11.scale"),
    ("class_branch.", "cls_layers."),
    ("quality_branch.", "quality_layers."),
]
ENCODER: Table = [
    ("image_encoder.backbone.", "img_backbone."),
    *[(f"image_encoder.neck.lateral_convs.{i}.", f"img_neck.lateral_convs.{i}.conv.") for i in range(4)],
    *[(f"image_encoder.neck.output_convs.{i}.", f"img_neck.fpn_convs.{i}.conv.") for i in range(4)],
    ("depth_head.convs.", "depth_branch.depth_layers."),
]
HEAD: Table = [
    ("anchors", "instance_bank.anchor"),
    ("initial_feature", "instance_bank.instance_feature"),
    ("encoder.position.", "anchor_encoder.pos_fc."),
    ("encoder.size.", "anchor_encoder.size_fc."),
    ("encoder.yaw.", "anchor_encoder.yaw_fc."),
    ("encoder.velocity.", "anchor_encoder.vel_fc."),
    ("encoder.output.", "anchor_encoder.output_fc."),
    ("depth_reweight.blocks.0.expand.", "depth_module.depth_fc.0.layers.0.0."),
    ("depth_reweight.blocks.0.reduce.", "depth_module.depth_fc.0.layers.1."),
    ("depth_reweight.blocks.1.expand.", "depth_module.depth_fc.1.layers.0.0."),
    ("depth_reweight.blocks.1.reduce.", "depth_module.depth_fc.1.layers.1."),
    ("depth_reweight.blocks.2.", "depth_module.depth_fc.2."),
    ("fusion.", ""),
]
PLANNER: Table = [
    ("motion_anchors_m", "motion_anchor"),
    ("plan_anchors_m", "plan_anchor"),
    ("ego_state", "instance_queue.ego_anchor"),
    ("ego_feature.conv1.", "instance_queue.ego_feature_encoder.0."),
    ("ego_feature.norm1.", "instance_queue.ego_feature_encoder.1."),
    ("ego_feature.conv2.", "instance_queue.ego_feature_encoder.2."),
    ("ego_feature.norm2.", "instance_queue.ego_feature_encoder.3."),
    ("motion_anchor_encoder.", "motion_anchor_encoder."),
    ("plan_anchor_encoder.", "plan_anchor_encoder."),
    ("fusion.", ""),
]
PLANNER_BRANCHES: Table = [
    ("motion_class.", "motion_cls_branch."),
    ("motion_offsets.", "motion_reg_branch."),
    ("plan_class.", "plan_cls_branch."),
    ("plan_offsets.", "plan_reg_branch."),
    ("ego_status.", "plan_status_branch."),
]
OWN: Table = [(name, name) for name in ("object_head.", "completion.", "planner.status_encoder.")]
"""Parts the official code does not have (its cascade is another one): they keep their names."""
# What a decoder layer holds, in the order of the official list.
SAMPLING: list[tuple[str, Table]] = [("aggregation.", AGGREGATION)]
SAMPLING_NORM: list[tuple[str, Table]] = [("aggregation_norm.", NORM)]
REST: list[tuple[str, Table]] = [("ffn.", FFN), ("ffn_norm.", NORM), ("refine.", REFINE)]
ATTENTIVE: list[tuple[str, Table]] = [("instance_attention.", ATTENTION), ("attention_norm.", NORM)]
MEMORY: list[tuple[str, Table]] = [("memory_attention.", ATTENTION)]
PLANNER_LAYER: list[tuple[str, Table]] = [
    ("history_attention.", ATTENTION),
    ("agent_attention.", ATTENTION),
    ("agent_norm.", NORM),
    ("map_attention.", ATTENTION),
    ("map_norm.", NORM),
    ("ffn.", FFN),
    ("ffn_norm.", NORM),
]


def key_table(config: SparseDriveConfig) -> Table:
    """All prefix pairs (ours, official) for a configuration."""
    table = [*ENCODER, *_head(config.detection, "detection.", "head." if config.map is None else "head.det_head.")]
    if config.map is not None:
        table += _head(config.map, "map.", "head.map_head.")
    if config.planner is not None:
        official = "head.motion_plan_head."
        operations = [(f"layers.{i}.{ours}", inner) for i in range(config.planner.num_layers) for ours, inner in PLANNER_LAYER]
        table += _under("planner.", official, PLANNER) + _numbered("planner.", official, operations)
        table += _under("planner.", f"{official}layers.{len(operations)}.", PLANNER_BRANCHES)
    return table + OWN


def official_constants(config: SparseDriveConfig) -> dict[str, Tensor]:
    """Official entries that carry no information and have no counterpart here; written back so that the official code loads strictly."""
    if not _stores_key_points(config):
        return {}
    head = "head." if config.map is None else "head.det_head."
    return {f"{head}instance_bank.anchor_handler.fix_scale": torch.zeros(1, 3)}


def own_constants(config: SparseDriveConfig) -> dict[str, Tensor]:
    """Entries of ours that carry no information and have no counterpart there."""
    if _stores_key_points(config):
        return {}
    single = config.detection.num_single_frame_layers
    layers = [f"single_frame_layers.{i}" for i in range(single)]
    layers += [f"temporal_layers.{i}" for i in range(config.detection.num_layers - single)]
    return {f"detection.{layer}.aggregation.key_points.fixed_points": torch.tensor(BOX_FIXED_POINTS) for layer in layers}


def _stores_key_points(config: SparseDriveConfig) -> bool:
    """The code of Sparse4D v1 and v2, which knows no quality, builds the fixed key points anew; v3 and SparseDrive store them."""
    assert isinstance(config.detection.kind, BoxKind)
    return config.detection.kind.with_quality


def official_name(our_key: str, table: Table) -> str:
    """Official name of one of our keys."""
    for ours, official in table:
        if our_key.startswith(ours):
            return official + our_key[len(ours) :]
    raise AssertionError(f"{our_key} is in no row of the key table: a parameter was added without its official name")


def _under(ours: str, official: str, table: Table) -> Table:
    return [(ours + a, official + b) for a, b in table]


def _numbered(ours: str, official: str, operations: list[tuple[str, Table]]) -> Table:
    return [pair for i, (name, inner) in enumerate(operations) for pair in _under(ours + name, f"{official}layers.{i}.", inner)]


def _head(config: DecoderConfig, ours: str, official: str) -> Table:
    operations = []
    for i in range(config.num_layers):
        temporal = i - config.num_single_frame_layers
        name = f"single_frame_layers.{i}." if temporal < 0 else f"temporal_layers.{temporal}."
        parts = [*MEMORY, *ATTENTIVE] if temporal >= 0 else ATTENTIVE if config.first_layer_attention else []
        sampling = SAMPLING if config.layer.history is None else [*SAMPLING, *SAMPLING_NORM]
        operations += [(name + part, inner) for part, inner in [*parts, *sampling, *REST]]
    return _under(ours, official, HEAD) + _numbered(ours, official, operations)
