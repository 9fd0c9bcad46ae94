"""Drives through generated towns -> a folder in the nuScenes format: tables, pictures, lidar, map expansion, CAN bus.

Every scene depends on the seed and its own number only, so any number of processes leaves the same bytes. A scene counts once its part
(`parts/scene-0001.json.gz`, its rows of the tables) is there, which is written last; the tables are all parts put together. So a run
that was stopped goes on where it was.
"""

import gzip
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sparsedrive.world.generate import generate_town
from sparsedrive.world.looks import LOOKS
from sparsedrive.world.map_expansion import map_expansion, semantic_mask
from sparsedrive.world.recording import ScenePlan, record_scene
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.tables import TABLES, SceneName, Tables, fixed_tables, location_tables, mask_file

VERSION = "v1.0-world"
CONFIG_FILE, PART_FOLDER = "world.json", "parts"
FORMAT = 1
"""To be raised when the same configuration comes to give other bytes, so that no world is half old and half new."""
START_US, SCENE_EVERY_US = 1_600_000_000_000_000, 3_600_000_000
TOWN_SEEDS, SCENE_SEEDS = 0, 1
VAL_PART = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """What is made, but for the number of scenes.

    Attributes:
        seed: another seed, other towns and drives.
        seconds: length of a scene; two key frames a second.
        wh_px: width and height of the pictures.
        looks: weather and time of day, taken in turn by the scenes.
        scenes_per_town: so many scenes in a row drive through one town.
        lidar: scan and store point clouds; without, every annotated box says it has one lidar point.
        jpeg_quality: 1 to 100.
    """

    seed: int = 0
    seconds: float = 20.0
    wh_px: tuple[int, int] = (704, 396)
    looks: tuple[str, ...] = ("day", "dusk", "day", "rain", "fog")
    scenes_per_town: int = 5
    lidar: bool = True
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        unknown = [look for look in self.looks if look not in LOOKS]
        checks = {
            "seed": (self.seed >= 0, "0 or more"),
            "seconds": (0.5 <= self.seconds <= 600, "0.5 to 600"),
            "wh_px": (min(self.wh_px) >= 16, "at least 16 x 16 pixels"),
            "looks": (bool(self.looks) and not unknown, f"some of {list(LOOKS)}"),
            "scenes_per_town": (self.scenes_per_town >= 1, "at least 1"),
            "jpeg_quality": (1 <= self.jpeg_quality <= 100, "1 to 100"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ValueError(f"WorldConfig.{name}: expected {expected}, got {getattr(self, name)}")

    def scene(self, index: int) -> ScenePlan:
        """What the scene of that number (from 0) is."""
        town, look = index // self.scenes_per_town, self.looks[index % len(self.looks)]
        return ScenePlan(
            name=SceneName(
                scene=f"scene-{index + 1:04d}",
                location=location_name(town),
                description=f"Generated drive, {look}",
                start_us=START_US + index * SCENE_EVERY_US,
            ),
            seed=self._seed(SCENE_SEEDS, index),
            town_seed=self.town_seed(town),
            look=look,
            writes_map=index % self.scenes_per_town == 0,
            key_frames=round(2 * self.seconds),
            wh_px=self.wh_px,
            lidar=self.lidar,
            jpeg_quality=self.jpeg_quality,
        )

    def town_seed(self, town: int) -> int:
        """Seed of the town of that number (from 0)."""
        return self._seed(TOWN_SEEDS, town)

    def _seed(self, *key: int) -> int:
        return int(np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1)[0])


def location_name(town: int) -> str:
    """Name of the town of that number (from 0), and of its map."""
    return f"town-{town + 1:03d}"


def write_world(
    out: Path | str, scenes: int, config: WorldConfig | None = None, *, workers: int = 1, progress: Progress | None = None
) -> Path:
    """Make `scenes` scenes in the folder `out`, or finish those that are missing, and return the folder.

    The last fifth of the scenes (at least one of two) is the split "val" of `v1.0-world/splits.json`, the others are "train".

    Args:
        out: made if needed; empty, or a world of the same configuration, which may grow to more scenes.
        workers: processes; with more than one, a script must call this under `if __name__ == "__main__":`.
        progress: called with (scenes there, scenes wanted) at the start and after each one.

    Raises:
        ValueError: the folder cannot be written, holds something else, another configuration or more scenes; says what to do.
        OSError: the disk is full, or a worker died; the same call goes on where it stopped.
    """
    out, config = Path(out), config or WorldConfig()
    if scenes < 1 or workers < 1:
        raise ValueError(f"write_world: expected at least 1 scene and 1 worker, got {scenes} and {workers}")
    try:
        _begin(out, scenes, config)
    except OSError as error:
        raise ValueError(f"{out}: cannot write there ({error.strerror}); give another folder for the world") from error
    plans = [config.scene(index) for index in range(scenes)]
    missing = [plan for plan in plans if not part_path(out, plan.name.scene).is_file()]
    report = progress or (lambda done, total: None)
    report(scenes - len(missing), scenes)
    for count, _ in enumerate(_each(partial(_write_scene, out), missing, workers), scenes - len(missing) + 1):
        report(count, scenes)
    _write_tables(out, plans, config)
    return out


def part_path(out: Path, scene: str) -> Path:
    """Where the rows of a finished scene are."""
    return out / PART_FOLDER / f"{scene}.json.gz"


def read_part(out: Path, scene: str) -> Tables:
    """The rows of one finished scene; `ValueError` names a damaged file."""
    path = part_path(out, scene)
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a finished scene ({error}); delete the file and make the world again") from error


def _begin(out: Path, scenes: int, config: WorldConfig) -> None:
    """Checks that the folder is new or ours, and leaves the configuration in it."""
    wanted = json.loads(json.dumps({"format": FORMAT, **asdict(config)}))
    path = out / CONFIG_FILE
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: expected an empty folder or a world (with {CONFIG_FILE}), found other files; give another folder")
        _write_json(path, wanted, indent=2)
        return
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: not the configuration of a world ({error}); delete the folder or give another") from error
    different = [f"{key} = {found.get(key)}, not {wanted.get(key)}" for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    if different:
        raise ValueError(
            f"{out} holds a world made with {'; '.join(different)}; ask for the same to go on with it, delete it, or give another folder"
        )
    there = max((int(path.name[6:].split(".")[0]) for path in (out / PART_FOLDER).glob("scene-*.json.gz")), default=0)
    if there > scenes:
        raise ValueError(f"{out} holds {there} scenes already, more than the {scenes} asked for; ask for more or give another folder")


def _each(write: Callable[[ScenePlan], None], plans: list[ScenePlan], workers: int) -> Iterator[None]:
    """Runs `write` on every plan, in this process or in others, and yields after each."""
    if workers == 1:
        for plan in plans:
            write(plan)
            yield
        return
    # A spawned process starts clean on every system; a forked one could inherit locks of OpenCV's or PyTorch's threads.
    with ProcessPoolExecutor(min(workers, max(len(plans), 1)), mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
        jobs = [pool.submit(write, plan) for plan in plans]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            raise OSError("a worker process died, perhaps for lack of memory; run the same again, with fewer workers, to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word; what it was at is made again


def _write_scene(out: Path, plan: ScenePlan) -> None:
    if plan.writes_map:
        _write_map(out, plan.name.location, plan.town_seed)
    recording = record_scene(out, plan)
    for kind, messages in recording.can_bus.items():
        _write_json(out / "can_bus" / f"{plan.name.scene}_{kind}.json", messages)
    text = json.dumps(recording.tables, separators=(",", ":")).encode()
    _write_bytes(part_path(out, plan.name.scene), gzip.compress(text, compresslevel=6, mtime=0))


def _write_map(out: Path, location: str, town_seed: int) -> None:
    town = generate_town(town_seed, location)
    _write_bytes(out / mask_file(location), cv2.imencode(".png", semantic_mask(town))[1].tobytes())
    _write_json(out / "maps" / "expansion" / f"{location}.json", map_expansion(town, location))


def _write_tables(out: Path, plans: list[ScenePlan], config: WorldConfig) -> None:
    """All parts as one table each, and the splits; row by row, for a large world does not fit into memory."""
    folder, rig = out / "tables.part", nuscenes_rig(config.wh_px)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.json").open("w", encoding="utf-8", newline="\n")) for name in TABLES}
        empty = dict.fromkeys(TABLES, True)

        def add(tables: Tables) -> None:
            for name, rows in tables.items():
                for row in rows:
                    files[name].write(("[\n" if empty[name] else ",\n") + json.dumps(row))
                    empty[name] = False

        add(fixed_tables(rig))
        for location in dict.fromkeys(plan.name.location for plan in plans):
            add(location_tables(location, rig))
        for plan in plans:
            add(read_part(out, plan.name.scene))
        for name, file in files.items():
            file.write("[]\n" if empty[name] else "\n]\n")
    _write_json(folder / "splits.json", split(plans))
    shutil.rmtree(out / VERSION, ignore_errors=True)
    os.replace(folder, out / VERSION)


def split(plans: list[ScenePlan]) -> dict[str, list[str]]:
    """Names of the scenes to train on and to hold out: about the last fifth, whole towns where there are several."""
    towns = list(dict.fromkeys(plan.name.location for plan in plans))
    units = [[plan.name.scene for plan in plans if plan.name.location == town] for town in towns]
    if len(units) == 1:
        units = [[name] for name in units[0]]
    first_val = len(units) - max(len(units) // VAL_PART, min(len(units) - 1, 1))
    return {"train": list(chain(*units[:first_val])), "val": list(chain(*units[first_val:]))}


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    _write_bytes(path, (json.dumps(content, indent=indent) + "\n").encode())


def _write_bytes(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
