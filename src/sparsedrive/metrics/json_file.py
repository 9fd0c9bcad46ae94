"""Reading JSON files of hundreds of megabytes."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json(path: Path, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Content of a JSON file; errors are those of reading and of `json.loads`.

    Without Python's search for unreachable cycles, of which JSON makes none: it would look through all objects again and again as they
    become millions, and takes half of the time.
    """
    text = Path(path).read_text(encoding="utf-8")
    enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text, object_hook=object_hook)
    finally:
        if enabled:
            gc.enable()
