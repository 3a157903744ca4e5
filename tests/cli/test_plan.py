"""``tidemill plan``: for people, for programs, and with a mistake in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.sdk.test_plan import DEFINITION

from tidemill.cli.main import run


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    path = tmp_path / "defined_for_cli.py"
    path.write_text(DEFINITION)
    return ["plan", f"{path}:build", "--workspace", str(tmp_path / "w"), "--hardware", "8xh100"]


def test_text_and_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    said = capsys.readouterr()
    assert "Chosen: one process" in said.out
    assert "not chosen" in said.out
    assert said.err == ""
    assert run([*words, "--json", "--batch", "8", "--check", "--skip", "P9", "--skip", "P10", "--skip", "P3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["batch"] == 8
    assert len(found["checks"]) == 7


def test_checks_look_at_the_plan_and_an_error_in_one_is_one_here(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.train.planner.hardware import preset

    monkeypatch.setattr("tidemill.train.planner.hardware.detect", lambda: replace(preset("cpu"), devices=32))
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"device": "cpu", "replicas": 32, "micro_batch": 1}))
    here = [*words[:4], "--check", "--skip", "P3", "--skip", "P10"]
    assert run([*here, "--plan", str(plan), "--batch", "16", "--folder", str(tmp_path), "--time", "1h", "--json"]) == 1
    said = capsys.readouterr()
    found = {one["code"]: one for one in json.loads(said.out)["checks"]}
    assert found["P8"]["state"] == "error"
    assert found["P5"]["state"] == "ok"
    assert "s are left" in found["P9"]["message"]
    assert "P8 (batch): A batch of 16 is smaller than 32 processes" in json.loads(said.err)["message"]
    assert run(here) == 0


def test_a_plan_that_was_dropped_is_shown(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill.train.planner.hardware import preset

    monkeypatch.setattr("tidemill.train.planner.hardware.detect", lambda: preset("cpu"))
    source = words[1].replace(":build", ":narrow")
    assert run(["plan", source, *words[2:4], "--probe"]) == 0
    said = capsys.readouterr().out
    assert "Chosen: one process, 4 pieces of 4" in said
    assert "Dropped: one process, 1 piece of 16. The plan ran out of memory: it went on with pieces of 4" in said


def test_mistakes_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for more, code, word in [
        (["--hardware", "8xh101"], 2, "Did you mean 'h100'"),
        (["--optimizer", "adamv"], 2, "or 'adamw'"),
        (["--plan", "absent.json"], 2, "can't be read"),
        (["--probe"], 2, "can't be tried here"),
        (["--skip", "P3"], 2, "--skip is for the checks"),
        (["--time", "1h"], 2, "--time is for the checks"),
        (["--check", "--skip", "P0"], 2, "Did you mean 'P10'"),
    ]:
        assert run([*words, *more]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert word in said.err
        assert len(said.err.strip().splitlines()) == 1
