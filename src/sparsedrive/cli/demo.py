"""`sparsedrive demo`."""

import json
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sparsedrive.cli.console import BaseVerb, Weights, optional, out

if TYPE_CHECKING:
    from sparsedrive.data import NuScenesLog
    from sparsedrive.data.nuscenes import FrameRecord
    from sparsedrive.models.sparsedrive import SparseDrive

REAL_DATA_VARIABLE = "SPARSEDRIVE_NUSCENES"
MAX_REAL_FRAMES = 10
SPLIT = "demo"
SCORE = 0.2  # the packaged weights are modest: most of what they find they believe in by a quarter only


@dataclass(frozen=True, kw_only=True)
class Demo(BaseVerb):
    """Drive through generated towns, stream the six cameras through a small model, draw every frame, and measure. Needs no download.

    The small model has learned on other towns of the same world (docs/results): what it sees here it sees for the first time, and its
    scores say nothing about real streets. With --real-data (or the environment variable SPARSEDRIVE_NUSCENES) the first frames of every
    scene there that has its pictures are streamed too, which it has never been trained for. White wires are the annotated boxes: that
    they sit on the objects shows that the calibration is used rightly.

    Examples:
      sparsedrive demo --out demo
      sparsedrive demo --out demo --real-data nuscenes
    """

    out: Path = Path("demo")
    """Folder for everything; made if needed."""
    real_data: Annotated[Path | None, optional("FOLDER")] = None
    """nuScenes-format folder with real pictures."""
    weights: Weights = None
    preset: str = "tiny"
    """Model; `sparsedrive presets` lists them."""
    seconds: float = 10.0
    """Length of a drive."""
    scenes: int = 2
    """Drives, each through a town of its own; the first one is drawn, all are measured."""
    seed: int = 1000
    """Seed of the towns. The packaged weights have seen towns of seed 0."""

    def run(self) -> int:
        """Writes the log and streams it, then the real frames."""
        from sparsedrive.cli.stream_log import Outputs, load_model, report, stream_log
        from sparsedrive.data import NuScenesLog
        from sparsedrive.world import WorldConfig, write_world

        model, weights = load_model(self.preset, self.weights, "cpu")
        console = out()
        console.print("[bold]generated drive[/bold]")
        config = WorldConfig(seed=self.seed, seconds=self.seconds, looks=("day",), scenes_per_town=1)
        log = NuScenesLog(write_world(self.out / "world", self.scenes, config))
        report(stream_log(log.scene(log.scenes[0]), model, weights, Outputs(folder=self.out / "generated", score_threshold=SCORE)))
        self._measure(log, model, weights)
        real_data = self.real_data or (Path(os.environ[REAL_DATA_VARIABLE]) if os.environ.get(REAL_DATA_VARIABLE) else None)
        if real_data is None:
            return 0
        runs = _frames_with_pictures(NuScenesLog(real_data), model.config.camera_names)
        if not runs:
            raise ValueError(f"--real-data: expected pictures of at least one sample in {real_data}, found none; unpack samples/ there")
        for scene, records in runs.items():
            console.print(f"[bold]{scene}[/bold]")
            report(stream_log(records, model, weights, Outputs(folder=self.out / scene, score_threshold=SCORE)))
        return 0

    def _measure(self, log: "NuScenesLog", model: "SparseDrive", weights: Path | None) -> None:
        """All drives through the model and every metric: the headline here, the rest in the report."""
        import sparsedrive
        from sparsedrive.cli.eval import REPORT_FILE
        from sparsedrive.cli.eval_show import headline
        from sparsedrive.data.nuscenes.prepare import prepare
        from sparsedrive.data.prepared import PreparedData
        from sparsedrive.evaluation.report import write_report
        from sparsedrive.evaluation.run import evaluate, predict

        folder, splits = self.out / "world" / "prepared", self.out / "world" / "demo_splits.json"
        splits.write_text(json.dumps({SPLIT: list(log.scenes)}))
        prepare(self.out / "world", None, folder, splits=splits)
        data = PreparedData.open(folder)
        name = None if weights is None else weights.name
        predictions = predict(model, data, SPLIT, weights=name, library=sparsedrive.__version__, workers=0)
        result = evaluate(predictions, data, date=date.today().isoformat())
        written = write_report(result, self.out / REPORT_FILE, data=data, predictions=predictions)
        out().print("\n".join([*headline(result), f"report    {written}"]), markup=False)


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
