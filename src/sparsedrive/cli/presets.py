"""`sparsedrive presets`."""

from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from sparsedrive.cli.console import BaseVerb, out


@dataclass(frozen=True, kw_only=True)
class Presets(BaseVerb):
    """List the models: name, what it does, input size, number of parameters, and whether there are weights: published ones or, for
    "packaged", ones that come with the library.

    Examples:
      sparsedrive presets
    """

    def run(self) -> int:
        """Prints the table."""
        import torch

        import sparsedrive
        from sparsedrive.convert.checkpoint import has_packaged_weights

        table = Table(box=None, pad_edge=False, header_style="dim")
        for column, justify in (
            ("preset", "left"),
            ("input", "right"),
            ("parameters", "right"),
            ("weights", "left"),
            ("what", "left"),
        ):
            table.add_column(column, justify=justify, no_wrap=column != "what")  # type: ignore[arg-type]
        for name in sparsedrive.presets():
            config = sparsedrive.preset(name)
            with torch.device("meta"):  # shapes only, no memory
                parameters = sum(weight.numel() for weight in config.build().parameters())
            width, height = config.image_wh_px
            public = "[dim]no[/dim]"
            if config.public_weights or has_packaged_weights(name):
                public = "[green]yes[/green]" if config.public_weights else "[green]packaged[/green]"
            table.add_row(f"[bold]{name}[/bold]", f"{width} x {height}", f"{parameters / 1e6:.1f} M", public, escape(config.describe))
        out().print(table)
        return 0
