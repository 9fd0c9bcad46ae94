"""`sparsedrive eval`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sparsedrive.cli.console import PIPE_WIDTH, BaseVerb, Weights, err, optional, out, print_warning

if TYPE_CHECKING:
    from sparsedrive.data.prepared import PreparedData
    from sparsedrive.evaluation.predictions import PredictionSet
    from sparsedrive.evaluation.results import Evaluation
    from sparsedrive.evaluation.run import Progress

EVALUATION_FILE, PREDICTIONS_FILE, REPORT_FILE = "evaluation.json", "predictions.json", "report.html"


@dataclass(frozen=True, kw_only=True)
class Eval(BaseVerb):
    """Evaluate a model on a prepared split: detection, tracking, map, forecasts and plan, every number with the name of its protocol.

    Beside the model's plan always stand plans that see nothing (constant velocity, constant turn rate, a small network on the vehicle's
    own status, learned in seconds on the split "train") and the driven path itself. Detection and tracking take the nuScenes tables as
    truth where the log has them; these are the official numbers, and --official lets the devkit say so.

    Into OUT go evaluation.json with its arrays in evaluation.npz, report.html, and the official result files of detection and tracking,
    results_nusc_detection.json and results_nusc_tracking.json.

    Examples:
      sparsedrive eval --data data/world/prepared/v1.0-world --weights runs/tiny/model.safetensors --out runs/tiny/eval
      sparsedrive eval --data nusc --preset sparsedrive_small_stage2 --weights small.pth --out eval --batch 4 --save-predictions
      sparsedrive eval --data nusc --predictions eval/predictions.json --tasks plan --out eval_plan
      sparsedrive eval --data nusc --detections results_nusc.json --official --out eval_theirs
    """

    data: Path
    """Folder written by `sparsedrive prepare`."""
    out: Path
    """Folder for the results; made if needed."""
    split: str = "val"
    """Scenes to evaluate on; with --predictions those they were made of."""
    preset: str = "tiny"
    """Model; `sparsedrive presets` lists them."""
    weights: Weights = None
    predictions: Annotated[Path | None, optional("FILE")] = None
    """Instead of a model: what one said before, a predictions.json of --save-predictions with its .npz beside it."""
    detections: Annotated[Path | None, optional("FILE")] = None
    """Instead of a model: an official nuScenes detection file of any program."""
    tracks: Annotated[Path | None, optional("FILE")] = None
    """Instead of a model: an official nuScenes tracking file of any program."""
    tasks: str = "det,track,map,motion,plan"
    """What to evaluate, separated by commas."""
    batch: int = 1
    """Scenes that run side by side; the numbers do not depend on it."""
    workers: int = 2
    """Processes that load pictures."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes the GPU if there is one."""
    truth: Literal["auto", "tables", "prepared"] = "auto"
    """Where boxes of detection and tracking are from: the nuScenes tables (exact, with attributes), or the prepared data."""
    allow_missing: bool = False
    """Go on where a camera's picture is not on disk, with that camera marked as failed."""
    save_predictions: bool = False
    """Also write predictions.json and predictions.npz, to evaluate again without the model."""
    official: bool = False
    """Also run the nuScenes devkit on the result files and print its numbers beside ours; needs the devkit and the tables."""
    no_report: bool = False
    """Do not write report.html."""

    def run(self) -> int:
        """Evaluates, writes and prints."""
        from sparsedrive.cli.eval_show import comparison, show
        from sparsedrive.data.prepared import PreparedData
        from sparsedrive.evaluation.official import check_devkit, compare
        from sparsedrive.evaluation.report import write_report
        from sparsedrive.evaluation.run import check_tasks

        tasks = check_tasks(self.tasks.replace(" ", "").split(","))
        self._check_sources()
        files = self.detections is not None or self.tracks is not None
        data = PreparedData.open(self.data)
        if self.official:
            check_devkit(data, tracking=self.tracks is not None if files else "track" in tasks)
        result, predictions = (self._judge_files(data), None) if files else self._judge_model(data, tasks)
        for note in result.header.notes:
            print_warning(note)
        console = out()
        console.width = max(console.width, PIPE_WIDTH)  # a line the terminal breaks is better than a number it hides
        for renderable in show(result):
            console.print(renderable)
        written = {"evaluation": result.save(self.out / EVALUATION_FILE)}
        detections, tracks = self.detections, self.tracks
        if predictions is not None:
            more, detections, tracks = self._write(result, predictions, data)
            written |= more
        if not self.no_report:
            written["report"] = write_report(result, self.out / REPORT_FILE, data=data, predictions=predictions)
        console.print("\n".join(f"{name:12} {path}" for name, path in written.items()), markup=False)
        if self.official:
            console.print(comparison(compare(result, data, detections, tracks)))
        return 0

    def _check_sources(self) -> None:
        files = [name for name in ("detections", "tracks") if getattr(self, name) is not None]
        given = [f"--{name}" for name in ("weights", "predictions") if getattr(self, name) is not None] + [
            "--" + " and --".join(files)
        ] * bool(files)
        if len(given) > 1:
            raise ValueError(f"expected one thing to evaluate, got {', '.join(given)}; leave out all but one")
        if self.save_predictions and (files or self.predictions is not None):
            raise ValueError(f"--save-predictions keeps what a model said; with {given[0]} there is none")

    def _judge_files(self, data: "PreparedData") -> "Evaluation":
        import sparsedrive
        from sparsedrive.evaluation.run import evaluate_files

        with _bar() as progress:
            return evaluate_files(
                data,
                self.split,
                detections=self.detections,
                tracks=self.tracks,
                library=sparsedrive.__version__,
                date=date.today().isoformat(),
                truth_source=self.truth,
                progress=progress,
            )

    def _judge_model(self, data: "PreparedData", tasks: tuple[str, ...]) -> "tuple[Evaluation, PredictionSet]":
        import sparsedrive
        from sparsedrive.cli.stream_log import load_model
        from sparsedrive.evaluation.predictions import PredictionSet
        from sparsedrive.evaluation.run import evaluate, predict

        with _bar() as progress:
            if self.predictions is not None:
                predictions = PredictionSet.load(self.predictions)
            else:
                model, weights = load_model(self.preset, self.weights, self.device)
                predictions = predict(
                    model,
                    data,
                    self.split,
                    weights=None if weights is None else weights.name,
                    library=sparsedrive.__version__,
                    batch_size=self.batch,
                    workers=self.workers,
                    allow_missing=self.allow_missing,
                    progress=progress,
                )
            today = date.today().isoformat()
            return evaluate(predictions, data, tasks=tasks, date=today, truth_source=self.truth, progress=progress), predictions

    def _write(
        self, result: "Evaluation", predictions: "PredictionSet", data: "PreparedData"
    ) -> "tuple[dict[str, Path], Path | None, Path | None]":
        """Predictions if asked for, and the official files: all by name, and the two."""
        from sparsedrive.evaluation.official import write_submissions

        written: dict[str, Path] = {}
        if self.save_predictions:
            written["predictions"] = predictions.save(self.out / PREDICTIONS_FILE)
        if result.detection is None and result.tracking is None:
            return written, None, None
        detections, tracks = write_submissions(self.out, predictions, data)
        written["detections"] = detections
        return written | ({} if tracks is None else {"tracks": tracks}), detections, tracks


@contextmanager
def _bar() -> Iterator["Progress"]:
    """A progress bar on stderr, for what `evaluate` and `predict` report."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # No thread that redraws: the loader's workers are forked from this process.
    with Bar(*columns, console=err(), auto_refresh=False) as bar:
        tasks: dict[bool, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            judging = what.startswith("metrics")
            if judging not in tasks:
                tasks[judging] = bar.add_task(what, total=total)
            bar.update(tasks[judging], description=what, completed=done, total=total, refresh=True)

        yield show
