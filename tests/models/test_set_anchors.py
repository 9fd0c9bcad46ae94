from dataclasses import replace

import numpy as np
import pytest
import torch

import sparsedrive
from sparsedrive.config import preset
from sparsedrive.models.anchors import anchor_sizes, set_anchors
from sparsedrive.structures.anchors import AnchorGroup, Anchors, AnchorSizes


def made(sizes: AnchorSizes, seed: int = 0) -> Anchors:
    rng = np.random.default_rng(seed)
    return Anchors(
        detection=rng.normal(size=(sizes.detection, 11)).astype(np.float32),
        map_lines_m=rng.normal(size=(sizes.map_lines, sizes.map_vertices, 2)).astype(np.float32),
        motion_m=rng.normal(size=(10, sizes.motion_modes, sizes.motion_steps, 2)).astype(np.float32),
        plan_m=rng.normal(size=(3, sizes.plan_modes, sizes.plan_steps, 2)).astype(np.float32),
        groups=(AnchorGroup(name="detection", samples=5, from_data=4, count=sizes.detection),),
        data="v1.0-made",
        split="train",
        seed=seed,
    )


def test_model_takes_them_all():
    model = sparsedrive.load("tiny")
    anchors = made(anchor_sizes(model.config))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_anchors(model, anchors)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"detection.anchors", "map.anchors", "planner.motion_anchors_m", "planner.plan_anchors_m"}
    assert np.array_equal(model.detection.anchors.detach().numpy(), anchors.detection)
    assert np.array_equal(model.map.anchors.detach().numpy().reshape(anchors.map_lines_m.shape), anchors.map_lines_m)
    assert np.array_equal(model.planner.motion_anchors_m.numpy(), anchors.motion_m)
    assert np.array_equal(model.planner.plan_anchors_m.numpy(), anchors.plan_m)
    anchors.detection[:] = 0
    assert model.detection.anchors.abs().sum() > 0, "a copy"
    assert model.detection.anchors.requires_grad


def test_both_stages_share_a_file():
    stage1, stage2 = preset("sparsedrive_small_stage1"), preset("sparsedrive_small_stage2")
    assert anchor_sizes(stage1) == anchor_sizes(stage2) == AnchorSizes()
    tiny = preset("tiny")
    model = replace(tiny, planner=None, name="first").build()
    wide = replace(anchor_sizes(tiny), motion_modes=2)
    set_anchors(model, made(wide))
    assert np.array_equal(model.detection.anchors.detach().numpy(), made(wide).detection)


@pytest.mark.parametrize("change", ["detection", "map_lines", "map_vertices", "motion_modes", "motion_steps", "plan_modes", "plan_steps"])
def test_other_sizes_are_refused_and_nothing_is_changed(change):
    model = sparsedrive.load("tiny")
    sizes = anchor_sizes(model.config)
    wanted = getattr(sizes, change)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"model 'tiny': {change} {wanted + 1} instead of {wanted}; .* --preset tiny"):
        set_anchors(model, made(replace(sizes, **{change: wanted + 1})))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_file_round_trip(tmp_path):
    anchors = made(anchor_sizes(preset("tiny")), seed=3)
    anchors.save(tmp_path / "new" / "a.safetensors")
    back = Anchors.load(tmp_path / "new" / "a.safetensors")
    for name in ("detection", "map_lines_m", "motion_m", "plan_m"):
        assert np.array_equal(getattr(back, name), getattr(anchors, name))
    assert (back.groups, back.data, back.split, back.seed) == (anchors.groups, "v1.0-made", "train", 3)
    anchors.save(tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "new" / "a.safetensors").read_bytes()
    assert not list(tmp_path.glob("**/*.part"))


def test_broken_files_are_named(tmp_path):
    anchors = made(anchor_sizes(preset("tiny")))
    with pytest.raises(ValueError, match=r"ending in \.safetensors"):
        anchors.save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no such file"):
        Anchors.load(tmp_path / "none.safetensors")
    weights = tmp_path / "weights.safetensors"
    sparsedrive.save(sparsedrive.load("tiny"), weights)
    with pytest.raises(ValueError, match="not a file of anchors"):
        Anchors.load(weights)
    anchors.save(tmp_path / "a.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:2000])
    with pytest.raises(ValueError, match="not a file of anchors"):
        Anchors.load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", ["detection", "map_lines_m", "motion_m", "plan_m"])
def test_wrong_arrays_are_refused(name):
    anchors = made(anchor_sizes(preset("tiny")))
    value = getattr(anchors, name)
    for wrong in (value[0], value[..., :1], value.astype(np.float64), value * np.nan):
        with pytest.raises(ValueError, match=rf"Anchors\.{name}: expected finite float32"):
            replace(anchors, **{name: wrong})
