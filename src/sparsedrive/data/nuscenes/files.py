"""Which of a scene's pictures and scans can be loaded: those that are there and not visibly cut short."""

from dataclasses import dataclass

from sparsedrive.data.lidar import scan_damage
from sparsedrive.data.nuscenes.log import NuScenesLog
from sparsedrive.data.nuscenes.tables import EGO_CHANNEL
from sparsedrive.data.pixels import picture_damage


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneFiles:
    """Files of a scene's key frames: names (relative to the log) that can be loaded, and what is wrong with others that are there."""

    whole: frozenset[str]
    damaged: tuple[str, ...]


def check_files(log: NuScenesLog, name: str) -> SceneFiles:
    """Look for the pictures and scans of a scene. Nothing is decoded, so damage inside a file shows only when it is loaded."""
    whole, damaged = set(), []
    for sample in log.samples(name):
        for channel, row in log.files(sample).items():
            path = log.root / row.filename
            try:
                damage = scan_damage(path.stat().st_size) if channel == EGO_CHANNEL else picture_damage(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                damage = f"cannot be read ({error.strerror})"
            if damage is None:
                whole.add(row.filename)
            else:
                damaged.append(f"{row.filename}: {damage}")
    return SceneFiles(whole=frozenset(whole), damaged=tuple(damaged))
