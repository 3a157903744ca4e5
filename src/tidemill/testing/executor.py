"""What every `Executor` keeps. Subclass `ExecutorSuite`, and `ForcefulExecutorSuite` where steps can be ended by force.

Each needs the fixture ``executor``: an open one, with a capacity of two if it can have that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import OptionError, TrialError, TrialMemoryError, TrialTimeoutError
from tidemill.core.protocols import Executor, Outcome, Step
from tidemill.testing.steps import (
    babble,
    crash,
    die,
    echo,
    environment,
    exhaust,
    fail,
    fail_kindly,
    fail_strangely,
    fail_two_armed,
    hog,
    hog_in_a_child,
    hold,
    identify,
    leave,
    lock,
    numbers,
    pause,
    read_mapped,
    spin,
    start_child,
)


def step(function: Callable[..., Any], *, limits: dict[str, Any] | None = None, **arguments: Any) -> Step:
    """Make a step of a module's function."""
    return Step(f"{function.__module__}:{function.__qualname__}", arguments, **(limits or {}))


def collect(executor: Executor, count: int, timeout_s: float = 180.0) -> dict[int, Outcome]:
    """Wait for so many outcomes and return them by ticket."""
    found: dict[int, Outcome] = {}
    end = time.monotonic() + timeout_s
    while len(found) < count:
        left_s = end - time.monotonic()
        assert left_s > 0, f"only {sorted(found)} ended within {timeout_s} s"
        for outcome in executor.wait(left_s):
            assert outcome.ticket not in found, "an outcome came twice"
            found[outcome.ticket] = outcome
    return found


def only(executor: Executor, timeout_s: float = 180.0) -> Outcome:
    """Wait for one outcome."""
    (outcome,) = collect(executor, 1, timeout_s).values()
    return outcome


def alive(pids: Iterable[int]) -> list[int]:
    """Give the processes that still run; the dead that nobody has collected don't count."""
    found = []
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.rpartition(")")[2].split()[0] not in "ZX":
            found.append(pid)
    return found


def wait_until_dead(pids: Iterable[int], timeout_s: float = 60.0) -> None:
    """Fail unless all of the processes end in time."""
    end = time.monotonic() + timeout_s
    pids = list(pids)
    while alive(pids):
        assert time.monotonic() < end, f"still alive: {alive(pids)}"
        time.sleep(0.02)


class ExecutorSuite:
    """The laws of every executor."""

    @pytest.fixture
    def executor(self) -> Executor:
        """Return an open executor, and close it after the test; overridden by every implementation."""
        raise NotImplementedError("supply the fixture executor")

    def test_capacity_is_at_least_one(self, executor: Executor) -> None:
        assert executor.capacity >= 1

    def test_it_tells_when_it_is_ready(self, executor: Executor) -> None:
        assert executor.ready()
        assert executor.ready(0.0)

    def test_tickets_count_from_zero(self, executor: Executor) -> None:
        assert [executor.submit(step(echo)) for _ in range(3)] == [0, 1, 2]

    def test_a_value_comes_back(self, executor: Executor) -> None:
        executor.submit(step(echo, value={"a": [1, None, "é"]}))
        outcome = only(executor)
        assert outcome.value == {"a": [1, None, "é"]}
        assert outcome.error is None
        assert outcome.traceback is None

    def test_every_step_gives_one_outcome(self, executor: Executor) -> None:
        for i in range(20):
            executor.submit(step(echo, value=i))
        found = collect(executor, 20)
        assert {ticket: outcome.value for ticket, outcome in found.items()} == {i: i for i in range(20)}
        assert executor.wait() == []

    def test_waiting_for_nothing_returns_at_once(self, executor: Executor) -> None:
        start = time.monotonic()
        assert executor.wait() == []
        assert executor.wait(120.0) == []
        assert time.monotonic() - start < 60.0

    def test_no_time_to_wait_is_allowed(self, executor: Executor, tmp_path: Path) -> None:
        executor.submit(step(hold, until=str(tmp_path / "over")))
        assert executor.wait(0.0) == []
        (tmp_path / "over").touch()
        assert only(executor).error is None

    def test_an_error_comes_back_with_its_traceback(self, executor: Executor) -> None:
        executor.submit(step(fail, message="three is too many"))
        outcome = only(executor)
        assert type(outcome.error) is ValueError
        assert str(outcome.error) == "three is too many"
        assert outcome.value is None
        assert outcome.traceback is not None
        assert "in fail" in outcome.traceback
        assert "ValueError: three is too many" in outcome.traceback

    def test_our_errors_keep_their_parts(self, executor: Executor) -> None:
        executor.submit(step(fail_kindly))
        error = only(executor).error
        assert isinstance(error, OptionError)
        assert (error.message, error.hint, error.where) == ("It is too low.", "Raise it.", "--low")

    @pytest.mark.parametrize(("function", "text"), [(fail_strangely, "only here"), (fail_two_armed, "leftright")])
    def test_an_error_that_can_not_travel_is_told(
        self, executor: Executor, function: Callable[[], None], text: str
    ) -> None:
        executor.submit(step(function))
        outcome = only(executor)
        assert isinstance(outcome.error, Exception)
        assert text in str(outcome.error)
        assert f"in {function.__name__}" in (outcome.traceback or "")

    def test_leaving_the_process_is_a_failed_step(self, executor: Executor) -> None:
        executor.submit(step(leave, code=3))
        error = only(executor).error
        assert type(error) is TrialError
        assert "SystemExit(3)" in str(error)

    def test_running_out_of_memory_is_said_so(self, executor: Executor) -> None:
        executor.submit(step(exhaust))
        error = only(executor).error
        assert isinstance(error, TrialMemoryError)
        assert "cannot allocate 1 TB" in str(error)

    @pytest.mark.parametrize(
        "call", ["nonsense", "tidemill.absent:f", "tidemill.testing.executor:absent", "sys:path", ":", "a:"]
    )
    def test_a_call_that_is_no_function_is_an_error(self, executor: Executor, call: str) -> None:
        executor.submit(Step(call))
        assert isinstance(only(executor).error, Exception)

    def test_a_failed_step_does_no_harm_to_the_next(self, executor: Executor) -> None:
        for function in (exhaust, fail_strangely, fail_kindly):
            executor.submit(step(function))
        executor.submit(step(echo, value="well"))
        assert collect(executor, 4)[3].value == "well"

    def test_usage_is_measured(self, executor: Executor) -> None:
        executor.submit(step(spin, seconds=0.3))
        usage = only(executor).usage
        assert 0.25 < usage.cpu_s < 30.0
        assert usage.wall_s > 0.25
        assert usage.peak_memory_bytes > 2**20

    def test_a_large_result_comes_back_whole(self, executor: Executor) -> None:
        count = 50 * 2**20 // 8
        executor.submit(step(numbers, count=count))
        value = only(executor).value
        assert value.nbytes == 50 * 2**20
        assert value[-1] == count - 1

    def test_large_arguments_arrive_whole(self, executor: Executor) -> None:
        value = bytes(range(256)) * 2**14
        executor.submit(step(echo, value=value))
        assert only(executor).value == value

    def test_a_cancelled_step_gives_no_outcome(self, executor: Executor) -> None:
        kept = executor.submit(step(echo, value=1))
        dropped = executor.submit(step(pause, seconds=0.1))
        also_kept = executor.submit(step(echo, value=2))
        executor.cancel(dropped)
        assert set(collect(executor, 2)) == {kept, also_kept}
        assert executor.wait() == []

    def test_cancelling_what_is_not_there_is_ignored(self, executor: Executor) -> None:
        executor.cancel(99)
        ticket = executor.submit(step(echo, value=1))
        only(executor)
        executor.cancel(ticket)
        executor.cancel(ticket)
        executor.submit(step(echo, value=2))
        assert only(executor).value == 2

    def test_closing_twice_is_allowed(self, executor: Executor) -> None:
        executor.submit(step(echo))
        executor.close()
        executor.close()


class ForcefulExecutorSuite(ExecutorSuite):
    """The laws of executors whose steps run in processes of their own."""

    def test_steps_run_at_the_same_time(self, executor: Executor, tmp_path: Path) -> None:
        occupy(executor, tmp_path).touch()
        assert all(o.error is None for o in collect(executor, executor.capacity).values())

    def test_no_more_steps_than_the_capacity_run_at_the_same_time(self, executor: Executor) -> None:
        executor.submit(step(echo))
        only(executor)
        start = time.monotonic()
        for _ in range(executor.capacity + 1):
            executor.submit(step(pause, seconds=0.4))
        collect(executor, executor.capacity + 1)
        assert time.monotonic() - start > 0.75

    def test_waiting_ends_with_the_first_outcome(self, executor: Executor) -> None:
        slow = executor.submit(step(pause, seconds=300.0))
        quick = executor.submit(step(echo))
        assert only(executor).ticket == quick
        executor.cancel(slow)

    def test_waiting_keeps_its_timeout(self, executor: Executor) -> None:
        executor.submit(step(pause, seconds=300.0))
        start = time.monotonic()
        assert executor.wait(0.3) == []
        assert 0.25 < time.monotonic() - start < 60.0

    def test_submitting_never_blocks(self, executor: Executor) -> None:
        start = time.monotonic()
        for _ in range(executor.capacity):
            executor.submit(step(pause, seconds=300.0))
        for _ in range(2000):
            executor.submit(step(echo, value=b"x" * 1000))
        assert time.monotonic() - start < 60.0

    def test_two_hundred_tiny_steps(self, executor: Executor) -> None:
        for i in range(200):
            executor.submit(step(echo, value=i))
        found = collect(executor, 200)
        assert [found[i].value for i in range(200)] == list(range(200))

    def test_steps_do_not_share_a_process(self, executor: Executor) -> None:
        for _ in range(4):
            executor.submit(step(identify))
        ids = [outcome.value[0] for outcome in collect(executor, 4).values()]
        assert len({*ids, os.getpid()}) == 5

    def test_a_result_that_can_not_travel_is_told(self, executor: Executor) -> None:
        executor.submit(step(lock))
        error = only(executor).error
        assert type(error) is TrialError
        assert "lock" in str(error)

    def test_arguments_that_can_not_travel_are_refused(self, executor: Executor) -> None:
        with pytest.raises(OptionError, match="can't be sent"):
            executor.submit(step(echo, value=threading.Lock()))
        executor.submit(step(echo, value=1))
        assert only(executor).value == 1

    @pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (6, "SIGABRT"), (15, "SIGTERM")])
    def test_a_step_killed_by_a_signal_names_it(self, executor: Executor, number: int, name: str) -> None:
        executor.submit(step(die, signal_number=number))
        error = only(executor).error
        assert type(error) is TrialError
        assert name in str(error)

    def test_a_process_that_leaves_without_a_word_is_a_failed_step(self, executor: Executor) -> None:
        for code in (0, 7):
            executor.submit(step(crash, code=code))
        found = collect(executor, 2)
        assert all(type(outcome.error) is TrialError for outcome in found.values())
        assert "exit code 7" in str(found[1].error)

    def test_a_step_past_its_time_is_ended(self, executor: Executor) -> None:
        executor.submit(step(echo))
        only(executor)
        start = time.monotonic()
        executor.submit(step(pause, seconds=300.0, limits={"time_s": 0.5}))
        outcome = only(executor)
        assert 0.45 < time.monotonic() - start < 60.0
        assert type(outcome.error) is TrialTimeoutError
        assert "0.5 s" in str(outcome.error)
        assert outcome.usage.wall_s >= 0.5

    def test_time_counts_from_the_start_of_a_step(self, executor: Executor, tmp_path: Path) -> None:
        over = occupy(executor, tmp_path)
        executor.submit(step(echo, limits={"time_s": 2.0}))
        assert executor.wait(2.2) == []  # longer than it may take, but it waits for a worker
        over.touch()
        assert all(o.error is None for o in collect(executor, executor.capacity + 1).values())

    def test_a_step_past_its_memory_is_ended(self, executor: Executor) -> None:
        executor.submit(step(hog, size_bytes=400 * 10**6, limits={"memory_bytes": 200 * 10**6}))
        outcome = only(executor)
        assert type(outcome.error) is TrialMemoryError
        assert "its limit is 200 MB" in str(outcome.error)
        assert outcome.usage.peak_memory_bytes > 200 * 10**6

    def test_memory_of_grandchildren_counts(self, executor: Executor) -> None:
        executor.submit(step(hog_in_a_child, size_bytes=400 * 10**6, limits={"memory_bytes": 200 * 10**6}))
        assert type(only(executor).error) is TrialMemoryError

    def test_memory_within_the_limit_is_fine(self, executor: Executor) -> None:
        executor.submit(step(hog, size_bytes=100 * 10**6, seconds=0.4, limits={"memory_bytes": 200 * 10**6}))
        assert only(executor).value == 100 * 10**6

    def test_mapped_files_are_free(self, executor: Executor, tmp_path: Path) -> None:
        path = tmp_path / "x.npy"
        np.save(path, np.ones(40 * 10**6))
        executor.submit(step(read_mapped, path=str(path), limits={"memory_bytes": 100 * 10**6}))
        assert only(executor).value == 40 * 10**6

    def test_cancelling_ends_a_running_step_with_all_that_it_started(self, executor: Executor, tmp_path: Path) -> None:
        ticket = executor.submit(step(start_child, path=str(tmp_path / "pids"), wait=True))
        pids = read_pids(tmp_path / "pids")
        executor.cancel(ticket)
        wait_until_dead(pids)
        assert executor.wait() == []
        for _ in range(executor.capacity):  # its slot is free again
            executor.submit(step(echo))
        collect(executor, executor.capacity)

    @pytest.mark.parametrize("session", [False, True], ids=["same group", "own session"])
    def test_a_step_leaves_no_process_behind(self, executor: Executor, tmp_path: Path, session: bool) -> None:
        executor.submit(step(start_child, path=str(tmp_path / "pids"), wait=False, session=session))
        only(executor)
        wait_until_dead(read_pids(tmp_path / "pids"))

    def test_closing_ends_everything(self, executor: Executor, tmp_path: Path) -> None:
        executor.submit(step(start_child, path=str(tmp_path / "pids"), wait=True))
        pids = read_pids(tmp_path / "pids")
        executor.close()
        wait_until_dead(pids)

    def test_what_a_step_prints_stays_off_the_terminal(
        self, executor: Executor, capfd: pytest.CaptureFixture[str]
    ) -> None:
        executor.submit(step(babble, lines=100_000, then="return"))
        assert only(executor).traceback is None
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("then", ["fail", "crash"])
    def test_the_last_output_stands_with_a_failure(self, executor: Executor, then: str) -> None:
        executor.submit(step(babble, lines=10_000, then=then))
        outcome = only(executor)
        assert outcome.traceback is not None
        assert "last words" in outcome.traceback
        assert "line 9999" in outcome.traceback
        assert "line 1\n" not in outcome.traceback  # only the tail is kept
        assert len(outcome.traceback) < 50_000

    def test_numeric_libraries_are_told_their_threads(self, executor: Executor) -> None:
        executor.submit(step(environment, name="OMP_NUM_THREADS"))
        executor.submit(step(environment, name="OMP_NUM_THREADS", limits={"threads": 3}))
        assert [outcome.value for _, outcome in sorted(collect(executor, 2).items())] == ["1", "3"]


def occupy(executor: Executor, folder: Path) -> Path:
    """Give every worker a step that waits, and return once all of them do; they end when the returned file is made."""
    over = folder / "over"
    told = [folder / f"told-{number}" for number in range(executor.capacity)]
    for path in told:
        executor.submit(step(hold, until=str(over), told=str(path)))
    wait_for_files(*told)
    return over


def wait_for_files(*paths: Path, timeout_s: float = 60.0) -> None:
    """Fail unless steps make all of the files in time."""
    end = time.monotonic() + timeout_s
    while missing := [path.name for path in paths if not path.exists()]:
        assert time.monotonic() < end, f"never made: {missing}"
        time.sleep(0.02)


def read_pids(path: Path, timeout_s: float = 60.0) -> list[int]:
    """Wait for the file that `start_child` writes."""
    end = time.monotonic() + timeout_s
    while True:
        text = path.read_text(encoding="ascii") if path.exists() else ""
        if len(text.split()) == 2:
            return [int(pid) for pid in text.split()]
        assert time.monotonic() < end, "the step did not start"
        time.sleep(0.02)
