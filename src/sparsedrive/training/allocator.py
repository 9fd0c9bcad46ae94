"""Memory of a training on a CPU.

glibc hands every large block back to the kernel when it is freed, and a training step frees and asks for the same blocks again and
again: each time the kernel unmaps, maps and zeroes their pages.
"""

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of glibc's malloc.h."""
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library of this process to keep what is freed, for the next step; False where it cannot be told (it is not glibc).

    The process holds on to its peak memory until it ends. The same by environment variables: MALLOC_MMAP_MAX_=0 with
    MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, value) == 1 for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, LARGEST), (TOP_PAD, 2**28)))
