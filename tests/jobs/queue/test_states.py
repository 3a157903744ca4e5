"""Whatever is asked of the queue, in whatever order: what holds at any moment."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from tests.jobs.queue.conftest import GB, worker

from tidemill.core.errors import ConflictError
from tidemill.jobs.queue import rules
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import ENDED, HELD, OPEN, Ending, Job, JobState, Quota, Request, Until
from tidemill.store.database import Database
from tidemill.testing.clock import Clock

WORKERS = {
    "a": worker("a", cpus=2, devices=(10,)),
    "b": worker("b", cpus=1, devices=(10,)),
    "c": worker("c", host="there", cpus=3, devices=(10, 20)),
}
RUNNING = {"mia": 2, "ben": 1}


class QueueMachine(RuleBasedStateMachine):
    """Owners submit, cancel and retry; workers claim, end, fall silent."""

    ids = Bundle("ids")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'metadata.db'}")
        self.queue = JobQueue(self.database, clock=self.clock)
        self.ended: dict[int, Job] = {}
        self.known: list[int] = []
        for owner, most in RUNNING.items():
            self.queue.set_quota(owner, Quota(running=most))

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @rule(
        target=ids,
        owner=st.sampled_from(["mia", "ben", "eve"]),
        priority=st.integers(-2, 2),
        cpus=st.integers(1, 3),
        each=st.sampled_from([None, 0, 4, 8]),
        most=st.integers(1, 2),
        needs=st.lists(st.tuples(st.integers(0, 99), st.sampled_from(list(Until))), max_size=2),
    )
    def submit(
        self, owner: str, priority: int, cpus: int, each: int | None, most: int, needs: list[tuple[int, Until]]
    ) -> int:
        request = Request(
            "gc", owner=owner, priority=priority, cpus=cpus, devices=int(each is not None),
            device_bytes=(each or 0) * GB,
            max_attempts=most, needs={self.known[n % len(self.known)]: until for n, until in needs if self.known},
        )  # fmt: skip
        self.known.append(self.queue.submit(request).id)
        return self.known[-1]

    @rule(target=attempts, name=st.sampled_from(sorted(WORKERS)))
    def claim(self, name: str) -> object:
        before = {job.id: job for job in self.queue.jobs(limit=1000)}
        job = self.queue.claim(WORKERS[name])
        if job is None:
            return multiple()
        old = before[job.id]
        assert old.state is JobState.QUEUED
        assert old.ready_at <= self.clock.now
        assert (job.attempt, job.worker) == (old.attempt + 1, name)
        return job.id, job.attempt

    @rule(attempt=consumes(attempts), outcome=st.sampled_from(["done", "failed", "died", "stopped"]))
    def end(self, attempt: tuple[int, int], outcome: str) -> None:
        before = self.queue.get(attempt[0])
        mine = before.attempt == attempt[1] and before.state in HELD
        try:
            after = self.queue.finish(*attempt, Ending(outcome, error=outcome))
        except ConflictError:
            assert not mine
            assert self.queue.get(attempt[0]) == before
        else:
            assert mine
            assert after.state in (*ENDED, JobState.QUEUED)

    @rule(job=ids, force=st.booleans())
    def cancel(self, job: int, force: bool) -> None:
        before = self.queue.get(job)
        try:
            after = self.queue.cancel(job, force=force)
        except ConflictError:
            assert before.state in ENDED
        else:
            assert after.state is (JobState.STOPPING if before.state in HELD else JobState.CANCELLED)

    @rule(job=ids)
    def retry(self, job: int) -> None:
        before = self.queue.get(job)
        try:
            after = self.queue.retry(job, attempts=1)
        except ConflictError:
            assert before.state in (*OPEN, JobState.DONE, *ENDED)
        else:
            assert before.state in ENDED
            assert before.state is not JobState.DONE
            assert after.state in (JobState.WAITING, JobState.QUEUED)
            self.ended.pop(job, None)

    @rule(attempt=attempts)
    def beat(self, attempt: tuple[int, int]) -> None:
        ours = self.queue.beat([attempt])
        job = self.queue.get(attempt[0])
        assert (attempt[0] in ours) == (job.attempt == attempt[1] and job.state in HELD)

    @rule(seconds=st.sampled_from([1.0, 6.0, 20.0, 31.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def look_for_lost(self) -> None:
        for job in self.queue.expired():
            assert self.queue.lose(job) is not None
        assert self.queue.expired() == []

    @invariant()
    def dependencies_hold(self) -> None:
        jobs = {job.id: job for job in self.queue.jobs(limit=1000)}
        for job in jobs.values():
            ready = rules.readiness((jobs[n].state, until) for n, until in self.queue.needs(job.id).items())
            if job.state in (JobState.WAITING, JobState.SKIPPED):
                assert ready is job.state
            elif job.state in (JobState.QUEUED, *HELD) and job.attempt == 0:
                # What it needs may have been retried since it became ready; it was met then.
                assert ready is not JobState.SKIPPED

    @invariant()
    def nobody_has_more_than_there_is(self) -> None:
        held = self.queue.held()
        for by in WORKERS.values():
            left = rules.room(by, held)
            assert min(left.cpus, *left.devices.values()) >= 0
        for owner, most in RUNNING.items():
            assert sum(job.owner == owner for job in held) <= most

    @invariant()
    def attempts_tell_the_same_story(self) -> None:
        for job in self.queue.jobs(limit=1000):
            told = self.queue.attempts(job.id)
            assert [one.number for one in told] == list(range(1, job.attempt + 1))
            open_ones = [one.number for one in told if one.outcome == "running"]
            assert open_ones == ([job.attempt] if job.state in HELD else [])
            assert job.attempt <= job.max_attempts
            assert (job.finished_at is not None) == (job.state in ENDED)
            assert (job.worker in WORKERS) or job.attempt == 0
            assert bool(job.stop and job.state is not JobState.STOPPING and job.state in OPEN) is False

    @invariant()
    def what_has_ended_stays_as_it_is(self) -> None:
        for job in self.queue.jobs(limit=1000):
            known = self.ended.get(job.id)
            if job.state in ENDED and known is None:
                self.ended[job.id] = job
            elif known is not None and known.state is not JobState.SKIPPED:
                assert job == known


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=25, stateful_step_count=25)
