"""Files on disk. They hold the tiny preset: `convert_file` takes presets, and its names follow the same table as the large ones."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sparsedrive
from sparsedrive.config import from_json, preset, to_json
from sparsedrive.convert import convert_file, load, read_config, save
from sparsedrive.convert.checkpoint import has_packaged_weights, packaged_weights, to_official_names
from sparsedrive.convert.sparsedrive import official_constants
from sparsedrive.models.sparsedrive import SparseDrive
from sparsedrive.structures import ParityOptions


@pytest.fixture(scope="module")
def model() -> SparseDrive:
    """Every parameter and every statistic of its own, so that a tensor in the wrong place shows."""
    made = load("tiny", seed=3)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            tensor.copy_(
                torch.randint(1000, tensor.shape, generator=draw)
                if tensor.dtype == torch.int64
                else torch.rand(tensor.shape, generator=draw)
            )
    return made


@pytest.fixture(scope="module")
def official(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("official") / "epoch.pth"
    torch.save({"state_dict": to_official_names(model.state_dict(), model.config), "meta": {"epoch": 10, "CLASSES": ["car"]}}, path)
    return path


@pytest.fixture(scope="module")
def ours(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "tiny.safetensors"
    save(model, path)
    return path


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_official_to_ours_and_back_is_the_same_bits(official, model, tmp_path):
    there, back = tmp_path / "new" / "tiny.safetensors", tmp_path / "other" / "back.pth"
    report = convert_file(official, there, "tiny")
    assert report.constants == list(official_constants(model.config)) and report.source == official and report.target == there
    assert report.num_tensors == len(model.state_dict())
    assert report.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert same_weights(load("tiny", there).state_dict(), model.state_dict())
    convert_file(there, back, "tiny", to_official=True)
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (official, back))
    assert same_weights(before, after)


def test_official_files_load_as_they_are(official, model):
    loaded = sparsedrive.load("tiny", official)
    assert same_weights(loaded.state_dict(), model.state_dict()) and not loaded.training


def test_prefixes_of_parallel_training_and_bare_state_dicts(model, tmp_path):
    names = to_official_names(model.state_dict(), model.config)
    torch.save({f"module.{key}": value for key, value in names.items()}, tmp_path / "parallel.pth")
    assert same_weights(load("tiny", tmp_path / "parallel.pth").state_dict(), model.state_dict())


def test_save_writes_the_configuration_inside_and_beside(ours, model):
    assert read_config(ours) == model.config
    assert from_json(ours.with_suffix(".json").read_text()) == model.config
    assert sorted(path.name for path in ours.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]  # nothing unfinished
    assert same_weights(load(read_config(ours), ours).state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["tiny", "mine"])
def test_a_variant_of_a_preset_comes_back_as_it_was_saved(name, tmp_path):
    variant = replace(preset("tiny"), name=name, mask_aware=True).build()
    save(variant, tmp_path / "mine.safetensors")
    assert load("tiny", tmp_path / "mine.safetensors").config == variant.config
    assert load(preset("tiny"), tmp_path / "mine.safetensors").config == preset("tiny")  # who gives a configuration gets it
    convert_file(tmp_path / "mine.safetensors", tmp_path / "again.safetensors", "tiny")
    assert read_config(tmp_path / "again.safetensors") == variant.config
    save_file(variant.state_dict(), tmp_path / "bare.safetensors")
    assert load("tiny", tmp_path / "bare.safetensors").config == preset("tiny")


def test_a_file_of_another_preset_is_read_as_the_one_asked_for(tmp_path, model):
    save(replace(model.config, name="tiny_completion", mask_aware=True).build(), tmp_path / "other.safetensors")
    assert load("tiny", tmp_path / "other.safetensors").config == model.config


def test_a_header_this_version_does_not_know_is_an_error_that_says_what_to_do(tmp_path, model):
    metadata = {"sparsedrive_config": json.dumps(json.loads(to_json(model.config)) | {"image_wh_px": None})}
    save_file(model.state_dict(), tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=r"bad.safetensors: the configuration in it cannot be read"):
        load("tiny", tmp_path / "bad.safetensors")
    metadata = {"sparsedrive_config": to_json(model.config).replace('"mask_aware"', '"mask_unaware"')}
    save_file(model.state_dict(), tmp_path / "old.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=r"old.safetensors: the configuration in it.*mask_unaware.*takes a configuration instead"):
        load("tiny", tmp_path / "old.safetensors")
    assert load(preset("tiny"), tmp_path / "old.safetensors").config == preset("tiny")


def test_half_precision_halves_the_file_and_loads_as_float32(ours, model, tmp_path):
    path = tmp_path / "half.safetensors"
    save(model, path, half=True)
    assert path.stat().st_size < 0.52 * ours.stat().st_size
    loaded = load("tiny", path).state_dict()
    for key, value in model.state_dict().items():
        assert loaded[key].dtype == value.dtype
        assert torch.equal(loaded[key], value.half().float() if value.is_floating_point() else value), key


def test_numbers_too_large_for_half_precision_are_refused(tmp_path):
    model = load("tiny")
    with torch.no_grad():
        next(model.parameters()).fill_(1e6)
    with pytest.raises(ValueError, match=r"expected numbers within .* image_encoder.backbone"):
        save(model, tmp_path / "half.safetensors", half=True)
    assert not list(tmp_path.iterdir())


def test_packaged_weights_are_those_of_the_preset(model):
    assert has_packaged_weights("tiny") and not has_packaged_weights("sparsedrive_base_stage2")
    packaged = packaged_weights("tiny")
    assert packaged.stat().st_size < 10e6 and read_config(packaged) == preset("tiny")
    loaded = load("tiny", "packaged")
    assert same_weights(loaded.state_dict(), load("tiny", packaged).state_dict())
    assert not same_weights(loaded.state_dict(), load("tiny").state_dict())
    with pytest.raises(ValueError, match=r"no packaged weights of preset 'sparsedrive_base_stage2' .there are: tiny"):
        load("sparsedrive_base_stage2", "packaged")


def test_load_draws_weights_from_the_seed_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = load("tiny", seed=1), load("tiny", seed=1), load("tiny", seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert same_weights(first.state_dict(), second.state_dict()) and not same_weights(first.state_dict(), other.state_dict())


def test_load_takes_a_configuration_and_parity():
    config = replace(preset("tiny"), max_gap_s=1.0)
    model = load(config, parity=ParityOptions.published())
    assert model.config == replace(config, parity=ParityOptions.published())


class Attack:
    """Unpickling runs this: it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("writer", ["torch", "torch, old format", "pickle"])
def test_a_file_that_runs_code_is_refused_and_not_run(writer, tmp_path):
    path, folder = tmp_path / "evil.pth", tmp_path / "was run"
    content = {"state_dict": {"a": torch.zeros(1)}, "hook": Attack(folder)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    for call in (lambda: load("tiny", path), lambda: convert_file(path, tmp_path / "x.safetensors", "tiny")):
        with pytest.raises(ValueError, match=r"evil\.pth: refused, .*could run code"):
            call()
    assert not folder.exists() and not (tmp_path / "x.safetensors").exists()
    pickle.loads(pickle.dumps(Attack(folder)))  # noqa: S301  (our own: the attack would have worked)
    assert folder.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["official", "ours"])
def test_truncated_files_are_refused(kind, share, official, ours, tmp_path):
    whole = official if kind == "official" else ours
    content = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"cut\.\w+: expected a complete"):
        load("tiny", path)
    if kind == "ours":
        with pytest.raises(ValueError, match="expected a complete safetensors file"):
            read_config(path)


@pytest.mark.parametrize("content", [b"hello, this is a text file\n", b"\x00" * 100, b"\x80\x02}q\x00.", bytes(range(256))], ids=repr)
def test_other_files_are_refused(content, tmp_path):
    for name in ("other.pth", "other.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load("tiny", tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": [1]}, {"epoch": 3}, 7, {0: torch.zeros(1)}], ids=repr)
def test_checkpoints_without_a_state_dict_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: expected a state dict"):
        load("tiny", tmp_path / "x.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.pth; give"):
        load("tiny", tmp_path / "none.pth")


def test_weights_of_another_preset_are_refused(ours, official):
    with pytest.raises(ValueError, match=r"does not fit preset 'sparsedrive_small_stage1'.*unused .*choose the preset"):
        load("sparsedrive_small_stage1", ours)
    with pytest.raises(ValueError, match=r"does not fit preset 'sparsedrive_small_stage1'.*choose the preset"):
        load("sparsedrive_small_stage1", official)


def test_missing_unused_and_misshapen_tensors_are_listed(model, tmp_path):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["extra.weight"] = torch.zeros(2)
    del state["map.anchors"]
    state["detection.anchors"] = torch.zeros(7, 11)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ValueError) as caught:
        load("tiny", tmp_path / "x.safetensors")
    for part in ("missing map.anchors", "unused extra.weight", "detection.anchors (7, 11) instead of (200, 11)"):
        assert part in str(caught.value)


def test_target_endings_are_checked_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"ending in \.safetensors, got .*x\.pth"):
        convert_file(tmp_path / "none.pth", tmp_path / "x.pth", "tiny")
    with pytest.raises(ValueError, match=r"ending in \.pth, got .*x\.safetensors"):
        convert_file(tmp_path / "none.safetensors", tmp_path / "x.safetensors", "tiny", to_official=True)


def test_a_foreign_safetensors_file_has_no_configuration(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="written by sparsedrive"):
        read_config(tmp_path / "a.safetensors")


def test_save_under_an_ending_that_load_would_misread_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"\.safetensors"):
        save(model, tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())
