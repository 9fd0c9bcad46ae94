"""What holds for every test, and a small generated drive."""

from pathlib import Path

import pytest
import torch

from sparsedrive.world.writer import WorldConfig, write_world

# Small tensors on busy cores: threads that wait for each other cost more than they bring. Golden streams run in processes of their own.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def drive_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated nuScenes-format log to read: one scene, `scene-0001`, of four key frames, without lidar files."""
    config = WorldConfig(seconds=2.0, wh_px=(352, 198), lidar=False)
    return write_world(tmp_path_factory.mktemp("drive"), 1, config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each `record_property("log", ...)`: for what ran in another process, or was measured."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "log":
                terminalreporter.write_line(f"{report.nodeid}: {text}")
