"""`sparsedrive robustness`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from sparsedrive.cli.console import PIPE_WIDTH, BaseVerb, Weights, err, optional, out, print_warning

if TYPE_CHECKING:
    from rich.table import Table

    from sparsedrive.data.prepared import PreparedData
    from sparsedrive.evaluation.robustness_compare import Gains
    from sparsedrive.evaluation.robustness_results import RobustnessResult
    from sparsedrive.evaluation.robustness_scenarios import Scenario
    from sparsedrive.evaluation.run import Progress

RESULT_FILE, PAGE_FILE, MATRIX_FILE, LIST_FOLDER = "robustness.json", "robustness.html", "matrix.svg", "scenarios"


@dataclass(frozen=True, kw_only=True)
class Robustness(BaseVerb):
    """Test what a model keeps when cameras fail: boxes, tracks, map, forecasts and plan, and what it still knows where it is blind.

    Every scenario is a list of failures made from --seed; the suites are
      quick  5 runs: clean, front and rear camera dead, front camera dying on the way, random failures
      core   24 runs: clean, every camera, every pair of neighbours, onset, intermittent, lost frames, random (six cameras)
      full   66 runs: also opposite pairs, three cameras, RoboBEV's severities, frozen, dirty and badly exposed pictures, late warnings

    A run takes as long as an evaluation of the split.

    Into OUT go robustness.json (with its arrays in robustness.npz), robustness.html, matrix.svg, and the lists of failures in scenarios/.

    Examples:
      sparsedrive robustness --data data/world/prepared/v1.0-world --suite quick --out runs/tiny/robustness
      sparsedrive robustness --data nusc --preset sparsedrive_small_stage2 --weights small.pth --suite core --batch 4 --out rob/plain
      sparsedrive robustness --data nusc --weights mine.safetensors --plain rob/plain/robustness.json --out rob/mine
      sparsedrive robustness --result rob/mine/robustness.json --baseline rob/dropout/robustness.json --out rob/compared
      sparsedrive robustness --data nusc --only S1,O-front --script my_failures.json --out rob/some
    """

    out: Path
    """Folder for the results; made if needed."""
    data: Annotated[Path | None, optional("FOLDER")] = None
    """Folder written by `sparsedrive prepare`; the model runs on it."""
    result: Annotated[Path | None, optional("FILE")] = None
    """Instead of a run: a robustness.json from before, to compare it and to write its page again."""
    split: str = "val"
    """Scenes to test on."""
    preset: str = "tiny"
    """Model; `sparsedrive presets` lists them."""
    weights: Weights = None
    suite: Literal["quick", "core", "full"] = "quick"
    """How many ways to fail."""
    only: Annotated[str | None, optional("NAMES")] = None
    """Only these groups or scenarios of the suite (and the clean one), separated by commas: S1, O-front."""
    script: Annotated[Path | None, optional("FILE")] = None
    """Also run this list of failures (JSON, as those in scenarios/)."""
    label: Annotated[str | None, optional("TEXT")] = None
    """What to call the model in tables; without it preset and weights."""
    plain: Annotated[Path | None, optional("FILE")] = None
    """Result of the model without any measure against failures: what is kept is also related to its clean scores, and mCE to its errors."""
    baseline: Annotated[tuple[Path, ...], optional("FILES")] = ()
    """Results of models to compare with, for example one trained with camera dropout only: difference in the blind sector with its
    interval, and gain G."""
    seed: int = 0
    """Of everything random in the scenarios."""
    batch: int = 1
    """Scenes that run side by side; the numbers do not depend on it."""
    workers: int = 2
    """Processes that load pictures."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes the GPU if there is one."""
    truth: Literal["auto", "tables", "prepared"] = "auto"
    """Where boxes are from: the nuScenes tables, or the prepared data."""

    def run(self) -> int:
        """Runs, compares, writes and prints."""
        from sparsedrive.data.prepared import whole_file
        from sparsedrive.evaluation.robustness_compare import gains
        from sparsedrive.evaluation.robustness_matrix import matrix_picture
        from sparsedrive.evaluation.robustness_page import write_page
        from sparsedrive.evaluation.robustness_results import RobustnessResult

        if (self.data is None) == (self.result is None):
            raise ValueError("expected --data FOLDER to run a model on, or --result FILE of an earlier run, one of the two")
        plain = None if self.plain is None else RobustnessResult.load(self.plain)
        baselines = [RobustnessResult.load(path) for path in self.baseline]
        result = RobustnessResult.load(self.result) if self.result is not None else self._run_model()
        for note in result.header.notes:
            print_warning(note)
        compared = [gains(result, baseline) for baseline in baselines]
        page = write_page(result, self.out / PAGE_FILE, plain=plain, compared=compared)
        with whole_file(self.out / MATRIX_FILE) as partial:
            partial.write_text(matrix_picture(result, plain), encoding="utf-8")
        console = out()
        console.width = max(console.width, PIPE_WIDTH)
        console.print(_kept(result))
        for found in compared:
            console.print(_gain(found))
        written = {"result": self.result or self.out / RESULT_FILE, "report": page, "matrix": self.out / MATRIX_FILE}
        console.print("\n".join(f"{name:8} {path}" for name, path in written.items()), markup=False)
        return 0

    def _run_model(self) -> "RobustnessResult":
        import sparsedrive
        from sparsedrive.cli.stream_log import load_model
        from sparsedrive.data.prepared import PreparedData
        from sparsedrive.evaluation.robustness import run_suite

        assert self.data is not None
        data = PreparedData.open(self.data)
        model, weights = load_model(self.preset, self.weights, self.device)
        scenarios = self._scenarios(data, model.config.camera_names)
        for scenario in scenarios:
            scenario.script.save(self.out / LIST_FOLDER / f"{scenario.name}.json")
        name = None if weights is None else weights.name
        with _bar() as progress:
            result = run_suite(
                model, data, self.split, scenarios, suite=self.suite, seed=self.seed, weights=name, library=sparsedrive.__version__,
                date=date.today().isoformat(), label=self.label or f"{self.preset}, {name or 'random weights'}", batch_size=self.batch,
                workers=self.workers, truth_source=self.truth, progress=progress,
            )  # fmt: skip
        result.save(self.out / RESULT_FILE)
        return result

    def _scenarios(self, data: "PreparedData", camera_names: tuple[str, ...]) -> "tuple[Scenario, ...]":
        from sparsedrive.evaluation.robustness import custom_scenario
        from sparsedrive.evaluation.robustness_scenarios import choose, suite_scenarios
        from sparsedrive.evaluation.truth import read_split

        scenes = read_split(data, self.split).scenes
        scenarios = suite_scenarios(self.suite, scenes, camera_names, self.seed)
        if self.only is not None:
            scenarios = choose(scenarios, [name.strip() for name in self.only.split(",")])
        if self.script is not None:
            own = custom_scenario(self.script)
            own.script.check(scenes, camera_names)
            if any(own.name == one.name for one in scenarios):
                raise ValueError(f"--script: {self.script.name} is called like the scenario {own.name}; give the file another name")
            scenarios += (own,)
        return scenarios


@contextmanager
def _bar() -> Iterator["Progress"]:
    """One progress bar on stderr over all runs, with the name of the scenario at work."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeRemainingColumn())
    with Bar(*columns, console=err(), auto_refresh=False) as bar:  # no thread that redraws: workers are forked from this process
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total, refresh=True)


def _kept(result: "RobustnessResult") -> "Table":
    """How much of the clean score is kept."""
    from sparsedrive.evaluation.robustness_results import MEASURES

    titles = [f"{'blind ' * measure.blind}{measure.title}" for measure in MEASURES]
    table = _table(f"{result.label}: kept of the clean score [%] (errors inverted)", "scenario", *titles)
    clean = [measure.value(result.clean) for measure in MEASURES]
    table.add_row("clean", *("" if measure.blind else f"{value:.3f}" for measure, value in zip(MEASURES, clean, strict=True)))
    table.add_section()
    for one in result.scenarios[1:]:
        table.add_row(one.name, *(_percent(measure.retention(one, result)) for measure in MEASURES))
    return table


def _gain(found: "Gains") -> "Table":
    """One comparison."""
    title = f"{found.method} against {found.baseline}: blind-sector mAP of boxes [%]"
    table = _table(title, "scenarios", "baseline", "model", "difference", "95 % interval", "baseline, clean", "G")
    for one in found.groups:
        blind = one.blind
        interval = f"{100 * blind.low:+.2f} .. {100 * blind.high:+.2f}"
        difference = f"{100 * blind.difference:+.2f}"
        gain = "-" if one.gain != one.gain else f"{one.gain:.2f}"
        values = (f"{100 * blind.a:.2f}", f"{100 * blind.b:.2f}", difference, interval, f"{100 * one.clean:.2f}", gain)
        table.add_row(f"{one.group} ({len(one.names)})", *values)
    table.caption = f"clean mAP of the whole scene: {100 * found.clean.difference:+.2f} points"
    return table


def _table(title: str, first: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.caption_justify, table.caption_style = "left", ""
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.0f}"
