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

for _ in range(3):  # the code itself, and to get the memory
    torch.ones(16 << 20)
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
    # Not zero: the kernel may take pages back by itself on a busy machine.
    assert page_faults("kept") < page_faults("plain") / 4


def test_other_systems_are_left_alone(monkeypatch):
    from sparsedrive.training import allocator

    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
