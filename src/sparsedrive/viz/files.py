"""Pictures onto disk."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8


def write_picture(path: Path, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write a picture in the format of the file's name; the folder is made if needed. `ValueError` where that is impossible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"picture: expected a name ending in .png or .jpg, got {path.name}; rename it")
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise ValueError(f"picture: cannot write {path}; is the disk full or the folder read-only?")
