"""`sparsedrive convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sparsedrive.cli.console import BaseVerb, out


@dataclass(frozen=True, kw_only=True)
class Convert(BaseVerb):
    """Convert weights: an official checkpoint (.pth) to our safetensors, or back with --to-official.

    Every tensor finds its place, or the command lists those that do not and writes nothing. Files are read without running code in them.

    Examples:
      sparsedrive convert sparsedrive_stage2.pth small.safetensors --preset sparsedrive_small_stage2
      sparsedrive convert small.safetensors official.pth --preset sparsedrive_small_stage2 --to-official
    """

    src: Annotated[Path, Positional, arg(metavar="SRC")]
    """The file to read."""
    dst: Annotated[Path, Positional, arg(metavar="DST")]
    """The file to write (.safetensors; .pth with --to-official)."""
    preset: str
    """Model the weights belong to; `sparsedrive presets` lists them."""
    to_official: bool = False
    """Write the names of the official code instead of ours."""

    def run(self) -> int:
        """Converts and says what was done."""
        from sparsedrive.convert import convert_file

        report = convert_file(self.src, self.dst, self.preset, self.to_official)
        console = out()
        console.print(
            f"{report.num_tensors} tensors, {report.num_parameters / 1e6:.1f} M parameters: {report.source} -> {report.target}",
            markup=False,
        )
        if report.constants:
            verb = "added" if self.to_official else "left out"
            console.print(f"{verb} {len(report.constants)} constants of the official code: {', '.join(report.constants)}", markup=False)
        return 0
