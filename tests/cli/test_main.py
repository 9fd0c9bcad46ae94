import subprocess
import sys
from dataclasses import fields

import pytest

from sparsedrive.cli import main
from sparsedrive.cli.main import VERBS


def exit_code(argv: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return int(stop.value.code or 0)


def test_overview_lists_every_verb_with_its_first_line(capsys):
    assert exit_code(["--help"]) == 0
    text = capsys.readouterr().out
    for name in VERBS:
        assert f"• {name}" in text
    assert "Examples:" not in text and "sparsedrive demo --out demo" in text


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_of_a_verb_has_examples_and_explains_every_option(verb, capsys):
    assert exit_code([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Examples:\n  sparsedrive {verb}" in text
    for field in fields(VERBS[verb]):
        flag = "--" + field.name.replace("_", "-")
        assert flag in text or field.name.upper() in text.split()


def test_typo_is_refused_with_a_hint(capsys):
    assert exit_code(["stream", "--data", ".", "--out", "x", "--max-frame", "3"]) == 2
    assert "--max-frames" in capsys.readouterr().err


def test_error_of_the_library_is_one_line_on_stderr(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SPARSEDRIVE_DEBUG", raising=False)
    assert main(["stream", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and str(tmp_path) in printed.err


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARSEDRIVE_DEBUG", raising=False)
    with pytest.raises(ValueError):
        main(["stream", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--debug"])
    monkeypatch.setenv("SPARSEDRIVE_DEBUG", "1")
    with pytest.raises(ValueError):
        main(["stream", "--data", str(tmp_path), "--out", str(tmp_path / "out")])


def test_our_own_bugs_keep_their_traceback(monkeypatch):
    def bug(self) -> int:
        raise AssertionError("invariant")

    monkeypatch.setattr(VERBS["presets"], "run", bug)
    with pytest.raises(AssertionError, match="invariant"):
        main(["presets"])


def test_interrupt_ends_quietly(monkeypatch, capsys):
    def interrupted(self) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(VERBS["presets"], "run", interrupted)
    assert main(["presets"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_installed_command_ends_with_the_exit_code(tmp_path):
    script = "import sys; from sparsedrive.cli import main; sys.exit(main())"  # what pip writes for the entry point
    verb = ["convert", str(tmp_path / "no.pth"), str(tmp_path / "a.safetensors"), "--preset", "tiny"]
    done = subprocess.run([sys.executable, "-c", script, *verb], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: weights: no file") and "Traceback" not in done.stderr
