"""Whether Triton can be used, and kernels that import it only when they are first called (the import takes a second)."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any


def why_missing() -> str | None:
    """Why Triton cannot be used; None if it can."""
    if importlib.util.find_spec("triton") is not None:
        return None
    return "not installed: the package triton comes with PyTorch's CUDA builds for Linux"


def deferred(module: str, name: str) -> Callable[..., Any]:
    """The function `name` of a module that is imported at the first call."""

    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args)

    return call
