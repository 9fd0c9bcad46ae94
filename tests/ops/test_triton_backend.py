"""The Triton kernels: run in Triton's interpreter where there is no GPU, and compiled for GPUs that are not here.

Triton decides about its interpreter when it is first imported, which other tests may have done (parts of PyTorch import it). So what
runs, `triton_cases.py`, has a process of its own; its last line is shown at the end of the log.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
OWN_SETTINGS = ("TRITON_INTERPRET", "PYTEST_")
"""Beginnings of environment variables that the process gets none of: it is neither a worker nor told how to run."""
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton here: its kernels are not tested")


def run(*command: str, **settings: str) -> str:
    """What a Python process with these settings prints; its failure is the test's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN_SETTINGS)}
    arguments = [sys.executable, *command]
    done = subprocess.run(arguments, env=environment | settings, cwd=HERE.parents[1], capture_output=True, text=True, timeout=1800)
    print(done.stdout)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_kernels_are_right(record_property):
    where = "on the GPU" if torch.cuda.is_available() else "in Triton's interpreter"
    settings = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    cases = str(HERE / "triton_cases.py")
    last = run("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA", cases, **settings).splitlines()[-1]
    assert re.match(r"\d{2,} passed", last.strip("= ")), last
    record_property("log", f"{last.strip('= ')}, {where}")


@pytest.mark.slow
def test_compiles_for_gpus_that_are_not_here(record_property):
    """4 kernels for 3 GPUs."""
    lines = run(str(HERE / "compile_triton.py")).splitlines()
    assert len(lines) == 12, lines
    record_property("log", f"{len(lines)} programs compiled by Triton: {', '.join(sorted({line.split()[0] for line in lines}))}")
