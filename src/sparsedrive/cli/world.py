"""`sparsedrive world`."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedrive.cli.console import BaseVerb, err, out

if TYPE_CHECKING:
    from sparsedrive.world.writer import WorldConfig

LOOKS = ("day", "dusk", "day", "rain", "fog")


@dataclass(frozen=True, kw_only=True)
class World(BaseVerb):
    """Make a driving world in the nuScenes format: towns, traffic, six cameras, lidar, vector map, CAN bus. Needs no download.

    The same seed gives the same bytes, whatever the number of workers. A run that was stopped goes on where it was when started again,
    and a finished world grows when asked for more scenes. Beside the data there are contact_sheet.jpg and bev.mp4, to look at.
    A scene of 20 s takes about 40 MB and half a minute of one core.

    Examples:
      sparsedrive world --out data/world --scenes 30 --seed 0
      sparsedrive world --out data/tiny --scenes 2 --seconds 3 --size 352 198 --no-lidar
      sparsedrive world --out data/night --scenes 10 --look dusk rain --workers 4
    """

    out: Path
    """Folder of the world; made if needed. Give it to the other verbs as the nuScenes folder."""
    scenes: int = 30
    """Number of scenes. About the last fifth is the split "val", whole towns where there are several; it changes as a world grows."""
    seed: int = 0
    """Another seed gives other towns and drives."""
    seconds: float = 20.0
    """Length of a scene; two key frames a second."""
    size: tuple[int, int] = (704, 396)
    """Width and height of the pictures."""
    look: tuple[str, ...] = LOOKS
    """Weather and time of day: day, dusk, rain, fog, taken in turn by the scenes."""
    scenes_per_town: int = 5
    """Number of scenes in each town."""
    no_lidar: bool = False
    """Leave the point clouds out."""
    jpeg_quality: int = 90
    """Quality of the pictures, 1 to 100."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes."""

    def run(self) -> int:
        """Writes the world and the pictures that show it, and says what there is."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from sparsedrive.cli.world_show import show, summary
        from sparsedrive.world.writer import write_world

        config = self.config()
        started = time.perf_counter()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err()) as bar:
            task = bar.add_task("scenes", total=self.scenes)
            write_world(
                self.out,
                self.scenes,
                config,
                workers=self.workers,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        pictures = show(self.out, self.scenes, config)
        out().print("\n".join(summary(self.out, time.perf_counter() - started) + pictures), markup=False)
        return 0

    def config(self) -> "WorldConfig":
        """The options as the writer takes them; `ValueError` names a wrong one."""
        from sparsedrive.world.writer import WorldConfig

        return WorldConfig(
            seed=self.seed,
            seconds=self.seconds,
            wh_px=self.size,
            looks=self.look,
            scenes_per_town=self.scenes_per_town,
            lidar=not self.no_lidar,
            jpeg_quality=self.jpeg_quality,
        )
