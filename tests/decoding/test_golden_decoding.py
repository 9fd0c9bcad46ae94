"""Against the published decoders' numbers; needs the golden files."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_SPEC = importlib.util.spec_from_file_location("unit_decoding", Path(__file__).parents[1] / "golden" / "unit_decoding.py")
unit_decoding = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(unit_decoding)

FOLDER = unit_decoding.golden_folder()
UNIT = FOLDER / "sparsedrive" / "unit.npz"


@pytest.mark.skipif(not UNIT.exists(), reason=f"golden files not found: {UNIT}; set SPARSEDRIVE_GOLDEN")
def test_agrees_with_the_published_code(tmp_path):
    with np.load(UNIT, allow_pickle=False) as golden:
        ours = unit_decoding.build(golden)
        inputs = {"classification", "prediction", "quality", "instance_id"}
        outputs = {key for key in golden.files if key.split("/")[0] == "decoder" and key.split("/")[1] not in inputs}
    assert outputs <= ours.keys()
    assert {key.split("/")[0] for key in ours} == set(unit_decoding.GROUPS)
    np.savez(tmp_path / "ours.npz", **ours)
    command = [sys.executable, str(FOLDER / "compare.py"), str(UNIT), str(tmp_path / "ours.npz"), "--partial"]
    verdict = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert "AGREES" in verdict.stdout
