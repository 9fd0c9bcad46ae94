"""The CUDA kernels in `native/*.cu`: one shared library, built by `python -m sparsedrive.ops.build_cuda` and found when there.

It knows nothing of PyTorch, so it need not be built for one version of it; `ctypes` calls it with raw pointers and PyTorch's current
stream. Where it is missing Triton takes its place; `library()` is then the reason, which `sparsedrive doctor` shows.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

INTERFACE = 1
"""Counts changes of the C functions' arguments (`sparsedrive_cuda_interface` in library.cu): an older build must not be called."""
FOLDER = Path(__file__).parent / "native"
FILE_NAME = "_cuda_library.so"
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
BUILD = "python -m sparsedrive.ops.build_cuda"


@cache
def library() -> ctypes.CDLL | str:
    """The library, or why it cannot be used."""
    loaded = load(FOLDER)
    if isinstance(loaded, ctypes.CDLL) and torch.version.cuda is None:
        return "built, but this PyTorch has no CUDA"
    return loaded


def why_missing() -> str | None:
    """Why the library cannot be used; None if it can."""
    found = library()
    return found if isinstance(found, str) else None


def load(folder: Path) -> ctypes.CDLL | str:
    """The library built into a folder, or why it cannot be used."""
    path = folder / FILE_NAME
    if not path.exists():
        return f"not built: `{BUILD}` builds it, where there is nvcc"
    try:
        loaded = ctypes.CDLL(str(path))
        interface = loaded.sparsedrive_cuda_interface()
        loaded.sparsedrive_cuda_error.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return f"built, but it does not load ({error}); build it again with `{BUILD}`"
    if interface != INTERFACE:
        return f"built from another version of the sources; build it again with `{BUILD}`"
    return loaded


def call(function: str, *arguments: ctypes._SimpleCData | ctypes.Array, like: Tensor) -> None:
    """Run a C function of the library on the device and current stream of a tensor.

    Raises:
        RuntimeError: CUDA reports an error.
    """
    found = library()
    assert not isinstance(found, str), found
    device, stream = _place(like)
    code = getattr(found, function)(*arguments, ctypes.c_int32(device), ctypes.c_void_p(stream))
    if code:
        message = found.sparsedrive_cuda_error(code).decode()
        raise RuntimeError(f"{function}: CUDA says {message!r}; if the library was built for other GPUs, build it again with `{BUILD}`")


def pointers(*tensors: Tensor | None) -> ctypes.Array:
    """Their data as an array of void pointers; null where there is no tensor."""
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def integers(values: Sequence[int]) -> ctypes.Array:
    """An array of int64."""
    return (ctypes.c_int64 * len(values))(*values)


def _place(like: Tensor) -> tuple[int, int]:
    """Device number and stream to launch on."""
    return like.get_device(), torch.cuda.current_stream(like.device).cuda_stream
