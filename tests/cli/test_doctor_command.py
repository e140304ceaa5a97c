"""`gemma4vec doctor` on this machine."""

import json

import pytest

from gemma4vec.cli.main import execute


def test_doctor_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 100
    assert "bundled:gemma-3-270m" in "\n".join(lines)


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["cores"] >= 1
    assert {check["state"] for check in found["checks"]} <= {"ok", "warn", "missing"}
    assert [check["name"] for check in found["checks"]][-2:] == ["bundled:gemma-3-270m", "bundled:smollm2-135m"]
