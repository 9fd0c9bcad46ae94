"""A driving world of its own: a town, traffic, sensors, and the nuScenes-format log they leave. Knows nothing of learning."""

from sparsedrive.world.camera import Renderer
from sparsedrive.world.can_bus import ego_status
from sparsedrive.world.ego import EgoPlan
from sparsedrive.world.generate import generate_town
from sparsedrive.world.lidar import LidarScanner
from sparsedrive.world.rig import nuscenes_rig
from sparsedrive.world.simulation import World
from sparsedrive.world.stage import global_T_car
from sparsedrive.world.writer import WorldConfig, write_world

__all__ = [
    "EgoPlan",
    "LidarScanner",
    "Renderer",
    "World",
    "WorldConfig",
    "ego_status",
    "generate_town",
    "global_T_car",
    "nuscenes_rig",
    "write_world",
]
