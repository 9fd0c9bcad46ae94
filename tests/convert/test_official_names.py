import json

import pytest
import torch

from sources import golden_folder
from sparsedrive.config import preset, presets
from sparsedrive.convert.checkpoint import from_official_names, to_official_names
from sparsedrive.convert.sparsedrive import OWN, key_table, official_constants, official_name, own_constants

GOLDEN = golden_folder() / "sparsedrive"


def state_on_meta(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return preset(name).build().state_dict()


@pytest.mark.parametrize("stage", [1, 2])
def test_names_and_shapes_are_those_of_the_official_model(stage):
    path = GOLDEN / f"state_dict_stage{stage}.txt"
    if not path.is_file():
        pytest.skip(f"golden files not found: {path}; set SPARSEDRIVE_GOLDEN")
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    official = {key: (shape, kind) for key, shape, kind in rows}
    name = f"sparsedrive_small_stage{stage}"
    ours = to_official_names(state_on_meta(name), preset(name))
    assert {key: (str(tuple(value.shape)), str(value.dtype).removeprefix("torch.")) for key, value in ours.items()} == official


@pytest.mark.parametrize(
    ("version", "name"),
    [("v1_H1", "sparse4d_v1_r101_h1"), ("v1_H4", "sparse4d_v1_r101_h4"), ("v2", "sparse4d_v2_r50"), ("v3", "sparse4d_v3_r50")],
)
def test_names_and_shapes_are_those_of_the_official_sparse4d(version, name):
    path = GOLDEN.parent / "sparse4d" / f"{version}_state_dict.json"
    if not path.is_file():
        pytest.skip(f"golden files not found: {path}; set SPARSEDRIVE_GOLDEN")
    official = {entry["name"]: (entry["shape"], entry["dtype"]) for entry in json.loads(path.read_text())}
    state, config = state_on_meta(name), preset(name)
    ours = to_official_names(state, config)
    assert {key: (list(value.shape), str(value.dtype)) for key, value in ours.items()} == official
    back, _ = from_official_names(ours, config)
    assert back.keys() == state.keys()


@pytest.mark.parametrize("name", presets())
def test_every_name_is_mapped_to_one_of_its_own(name):
    state, config = state_on_meta(name), preset(name)
    table = key_table(config)
    renamed = [official_name(key, table) for key in state if key not in own_constants(config)]
    assert len(set(renamed)) == len(state) - len(own_constants(config))
    assert not set(renamed) & official_constants(config).keys()
    own = [ours for ours, _ in OWN if any(key.startswith(ours) for key in state)]
    assert bool(own) == (name in ("tiny", "tiny_pretrained", "tiny_completion") or config.completion is not None)
    assert all(key.startswith(("img_backbone.", "img_neck.", "depth_branch.", "head.", *own)) for key in renamed)


def test_some_names_by_hand():
    table = key_table(preset("sparsedrive_small_stage2"))
    expected = {
        "image_encoder.neck.output_convs.2.bias": "img_neck.fpn_convs.2.conv.bias",
        "detection.anchors": "head.det_head.instance_bank.anchor",
        # the first detection layer has no attention; each later one has two with one norm between
        "detection.single_frame_layers.0.aggregation.weights.bias": "head.det_head.layers.0.weights_fc.bias",
        "detection.single_frame_layers.0.refine.state_scale": "head.det_head.layers.3.layers.11.scale",
        "detection.temporal_layers.0.memory_attention.in_proj_weight": "head.det_head.layers.4.attn.in_proj_weight",
        "detection.temporal_layers.1.ffn.reduce.weight": "head.det_head.layers.15.layers.1.weight",
        # the map's first layer has one
        "map.single_frame_layers.0.instance_attention.out_proj.bias": "head.map_head.layers.0.attn.out_proj.bias",
        "map.temporal_layers.0.attention_norm.weight": "head.map_head.layers.8.weight",
        "planner.layers.1.map_norm.bias": "head.motion_plan_head.layers.11.bias",
        "planner.plan_class.0.weight": "head.motion_plan_head.layers.21.plan_cls_branch.0.weight",
    }
    assert {ours: official_name(ours, table) for ours in expected} == expected


def test_a_parameter_without_official_name_is_our_mistake():
    with pytest.raises(AssertionError, match=r"detection\.something_new"):
        to_official_names({"detection.something_new": torch.zeros(1)}, preset("tiny"))


def test_keys_left_over_are_all_listed():
    config = preset("tiny")
    official = to_official_names(state_on_meta("tiny"), config)
    lost = official.pop("img_backbone.conv1.weight")
    official |= {"img_backbone.conv1.wait": lost, "head.extra": lost}
    with pytest.raises(ValueError) as caught:
        from_official_names(official, config)
    message = str(caught.value)
    assert "2 keys have no place in it: img_backbone.conv1.wait, head.extra" in message
    assert "1 keys are missing: img_backbone.conv1.weight" in message and "'tiny'" in message


def test_the_other_stage_does_not_fit():
    official = to_official_names(state_on_meta("sparsedrive_small_stage2"), preset("sparsedrive_small_stage2"))
    with pytest.raises(ValueError, match=r"head\.motion_plan_head\..*0 keys are missing: none.*choose the preset"):
        from_official_names(official, preset("sparsedrive_small_stage1"))


def test_constants_are_dropped_and_may_be_absent():
    config = preset("tiny")
    official = to_official_names(state_on_meta("tiny"), config)
    ours, dropped = from_official_names(official, config)
    assert set(ours) == set(state_on_meta("tiny")) and dropped == list(official_constants(config))
    bare = {key: value for key, value in official.items() if key not in official_constants(config)}
    assert from_official_names(bare, config)[1] == []
