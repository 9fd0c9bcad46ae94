"""A nuScenes-format folder -> a prepared folder (`prepared.PreparedData`), scene by scene, restartable, in several processes."""

import gc
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryFile

import torch

from sparsedrive.data.nuscenes.files import SceneFiles, check_files
from sparsedrive.data.nuscenes.futures import AGENT_STEPS, EGO_STEPS
from sparsedrive.data.nuscenes.log import NuScenesLog
from sparsedrive.data.nuscenes.map_expansion import CityMap, load_city_map
from sparsedrive.data.nuscenes.report import PrepareReport, SceneSummary, summarise, write_report
from sparsedrive.data.nuscenes.scene_arrays import MAX_SWEEPS, prepare_scene
from sparsedrive.data.nuscenes.splits import OTHER, choose_splits, shared_scenes
from sparsedrive.data.prepared import FORMAT, INDEX_FILE, MAP_HALF_SIZE_M, PARTIAL, SCENE_FOLDER, PreparedScene, scene_path, whole_file

SETTINGS = {"sweeps": MAX_SWEEPS, "agent_steps": AGENT_STEPS, "ego_steps": EGO_STEPS, "map_half_size_m": MAP_HALF_SIZE_M}
TABLES = ("log", "scene", "sample", "sensor", "calibrated_sensor", "sample_data", "ego_pose", "category", "instance", "sample_annotation")

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""A forked worker shares the tables; a spawned one reads them again. Elsewhere than on Linux forking is not safe or not there."""

Progress = Callable[[int, int], None]


def prepare(
    root: Path | str,
    version: str | None,
    out: Path | str,
    *,
    splits: Path | None = None,
    workers: int = 1,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Prepare the scenes of `<root>/<version>` in the folder `out`.

    Scenes that are there from an earlier run, finished or killed, are kept if nothing they are made from has changed: tables, CAN bus,
    map, which pictures and scans are on disk, this library's version. The result does not depend on it, nor on `workers`.

    Args:
        version: table folder; None takes the only one.
        splits: JSON list of the scenes to prepare, see `splits.choose_splits`.
        workers: processes. Each takes a scene at a time; on Linux they share the memory of the tables.
        skip_broken: leave broken scenes out (`PrepareReport.skipped`) and count damaged files as missing, instead of stopping at the first.
        progress: called with (scenes done, scenes in all).

    Raises:
        ValueError: no such folder, unreadable tables, a broken scene, no scene left; names the place.
    """
    started_s, out, root = time.monotonic(), Path(out), Path(root)
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    reopen = partial(Preparer, root, version, out, skip_broken)
    preparer = reopen()
    log = preparer.log
    every = (*log.scenes, *log.tables.broken)
    wanted = choose_splits(every, log.tables.folder, splits)
    names = list(dict.fromkeys(name for scenes in wanted.values() for name in scenes))
    _make_ready(out)
    summaries: dict[str, SceneSummary] = {}
    skipped = {name: log.tables.broken[name] for name in names if name in log.tables.broken}
    todo = sorted((name for name in names if name not in skipped), key=lambda name: (preparer.locations[name], name))
    for name, result in _results(preparer, reopen, todo, workers):
        if isinstance(result, SceneSummary):
            summaries[name] = result
        else:
            skipped[name] = result
        if progress is not None:
            progress(len(summaries) + len(skipped), len(names))
    if not summaries:
        reasons = "; ".join(list(skipped.values())[:1]) or "the splits name none"
        raise ValueError(f"{log.tables.folder}: no scene to prepare ({len(skipped)} broken: {reasons})")
    report = PrepareReport(
        out=out,
        version=log.tables.folder.name,
        splits={split: tuple(name for name in scenes if name in summaries) for split, scenes in wanted.items()},
        scenes=tuple(summaries[name] for name in names if name in summaries),
        skipped={name: skipped[name] for name in names if name in skipped},
        warnings=tuple(_warnings(log, wanted, len(every) - len(names))),
        seconds=time.monotonic() - started_s,
    )
    write_report(report)
    _write_index(report, root)
    return report


class Preparer:
    """Prepares single scenes; one a process. Holds the tables and the map of the city last seen."""

    def __init__(self, root: Path, version: str | None, out: Path, skip_broken: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what is missing goes into the notes of each scene
            self.log = NuScenesLog(root, version, sweeps=True, skip_broken=skip_broken)
        tables = self.log.tables
        self.locations = {scene.name: tables.logs[scene.log_token].location for scene in tables.scenes.values()}
        self._out = out
        self._skip_broken = skip_broken
        self._base = _digest(
            [tables.folder / f"{name}.json" for name in TABLES], json.dumps(SETTINGS), str(FORMAT), installed_version("sparsedrive")
        )
        self._map_digests: dict[str, str] = {}
        self._city: CityMap | None = None

    def __call__(self, name: str) -> SceneSummary | str:
        """Make or keep the archive of a scene; with `skip_broken` the reason why there is none."""
        path = scene_path(self._out, name)
        try:
            files = check_files(self.log, name)
            if files.damaged and not self._skip_broken:
                raise ValueError(f"{name}: {files.damaged[0]}; copy the file again, or count it as missing with skip_broken")
            fingerprint = self._fingerprint(name, files)
            scene = _load_if(path, fingerprint)
            if scene is not None:
                return summarise(scene, kept=True)
            scene = prepare_scene(self.log, name, self._map(self.locations[name]), files, fingerprint)
        except ValueError as error:
            if not self._skip_broken:
                raise
            return str(error)
        scene.save(path)
        return summarise(scene, kept=False)

    def _fingerprint(self, name: str, files: SceneFiles) -> str:
        """Of all a scene is made from."""
        location, root = self.locations[name], self.log.root
        if location not in self._map_digests:
            self._map_digests[location] = _digest([_map_path(root, location)])
        can_bus = [root / "can_bus" / f"{name}_{kind}.json" for kind in ("pose", "steeranglefeedback")]
        return _digest(can_bus, self._base, self._map_digests[location], *sorted(files.whole), *files.damaged)

    def _map(self, location: str) -> CityMap | None:
        if self._city is None or self._city.location != location:
            self._city = load_city_map(self.log.root, location) if _map_path(self.log.root, location).is_file() else None
        return self._city


def _results(
    preparer: Preparer, reopen: Callable[[], Preparer], names: Sequence[str], workers: int
) -> Iterator[tuple[str, SceneSummary | str]]:
    """Scenes as they are done. `reopen` makes a preparer in a process that does not inherit this one's memory."""
    if workers == 1 or len(names) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the workers
        try:
            yield from ((name, preparer(name)) for name in names)
        finally:
            torch.set_num_threads(threads)
        return
    gc.freeze()  # the collector would write to the pages of the tables, and every process would get its own copy
    pool = ProcessPoolExecutor(
        min(workers, len(names)),
        mp_context=multiprocessing.get_context(START_METHOD),
        initializer=_start_worker,
        initargs=((lambda: preparer) if START_METHOD == "fork" else reopen,),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of BLAS: they survive a fork, and the workers use none
            futures = {pool.submit(_run, name): name for name in names}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise ValueError(
            f"a worker process was killed ({error}), most likely for want of memory; run again with fewer workers, finished scenes are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        gc.unfreeze()


_worker: list[Preparer] = []


def _start_worker(make: Callable[[], Preparer]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says once that it was interrupted
    torch.set_num_threads(1)
    _worker[:] = [make()]


def _run(name: str) -> SceneSummary | str:
    return _worker[0](name)


def _digest(files: Sequence[Path], *texts: str) -> str:
    """Of texts and of the content of files, one of which may be missing."""
    found = hashlib.blake2b(json.dumps(texts).encode(), digest_size=16)
    for path in files:
        found.update(path.name.encode() + (b":" if path.is_file() else b"-"))
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
    return found.hexdigest()


def _map_path(root: Path, location: str) -> Path:
    return root / "maps" / "expansion" / f"{location}.json"


def _load_if(path: Path, fingerprint: str) -> PreparedScene | None:
    """The archive, if it is whole and made from what is there now."""
    try:
        scene = PreparedScene.load(path) if path.is_file() else None
    except ValueError:
        return None
    return scene if scene is not None and scene.fingerprint == fingerprint else None


def _make_ready(out: Path) -> None:
    """The folder, writable, without an index (it is not finished) and without files of a run that was killed."""
    try:
        (out / SCENE_FOLDER).mkdir(parents=True, exist_ok=True)
        (out / INDEX_FILE).unlink(missing_ok=True)
        for path in [*out.glob(f"*{PARTIAL}"), *(out / SCENE_FOLDER).glob(f"*{PARTIAL}")]:
            path.unlink(missing_ok=True)
        TemporaryFile(dir=out / SCENE_FOLDER).close()
    except OSError as error:
        raise ValueError(f"{out}: cannot write there ({error.strerror}); give another folder for the prepared data (--out)") from error


def _warnings(log: NuScenesLog, splits: Mapping[str, Sequence[str]], num_left_out: int) -> Iterator[str]:
    orphans = log.tables.orphans
    if orphans:
        yield f"rows that belong to no scene were left out, for {len(orphans)} reasons; the first: {orphans[0]}"
    if num_left_out:
        yield f"{num_left_out} scenes are in no split of the list given, and were not prepared"
    if set(splits) == {OTHER}:
        yield f"no splits known for {log.tables.folder.name}: all scenes are in split {OTHER!r}; put a splits.json beside the tables"
    both = shared_scenes(splits)
    if both:
        yield f"{len(both)} scenes are both in a split to train on and in one to validate on, such as {both[0]}"


def _write_index(report: PrepareReport, root: Path) -> None:
    try:
        stored_root = Path(os.path.relpath(root.resolve(), report.out.resolve())).as_posix()
    except ValueError:  # another drive
        stored_root = str(root.resolve())
    index = {
        "format": FORMAT,
        "version": report.version,
        "root": stored_root,
        "settings": SETTINGS,
        "splits": {name: list(scenes) for name, scenes in report.splits.items()},
        "counts": report.counts(),
    }
    with whole_file(report.out / INDEX_FILE) as path:
        path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
