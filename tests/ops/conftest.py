"""What tests say about themselves, at the end of the log."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each `record_property("log", ...)`: for what ran in another process, or was measured."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            if name == "log":
                terminalreporter.write_line(f"{report.nodeid}: {text}")
