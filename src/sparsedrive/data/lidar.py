"""LiDAR files of the nuScenes format (`.pcd.bin`): float32 rows x y z intensity ring, metres in the frame of the sensor."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

COLUMNS = 5
OWN_CAR_M = 1.0
"""Returns with |x| and |y| below this hit the car that carries the sensor (as in the published multi-sweep loaders)."""


def read_lidar(path: Path) -> Float[np.ndarray, "N 5"]:
    """Returns of one scan, float32 [N, 5]. Rows that are not finite are dropped with a warning that counts them.

    `ValueError` names a file that is empty, cut short or of another format; `FileNotFoundError` where there is none.
    """
    content = Path(path).read_bytes()
    if (damage := scan_damage(len(content))) is not None:
        raise ValueError(f"{path}: {damage}; the file is cut short or of another format, copy it again")
    points = np.frombuffer(content, np.dtype("<f4")).reshape(-1, COLUMNS)
    finite = np.isfinite(points).all(-1)
    if not finite.all():
        warnings.warn(f"{path}: dropped {int((~finite).sum())} of {len(points)} returns that are not finite", stacklevel=2)
    return points[finite].astype(np.float32)


def scan_damage(size_bytes: int) -> str | None:
    """What is wrong with a scan of that size, if anything."""
    row_bytes = 4 * COLUMNS
    if size_bytes and size_bytes % row_bytes == 0:
        return None
    return f"expected rows of {COLUMNS} float32 ({row_bytes} bytes each), got {size_bytes} bytes"


def gather_sweeps(
    scans: Iterable[tuple[Path, Float[np.ndarray, "4 4"]]],
) -> tuple[Float[np.ndarray, "N 5"] | None, int]:
    """Returns of several scans in one ego frame, and how many files were missing; None for the returns when all were.

    Args:
        scans: (file, ego_T_sweep) of the key frame's own scan and of as many earlier ones as wanted. Things that move smear.

    Returns on the car itself are left out. `ValueError` as `read_lidar`.
    """
    gathered, missing = [], 0
    for path, ego_T_sweep in scans:
        if not Path(path).is_file():
            missing += 1
            continue
        points = read_lidar(path)
        points = points[(np.abs(points[:, :2]) >= OWN_CAR_M).any(-1)]
        points[:, :3] = points[:, :3] @ ego_T_sweep[:3, :3].T + ego_T_sweep[:3, 3]
        gathered.append(points)
    return (np.concatenate(gathered) if gathered else None), missing
