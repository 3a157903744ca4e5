"""Jobs by words: as text, as JSON, with their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidemill.cli.main import run

Say = Callable[..., Any]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command, as JSON unless told otherwise, and give what it said."""

    def command(*words: object, code: int = 0, text: bool = False) -> Any:
        arguments = [str(w) for w in words] + ["--workspace", str(tmp_path / "ws")] + ([] if text else ["--json"])
        assert run(arguments) == code, capsys.readouterr()
        said = capsys.readouterr()
        return (said.out or said.err) if text else json.loads(said.out or said.err)

    return command


def test_the_life_of_a_job_by_words(say: Say) -> None:
    assert "No jobs" in say("jobs", "list", text=True)
    (made,) = say("jobs", "submit", "gc", "dry_run=true", "--name", "tidy", "--priority", 1, "--time", "10m")
    assert (made["job"], made["arguments"], made["time_s"]) == (1, {"dry_run": True}, 600.0)
    assert "Job 2 (gc) is waiting." in say("jobs", "submit", "gc", "--after", 1, text=True)
    say("jobs", "submit", "gc", "--after-end", 1)
    assert say("jobs", "cancel", 3)["state"] == "cancelled"
    assert "Job 3 has ended already" in say("jobs", "cancel", 3, code=1)["message"]
    assert say("jobs", "retry", 3)["state"] == "waiting"
    assert "tidy" in say("jobs", "list", "--state", "open", text=True)
    told = say("worker", "--until-idle", "--no-devices", "--cpus", 2, text=True).splitlines()
    assert "job 1 (tidy) claimed" in told
    assert "job 1 (tidy) done" in told
    assert {job["state"] for job in say("jobs", "list")} == {"done"}
    shown = say("jobs", "show", 1, text=True)
    assert "tidy" in shown
    assert '"dry_run": true' in shown
    assert say("jobs", "log", 1)["over"] is True
    assert say("jobs", "log", 1, "--follow", text=True) == ""


def test_mistakes_are_told_with_the_way_out(say: Say, tmp_path: Path) -> None:
    assert "Did you mean 'fit'" in say("jobs", "submit", "fti", code=2)["message"]
    assert "name=value" in say("jobs", "submit", "gc", "dry", code=2)["message"]
    assert "tidemill jobs kinds" in say("jobs", "submit", code=2)["message"]
    assert "There is no job 7" in say("jobs", "show", 7, code=2)["message"]
    assert "no such file" in say("jobs", "submit", "--file", tmp_path / "a.yaml", code=2)["message"]
    assert "no device 'cuda:77'" in say("worker", "--device", "cuda:77", code=2)["message"]


def test_quotas_by_words(say: Say) -> None:
    assert "No quotas" in say("jobs", "quota", text=True)
    assert say("jobs", "quota", "mia", "--running", 2) == [{"owner": "mia", "running": 2, "queued": None}]
    assert "mia" in say("jobs", "quota", text=True)


def test_kinds_and_launch_files_need_no_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "kinds"]) == 0
    assert "target (string)" in capsys.readouterr().out
    out = tmp_path / "run.sbatch"
    words = [
        "jobs",
        "emit",
        "slurm",
        "--devices",
        "2",
        "--time",
        "2h",
        "--out",
        str(out),
        "--",
        "train.py",
        "--lr",
        "1",
    ]
    assert run(words) == 0
    assert f"sbatch {out}" in capsys.readouterr().out
    assert out.read_text().rstrip().endswith("train.py --lr 1")
    assert run(["jobs", "emit", "torchrun", "--", "train.py"]) == 0
    assert "torchrun --standalone" in capsys.readouterr().out
    assert run(["jobs", "emit", "kubernetes", "--", "train.py"]) == 2
    assert "--image" in capsys.readouterr().err
