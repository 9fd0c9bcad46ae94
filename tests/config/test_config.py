import json
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

import sparsedrive
from sparsedrive import ParityOptions
from sparsedrive.config import from_json, preset, presets, to_json
from sparsedrive.config.json_io import CLASSES
from sparsedrive.convert.sparsedrive import key_table, official_constants, official_name
from sparsedrive.models.sparsedrive import SparseDriveConfig
from sparsedrive.structures import DenoisingConfig

COMPLETION = ["tiny_completion", "sparsedrive_small_stage2_completion", "sparsedrive_small_stage2_completion_v2"]
SPARSE4D = [
    "sparse4d_tiny", "sparse4d_v1_r101_h1", "sparse4d_v1_r101_h4", "sparse4d_v2_r50", "sparse4d_v2_r101", "sparse4d_v3_r50",
    "sparse4d_v3_r101", "sparse4d_v3_vov99",
]  # fmt: skip
SMALL, WHOLE = "sparsedrive_small_stage1", "sparsedrive_small_stage2"


def on_meta(config: SparseDriveConfig) -> torch.nn.Module:
    """Sizes and names without memory or random numbers."""
    with torch.device("meta"):
        return config.build()


def test_names_of_presets():
    assert presets() == [
        "tiny",
        "tiny_pretrained",
        SMALL,
        WHOLE,
        "sparsedrive_base_stage1",
        "sparsedrive_base_stage2",
        *SPARSE4D,
        *COMPLETION,
    ]
    assert [preset(name).name for name in presets()] == presets()
    assert len({preset(name).describe for name in presets()}) == len(presets())
    assert sparsedrive.preset is preset and sparsedrive.presets is presets


def test_an_unknown_preset_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"expected one of tiny, tiny_pretrained, sparsedrive_small_stage1, .*; got 'sparsedrive_huge'"):
        preset("sparsedrive_huge")


def test_presets_are_fresh_values():
    assert preset("tiny") == preset("tiny") and preset("tiny") is not preset("tiny")
    assert preset(SMALL) != preset(WHOLE)


def test_sizes_of_the_published_model():
    model = on_meta(preset(WHOLE))
    assert sum(parameter.numel() for parameter in model.parameters()) == 86_140_569
    assert sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad) == 900 * 256


@pytest.mark.parametrize(("name", "keys"), [(SMALL, 1179), (WHOLE, 1324)])
def test_number_of_official_keys(name, keys):
    config = preset(name)
    table = key_table(config)
    official = {official_name(key, table) for key in on_meta(config).state_dict()}
    assert len(official | official_constants(config).keys()) == keys


def test_facts_of_the_presets():
    whole, base, tiny = preset(WHOLE), preset("sparsedrive_base_stage2"), preset("tiny")
    assert (whole.image_wh_px, base.image_wh_px, tiny.image_wh_px) == ((704, 256), (1408, 512), (352, 128))
    assert (whole.encoder.backbone.depth, base.encoder.backbone.depth, tiny.encoder.backbone.depth) == (50, 101, 18)
    assert [name for name in presets() if preset(name).public_weights] == [
        SMALL, WHOLE, "sparse4d_v1_r101_h4", "sparse4d_v2_r50", "sparse4d_v3_r50"
    ]  # fmt: skip
    assert all("no public weights" in preset(name).describe for name in SPARSE4D[1:] if not preset(name).public_weights)
    assert (whole.detection.num_anchors, whole.detection.num_memory, whole.map.num_anchors) == (900, 600, 100)
    assert (preset(SMALL).map.num_memory, whole.map.num_memory) == (0, 33)
    assert preset(SMALL).planner is None and preset("sparsedrive_base_stage1").planner is None and whole.planner is not None
    assert len(whole.camera_names) == 6 and whole.camera_names[0] == "CAM_FRONT"


def test_stages_differ_in_name_map_memory_and_planner_only():
    first, second = preset(SMALL), preset(WHOLE)
    different = {field.name for field in fields(first) if getattr(first, field.name) != getattr(second, field.name)}
    assert different == {"name", "describe", "map", "planner"}
    assert replace(second.map, num_memory=0) == first.map


@pytest.mark.parametrize("name", presets())
def test_json_brings_every_preset_back(name):
    config = preset(name)
    text = to_json(config)
    assert from_json(text) == config
    assert to_json(from_json(text)) == text
    assert json.loads(text)["class"] == "SparseDriveConfig"


def test_json_keeps_values_that_are_not_the_default():
    config = preset("tiny")
    encoder = replace(config.encoder, grid_mask=None, channels_last=False)
    kind = replace(config.map.kind, heights_m=(0.0, 0.25), roi_m=(10.0, 20.0))
    changed = replace(
        config,
        encoder=encoder,
        detection=replace(config.detection, denoising=DenoisingConfig(num_groups=2, num_temporal_groups=1)),
        map=replace(config.map, kind=kind),
        camera_names=("A", "B"),
        max_gap_s=0.75,
        parity=ParityOptions.published(),
    )
    assert from_json(to_json(changed)) == changed != config


def test_json_knows_every_configuration_class():
    def classes(value) -> set[str]:
        if not is_dataclass(value):
            return set()
        return {type(value).__name__}.union(*(classes(getattr(value, field.name)) for field in fields(value)))

    assert set(CLASSES) == {"DenoisingConfig"}.union(*(classes(preset(name)) for name in presets()))


def edited(**changes) -> str:
    tree = json.loads(to_json(preset("tiny")))
    tree["detection"]["layer"] |= changes
    return json.dumps(tree)


def test_unknown_keys_and_classes_are_refused_by_place():
    with pytest.raises(
        ValueError, match=r"configuration\.detection\.layer \(LayerConfig\): unknown keys \['num_head'\]; known are .*num_heads"
    ):
        from_json(edited(num_head=8))
    with pytest.raises(ValueError, match=r"configuration\.detection\.layer\.class: expected one of BoxKind, .*; got 'os\.system'"):
        from_json(edited(**{"class": "os.system"}))
    with pytest.raises(ValueError, match=r"configuration\.class: .*got None"):
        from_json("{}")


def test_values_in_json_are_validated_too():
    with pytest.raises(ValueError, match=r"LayerConfig\.num_heads: expected a divisor of dim=64, got 7"):
        from_json(edited(num_heads=7))


def test_text_that_is_not_json_is_refused():
    with pytest.raises(ValueError, match="configuration: expected JSON, got 'not json'"):
        from_json("not json")


def test_a_missing_key_is_named():
    tree = json.loads(to_json(preset("tiny")))
    del tree["detection"]["num_anchors"]
    with pytest.raises(ValueError, match="num_anchors"):
        from_json(json.dumps(tree))


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", '"tiny"'])
def test_json_without_a_configuration_is_refused(text):
    with pytest.raises(ValueError, match="configuration"):
        from_json(text)
