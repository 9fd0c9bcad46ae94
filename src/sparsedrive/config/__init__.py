"""Presets by name, and configurations as JSON."""

from sparsedrive.config.json_io import from_json, to_json
from sparsedrive.config.presets import preset, presets

__all__ = ["from_json", "preset", "presets", "to_json"]
