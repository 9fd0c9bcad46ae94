import json

import torch

from sparsedrive import ops
from sparsedrive.cli import main
from sparsedrive.runtime import doctor


def test_report_knows_this_machine():
    found = doctor.diagnose()
    assert found.versions["torch"] == torch.__version__ and all(found.versions.values())
    assert found.devices[0].usable and found.devices[1].usable == torch.cuda.is_available()
    assert {row.op for row in found.kernels} >= {"deformable_aggregation", "sigmoid_focal_loss"}
    assert all(row.usable or row.note for row in found.kernels)
    assert any("cpu" in row.active_for for row in found.kernels)
    assert all(check.passed for check in found.checks)


def test_self_check_notices_a_wrong_op(monkeypatch):
    monkeypatch.setattr(ops, "deformable_aggregation", lambda *_: torch.tensor(2.0))
    wrong = doctor.diagnose().checks[0]
    assert not wrong.passed and wrong.note == "expected 3.000000, got 2.000000"


def test_self_check_reports_a_failing_op(monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(ops, "deformable_aggregation", broken)
    assert doctor.diagnose().checks[0].note == "RuntimeError: no kernel image"


def test_missing_package_is_reported_as_missing(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("surely-not-installed",))
    assert doctor.diagnose().versions == {"surely-not-installed": None}


def test_json_can_be_parsed(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"] == torch.__version__
    assert set(report) == {"python", "system", "versions", "devices", "kernels", "extras", "checks"}


def test_tables_name_ops_devices_and_extras(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("deformable_aggregation", "cuda", "reference", "triton", "sparsedrive[dev]", "right"):
        assert word in text
