"""``tidemill plan``: for people, for programs, and with a mistake in it."""

from __future__ import annotations

import json
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


def test_mistakes_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for more, code, word in [
        (["--hardware", "8xh101"], 2, "Did you mean 'h100'"),
        (["--optimizer", "adamv"], 2, "or 'adamw'"),
        (["--plan", "absent.json"], 2, "can't be read"),
        (["--probe"], 2, "can't be tried here"),
    ]:
        assert run([*words, *more]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert word in said.err
        assert len(said.err.strip().splitlines()) == 1
