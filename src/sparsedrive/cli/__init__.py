"""The `sparsedrive` command: one file a verb."""

from sparsedrive.cli.main import main

__all__ = ["main"]
