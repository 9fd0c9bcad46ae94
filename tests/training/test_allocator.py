"""In processes of their own: it is for the whole process and for good."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from sparsedrive.training.allocator import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.ones(16 << 20)  # once for the code itself, and to get the memory
before = faults()
for _ in range(4):
    torch.ones(16 << 20)
print(faults() - before)
"""


def page_faults(mode: str) -> int:
    """Of four times 64 MB, asked for and freed."""
    run = subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, timeout=120)
    if run.returncode == 3:
        pytest.skip("the C library is not glibc")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_used_again_without_asking_the_kernel():
    assert page_faults("kept") < 50


def test_other_systems_are_left_alone(monkeypatch):
    from sparsedrive.training import allocator

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
