"""What the small world of the tests is; the fixtures in conftest make it."""

from sparsedrive.world.writer import WorldConfig

CONFIG = WorldConfig(seed=4, seconds=1.5, wh_px=(176, 99), looks=("day", "rain"), jpeg_quality=95)
SCENES = 2
