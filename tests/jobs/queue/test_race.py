"""Processes that claim at once: every job is had by exactly one."""

from __future__ import annotations

import itertools
import subprocess
import sys

from tests.jobs.queue.conftest import worker

from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import HELD, Ending, JobState, Quota, Request
from tidemill.store.database import Database

CLAIMER = """
import sys
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity, Claimant, Ending
from tidemill.store.database import Database

url, name, finish = sys.argv[1:]
queue = JobQueue(Database(url))
by = Claimant(name, name, Capacity(1000, 10**12), frozenset({"gc"}))
print("ready", flush=True)
sys.stdin.readline()
misses = 0
while misses < 3:
    job = queue.claim(by)
    if job is None:
        misses += 1
        continue
    print(job.id, flush=True)
    if finish == "finish":
        queue.finish(job.id, job.attempt, Ending("done"))
"""


def race(url: str, names: list[str], finish: str) -> list[list[int]]:
    """Let processes claim until nothing is left; give what each had."""
    command = [sys.executable, "-W", "error", "-c", CLAIMER, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    claimers = [subprocess.Popen([*command, name, finish], **pipes) for name in names]  # type: ignore[call-overload]  # pipes by name
    for one in claimers:
        assert one.stdout.readline() == "ready\n"
    for one in claimers:
        one.stdin.write("go\n")
        one.stdin.flush()
    had = []
    for one in claimers:
        said, trouble = one.communicate(timeout=60)
        assert one.returncode == 0, trouble
        had.append([int(line) for line in said.split()])
    return had


def test_processes_that_claim_at_once_share_the_jobs_without_overlap(database_url: str) -> None:
    database = Database(database_url)
    queue = JobQueue(database)
    queue.submit_all([Request("gc")] * 40)
    had = race(database_url, ["v", "w", "x"], "keep")
    assert sorted(itertools.chain(*had)) == list(range(1, 41))
    for name, ids in zip(["v", "w", "x"], had, strict=True):
        assert all(queue.get(job).worker == name for job in ids)
    assert {(job.state, job.attempt) for job in queue.jobs()} == {(JobState.RUNNING, 1)}
    assert all(len(queue.attempts(job)) == 1 for job in range(1, 41))
    database.close()


def test_a_quota_holds_among_processes(database_url: str) -> None:
    database = Database(database_url)
    queue = JobQueue(database)
    queue.set_quota("mia", Quota(running=3))
    queue.submit_all([Request("gc", owner="mia")] * 10)
    race(database_url, ["v", "w"], "keep")
    assert len(queue.jobs(states=HELD)) == 3
    database.close()


def test_what_is_finished_while_others_claim_lets_all_that_need_it_go_on(database_url: str) -> None:
    from tidemill.jobs.queue.types import Until

    database = Database(database_url)
    queue = JobQueue(database)
    fan = [Request("gc", name=f"part-{i}") for i in range(12)]
    queue.submit_all([*fan, Request("gc", name="all", needs={one.name: Until.DONE for one in fan})])
    had = race(database_url, ["v", "w", "x"], "finish")
    left = queue.claim(worker())
    if left is not None:  # the last part may have ended after the others had looked for the last time
        queue.finish(left.id, left.attempt, Ending("done"))
        had.append([left.id])
    assert sorted(itertools.chain(*had)) == list(range(1, 14))
    assert {job.state for job in queue.jobs()} == {JobState.DONE}
    database.close()
