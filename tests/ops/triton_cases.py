"""The Triton kernels on tiny shapes. `test_triton_backend.py` runs this file in a process of its own: see there."""

import importlib

import kernel_checks as checks
import pytest
import torch

from sparsedrive.ops.deformable_aggregation.samples import random_sample

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CUT_OFF = 2**-7 if DEVICE == "cpu" else None
"""The interpreter cuts the digits off that bfloat16 has not, where a GPU rounds."""
daf, focal = (importlib.import_module(f"sparsedrive.ops.{op}.triton_kernels") for op in ("deformable_aggregation", "sigmoid_focal_loss"))


@pytest.mark.parametrize("dtype", checks.TOLERANCE)
def test_agrees_with_the_reference(dtype):
    sample = checks.on_device(random_sample(**checks.TINY, dtype=dtype), DEVICE)
    checks.assert_agrees(daf, sample, CUT_OFF if dtype == torch.bfloat16 else None)


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch": 2, "cameras": 1, "groups": 1, "anchors": 2},
        {"channels": 7, "groups": 7, "level_hw": (1, 4), "anchors": 1},
        {"level_hw": (1, 1, 1, 9, 7, 1), "channels": 6},
        {"per_anchor": 40, "anchors": 1, "cameras": 1},
        {"cameras": 8, "anchors": 1},
    ],
    ids=["two_streams", "a_channel_a_group", "odd_levels", "many_points", "8_cameras"],
)
def test_every_size(sizes):
    checks.assert_agrees(daf, checks.on_device(random_sample(**{**checks.TINY, **sizes}), DEVICE))


def test_float32_points_beside_bfloat16_features():
    sample = random_sample(**checks.TINY, dtype=torch.bfloat16)
    sample = sample._replace(points=sample.points.float(), weights=sample.weights.float())
    checks.assert_agrees(daf, checks.on_device(sample, DEVICE), CUT_OFF)


def test_64_bit_indices(monkeypatch):
    monkeypatch.setattr(daf, "INT32_MAX", 10)
    sample = checks.on_device(random_sample(**checks.TINY), DEVICE)
    assert daf._sizes(sample.packed, list(sample.level_hw), sample.weights).WIDE
    checks.assert_agrees(daf, sample)


def test_borders():
    checks.assert_borders(daf, DEVICE)


def test_reads_only_its_arguments():
    checks.assert_reads_only_its_arguments(daf, DEVICE)


@pytest.mark.parametrize("needs", checks.NEEDS)
def test_only_wanted_gradients(needs):
    checks.assert_only_wanted_gradients(daf, needs, DEVICE)


@pytest.mark.parametrize("sizes", [{"anchors": 0}, {"per_anchor": 0}, {"batch": 0}], ids=["anchors", "points", "batch"])
def test_empty(sizes):
    sample = checks.on_device(random_sample(**{**checks.TINY, **sizes}), DEVICE)
    assert all((tensor == 0).all() for tensor in checks.outcome(daf, sample))


def test_deterministic_mode_sums_the_features_gradient_in_order():
    sample = checks.on_device(random_sample(**checks.TINY), DEVICE)
    torch.use_deterministic_algorithms(True)
    try:
        first = checks.outcome(daf, sample)
        assert all(torch.equal(a, b) for a, b in zip(checks.outcome(daf, sample), first, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
    checks.assert_close(first, checks.exact(sample), 5e-6)


@pytest.mark.skipif(not checks.UNIT.exists(), reason=f"no golden file {checks.UNIT}; name its folder in SPARSEDRIVE_GOLDEN")
def test_golden():
    checks.assert_golden(daf, "daf_small", DEVICE)


@pytest.mark.parametrize("clamp_log", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", checks.TOLERANCE)
def test_focal_loss_agrees_with_the_reference(dtype, gamma, clamp_log):
    checks.assert_focal_agrees(focal, dtype, gamma, clamp_log, DEVICE)


def test_focal_loss_with_64_bit_indices(monkeypatch):
    monkeypatch.setattr(focal, "INT32_MAX", 10)
    checks.assert_focal_agrees(focal, torch.float32, 2.0, False, DEVICE)


def test_focal_loss_of_nothing():
    empty, target = torch.zeros(0, 4, device=DEVICE), torch.zeros(0, dtype=torch.int64, device=DEVICE)
    assert focal.forward(empty, target, 0.25, 2.0, False).shape == (0, 4)
    assert focal.backward(empty, empty, target, 0.25, 2.0, False, [True])[0].shape == (0, 4)
