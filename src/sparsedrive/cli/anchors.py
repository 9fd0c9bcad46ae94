"""`sparsedrive anchors`."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

from sparsedrive.cli.console import BaseVerb, err, optional, out, print_warning

if TYPE_CHECKING:
    from sparsedrive.structures.anchors import Anchors


@dataclass(frozen=True, kw_only=True)
class FitAnchors(BaseVerb):
    """Cluster a prepared log into the anchors a model starts its training from: boxes, map lines, forecasts, plans.

    Works on logs with fewer samples than anchors too (such as v1.0-mini): every sample is then an anchor, the rest is spread over the
    region, and the table says how many came from data. The same data and seed give the same file.

    Examples:
      sparsedrive anchors --data prepared --split train --preset sparsedrive_small_stage2 --out anchors.safetensors
      sparsedrive anchors --data nuscenes/prepared/v1.0-mini --split mini_train --preset tiny --out a.safetensors --picture a.png
    """

    data: Path
    """Folder written by `sparsedrive prepare`."""
    out: Path
    """File to write (.safetensors)."""
    split: str = "train"
    """Which scenes; the splits are named in prepared.json."""
    preset: str = "sparsedrive_small_stage2"
    """Model whose numbers of anchors are wanted; `sparsedrive presets` lists them."""
    seed: int = 0
    """Seed of the clustering."""
    picture: Annotated[Path | None, optional("FILE")] = None
    """Draw the anchors from above into this PNG."""

    def run(self) -> int:
        """Clusters, writes, and says what came from data."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from sparsedrive.config import preset
        from sparsedrive.data.anchors import fit_anchors
        from sparsedrive.data.prepared import PreparedData
        from sparsedrive.models.anchors import anchor_sizes

        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out: expected a name ending in .safetensors, got {self.out}")
        if self.seed < 0:
            raise ValueError(f"--seed: expected 0 or more, got {self.seed}")
        _check_writable(self.out.parent)
        sizes, data = anchor_sizes(preset(self.preset)), PreparedData.open(self.data)
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=err(), transient=True) as bar:
            task = bar.add_task("", total=1.0)
            anchors = fit_anchors(
                data, self.split, sizes, seed=self.seed, progress=lambda text, share: bar.update(task, description=text, completed=share)
            )
        anchors.save(self.out)
        _report(anchors, self.out)
        if self.picture is not None:
            _draw(anchors, self.picture)
        return 0


def _check_writable(folder: Path) -> None:
    """Before minutes of clustering, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"--out: cannot write in {folder} ({error.strerror}); give another folder") from error


def _report(anchors: "Anchors", path: Path) -> None:
    """The table, and a warning where anchors had to be made up."""
    from rich.table import Table

    table = Table("group", "samples", "anchors", "from data")
    for group in anchors.groups:
        table.add_row(group.name, f"{group.samples:,}", str(group.count), str(group.from_data))
    console = out()
    console.print(table)
    console.print(f"written   {path}", markup=False)
    short = [f"{group.name} {group.from_data} of {group.count}" for group in anchors.groups if group.from_data < group.count]
    if short:
        more = f" and {len(short) - 3} more" if len(short) > 3 else ""
        print_warning(f"fewer distinct samples than anchors, the rest is filled up: {', '.join(short[:3])}{more}; see the table")


def _draw(anchors: "Anchors", path: Path) -> None:
    from sparsedrive.viz.anchors import render_anchors
    from sparsedrive.viz.files import write_picture

    write_picture(path, render_anchors(anchors))
    out().print(f"picture   {path}", markup=False)
