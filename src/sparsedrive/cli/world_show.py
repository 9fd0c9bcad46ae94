"""What `sparsedrive world` leaves beside the data for a person to look at, and the summary it prints."""

import json
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from sparsedrive.cli.console import err, print_warning
from sparsedrive.viz import VideoWriter
from sparsedrive.viz.files import write_picture
from sparsedrive.world.recording import drive_scene
from sparsedrive.world.show import contact_sheet, draw_bev
from sparsedrive.world.tables import KEY_FRAME_US
from sparsedrive.world.writer import VERSION, WorldConfig, read_part

SHEET_ROWS, SHEET_CAMERAS = 6, ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
BEV_HZ = 10


def show(root: Path, scenes: int, config: WorldConfig) -> list[str]:
    """Writes the contact sheet and the video of the first scene from above; returns a line about each."""
    sheet = root / "contact_sheet.jpg"
    write_picture(sheet, _sheet(root, scenes, config))
    return [f"look at   {sheet}", f"          {_video(root, config)}"]


def summary(root: Path, seconds: float) -> list[str]:
    """What there is in a finished world, a line each."""
    tables = {name: _table(root, name) for name in ("scene", "sample", "sample_annotation", "instance", "category", "log")}
    splits = json.loads((root / VERSION / "splits.json").read_text(encoding="utf-8"))
    category = {row["token"]: row["name"] for row in tables["category"]}
    name_of = {row["token"]: category[row["category_token"]] for row in tables["instance"]}
    boxes = Counter(name_of[row["instance_token"]].split(".", 1)[1] for row in tables["sample_annotation"])
    layers: Counter[str] = Counter()
    for log in tables["log"]:
        expansion = json.loads((root / "maps" / "expansion" / f"{log['location']}.json").read_text(encoding="utf-8"))
        layers.update({name: len(expansion[name]) for name in ("lane", "lane_divider", "road_divider", "ped_crossing", "road_segment")})
    megabytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e6
    parts = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
    return [
        f"world     {root}, tables {VERSION}",
        f"scenes    {len(tables['scene'])} ({parts}), {len(tables['sample'])} key frames",
        f"boxes     {sum(boxes.values())} of {len(tables['instance'])} objects: " + ", ".join(f"{n} {c}" for c, n in boxes.most_common()),
        f"map       {len(tables['log'])} town{'s' * (len(tables['log']) > 1)}: "
        + ", ".join(f"{count} {name}" for name, count in layers.items()),
        f"size      {megabytes:.0f} MB in {seconds:.0f} s",
    ]


def _table(root: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((root / VERSION / f"{name}.json").read_text(encoding="utf-8"))


def _sheet(root: Path, scenes: int, config: WorldConfig) -> np.ndarray:
    """Moments spread over the world: first of scenes, then of looks that were not shown yet."""
    rows, shown = [], Counter[str]()
    for row in range(SHEET_ROWS):
        by_distance = sorted(range(scenes), key=lambda index: abs(index - row * scenes // SHEET_ROWS))
        plan = min(map(config.scene, by_distance), key=lambda plan: (shown[plan.name.scene], shown[plan.look]))
        shown.update([plan.name.scene, plan.look])
        tables = read_part(root, plan.name.scene)
        sample = tables["sample"][(2 * row + 1) * len(tables["sample"]) // (2 * SHEET_ROWS)]
        names = [entry["filename"] for entry in tables["sample_data"] if entry["sample_token"] == sample["token"]]
        pictures = [_read_picture(root / name) for camera in SHEET_CAMERAS for name in names if name.split("/")[1] == camera]
        time_s = (sample["timestamp"] - plan.name.start_us) * 1e-6
        rows.append((f"{plan.name.scene}   {plan.name.location}   {plan.look}   {time_s:.1f} s", pictures))
    return contact_sheet(rows, SHEET_CAMERAS)


def _video(root: Path, config: WorldConfig) -> Path:
    """The first scene from above as MP4; a folder of pictures where OpenCV cannot write MP4."""
    plan = config.scene(0)
    world, drive = drive_scene(plan)
    every = max(round(1 / (BEV_HZ * (drive[1].time_s - drive[0].time_s))), 1)
    path, pictures = root / "bev.mp4", root / "bev"
    names = [row["filename"] for row in read_part(root, plan.name.scene)["sample_data"] if "/CAM_FRONT/" in row["filename"]]
    with TemporaryDirectory(dir=root, prefix=".bev-") as folder:
        with VideoWriter(folder, name="bev", fps=BEV_HZ) as video:
            for index in track(range(0, len(drive), every), description="view from above", console=err()):
                key_frame = min(int(1e6 * drive[index].time_s) // KEY_FRAME_US, len(names) - 1)
                ahead_rgb = _read_picture(root / names[key_frame])
                video.write(draw_bev(world.town, world.cast, drive, index, f"{plan.name.scene}, {plan.look}", ahead_rgb))
        if video.problem is None:
            os.replace(video.video_path, path)
            return path
        print_warning(video.problem.replace(str(video.frames_folder), str(pictures)))
        os.replace(video.frames_folder, pictures)
        return pictures


def _read_picture(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path}: not a picture; delete the folder `parts` beside `samples` and make the world again")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
