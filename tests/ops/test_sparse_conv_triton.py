"""Sparse convolution in Triton: run in Triton's interpreter where there is no GPU, compiled for GPUs that are not here, and chosen on CUDA.

What runs, `sparse_conv_triton_cases.py`, has a process of its own: see `test_triton_backend.py`.
"""

import re
from pathlib import Path

import pytest
import torch
from test_triton_backend import run

from sparsedrive.ops import backend_report, backends, triton_backend
from sparsedrive.ops.sparse_conv import available_dataflows, op, sparse_conv

HERE = Path(__file__).parent
MISSING = triton_backend.why_missing()
needs_triton = pytest.mark.skipif(MISSING is not None, reason="no triton here: its kernels are not tested")


@needs_triton
def test_kernels_are_right(record_property):
    where = "on the GPU" if torch.cuda.is_available() else "in Triton's interpreter"
    settings = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    cases = str(HERE / "sparse_conv_triton_cases.py")
    last = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA", cases, **settings).splitlines()[-1]
    assert re.match(r"\d{2,} passed", last.strip("= ")), last
    record_property("log", f"{last.strip('= ')}, {where}")


@needs_triton
@pytest.mark.slow
def test_compiles_for_gpus_that_are_not_here(record_property):
    """2 kernels, one of them in both directions, in 3 dtypes for 2 GPUs."""
    lines = run(str(HERE / "sparse_conv_compile_triton.py")).splitlines()
    assert len(lines) == 18, lines
    record_property("log", f"{len(lines)} programs compiled by Triton: {', '.join(sorted({line.split()[0] for line in lines}))}")


def test_the_best_on_a_gpu():
    assert [kernel.backend for kernel in op.KERNELS if "cuda" in kernel.devices] == ["triton", "rowwise"]
    best = "rowwise" if MISSING else "triton"
    assert backends.find_kernel(op.NAME, "auto", "cuda").backend == best
    assert available_dataflows("cuda") == op.DATAFLOWS[best]
    (row,) = (row for row in backend_report() if (row.op, row.backend) == (op.NAME, "triton"))
    assert row.available == row.active_for_cuda == (MISSING is None) and not row.active_for_cpu


def test_not_for_tensors_on_a_cpu():
    table = torch.zeros(1, 2, dtype=torch.int32)
    reason = f"backend 'triton' is {MISSING}" if MISSING else "backend 'triton' does not run on 'cpu' tensors"
    with pytest.raises(ValueError, match=re.escape(f"{op.NAME}: {reason}")):
        sparse_conv(torch.zeros(2, 3), torch.zeros(1, 3, 4), table, table, backend="triton")
