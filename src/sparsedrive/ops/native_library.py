"""The C++ kernels in `native/`: one shared library, built when the package is installed, if there is a compiler.

It knows nothing of PyTorch or Python, so it builds in seconds and serves every version of both; `ctypes` calls it without the GIL.
Where it is missing everything works without it; `library()` is then the reason, which `sparsedrive doctor` shows.
"""

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

INTERFACE = 2
"""Counts changes of the C functions' arguments (`sparsedrive_interface` in library.cpp): an older build must not be called."""

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
"""What the C functions know, by their number for it."""
WIDEST_ISA = 2
"""Widest instruction set to use: 0 any machine's, 1 AVX2, 2 AVX-512. What the machine has not is never used."""

_REMEDY = "to build it install a C++17 compiler (g++ or clang++) and install sparsedrive from source again"


@cache
def library() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    return load(Path(__file__).parent / "native")


def why_missing() -> str | None:
    """Why the library cannot be used; None if it can."""
    found = library()
    return found if isinstance(found, str) else None


def call(function: str, *arguments: ctypes._SimpleCData | ctypes.Array) -> None:
    """Run a C function of the library with as many threads as PyTorch has.

    Raises:
        MemoryError: there was not enough.
    """
    found = library()
    assert not isinstance(found, str), found
    if getattr(found, function)(*arguments, ctypes.c_int64(torch.get_num_threads()), ctypes.c_int32(WIDEST_ISA)):
        raise MemoryError(f"{function}: the C++ kernel ran out of memory; use a smaller batch")


def load(folder: Path) -> ctypes.CDLL | str:
    """The library built into a folder, or why it cannot be used."""
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"_library{suffix}").exists()]
    if not found:
        return f"not built: there was no working C++ compiler when the package was installed; {_REMEDY}"
    try:
        loaded = ctypes.CDLL(str(found[0]))
        interface = loaded.sparsedrive_interface()
    except (OSError, AttributeError) as error:
        return f"built, but it does not load ({error}); {_REMEDY}"
    if interface != INTERFACE:
        return f"built from another version of the sources; {_REMEDY}"
    return loaded
