"""What happens when a search is killed, interrupted, starved or resumed: no finished trial is lost or repeated."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.bundle.verify import verify
from tidemill.cli.main import run
from tidemill.core.trial import Trial, TrialState
from tidemill.store.workspace import Workspace

TIDEMILL = [sys.executable, "-c", "from tidemill.cli.main import main; main()"]
MakeTable = Callable[..., Path]


def fit(train: Path | None, workspace: Path, *more: str) -> list[str]:
    """Words of a fit of small families; ``--resume`` needs no table."""
    table = [] if train is None else ["fit", str(train), "--target", "y", "--family", "linear", "--family", "lightgbm"]
    return [*(table or ["fit"]), "--workspace", str(workspace), "--no-report", *more]


def trials(workspace: Path, study: str) -> list[Trial]:
    with Workspace.open(workspace) as opened:
        return list(opened.metadata.trials(study))


def state(workspace: Path, study: str) -> str:
    with Workspace.open(workspace) as opened:
        return str(opened.metadata.get_study(study).state)


def facts(found: list[Trial]) -> list[tuple[Any, ...]]:
    """What must be the same in two runs with one seed."""
    return [(t.number, t.state, t.origin, t.seed, json.dumps(t.config, sort_keys=True), t.fold_scores) for t in found]


@contextlib.contextmanager
def started(command: list[str], **words: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that is certainly over afterwards."""
    process = subprocess.Popen(
        [*TIDEMILL, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **words
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], event: str, count: int) -> None:
    """Read the stream of events until one has come so many times."""
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += json.loads(line)["event"] == event
        if seen == count:
            return
    raise AssertionError(f"only {seen} events {event!r} came: {process.stderr.read() if process.stderr else ''}")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, make_table: MakeTable) -> tuple[Path, list[Trial]]:
    """A table, and the trials of a search on it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    train = make_table(folder / "train.csv")
    assert run(fit(train, folder / "w", "--trials", "6", "--seed", "1", "--cpus", "1", "--quiet")) == 0
    return train, trials(folder / "w", "train-1")


def test_two_workers_make_the_trials_of_one(calm: tuple[Path, list[Trial]], tmp_path: Path) -> None:
    train, expected = calm
    assert run(fit(train, tmp_path, "--trials", "6", "--seed", "1", "--cpus", "2", "--quiet")) == 0
    assert facts(trials(tmp_path, "train-1")) == facts(expected)


@pytest.mark.parametrize("cpus", ["1", "2"])
def test_killed_and_resumed_is_as_if_nothing_had_happened(
    calm: tuple[Path, list[Trial]], tmp_path: Path, capsys: pytest.CaptureFixture[str], cpus: str
) -> None:
    train, expected = calm
    with started(fit(train, tmp_path, "--trials", "6", "--seed", "1", "--cpus", cpus, "--json")) as process:
        wait_for(process, "finished", 3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = {t.number: t for t in trials(tmp_path, "train-1") if t.state is not TrialState.RUNNING}
    assert len(before) >= 3
    assert state(tmp_path, "train-1") == "running"
    assert run(fit(None, tmp_path, "--resume", "train-1", "--out", str(tmp_path / "m.tm"))) == 0
    after = trials(tmp_path, "train-1")
    assert facts(after) == facts(expected)
    assert {n: t for n, t in enumerate(after) if n in before} == before, "a finished trial was touched"
    assert state(tmp_path, "train-1") == "complete"
    assert verify(tmp_path / "m.tm") == []
    assert "Leaderboard of study train-1" in capsys.readouterr().out


def test_a_complete_study_is_exported_or_given_more(calm: tuple[Path, list[Trial]], tmp_path: Path) -> None:
    train, expected = calm
    assert run(fit(train, tmp_path, "--trials", "2", "--seed", "1", "--cpus", "1", "--quiet")) == 0
    assert run(fit(None, tmp_path, "--resume", "train-1", "--quiet", "--out", str(tmp_path / "m.tm"))) == 0
    assert len(trials(tmp_path, "train-1")) == 2
    assert (tmp_path / "m.tm" / "manifest.json").exists()
    assert run(fit(None, tmp_path, "--resume", "train-1", "--trials", "6", "--quiet")) == 0
    assert facts(trials(tmp_path, "train-1")) == facts(expected)


def test_zero_trials_export_a_study_as_it_is(
    make_table: MakeTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = make_table(tmp_path / "train.csv")
    assert run(fit(train, tmp_path, "--trials", "2", "--seed", "1", "--cpus", "1", "--quiet")) == 0
    with Workspace.open(tmp_path) as opened:
        opened.metadata.update_study("train-1", state="interrupted")
        left = Trial("train-1", 2, {"family": "linear"}, TrialState.RUNNING, "linear")
        opened.metadata.put_trial(left)  # which a resumed search would run again
    before = trials(tmp_path, "train-1")
    words = fit(None, tmp_path, "--resume", "train-1", "--trials", "0", "--out", str(tmp_path / "m.tm"))
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["study"] == "train-1"
    assert verify(tmp_path / "m.tm") == []
    assert (trials(tmp_path, "train-1"), state(tmp_path, "train-1")) == (before, "interrupted")
    assert run([*words, "--decode", "beam"]) == 2
    assert "Only what reads lines" in capsys.readouterr().err
    assert run([*words, "--objective", "maximize mcc"]) == 2
    assert "tidemill reobjective" in capsys.readouterr().err
    assert run(fit(train, tmp_path, "--trials", "0")) == 2
    assert "--resume STUDY exports it as it is" in capsys.readouterr().err
    assert run(fit(None, tmp_path, "--resume", "train-1", "--trials", "-1")) == 2
    assert "must be at least 1, but got -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["x.csv"], ["--target", "z"], ["--objective", "maximize mcc"], ["--seed", "9"], ["--kind", "regression"]]
)
def test_a_resumed_study_keeps_its_question(small: Any, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    assert run(["fit", "--resume", "small", "--workspace", str(small.workspace), *more]) == 2
    assert "keeps its own data and question" in capsys.readouterr().err


def test_a_taken_name_is_refused(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", str(small.train), "--target", "y", "--name", "small", "--workspace", str(small.workspace)]
    assert run(words) == 2
    assert "tidemill fit --resume small" in capsys.readouterr().err


def test_control_c_ends_tidily_with_the_best_so_far(make_table: MakeTable, tmp_path: Path) -> None:
    train = make_table(tmp_path / "train.csv")
    with started(fit(train, tmp_path / "w", "--time", "1000s", "--out", str(tmp_path / "m.tm"), "--json")) as process:
        wait_for(process, "finished", 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["event"] == "result"
    assert "Traceback" not in err
    assert verify(tmp_path / "m.tm") == []
    assert state(tmp_path / "w", "train-1") == "interrupted"


def test_a_trial_that_wants_too_much_memory_fails_with_a_reason(make_table: MakeTable, tmp_path: Path) -> None:
    train = make_table(tmp_path / "train.csv", rows=4000)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = run(fit(train, tmp_path / "w", "--trials", "2", "--memory", "1MB", "--cpus", "1"))
    assert code == 1
    assert said.getvalue().count("Error:") == 1
    found = trials(tmp_path / "w", "train-1")
    assert [t.state for t in found] == [TrialState.FAILED] * 2
    assert all("its limit is 1 MB" in str(t.error) for t in found)
    assert state(tmp_path / "w", "train-1") == "failed"


def on_a_terminal(command: list[str]) -> tuple[int, str]:
    """Run a command whose standard error is a terminal; return its exit code and what the terminal got."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([*TIDEMILL, *command], stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    got = b""
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], 60)
            assert ready, "the program says nothing any more"
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end was closed
                break
            if not chunk:
                break
            got += chunk
    finally:
        os.close(ours)
    return process.wait(60), got.decode(errors="replace")


def test_a_terminal_gets_a_live_display(make_table: MakeTable, tmp_path: Path) -> None:
    train = make_table(tmp_path / "train.csv")
    code, got = on_a_terminal(fit(train, tmp_path / "w", "--trials", "2", "--out", str(tmp_path / "m.tm")))
    assert code == 0, got
    for word in ("2 trials done, 0 failed", "best roc_auc", " gone", "\x1b[2K", "export"):
        assert word in got


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [10, 25])
def test_the_time_limit_holds(make_table: MakeTable, tmp_path: Path, seconds: int) -> None:
    train = make_table(tmp_path / "train.csv", rows=2000)
    words = ["fit", str(train), "--target", "y", "--workspace", str(tmp_path / "w"), "--time", f"{seconds}s"]
    begin = time.monotonic()
    with started([*words, "--out", str(tmp_path / "m.tm"), "--quiet"]) as process:
        _, err = process.communicate(timeout=4 * seconds)
        took = time.monotonic() - begin
    assert process.returncode == 0, err
    assert took <= seconds + max(0.05 * seconds, 3.0)
    assert (tmp_path / "m-report.html").exists()
    assert verify(tmp_path / "m.tm") == []
