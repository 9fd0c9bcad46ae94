"""`sparsedrive demo`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sparsedrive.cli.console import BaseVerb, optional, out

if TYPE_CHECKING:
    from sparsedrive.data import NuScenesLog
    from sparsedrive.data.nuscenes import FrameRecord

REAL_DATA_VARIABLE = "SPARSEDRIVE_NUSCENES"
MAX_REAL_FRAMES = 10


@dataclass(frozen=True, kw_only=True)
class Demo(BaseVerb):
    """Drive through a generated town, stream its six cameras through a small model, draw every frame. Needs no download.

    With --real-data (or the environment variable SPARSEDRIVE_NUSCENES) the first frames of every scene there that has its pictures are
    streamed too. White wires are the annotated boxes: that they sit on the objects shows that the calibration is used rightly.

    Examples:
      sparsedrive demo --out demo
      sparsedrive demo --out demo --real-data nuscenes
    """

    out: Path = Path("demo")
    """Folder for everything; made if needed."""
    real_data: Annotated[Path | None, optional("FOLDER")] = None
    """nuScenes-format folder with real pictures."""
    weights: Annotated[Path | None, optional("FILE")] = None
    """Weights of the preset. Without them the weights are random, so that boxes, map and plan mean nothing."""
    preset: str = "tiny"
    """Model; `sparsedrive presets` lists them."""
    seconds: float = 4.0
    """Length of the drive."""

    def run(self) -> int:
        """Writes the log and streams it, then the real frames."""
        from sparsedrive.cli.stream_log import Outputs, load_model, report, stream_log
        from sparsedrive.data import NuScenesLog
        from sparsedrive.world import WorldConfig, write_world

        model = load_model(self.preset, self.weights, "cpu")
        console = out()
        console.print("[bold]generated drive[/bold]")
        log = NuScenesLog(write_world(self.out / "world", 1, WorldConfig(seconds=self.seconds)))
        report(stream_log(log.scene(log.scenes[0]), model, self.weights, Outputs(folder=self.out / "generated")))
        real_data = self.real_data or (Path(os.environ[REAL_DATA_VARIABLE]) if os.environ.get(REAL_DATA_VARIABLE) else None)
        if real_data is None:
            return 0
        runs = _frames_with_pictures(NuScenesLog(real_data), model.config.camera_names)
        if not runs:
            raise ValueError(f"--real-data: expected pictures of at least one sample in {real_data}, found none; unpack samples/ there")
        for scene, records in runs.items():
            console.print(f"[bold]{scene}[/bold]")
            report(stream_log(records, model, self.weights, Outputs(folder=self.out / scene)))
        return 0


def _frames_with_pictures(log: "NuScenesLog", camera_names: tuple[str, ...]) -> "dict[str, list[FrameRecord]]":
    """The first frames of each scene up to the first one with a picture missing; scenes without any are left out."""
    runs = {}
    for scene in log.scenes:
        records: list[FrameRecord] = []
        for record in log.scene(scene)[:MAX_REAL_FRAMES]:
            if not all(record.camera(name).path.is_file() for name in camera_names):
                break
            records.append(record)
        if records:
            runs[scene] = records
    return runs
