"""The ops on the stored arrays of the published CUDA op and of mmdetection's focal loss."""

from pathlib import Path

import numpy as np
import pytest

from sources import golden_folder
from sparsedrive.ops import backend_report, use_backend

ROOT = Path(__file__).parents[2]
UNIT = golden_folder() / "sparsedrive" / "unit.npz"
PUBLISHED = ("deformable_aggregation", "sigmoid_focal_loss")
pytestmark = pytest.mark.skipif(not UNIT.exists(), reason=f"no golden file {UNIT}; name its folder in SPARSEDRIVE_GOLDEN")


# those of a GPU are held against the same arrays in test_cuda_backend.py, test_triton_backend.py and test_gpu_ops.py
ELSEWHERE = ("ordered", "cuda", "triton")
CHOICES = [(row.op, row.backend) for row in backend_report() if row.available and row.backend not in ELSEWHERE]


@pytest.mark.parametrize(("op", "backend"), [(None, "auto"), *(choice for choice in CHOICES if choice[0] in PUBLISHED)])
def test_agrees_with_the_published_ops(op, backend, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "golden"))
    import unit_ops

    with np.load(UNIT, allow_pickle=False) as golden, use_backend(backend, op=op):
        built = unit_ops.build(golden)
        assert len(built) == 22
        for key, ours in built.items():
            want = golden[key]
            assert ours.shape == want.shape and ours.dtype == want.dtype, key
            bound = 1e-6 + 1e-5 * np.abs(want).max()
            assert np.abs(ours.astype(np.float64) - want).max() <= bound, key
