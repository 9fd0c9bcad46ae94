"""Agreement with recorded outputs of the published code. The full set needs the golden folder (SPARSEDRIVE_GOLDEN), the subset nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dump
import sparsedrive
from sources import SUBSET, golden_folder, input_rules

FOLDER = golden_folder()
EVAL_FILES = sorted([*(FOLDER / "sparsedrive").glob("eval_stage*.npz"), *(FOLDER / "sparse4d").glob("v*_eval.npz")])
TRAIN_FILES = sorted([*(FOLDER / "sparsedrive").glob("train_stage*.npz"), *(FOLDER / "sparse4d").glob("v*_train_*.npz")])
UNIT_FILES = sorted((FOLDER / "sparsedrive").glob("unit*.npz"))
absent = f"golden folder not found: {FOLDER}; set SPARSEDRIVE_GOLDEN to it"
# Inputs of the groups that are rebuilt; every other array of these groups is an output and must be there.
BUILT = re.compile(
    r"(daf_\w+|focal|decoder|map_decoder|plan_decode|check_collision|kps|project_points|sine_embed|depth"
    r"|losses|box_loss|det_target\w*|map_target|motion_target|plan_target)/"
)
INPUTS = re.compile(
    r"daf_\w+/(value|spatial_shape|scale_start_index|sampling_location|weights|grad_output)$"
    r"|focal/(logits|target|weight)$|decoder/(classification|prediction|quality|instance_id)$"
    r"|plan_decode/((det|motion|plan)_(classification|prediction)|cmd)$|check_collision/boxes\d$"
    r"|kps/((det|map)_(anchor|feature)|T_temp2cur|time_interval)$|project_points/(projection_mat|image_wh)$"
    r"|sine_embed/pos$|depth/(focal|feat\d|gt\d)$"
    r"|losses/(a|b|w|logit|soft|p40|t40|w40)$|box_loss/(pred|target|target_after|quality|cls_target|weight)$"
    r"|(det|map)_target\w*/(cls|box|pts)_pred$|(det|map)_target\w*/s\d/gt_(boxes|labels|pts)$"
    r"|motion_target/(reg_pred|(pred|gt)_idx\d|s\d/gt_fut_\w+)$"
    r"|plan_target/(gt_trajs|gt_masks|cls_pred|cls_target|best_reg)$"  # its predictions are not in the file
)


def run(*command: str) -> str:
    """Output of a command; its failure is the test's."""
    # Threads that wait do not spin: other test workers share the cores.
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def dump_and_compare(golden: Path, ours: Path, *options: str) -> None:
    run(str(Path(dump.__file__)), str(golden), str(ours))
    verdict = run(str(FOLDER / "compare.py"), str(golden), str(ours), *options)
    assert verdict.strip().endswith(": AGREES"), verdict


def missing_outputs(golden: Path, ours: dict[str, np.ndarray]) -> list[str]:
    with np.load(golden, allow_pickle=False) as file:
        return [key for key in file.files if BUILT.match(key) and not INPUTS.match(key) and key not in ours]


def assert_close(golden: Path, ours: dict[str, np.ndarray]) -> None:
    with np.load(golden, allow_pickle=False) as file:
        for key, value in ours.items():
            scale = np.nanmax(np.abs(file[key])) if file[key].dtype.kind == "f" else 0
            np.testing.assert_allclose(value, file[key], rtol=0, atol=1e-6 + 2e-5 * scale, err_msg=key)


@pytest.mark.xdist_group("golden")  # one at a time: each takes all cores
@pytest.mark.parametrize("golden", EVAL_FILES or [None], ids=lambda path: path.stem if path else "absent")
def test_streams_agree(golden, tmp_path):
    if golden is None:
        pytest.skip(absent)
    dump_and_compare(golden, tmp_path / "ours.npz")


@pytest.mark.xdist_group("golden")
@pytest.mark.parametrize("golden", TRAIN_FILES or [None], ids=lambda path: path.stem if path else "absent")
def test_training_agrees(golden, tmp_path):
    if golden is None:
        pytest.skip(absent)
    dump_and_compare(golden, tmp_path / "ours.npz")


@pytest.mark.parametrize("golden", UNIT_FILES or [None], ids=lambda path: path.stem if path else "absent")
def test_units_agree(golden, tmp_path):
    if golden is None:
        pytest.skip(absent)
    dump_and_compare(golden, tmp_path / "ours.npz", "--partial")
    with np.load(tmp_path / "ours.npz") as ours:
        assert missing_outputs(golden, dict(ours)) == []


def test_committed_units_agree():
    ours = dump.build(SUBSET / "unit.npz")
    assert missing_outputs(SUBSET / "unit.npz", ours) == []
    assert_close(SUBSET / "unit.npz", ours)


@torch.no_grad()
def test_committed_image_features_agree():
    rules = input_rules()
    model = sparsedrive.preset("sparsedrive_small_stage1").encoder.build().eval()
    official = {"backbone.": "img_backbone.", "neck.lateral_convs.": "img_neck.lateral_convs.", "neck.output_convs.": "img_neck.fpn_convs."}
    state = model.state_dict()
    for key, value in state.items():
        ours, theirs = next(pair for pair in official.items() if key.startswith(pair[0]))
        name = theirs + key[len(ours) :]
        if theirs.startswith("img_neck"):
            name = re.sub(r"(\d)\.(weight|bias)$", r"\1.conv.\2", name)
        made = rules.weight_value(name, value.shape, value.is_floating_point())
        if made is not None:
            state[key] = torch.from_numpy(made)
    model.load_state_dict(state)
    images = rules.rng("img/seq_b1/0").standard_normal((1, 6, 3, rules.IMG_H, rules.IMG_W), dtype=np.float32)
    arrays = dump.fpn_arrays(model, torch.from_numpy(images), torch.ones(1, 6, dtype=torch.bool))
    with np.load(SUBSET / "features_stage1_seq_b1.npz") as file:
        np.testing.assert_array_equal(images.reshape(-1)[:16], file["f0/in/img_head"])
    assert_close(SUBSET / "features_stage1_seq_b1.npz", {f"f0/{key}": value.numpy() for key, value in arrays.items()})


def test_a_wrong_array_is_noticed(tmp_path):
    if not UNIT_FILES:
        pytest.skip(absent)
    ours = dump.build(UNIT_FILES[0])
    ours["sine_embed/embed"] = ours["sine_embed/embed"] + 1e-3
    np.savez(tmp_path / "wrong.npz", **ours)
    command = [sys.executable, str(FOLDER / "compare.py"), str(UNIT_FILES[0]), str(tmp_path / "wrong.npz"), "--partial"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DIFFERS sine_embed/embed" in done.stdout


def test_unknown_files_are_refused():
    with pytest.raises(ValueError, match="expected a file named eval_stage"):
        dump.build(Path("something_else.npz"))
