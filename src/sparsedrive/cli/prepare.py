"""`sparsedrive prepare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sparsedrive.cli.console import BaseVerb, err, optional, out, print_warning


@dataclass(frozen=True, kw_only=True)
class Prepare(BaseVerb):
    """Prepare a log in the nuScenes format for training, evaluation and streaming: one archive of plain arrays a scene.

    Boxes, futures, ego status, calibration, map lines and the names of pictures and lidar sweeps; pictures and scans stay where they are,
    and those that are missing are counted, not fatal. A run that was stopped goes on where it was; scenes whose tables, CAN bus, map and
    pictures have not changed are kept.

    Examples:
      sparsedrive prepare nuscenes --root data/nuscenes --version v1.0-mini
      sparsedrive prepare nuscenes --root data/nuscenes --version v1.0-trainval --workers 8 --skip-broken
      sparsedrive prepare nuscenes --root data/world --splits my_splits.json --out data/world_small
    """

    format: Annotated[Literal["nuscenes"], Positional, arg(metavar="FORMAT")]
    """Format of the log: nuscenes, which `sparsedrive world` writes too."""
    root: Path
    """Folder with v1.0-*/, samples/ and, if there, sweeps/, can_bus/ and maps/expansion/."""
    version: Annotated[str | None, optional("NAME")] = None
    """Table folder, such as v1.0-mini; may be left out when there is only one."""
    out: Annotated[Path | None, optional("FOLDER")] = None
    """Folder for the prepared data; without it ROOT/prepared/VERSION."""
    splits: Annotated[Path | None, optional("FILE")] = None
    """JSON such as {"train": ["scene-0001"], "val": ["scene-0002"]}: only these scenes. Otherwise splits.json beside the tables, or the
    official splits with all other scenes in the split "other"."""
    workers: int = 1
    """Processes; on Linux they share the memory of the tables."""
    skip_broken: bool = False
    """Leave out scenes that cannot be prepared, with the reason in the report, instead of stopping at the first; count pictures and scans
    that are cut short as missing."""

    def run(self) -> int:
        """Prepares and prints the counts."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from sparsedrive.data.nuscenes.prepare import prepare
        from sparsedrive.data.nuscenes.report import REPORT_TEXT
        from sparsedrive.data.nuscenes.tables import find_version

        version = find_version(self.root, self.version)
        folder = self.out if self.out is not None else self.root / "prepared" / version
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # No thread that redraws: workers are forked from this process.
        with Progress(*columns, console=err(), auto_refresh=False) as bar:
            task = bar.add_task("reading tables", total=None)
            bar.refresh()

            def show(done: int, total: int) -> None:
                bar.update(task, description="preparing scenes", completed=done, total=total, refresh=True)

            report = prepare(
                self.root, version, folder, splits=self.splits, workers=self.workers, skip_broken=self.skip_broken, progress=show
            )
        for text in report.all_warnings():
            print_warning(text)
        for name, reason in report.skipped.items():
            print_warning(f"skipped {name}: {reason}")
        kept = sum(scene.kept for scene in report.scenes)
        made = f"{len(report.scenes) - kept} scenes made, {kept} kept from an earlier run, in {report.seconds:.1f} s"
        out().print("\n".join([*report.lines(), made, f"prepared   {folder}", f"report     {folder / REPORT_TEXT}"]), markup=False)
        return 0
