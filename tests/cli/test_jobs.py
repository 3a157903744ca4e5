"""Jobs by words: as text, as JSON, with their exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidemill.cli.main import run
from tidemill.jobs.queue.folders import log_path
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity, Claimant, Ending
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock

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


def test_who_follows_a_job_reads_each_attempt_from_its_beginning_to_its_end(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("jobs", "submit", "gc")
    say("jobs", "submit", "gc", "--after", 1)
    assert say("jobs", "log", 2)["over"] is False, "it waits for its turn"

    def write(attempt: int, text: str) -> None:
        path = log_path(tmp_path / "ws", 1, attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)

    with Workspace.open(tmp_path / "ws") as workspace:
        clock = Clock(time.time())
        queue = JobQueue(workspace.database, clock=clock)
        me = Claimant("w|1|x|y", "there", Capacity(8, 10**9), frozenset({"gc"}))

        def begin(attempt: int, text: str) -> None:
            clock.now += 100.0
            assert queue.claim(me) is not None
            write(attempt, text)

        acts: list[Callable[[], object]] = [
            lambda: begin(1, "one begins, and says a lot\n"),
            lambda: write(1, "one goes on\n"),
            lambda: queue.finish(1, 1, Ending("failed", error="x")),
            lambda: (write(1, "last words\n"), begin(2, "two\n")),
            lambda: queue.finish(1, 2, Ending("done")),
        ]
        monkeypatch.setattr(time, "sleep", lambda _: acts.pop(0)())
        followed = say("jobs", "log", 1, "--follow", text=True)
    assert acts == []
    assert followed == "one begins, and says a lot\none goes on\nlast words\ntwo\n"
    assert say("jobs", "log", 1, "--attempt", 1, "--follow", text=True).endswith("last words\n")


def test_values_are_read_as_the_kind_wants_them(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("positive=1", "seed=3", "target=y=z", "families=linear", "families=lightgbm", 'types={"a": "number"}')
    (made,) = say("jobs", "submit", "fit", "data=x.csv", "time=90", *words)
    assert made["arguments"] == {
        "data": "x.csv", "positive": "1", "seed": 3, "target": "y=z", "families": ["linear", "lightgbm"],
        "types": {"a": "number"}, "time": "90",
    }  # fmt: skip
    assert "all cores of its worker" in say("jobs", "submit", "fit", "data=x.csv", text=True)
    assert "It gets 2 cores" in say("jobs", "submit", "fit", "data=x.csv", "--cpus", 2, text=True)
    assert "given twice" in say("jobs", "submit", "fit", "data=x.csv", "seed=1", "seed=2", code=2)["message"]
    assert run(["jobs", "kinds"]) == 0
    said = capsys.readouterr().out
    assert "engine (string, not over HTTP)" in said
    assert "weights (array of weights)" in said


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
