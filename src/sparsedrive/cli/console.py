"""What every verb prints with: results on stdout, warnings, errors and progress on stderr."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import tyro
from rich.console import Console
from rich.text import Text

PIPE_WIDTH = 160


@dataclass(frozen=True, kw_only=True)
class BaseVerb(ABC):
    """What all verbs share."""

    debug: bool = False
    """Show the full traceback of an error."""

    @abstractmethod
    def run(self) -> int:
        """Does the work; returns the exit code."""


def optional(metavar: str) -> Any:
    """An argument that may be left out, shown in the help as `metavar`."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(optional)")


Weights: TypeAlias = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="FILE",
        help_behavior_hint="(optional)",
        help="Weights of the preset: a .safetensors file of this library (the model is built as it was saved, a variant of a preset too), "
        'an official .pth, "packaged" (they come with the library) or "random". Without it packaged ones, where the preset has some; else '
        "random ones, with which the results mean nothing.",
    ),
]
"""The type of `--weights`, with its help."""


def out() -> Console:
    """Console of results."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def err() -> Console:
    """Console of everything else."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_error(message: str) -> None:
    """One red line."""
    err().print(Text(f"error: {' '.join(message.split())}", style="bold red"))


def print_warning(message: str) -> None:
    """One yellow line."""
    err().print(Text(f"warning: {' '.join(message.split())}", style="yellow"))
