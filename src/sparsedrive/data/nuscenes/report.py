"""What `sparsedrive prepare` found: counts, what is missing, and where."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from sparsedrive.data.prepared import PreparedScene, whole_file
from sparsedrive.structures import DETECTION_CLASSES, MAP_CLASSES

REPORT_JSON, REPORT_TEXT = "report.json", "report.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSummary:
    """Counts of one scene. `pictures` says for each sample how many of its `cameras` pictures are there, `lidar` whether its scan is.

    `boxes` and `lines` count by class. `agent_steps` and `ego_steps` are (known, possible) steps of the futures. `kept`: the scene had
    been prepared before and nothing it was made from has changed.
    """

    name: str
    location: str
    sample_tokens: tuple[str, ...]
    cameras: int
    pictures: tuple[int, ...]
    lidar: tuple[bool, ...]
    boxes: tuple[int, ...]
    lines: tuple[int, ...]
    agent_steps: tuple[int, int]
    ego_steps: tuple[int, int]
    sweeps: int
    notes: tuple[str, ...]
    kept: bool


def summarise(scene: PreparedScene, *, kept: bool) -> SceneSummary:
    """Counts of a scene."""
    return SceneSummary(
        name=scene.name,
        location=scene.location,
        sample_tokens=scene.sample_tokens,
        cameras=len(scene.camera_names),
        pictures=tuple(map(int, scene.image_present.sum(1))),
        lidar=tuple(map(bool, scene.lidar_present)),
        boxes=tuple(map(int, np.bincount(scene.box_label, minlength=len(DETECTION_CLASSES)))),
        lines=tuple(map(int, np.bincount(scene.map_label, minlength=len(MAP_CLASSES)))),
        agent_steps=(int(scene.agent_future_valid.sum()), scene.agent_future_valid.size),
        ego_steps=(int(scene.ego_future_valid.sum()), scene.ego_future_valid.size),
        sweeps=len(scene.sweep_paths),
        notes=scene.notes,
        kept=kept,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareReport:
    """Result of a run. `skipped` gives the reason by scene; `warnings` are those of the whole log."""

    out: Path
    version: str
    splits: Mapping[str, tuple[str, ...]]
    scenes: tuple[SceneSummary, ...]
    skipped: Mapping[str, str]
    warnings: tuple[str, ...]
    seconds: float

    def counts(self) -> dict[str, Any]:
        """Sums over all scenes."""
        pictures = [(have, scene.cameras) for scene in self.scenes for have in scene.pictures]
        return {
            "scenes": len(self.scenes),
            "scenes_skipped": len(self.skipped),
            "frames": len(pictures),
            "boxes": _by_class(DETECTION_CLASSES, (scene.boxes for scene in self.scenes)),
            "agent_future_steps": _sums(scene.agent_steps for scene in self.scenes),
            "ego_future_steps": _sums(scene.ego_steps for scene in self.scenes),
            "map_lines": _by_class(MAP_CLASSES, (scene.lines for scene in self.scenes)),
            "pictures": [sum(have for have, _ in pictures), sum(cameras for _, cameras in pictures)],
            "samples_with_all_pictures": sum(have == cameras for have, cameras in pictures),
            "samples_with_some_pictures": sum(0 < have < cameras for have, cameras in pictures),
            "samples_without_pictures": sum(have == 0 and cameras > 0 for have, cameras in pictures),
            "lidar_scans": [sum(sum(scene.lidar) for scene in self.scenes), len(pictures)],
            "lidar_sweeps": sum(scene.sweeps for scene in self.scenes),
        }

    def all_warnings(self) -> list[str]:
        """The log's warnings, then those of scenes, each once with the scenes it is about."""
        found: dict[str, list[str]] = {}
        for scene in self.scenes:
            for note in scene.notes:
                found.setdefault(note, []).append(scene.name)
        return [*self.warnings, *(f"{note} ({_scenes(names)})" for note, names in found.items())]

    def lines(self) -> list[str]:
        """The report for a terminal, without the warnings."""
        counts = self.counts()
        splits = ", ".join(f"{name} {len(scenes)}" for name, scenes in self.splits.items())
        skipped = f"; {len(self.skipped)} skipped" if self.skipped else ""
        samples = [counts[f"samples_{kind}_pictures"] for kind in ("with_all", "with_some", "without")]
        return [
            f"scenes     {counts['scenes']}   ({splits}{skipped})",
            f"frames     {counts['frames']}",
            f"boxes      {_listed(counts['boxes'])}",
            f"futures    agents {_share(counts['agent_future_steps'])} steps known, ego {_share(counts['ego_future_steps'])}",
            f"map lines  {_listed(counts['map_lines'])}",
            f"pictures   {_share(counts['pictures'])} on disk: {samples[0]} samples have all, {samples[1]} some, {samples[2]} none",
            f"lidar      {_share(counts['lidar_scans'])} scans on disk, {counts['lidar_sweeps']} sweeps named",
        ]


def write_report(report: PrepareReport) -> None:
    """`report.json` and `report.md` in the prepared folder; nothing in them depends on when or how the run was done."""
    scenes = [_scene_content(scene) for scene in report.scenes]
    content = {"version": report.version, "counts": report.counts(), "warnings": report.all_warnings(), "skipped": dict(report.skipped)}
    with whole_file(report.out / REPORT_JSON) as path:
        path.write_text(json.dumps({**content, "scenes": scenes}, indent=1) + "\n", encoding="utf-8")
    with whole_file(report.out / REPORT_TEXT) as path:
        path.write_text(_markdown(report), encoding="utf-8")


def _scene_content(scene: SceneSummary) -> dict[str, Any]:
    samples = list(zip(scene.sample_tokens, scene.pictures, scene.lidar, strict=True))
    return {
        "name": scene.name,
        "location": scene.location,
        "frames": len(samples),
        "boxes": dict(zip(DETECTION_CLASSES, scene.boxes, strict=True)),
        "map_lines": dict(zip(MAP_CLASSES, scene.lines, strict=True)),
        "notes": list(scene.notes),
        "samples_with_some_pictures": {token: have for token, have, _ in samples if 0 < have < scene.cameras},
        "samples_without_pictures": [token for token, have, _ in samples if have == 0 and scene.cameras > 0],
        "samples_without_lidar": [token for token, _, lidar in samples if not lidar],
    }


def _markdown(report: PrepareReport) -> str:
    splits = {scene: split for split, names in report.splits.items() for scene in names}
    rows = [_row(scene, splits[scene.name]) for scene in report.scenes]
    lines = [f"# Prepared {report.version}", "", "```text", *report.lines(), "```", ""]
    if report.skipped:
        lines += ["## Skipped", "", *(f"- {name}: {reason}" for name, reason in report.skipped.items()), ""]
    if report.all_warnings():
        lines += ["## Warnings", "", *(f"- {text}" for text in report.all_warnings()), ""]
    lines += ["## Scenes", "", "Numbers are frames of the scene, from 0; the samples' tokens are in report.json.", ""]
    lines += ["| scene | split | location | frames | boxes | map lines | all pictures | some | none | lidar |", "| --- " * 10 + "|", *rows]
    return "\n".join(lines) + "\n"


def _row(scene: SceneSummary, split: str) -> str:
    """One line of the table of scenes."""
    everything = [have == scene.cameras for have in scene.pictures]
    some = [0 < have < scene.cameras for have in scene.pictures]
    nothing = [have == 0 and scene.cameras > 0 for have in scene.pictures]
    numbers = (len(scene.pictures), sum(scene.boxes), sum(scene.lines))
    cells = (scene.name, split, scene.location, *numbers, *map(_ranges, (everything, some, nothing, scene.lidar)))
    return f"| {' | '.join(map(str, cells))} |"


def _ranges(flags: Sequence[bool]) -> str:
    """0-1, 5 for true at 0, 1 and 5; - for none."""
    found = []
    for flag, group in groupby(range(len(flags)), key=flags.__getitem__):
        run = list(group)
        if flag:
            found.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(found) or "-"


def _sums(pairs: Iterable[tuple[int, int]]) -> list[int]:
    return [sum(column) for column in zip((0, 0), *pairs, strict=True)]


def _by_class(names: Sequence[str], counts: Iterable[Sequence[int]]) -> dict[str, int]:
    return dict(zip(names, map(sum, zip([0] * len(names), *counts, strict=True)), strict=True))


def _listed(counts: Mapping[str, int]) -> str:
    return f"{sum(counts.values())}   ({', '.join(f'{name} {count}' for name, count in counts.items())})"


def _share(pair: Sequence[int]) -> str:
    return f"{pair[0]} of {pair[1]}"


def _scenes(names: Sequence[str]) -> str:
    return f"{len(names)} scene{'s' if len(names) > 1 else ''}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
