"""``--engine`` on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.cli.conftest import QUICK, Small

from tidemill.cli.main import run


def test_predictions_are_the_same_with_processes(small: Small, tmp_path: Path) -> None:
    for name, words in (("a", []), ("b", ["--engine", "process"])):
        assert run(["predict", str(small.bundle), str(small.train), "--out", str(tmp_path / name), *words]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_json_with_an_engine_wants_a_file(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(small.bundle), str(small.train), "--engine", "process", "--json"]) == 2
    assert "Add --out, too" in "".join(capsys.readouterr())


def test_a_fit_in_this_process_needs_no_workers(small: Small, tmp_path: Path) -> None:
    words = ["fit", str(small.train), "--target", "y", "--trials", "1", *QUICK, "--engine", "inprocess", "--quiet"]
    assert run([*words, "--workspace", str(tmp_path)]) == 0


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_ray_that_is_absent_is_told(
    small: Small, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = {
        "fit": ["fit", str(small.train), "--target", "y", "--workspace", str(tmp_path)],
        "predict": ["predict", str(small.bundle), str(small.train)],
    }[command]
    assert run([*words, "--engine", "ray"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "pip install 'tidemill[ray]'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_an_engine_that_is_none_is_refused(
    small: Small, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "fit": ["fit", str(small.train), "--target", "y", "--workspace", str(tmp_path)],
        "predict": ["predict", str(small.bundle), str(small.train)],
    }[command]
    assert run([*words, "--engine", "dask"]) == 2
    assert "no engine 'dask'" in " ".join(capsys.readouterr().err.split())
