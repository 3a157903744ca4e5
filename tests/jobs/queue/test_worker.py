"""Workers and the processes of their jobs: what ends well, what fails, what is killed, what outlives its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.core.errors import ConflictError
from tidemill.jobs.queue import child
from tidemill.jobs.queue.folders import log_path, read_log
from tidemill.jobs.queue.machine import find_devices
from tidemill.jobs.queue.processes import host_name, lives, mark_of, worker_id, worker_lives
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity, Claimant, Device, Ending, Job, JobState, Request
from tidemill.jobs.queue.worker import Pace, Worker
from tidemill.store.workspace import Workspace
from tidemill.testing.executor import alive, wait_until_dead
from tidemill.testing.job_kinds import kinds

PACE = Pace(look_s=0.02, beat_s=0.2, grace_s=0.4, kill_s=0.4)
PATIENT = Pace(look_s=0.02, beat_s=0.2, grace_s=120.0, kill_s=120.0)
LEASE_S = 4.0

SHIFT = """
import sys, threading
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity
from tidemill.jobs.queue.worker import Pace, Worker
from tidemill.store.workspace import Workspace
from tidemill.testing.job_kinds import kinds

with Workspace.open(sys.argv[1]) as workspace:
    queue = JobQueue(workspace.database, lease_s=float(sys.argv[2]), first_pause_s=0.1)
    worker = Worker(workspace, kinds(), Capacity(4, 10**9), pace=Pace(0.02, 0.2, 0.4, 0.4), queue=queue)
    print("ready", flush=True)
    worker.run(threading.Event(), until_idle=True)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


@pytest.fixture
def queue(workspace: Workspace) -> JobQueue:
    return JobQueue(workspace.database, lease_s=LEASE_S, first_pause_s=0.1)


@pytest.fixture
def work(workspace: Workspace, queue: JobQueue) -> Callable[..., list[tuple[str, int]]]:
    """Run a worker until nothing is left; give what it told."""

    def run(cpus: int = 4, devices: tuple[Device, ...] = (), pace: Pace = PACE) -> list[tuple[str, int]]:
        heard: list[tuple[str, int]] = []
        capacity = Capacity(cpus, 10**9, devices)
        worker = Worker(
            workspace, kinds(), capacity, pace=pace, queue=queue,
            tell=lambda what, job, words: heard.append((what, job.id if job else 0)),
        )  # fmt: skip
        stop = threading.Event()
        timer = threading.Timer(120, stop.set)
        timer.start()
        try:
            worker.run(stop, until_idle=True)
        finally:
            timer.cancel()
        assert not stop.is_set(), "the worker did not come to an end"
        return heard

    return run


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def later(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_job_runs_in_a_process_of_its_own_and_leaves_its_result_and_log(
    workspace: Workspace, queue: JobQueue, work: Callable[..., Any]
) -> None:
    job = queue.submit(Request("answer", {"value": {"loss": 0.5, "names": ["a"]}, "words": "hello ☃"}, owner="mia"))
    knows = queue.submit(Request("know", owner="mia", cpus=2, time_s=60.0))
    heard = work()
    assert heard.count(("claimed", job.id)) == heard.count(("ended", job.id)) == 1
    done = queue.get(job.id)
    assert (done.state, done.result) == (JobState.DONE, {"loss": 0.5, "names": ["a"]})
    assert "hello ☃" in read_log(log_path(workspace.path, job.id, 1)).text
    whole = queue.submit(Request("know", cpus=0))
    work(cpus=3)
    told = queue.get(whole.id).result
    assert (told["cpus"], told["threads"]) == (3, "3")
    told = queue.get(knows.id).result
    assert told["job"] == knows.id
    assert (told["owner"], told["cpus"], told["threads"], told["limited"]) == ("mia", 2, "2", True)
    assert told["checkpoint"]


def test_a_job_sees_the_devices_that_it_was_given_and_no_others(queue: JobQueue, work: Callable[..., Any]) -> None:
    given = queue.submit(Request("know", devices=1, device_bytes=10))
    none = queue.submit(Request("know"))
    work(devices=(Device("cuda:0", 1), Device("cuda:1", 1000)))
    assert queue.get(given.id).result["visible"] == "1"
    assert queue.get(given.id).result["devices"] == ["cuda:1"]
    assert queue.get(none.id).result["visible"] == ""


def test_a_worker_without_devices_hides_those_of_the_machine(
    queue: JobQueue, work: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    job = queue.submit(Request("know"))
    work(devices=())
    assert queue.get(job.id).result["visible"] == ""


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("", []),
        ("-1", []),
        ("2,1", ["cuda:1", "cuda:2"]),
        ("1, 2", ["cuda:1", "cuda:2"]),
        ("1,7,2", ["cuda:1"]),
        ("GPU-bb", ["cuda:1"]),
        ("GPU-", []),
        ("GPU-cc01,0", ["cuda:0", "cuda:2"]),
        ("MIG-1234", []),
    ],
)
def test_devices_that_the_worker_may_not_see_are_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nprintf '0, 8000, GPU-aa01\\n1, 8000, GPU-bb01\\n2, 8000, GPU-cc01\\n'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [device.name for device in find_devices()] == names


@pytest.mark.parametrize(
    ("kind", "arguments", "attempts", "words"),
    [
        ("fail", {}, 2, "ValueError: it went wrong"),
        ("fail_kindly", {}, 1, "It is too low. Raise it."),
        ("die", {}, 2, "killed by SIGKILL"),
        ("unplain", {}, 2, "not JSON serializable"),
    ],
)
def test_what_fails_is_tried_again_where_that_may_help_and_says_why(
    queue: JobQueue, work: Callable[..., Any], kind: str, arguments: dict[str, Any], attempts: int, words: str
) -> None:
    job = queue.submit(Request(kind, arguments, max_attempts=2))
    work()
    failed = queue.get(job.id)
    assert (failed.state, failed.attempt) == (JobState.FAILED, attempts)
    assert words in (failed.error or "")


def test_an_attempt_may_succeed_where_those_before_it_failed_or_died(queue: JobQueue, work: Callable[..., Any]) -> None:
    failing = queue.submit(Request("fail_until", {"times": 2}))
    dying = queue.submit(Request("die", {"times": 1}))
    work()
    assert queue.get(failing.id).result == 3
    assert queue.get(dying.id).result == 2


def test_a_graph_of_jobs_runs_in_order(queue: JobQueue, work: Callable[..., Any], tmp_path: Path) -> None:
    from tidemill.jobs.queue.types import Until

    path = str(tmp_path / "counts")
    queue.submit_all([
        Request("steps", {"times": 2, "path": path}, name="second", needs={"first": Until.DONE}),
        Request("steps", {"times": 3, "path": path}, name="first"),
        Request("fail_kindly", name="broken"),
        Request("answer", name="never", needs={"broken": Until.DONE}),
        Request("answer", {"value": {"a": 1}}, name="always", needs={"broken": Until.ENDED}),
    ])  # fmt: skip
    work()
    lines = (tmp_path / "counts").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["1", "2", "3", "1", "2"]
    assert {job.name: job.state.value for job in queue.jobs()} == {
        "first": "done", "second": "done", "broken": "failed", "never": "skipped", "always": "done",
    }  # fmt: skip


def test_cancel_is_heard_between_two_steps_and_a_retry_goes_on_from_there(
    queue: JobQueue, work: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "counts"
    job = queue.submit(Request("steps", {"times": 40, "path": str(path), "seconds": 0.05}))

    def cancel() -> None:
        until(lambda: path.exists() and len(path.read_text().splitlines()) >= 3)
        queue.cancel(job.id)

    thread = later(cancel)
    work(pace=PATIENT)
    thread.join()
    cancelled = queue.get(job.id)
    assert cancelled.state is JobState.CANCELLED
    assert [a.outcome for a in queue.attempts(job.id)] == ["stopped"]
    assert cancelled.progress["share"] > 0
    queue.retry(job.id)
    work()
    assert queue.get(job.id).state is JobState.DONE
    counts = [int(line.split()[1]) for line in path.read_text().splitlines()]
    assert counts == list(range(1, 41)), "no step was done twice, none left out"


def test_a_deaf_job_is_killed_with_all_that_it_started(
    queue: JobQueue, work: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    job = queue.submit(Request("deaf", {"seconds": 600.0, "path": str(path)}))

    def cancel() -> None:
        until(path.exists)
        queue.cancel(job.id)

    thread = later(cancel)
    work()
    thread.join()
    assert queue.get(job.id).state is JobState.CANCELLED
    assert "SIGKILL" in (queue.attempts(job.id)[0].error or "")
    wait_until_dead([int(pid) for pid in path.read_text().split()])


def test_force_does_not_wait(queue: JobQueue, work: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = queue.submit(Request("nap", {"seconds": 600.0, "path": str(path)}))

    def cancel() -> None:
        until(path.exists)
        queue.cancel(job.id, force=True)

    thread = later(cancel)
    work()
    thread.join()
    assert queue.get(job.id).state is JobState.CANCELLED
    wait_until_dead([int(path.read_text())])


def test_a_job_ends_when_its_time_is_over(queue: JobQueue, work: Callable[..., Any]) -> None:
    job = queue.submit(Request("nap", {"seconds": 600.0}, time_s=1.5))
    work()
    over = queue.get(job.id)
    assert (over.state, over.error, over.attempt) == (JobState.FAILED, "Its time of 1.5 s is over.", 1)


def test_a_killed_job_is_tried_again_and_goes_on(queue: JobQueue, work: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "counts"
    job = queue.submit(Request("steps", {"times": 50, "path": str(path), "seconds": 0.05}))

    def kill() -> None:
        until(lambda: path.exists() and len(path.read_text().splitlines()) >= 3)
        os.kill(int(path.read_text().splitlines()[-1].split()[2]), signal.SIGKILL)

    thread = later(kill)
    work()
    thread.join()
    done = queue.get(job.id)
    assert (done.state, done.attempt) == (JobState.DONE, 2)
    lines = [line.split() for line in path.read_text().splitlines()]
    counts = [int(count) for _, count, _ in lines]
    assert sorted(set(counts)) == list(range(1, 51))
    assert len(counts) <= 51, "at most the step that was under way was done twice"
    assert "killed by SIGKILL" in (queue.attempts(job.id)[0].error or "")


def test_what_a_job_leaves_behind_is_ended(queue: JobQueue, work: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = queue.submit(Request("leave_a_child", {"path": str(path)}))
    work()
    assert queue.get(job.id).state is JobState.DONE
    wait_until_dead([int(path.read_text())])


# ----------------------------------------------------------------------------------------------------- without a worker


def shift(workspace: Workspace, lease_s: float = LEASE_S) -> subprocess.Popen[str]:
    """Start a worker as a program of its own."""
    command = [sys.executable, "-W", "error", "-c", SHIFT, str(workspace.path), str(lease_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_job_outlives_its_worker_and_the_next_one_takes_it_over(
    workspace: Workspace, queue: JobQueue, work: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "counts"
    job = queue.submit(Request("steps", {"times": 60, "path": str(path), "seconds": 0.05}))
    first = shift(workspace)
    until(lambda: path.exists() and path.read_text())
    pid = int(path.read_text().split()[2])
    kill(first)
    assert alive([pid])
    heard = work()
    assert ("adopted", job.id) in heard
    done = queue.get(job.id)
    assert (done.state, done.attempt) == (JobState.DONE, 1)
    assert {int(line.split()[2]) for line in path.read_text().splitlines()} == {pid}


def test_a_job_without_any_worker_keeps_its_lease_and_tells_how_it_ended(
    workspace: Workspace, queue: JobQueue, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    job = queue.submit(Request("nap", {"seconds": 6.0, "path": str(path)}))
    first = shift(workspace, lease_s=8.0)
    until(path.exists)
    kill(first)
    left = queue.get(job.id).lease_until or 0.0
    until(lambda: (queue.get(job.id).lease_until or 0.0) > left)
    assert queue.expired() == []
    until(lambda: queue.get(job.id).state is not JobState.RUNNING)
    assert queue.get(job.id).state is JobState.DONE


def test_an_adopted_job_can_be_cancelled_by_force(
    workspace: Workspace, queue: JobQueue, work: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    job = queue.submit(Request("deaf", {"seconds": 600.0, "path": str(path)}))
    first = shift(workspace)
    until(path.exists)
    kill(first)
    queue.cancel(job.id)
    work()
    assert queue.get(job.id).state is JobState.CANCELLED
    wait_until_dead([int(pid) for pid in path.read_text().split()])


def test_where_worker_and_job_are_killed_the_job_is_lost_and_tried_again(
    workspace: Workspace, queue: JobQueue, work: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "counts"
    job = queue.submit(Request("steps", {"times": 50, "path": str(path), "seconds": 0.05}))
    first = shift(workspace)
    until(lambda: path.exists() and path.read_text())
    kill(first)
    pid = int(path.read_text().split()[2])
    os.kill(pid, signal.SIGKILL)
    wait_until_dead([pid])
    heard = work()
    assert ("lost", job.id) in heard
    done = queue.get(job.id)
    assert (done.state, done.attempt) == (JobState.DONE, 2)
    assert [a.outcome for a in queue.attempts(job.id)] == ["lost", "done"]


def test_a_job_whose_machine_was_off_for_hours_has_not_worked_for_hours(
    workspace: Workspace, queue: JobQueue, work: Callable[..., Any]
) -> None:
    before = JobQueue(workspace.database, clock=lambda: time.time() - 9 * 3600, lease_s=LEASE_S)
    job = before.submit(Request("answer", {"value": {"a": 1}}, time_s=600.0))
    gone = Claimant(f"{host_name()}|1|not the mark of that process|x", host_name(), Capacity(8, 10**9), kinds().names)
    assert before.claim(gone) is not None
    before.begin(job.id, 1, 1, "not the mark of that process")
    work()
    done = queue.get(job.id)
    assert (done.state, [a.outcome for a in queue.attempts(job.id)]) == (JobState.DONE, ["lost", "done"]), done.error
    assert done.spent_s < 600.0


def test_a_job_of_another_machine_is_lost_when_its_lease_is_over(queue: JobQueue, work: Callable[..., Any]) -> None:
    there = Claimant("there|1|x|y", "there", Capacity(8, 10**9), kinds().names)
    short = JobQueue(queue._database, lease_s=0.3)
    job = queue.submit(Request("answer", {"value": {"a": 1}}))
    assert short.claim(there) is not None
    time.sleep(0.4)
    heard = work()
    until(lambda: queue.get(job.id).state is not JobState.RUNNING)
    if queue.get(job.id).state is JobState.QUEUED:
        heard += work()
    assert ("lost", job.id) in heard
    assert queue.get(job.id).state is JobState.DONE


def test_a_process_whose_attempt_was_given_away_ends_itself(
    workspace: Workspace, queue: JobQueue, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    job = queue.submit(Request("nap", {"seconds": 60.0, "path": str(path)}))
    me = Claimant("there|1|x|y", "there", Capacity(8, 10**9), kinds().names)
    assert queue.claim(me) is not None
    process = start_child(workspace, job, attempt=1)
    until(path.exists)
    queue.finish(job.id, 1, Ending("lost"))
    assert process.wait(60) == -signal.SIGKILL


def test_an_attempt_that_is_not_to_be_run_does_nothing(workspace: Workspace, queue: JobQueue, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    job = queue.submit(Request("nap", {"seconds": 60.0, "path": str(path)}))
    me = Claimant("there|1|x|y", "there", Capacity(8, 10**9), kinds().names)
    assert queue.claim(me) is not None
    queue.begin(job.id, 1, os.getpid(), mark_of(os.getpid()))
    assert start_child(workspace, job, attempt=1).wait(60) == child.GIVEN_UP
    assert not path.exists()


def start_child(workspace: Workspace, job: Job, attempt: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "tidemill.jobs.queue.child", "--workspace", str(workspace.path), "--job", str(job.id),
        "--attempt", str(attempt), "--call", f"tidemill.testing.job_kinds:{job.kind}", "--look", "0.05",
    ]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def test_a_worker_that_is_told_to_stop_leaves_its_jobs_running(
    workspace: Workspace, queue: JobQueue, work: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    job = queue.submit(Request("nap", {"seconds": 4.0, "path": str(path)}))
    first = shift(workspace)
    until(path.exists)
    first.terminate()
    first.communicate()
    assert alive([int(path.read_text())])
    work()
    assert queue.get(job.id).state is JobState.DONE


# ------------------------------------------------------------------------------------------------------------ processes


def test_a_mark_tells_a_process_from_the_next_of_its_number() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = mark_of(process.pid)
    assert mark
    assert lives(process.pid, mark)
    assert not lives(process.pid, mark_of(os.getpid()))
    process.kill()
    until(lambda: not lives(process.pid, mark))  # its remains are there still, but don't live
    process.wait()
    assert mark_of(process.pid) == ""


def test_a_worker_is_known_by_its_id() -> None:
    assert worker_lives(worker_id())
    host, pid, _, rest = worker_id().rsplit("|", 3)
    assert not worker_lives(f"{host}|{pid}|another|{rest}")


def test_the_first_end_of_an_attempt_is_the_one_that_counts(queue: JobQueue) -> None:
    queue.submit(Request("answer"))
    me = Claimant("w|1|x|y", "there", Capacity(8, 10**9), kinds().names)
    job = queue.claim(me)
    assert job is not None
    queue.finish(job.id, 1, Ending("done", result=1))
    with pytest.raises(ConflictError):
        queue.finish(job.id, 1, Ending("died"))
    assert queue.get(job.id).result == 1
