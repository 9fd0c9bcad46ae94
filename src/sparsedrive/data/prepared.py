"""A prepared log on disk: `prepared.json` and one archive of plain arrays a scene. Written by `sparsedrive prepare`, read by everything.

Nothing here is nuScenes: a rig of one's own becomes a `PreparedScene` too. No pickle anywhere.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
INDEX_FILE, SCENE_FOLDER, TEXT, PARTIAL = "prepared.json", "scenes", "text", ".part"
MEMBER_DATE = (1980, 1, 1, 0, 0, 0)
"""Instead of the time of writing: archives of the same scene are the same bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedScene:
    """One scene: F key frames, C cameras, N boxes, L map lines, S lidar sweeps over all frames; ragged parts by `*_splits`.

    `box_splits[f]:box_splits[f + 1]` are the rows of frame f; the same for map lines (`map_splits`), their points (`point_splits`) and
    sweeps. Ego frame: x right, y forward, z up. Transforms float64, positions in metres. Files are relative to `PreparedData.root`.

    Attributes:
        notes: what the recording lacked when it was prepared, in words.
        fingerprint: of everything the scene was made from; a scene whose fingerprint still fits need not be made again.
        instance_tokens: names of the scene's objects; `box_instance` indexes them.
        image_present, lidar_present: [F, C] and [F], whether the file was there when the scene was prepared.
        image_wh_px, image_time_us, intrinsic: [F, C, 2], [F, C] and [F, C, 3, 3] of the original pictures.
        camera_T_ego: [F, C, 4, 4] from the ego frame at the sample's time to the camera at the camera's time.
        ego_status, ego_status_known: [F, 10] as `Frame.ego_status`; zero where not known.
        command: [F] `Command`.
        ego_future_m: [F, 6, 2] where the ego frame's origin will be, 0.5 s apart; the last known place where not valid.
        ego_T_sweep: [S, 4, 4] from the lidar at the sweep's time to the ego frame at the sample's time.
        box: [N, 10] x y z l w h yaw_rad vx vy vz, ego frame of the row's frame; velocity NaN where unknown.
        box_label: [N] index into `DETECTION_CLASSES`.
        agent_future_m: [N, 12, 2] where the box will be, 0.5 s apart; the last known place where not valid.
        map_label: [L] index into `MAP_CLASSES`.
        map_points_m: [P, 2] vertices inside the square |x|, |y| <= `MAP_HALF_SIZE_M`, so that a loader can turn them and then clip.
            A ring repeats its first point.
    """

    name: str
    location: str
    sample_tokens: tuple[str, ...]
    instance_tokens: tuple[str, ...]
    camera_names: tuple[str, ...]
    image_paths: tuple[tuple[str, ...], ...]
    lidar_paths: tuple[str, ...]
    sweep_paths: tuple[str, ...]
    timestamp_us: np.ndarray
    global_T_car: np.ndarray
    car_T_ego: np.ndarray
    ego_status: np.ndarray
    ego_status_known: np.ndarray
    command: np.ndarray
    ego_future_m: np.ndarray
    ego_future_valid: np.ndarray
    image_present: np.ndarray
    image_wh_px: np.ndarray
    image_time_us: np.ndarray
    intrinsic: np.ndarray
    camera_T_ego: np.ndarray
    lidar_present: np.ndarray
    sweep_splits: np.ndarray
    sweep_time_us: np.ndarray
    ego_T_sweep: np.ndarray
    box_splits: np.ndarray
    box: np.ndarray
    box_label: np.ndarray
    box_instance: np.ndarray
    lidar_returns: np.ndarray
    radar_returns: np.ndarray
    agent_future_m: np.ndarray
    agent_future_valid: np.ndarray
    map_splits: np.ndarray
    map_label: np.ndarray
    point_splits: np.ndarray
    map_points_m: np.ndarray
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def num_frames(self) -> int:
        """Number of key frames F."""
        return len(self.sample_tokens)

    @property
    def global_T_ego(self) -> np.ndarray:  # noqa: N802
        """[F, 4, 4] pose of the ego frame."""
        return self.global_T_car @ self.car_T_ego

    def boxes_of(self, frame: int) -> slice:
        """Rows of the boxes of a frame."""
        return slice(int(self.box_splits[frame]), int(self.box_splits[frame + 1]))

    def lines_of(self, frame: int) -> list[tuple[int, np.ndarray]]:
        """(label, vertices [P, 2]) of the map lines of a frame."""
        return [
            (int(self.map_label[line]), self.map_points_m[self.point_splits[line] : self.point_splits[line + 1]])
            for line in range(int(self.map_splits[frame]), int(self.map_splits[frame + 1]))
        ]

    def save(self, path: Path) -> None:
        """Write the archive, whole or not at all. The same scene always gives the same bytes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        text = json.dumps({name: value for name, value in values.items() if name not in arrays})
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in (arrays | {TEXT: np.frombuffer(text.encode(), np.uint8)}).items():
                member = zipfile.ZipInfo(f"{name}.npy", MEMBER_DATE)
                member.compress_type = zipfile.ZIP_DEFLATED
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(value), allow_pickle=False)
                archive.writestr(member, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> "PreparedScene":
        """Read an archive; `ValueError` names a damaged one."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                values: dict[str, Any] = {name: archive[name] for name in archive.files if name != TEXT}
                values |= json.loads(archive[TEXT].tobytes().decode())
            tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            tuples["image_paths"] = tuple(tuple(row) for row in values["image_paths"])
            return cls(**(values | tuples))
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a prepared scene ({error}); delete the file and run `sparsedrive prepare` again") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Name of a file beside `path` to write into; it takes the place of `path` only when all is written."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        try:
            os.replace(partial, path)
        except FileNotFoundError as error:
            raise ValueError(f"{path}: removed while being written; is another run at work in this folder? Start again after it") from error
    finally:
        partial.unlink(missing_ok=True)


MAP_HALF_SIZE_M = 34.0
"""Half the side of the square that holds the map region of 30 m x 60 m however it is turned."""


@dataclass(frozen=True)
class PreparedData:
    """A prepared folder. `root` is the log's own folder, to which the files' names are relative; `splits` names scenes."""

    folder: Path
    root: Path
    version: str
    splits: Mapping[str, tuple[str, ...]]

    @classmethod
    def open(cls, folder: Path | str, root: Path | str | None = None) -> "PreparedData":
        """Open a finished folder; `root` overrides where the pictures are, should they have moved. `ValueError` says what to run."""
        folder = Path(folder)
        path = folder / INDEX_FILE
        if not path.is_file():
            raise ValueError(f"{folder}: no {INDEX_FILE}, so it is not prepared or not finished; run `sparsedrive prepare` (again)")
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            found = int(index["format"])
            splits = {str(name): tuple(map(str, scenes)) for name, scenes in index["splits"].items()}
            place = Path(root) if root else Path(os.path.normpath(folder.resolve() / index["root"]))
            data = cls(folder, place, str(index["version"]), splits)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not an index of prepared scenes ({error!r}); run `sparsedrive prepare` again") from error
        if found != FORMAT:
            raise ValueError(f"{path}: expected format {FORMAT}, got {found}; run `sparsedrive prepare` again with this version")
        return data

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """Names of all scenes, each once, in the order of the splits."""
        return tuple(dict.fromkeys(name for names in self.splits.values() for name in names))

    def split(self, name: str) -> tuple[str, ...]:
        """Scenes of a split; `ValueError` lists the splits there are."""
        if name not in self.splits:
            raise ValueError(f"split: expected one of {list(self.splits)} in {self.folder}, got {name!r}")
        return self.splits[name]

    def scene(self, name: str) -> PreparedScene:
        """Read one scene; `ValueError` for an unknown name suggests close ones."""
        if name not in self.scenes:
            close = get_close_matches(name, self.scenes) or list(self.scenes[:10])
            raise ValueError(f"no scene {name!r} in {self.folder}; perhaps you meant one of {close} (of {len(self.scenes)} scenes)")
        return PreparedScene.load(scene_path(self.folder, name))


def scene_path(folder: Path, name: str) -> Path:
    """Where the archive of a scene lies."""
    return folder / SCENE_FOLDER / f"{name}.npz"
