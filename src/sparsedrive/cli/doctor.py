"""`sparsedrive doctor`."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from sparsedrive.cli.console import BaseVerb, out

if TYPE_CHECKING:
    from sparsedrive.runtime.doctor import Diagnosis


@dataclass(frozen=True, kw_only=True)
class Doctor(BaseVerb):
    """Report what this machine can run: versions, devices, op kernels, extras, and a self-check of the ops.

    Examples:
      sparsedrive doctor
      sparsedrive doctor --json > machine.json
    """

    json: bool = False
    """Print the report as JSON, for bug reports and scripts."""

    def run(self) -> int:
        """Prints the report."""
        from sparsedrive.runtime.doctor import diagnose

        diagnosis = diagnose()
        if self.json:
            print(json.dumps(diagnosis.to_plain(), indent=2))
        else:
            _print_tables(diagnosis)
        return 0


def _print_tables(diagnosis: "Diagnosis") -> None:
    console = out()
    console.print(f"[bold]Python[/bold] {diagnosis.python}  [dim]{diagnosis.system}[/dim]")
    versions = [f"{name} {version or '[red]missing[/red]'}" for name, version in diagnosis.versions.items()]
    console.print("[bold]Packages[/bold] " + "  ".join(versions))
    table = _table("Devices", "device", "usable", "bfloat16", "note")
    for device in diagnosis.devices:
        table.add_row(device.name, _mark(device.usable), _mark(device.bfloat16), escape(device.note))
    console.print(table)
    table = _table("Ops", "op", "backend", "usable", "taken on", "note")
    for kernel in diagnosis.kernels:
        table.add_row(kernel.op, kernel.backend, _mark(kernel.usable), ", ".join(kernel.active_for), escape(kernel.note))
    console.print(table)
    table = _table("Optional packages", "package", "installed", "for")
    for extra in diagnosis.extras:
        table.add_row(extra.module, _mark(extra.installed), escape(extra.purpose))
    console.print(table)
    for check in diagnosis.checks:
        console.print(
            f"self-check {check.name}: " + ("[green]right[/green]" if check.passed else f"[bold red]wrong[/bold red] {escape(check.note)}")
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _mark(good: bool) -> str:
    return "[green]yes[/green]" if good else "[dim]no[/dim]"
