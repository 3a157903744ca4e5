"""The demo's parts, and the whole of it."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tidemill.cli.main import run
from tidemill.core.errors import InternalError, OptionError
from tidemill.sdk import bare, demo


def test_the_bare_environment_holds_two_packages_and_what_they_need(tmp_path: Path) -> None:
    python = bare.make_bare_environment(tmp_path / "bare")
    program = "import numpy, onnxruntime; print(numpy.arange(3).sum())"
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
    for stranger in ("tidemill", "sklearn", "pandas", "pyarrow", "typer"):
        assert subprocess.run([python, "-I", "-c", f"import {stranger}"], capture_output=True).returncode == 1


def test_an_environment_that_is_not_bare_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "PACKAGES", (*bare.PACKAGES, "scipy"))
    with pytest.raises(InternalError, match="scipy"):
        bare.make_bare_environment(tmp_path / "bare")


def test_the_data_are_split_once_and_for_all(tmp_path: Path) -> None:
    train, test = demo._write_data(tmp_path)
    sizes = []
    for path in (train, test):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        sizes.append(len(rows))
        assert {row[demo.TARGET] for row in rows} == {"malignant", "benign"}
    assert sizes == [427, 142]


def test_another_s_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OptionError, match="other things"):
        demo._fresh(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_older_demo_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo._fresh(out)
    (out / "old.txt").write_text("old")
    demo._fresh(out)
    assert not (out / "old.txt").exists()


@pytest.mark.slow
def test_the_demo_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert run(["demo", "--time", "25s", "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rows"] == 142
    assert result["right"] >= 130
    assert result["right"] + result["missed"] + result["false_alarms"] == 142
    assert Path(result["bundle"]).is_dir()
    assert Path(result["report"]).is_file()
    assert len(Path(result["answers"]).read_text().splitlines()) == 143
