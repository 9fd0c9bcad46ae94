"""A small world on disk, made once for all tests that read one."""

from pathlib import Path

import pytest
from world_samples import CONFIG, SCENES

from sparsedrive.world.recording import drive_scene
from sparsedrive.world.simulation import World
from sparsedrive.world.state import WorldState
from sparsedrive.world.writer import write_world


@pytest.fixture(scope="session")
def little_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    return write_world(tmp_path_factory.mktemp("world"), SCENES, CONFIG)


@pytest.fixture(scope="session")
def truth() -> tuple[World, list[WorldState]]:
    """The world of its first scene and the states, driven again."""
    return drive_scene(CONFIG.scene(0))
