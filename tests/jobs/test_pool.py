"""The executor that forks a process for each step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.core.errors import InternalError, OptionError, TrialError, TrialMemoryError
from tidemill.core.protocols import Executor, Step
from tidemill.jobs._memory import family
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.testing.executor import (
    ForcefulExecutorSuite,
    collect,
    only,
    read_pids,
    step,
    wait_for_files,
    wait_until_dead,
)
from tidemill.testing.steps import echo, hog, pause, start_child

PRELOAD = ("tidemill.testing.steps",)


class TestPool(ForcefulExecutorSuite):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with ProcessExecutor(2, PRELOAD) as executor:
            yield executor


def test_together_steps_keep_the_shared_limit(tmp_path: Path) -> None:
    over = tmp_path / "over"
    with ProcessExecutor(3, PRELOAD, memory_bytes=500 * 10**6) as executor:

        def hold(mb: int) -> int:
            return executor.submit(step(hog, size_bytes=mb * 10**6, until=str(over), told=str(tmp_path / str(mb))))

        small, large = hold(100), hold(250)
        wait_for_files(tmp_path / "100", tmp_path / "250")  # else the other may be the largest for a moment
        other = hold(200)
        found = collect(executor, 1)
        over.touch()
        found |= collect(executor, 2)
    assert found[small].error is None
    assert found[other].error is None
    assert type(found[large].error) is TrialMemoryError
    assert "together they passed 500 MB" in str(found[large].error)


def test_preloaded_memory_is_not_counted_for_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ballast.py").write_text("data = b'1' * 300_000_000\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with ProcessExecutor(2, (*PRELOAD, "ballast"), memory_bytes=400 * 10**6) as executor:
        for _ in range(2):
            executor.submit(step(pause, seconds=0.5, value=1, limits={"memory_bytes": 250 * 10**6}))
        assert [o.value for o in collect(executor, 2).values()] == [1, 1]


def test_what_can_be_imported_here_can_be_imported_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_mine.py").write_text("def f(): return 'mine'\n", encoding="utf-8")
    (tmp_path / "selectors.py").write_text("raise SystemExit('not this one')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "nowhere")
    sys.path.append(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    try:
        with ProcessExecutor(1) as executor:
            executor.submit(Step("plugin_of_mine:f"))
            assert only(executor).value == "mine"
    finally:
        sys.path.remove(str(tmp_path))


def test_it_is_ready_when_its_modules_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lengthy.py").write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.02)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with ProcessExecutor(1, ("lengthy",)) as executor:
        executor.submit(step(echo, value=1))
        assert not executor.ready(0.2)
        (tmp_path / "go").touch()
        assert executor.ready(60)
        assert only(executor).value == 1


def test_who_waits_for_a_host_that_dies_is_let_go() -> None:
    with ProcessExecutor(1, ("tidemill.absent",)) as executor:
        assert executor.ready(60)
        assert type(executor.submit(step(echo))) is int


def test_a_module_that_can_not_be_loaded_is_told(tmp_path: Path) -> None:
    with ProcessExecutor(1, ("tidemill.absent",)) as executor:
        executor.submit(step(echo))
        outcome = only(executor)
    assert type(outcome.error) is TrialError
    assert "No module named 'tidemill.absent'" in (outcome.traceback or "")


def test_a_killed_host_fails_its_steps_and_is_replaced(tmp_path: Path) -> None:
    with ProcessExecutor(2, PRELOAD) as executor:
        executor.submit(step(start_child, path=str(tmp_path / "pids"), wait=True))
        executor.submit(step(pause, seconds=300.0))
        step_pid, grandchild = read_pids(tmp_path / "pids")
        assert executor._host is not None
        host = executor._host.process.pid
        os.kill(host, signal.SIGKILL)
        found = collect(executor, 2)
        assert all("killed by SIGKILL" in str(o.error) for o in found.values())
        wait_until_dead([host, step_pid])
        os.kill(grandchild, signal.SIGKILL)  # nobody was left to do it
        executor.submit(step(echo, value=1))
        assert only(executor).value == 1


def test_a_closed_executor_takes_nothing() -> None:
    executor = ProcessExecutor(1)
    executor.close()
    assert executor.wait() == []
    executor.cancel(0)
    with pytest.raises(InternalError, match="closed"):
        executor.submit(step(echo))


def test_closing_does_not_wait_for_modules_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = tmp_path / "loads"
    text = f"import pathlib, time\npathlib.Path({str(loads)!r}).touch()\ntime.sleep(240)\n"
    (tmp_path / "endless.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    executor = ProcessExecutor(1, ("endless",))
    wait_for_files(loads)
    begun = time.monotonic()
    executor.close()
    assert time.monotonic() - begun < 60


def test_an_executor_that_is_forgotten_ends_its_host() -> None:
    executor = ProcessExecutor(1, PRELOAD)
    executor.submit(step(echo))
    only(executor)
    assert executor._host is not None
    host = executor._host.process.pid
    del executor
    wait_until_dead([host])


@pytest.mark.parametrize("changes", [{"workers": 0}, {"threads": 0}, {"memory_bytes": 0}])
def test_limits_are_positive(changes: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=r"at least 1|positive"):
        ProcessExecutor(**{"workers": 1, **changes})


PROGRAM = """
import sys, time
print("loaded", flush=True)  # a program that is imported again would say so twice
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.testing.executor import collect, step
from tidemill.testing.steps import start_child
executor = ProcessExecutor(2, ("tidemill.testing.steps",))
for name in sys.argv[1:]:
    executor.submit(step(start_child, path=name, wait=True))
try:
    print("submitted", flush=True)  # from here on Ctrl-C is heard below
    executor.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(0.3)
    import os
    from tidemill.testing.executor import alive, read_pids
    from pathlib import Path
    print(len(alive(pid for name in sys.argv[1:] for pid in read_pids(Path(name)))), flush=True)
    executor.close()
"""


def start_program(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Run a program with two busy steps, in a session of its own; return it with its steps' processes."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    program = subprocess.Popen(
        [sys.executable, str(script), *names], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stdout is not None
    assert [program.stdout.readline() for _ in range(2)] == ["loaded\n", "submitted\n"]
    return program, [pid for name in names for pid in read_pids(Path(name))]


def test_nothing_is_left_of_a_killed_program(tmp_path: Path) -> None:
    program, steps = start_program(tmp_path)
    (host, *_) = [pid for pid in family(program.pid) if pid not in (program.pid, *steps)]
    assert len(steps) == 4
    program.kill()
    assert program.communicate(timeout=60)[0] == ""
    wait_until_dead([host, *steps])


def test_ctrl_c_reaches_the_program_alone(tmp_path: Path) -> None:
    program, steps = start_program(tmp_path)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert program.communicate(timeout=60)[0] == "interrupted\n4\n"
    assert program.returncode == 0
    wait_until_dead(steps)


def test_a_fork_of_the_program_does_not_end_the_host() -> None:
    with ProcessExecutor(1, PRELOAD) as executor:
        executor.submit(step(echo, value=1))
        assert only(executor).value == 1
        child = os.fork()
        if child == 0:
            executor.close()
            os._exit(0)
        os.waitpid(child, 0)
        executor.submit(step(echo, value=2))
        assert only(executor).value == 2


def test_a_step_costs_milliseconds() -> None:
    seconds = []
    begin = time.perf_counter()
    with ProcessExecutor(2, (*PRELOAD, "sklearn.ensemble")) as executor:
        for _ in range(31):
            executor.submit(step(echo))
            only(executor)
            seconds.append(time.perf_counter() - begin)
            begin = time.perf_counter()
    first, *others = seconds
    assert min(others) < first / 5  # the first has waited for the modules, which are loaded once
