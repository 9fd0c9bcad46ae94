"""`sparsedrive compare`."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sparsedrive.cli.console import BaseVerb, optional, out

if TYPE_CHECKING:
    from sparsedrive.evaluation.compare import Comparison

SURE = 0.05


@dataclass(frozen=True, kw_only=True)
class Compare(BaseVerb):
    """Compare two results of `sparsedrive eval` on the same data: which differences are more than the luck of the scenes.

    Paired bootstrap over scenes: difference, its 95 % interval, and p, the chance of such a difference without a real one. With twenty
    numbers one has p below 0.05 by chance; with few scenes intervals are too narrow.

    Examples:
      sparsedrive compare a/evaluation.json b/evaluation.json
      sparsedrive compare a/evaluation.json b/evaluation.json --out difference.json
    """

    a: Annotated[Path, Positional, arg(metavar="A")]
    """Result of the first model (.json, with the .npz beside it)."""
    b: Annotated[Path, Positional, arg(metavar="B")]
    """Result of the second one, of the same data, split and protocols."""
    out: Annotated[Path | None, optional("FILE")] = None
    """Also write the comparison as JSON."""
    rounds: int = 2000
    """How many times scenes are drawn."""
    seed: int = 0
    """Seed of the draws."""

    def run(self) -> int:
        """Prints the table."""
        from sparsedrive.data.prepared import whole_file
        from sparsedrive.evaluation.compare import compare
        from sparsedrive.evaluation.results import Evaluation

        if self.rounds < 100:
            raise ValueError(f"--rounds: expected at least 100 for an interval, got {self.rounds}")
        found = compare(Evaluation.load(self.a), Evaluation.load(self.b), rounds=self.rounds, seed=self.seed)
        _show(found, self.a, self.b)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self.out) as partial:
                partial.write_text(json.dumps(_without_nan(asdict(found)), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return 0


def _show(found: "Comparison", a: Path, b: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("task", "number", "A", "B", "B - A", "95 % interval", "p", ""):
        table.add_column(column, justify="left" if column in ("task", "number", "") else "right", no_wrap=True)
    for one in found.numbers:
        result = one.result
        better = (result.difference > 0) == one.higher_is_better
        verdict = "" if not result.p < SURE else "[green]B is better[/green]" if better else "[red]A is better[/red]"
        values = (f"{result.a:.4f}", f"{result.b:.4f}", f"{result.difference:+.4f}", f"{result.low:+.4f} .. {result.high:+.4f}")
        table.add_row(one.task, escape(one.name), *values, f"{result.p:.4f}", verdict)
    console = out()
    console.print(f"A  {a}  ({found.a})\nB  {b}  ({found.b})", markup=False)
    console.print(f"{found.data}, {found.version} / {found.split}: {found.scenes} scenes, drawn {found.rounds} times\n", markup=False)
    console.print(table)
    for line in found.left_out:
        console.print(f"left out: {line}", style="dim", markup=False)


def _without_nan(value: Any) -> Any:
    """NaN as null."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
