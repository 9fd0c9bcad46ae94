"""Checkpoints: load, save, and convert official files in both directions."""

from sparsedrive.convert.checkpoint import ConvertReport, convert_file, load, read_config, save

__all__ = ["ConvertReport", "convert_file", "load", "read_config", "save"]
