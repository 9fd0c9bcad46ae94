"""A driving world of its own: a town, traffic, sensors, and the nuScenes-format log they leave. Knows nothing of learning."""

from sparsedrive.world.generate import generate_town
from sparsedrive.world.simulation import World
from sparsedrive.world.writer import WorldConfig, write_world

__all__ = ["World", "WorldConfig", "generate_town", "write_world"]
