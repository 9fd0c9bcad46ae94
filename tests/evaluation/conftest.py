"""Prepared folders to evaluate on: one made of numbers, and the generated log with its nuScenes tables."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
sys.path.insert(0, str(Path(__file__).parents[1] / "metrics"))

from metric_boxes import MINI_VAL, real_folder
from prepared_samples import write_prepared

from sparsedrive.data.nuscenes.prepare import prepare
from sparsedrive.data.prepared import PreparedData


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Three scenes without nuScenes tables, long enough for plans of 3 s; split "val" is the last one."""
    return write_prepared(tmp_path_factory.mktemp("numbers"), frames=(9, 10, 8), wh_px=(64, 36))


@pytest.fixture(scope="session")
def drive(drive_root: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The generated log of four key frames, prepared; its only split with scenes is "train"."""
    folder = tmp_path_factory.mktemp("drive_prepared")
    prepare(drive_root, "v1.0-world", folder)
    return PreparedData.open(folder)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The two scenes of mini_val of the licensed sample, prepared; skipped without it."""
    root, folder = real_folder(), tmp_path_factory.mktemp("real")
    splits = folder / "only.json"
    splits.write_text(json.dumps({"mini_val": MINI_VAL}))
    prepare(root, "v1.0-mini", folder / "prepared", splits=splits)
    return PreparedData.open(folder / "prepared")
