"""What the queue keeps, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest
from tests.jobs.queue.conftest import GB, worker

from tidemill.core.errors import ConflictError, NotFoundError, OptionError
from tidemill.jobs.queue import rules
from tidemill.jobs.queue.queue import EVERYBODY, JobQueue
from tidemill.jobs.queue.types import Ending, Job, JobState, Quota, Request, Until
from tidemill.testing.clock import Clock


def claim(queue: JobQueue, name: str = "w") -> Job:
    job = queue.claim(worker(name))
    assert job is not None
    return job


def end(queue: JobQueue, job: Job, outcome: str = "done", **more: object) -> Job:
    return queue.finish(job.id, job.attempt, Ending(outcome, **more))  # type: ignore[arg-type]  # any field by name


def states(queue: JobQueue) -> dict[str, str]:
    return {job.name: job.state.value for job in queue.jobs()}


def test_the_life_of_a_job(queue: JobQueue, clock: Clock) -> None:
    made = queue.submit(Request("fit", {"data": "a.csv", "share": float("inf")}, owner="mia", memory_bytes=GB))
    assert (made.id, made.state, made.name, made.attempt) == (1, JobState.QUEUED, "fit", 0)
    assert made.arguments == {"data": "a.csv", "share": float("inf")}
    assert queue.position(made) == 1
    job = claim(queue)
    assert (job.state, job.attempt, job.worker, job.host) == (JobState.RUNNING, 1, "w", "here")
    assert queue.claim(worker("v")) is None
    begun = queue.begin(job.id, 1, 4711, "mark")
    assert (begun.pid, begun.mark) == (4711, "mark")
    clock.now += 20
    beaten = queue.beat([(job.id, 1)], {"share": 0.5})[job.id]
    assert (beaten.lease_until, beaten.progress) == (clock.now + queue.lease_s, {"share": 0.5})
    done = end(queue, job, result={"loss": 0.25})
    assert (done.state, done.result, done.spent_s, done.pid) == (JobState.DONE, {"loss": 0.25}, 20.0, None)
    (attempt,) = queue.attempts(job.id)
    assert (attempt.number, attempt.outcome, attempt.finished_at) == (1, "done", clock.now)
    assert queue.counts() == {JobState.DONE: 1}


def test_only_one_process_begins_an_attempt_and_only_the_first_end_is_heard(queue: JobQueue) -> None:
    job = queue.submit(Request("fit"))
    with pytest.raises(ConflictError, match="not to be run"):
        queue.begin(job.id, 0, 1, "m")
    job = claim(queue)
    queue.begin(job.id, 1, 1, "m")
    with pytest.raises(ConflictError, match="not to be run"):
        queue.begin(job.id, 1, 2, "n")
    end(queue, job, "failed", error="oh")
    with pytest.raises(ConflictError, match="ended already"):
        end(queue, job)
    assert queue.beat([(job.id, 1)]) == {}
    assert queue.get(job.id).state is JobState.QUEUED


def test_a_failed_job_is_tried_again_after_a_growing_pause_and_not_for_ever(queue: JobQueue, clock: Clock) -> None:
    queue.submit(Request("fit", max_attempts=3))
    for pause in (5.0, 10.0):
        job = end(queue, claim(queue), "failed", error="it broke")
        assert (job.state, job.ready_at, job.error) == (JobState.QUEUED, clock.now + pause, "it broke")
        assert queue.claim(worker()) is None
        assert queue.anything_for(worker())
        clock.now += pause
    job = end(queue, claim(queue), "died", error="killed")
    assert (job.state, job.attempt, job.error) == (JobState.FAILED, 3, "killed")
    assert [a.outcome for a in queue.attempts(job.id)] == ["failed", "failed", "died"]
    assert not queue.anything_for(worker())


def test_wrong_input_is_not_tried_again(queue: JobQueue) -> None:
    queue.submit(Request("fit"))
    assert end(queue, claim(queue), "failed", error="no such file", hopeless=True).state is JobState.FAILED


def test_first_come_first_served_but_priority_goes_ahead_and_age_counts(queue: JobQueue, clock: Clock) -> None:
    for name, priority, wait in (("old", 0, 0), ("soon", 0, 1), ("high", 2, 1), ("late", 3, 3 * rules.AGE_S)):
        clock.now += wait
        queue.submit(Request("gc", name=name, priority=priority))
    # "late" came three ages after the first, with three points: it stands where "old" does, and came later.
    clock.now += 5
    assert queue.position(queue.jobs()[0]) == 4
    assert [claim(queue).name for _ in range(4)] == ["high", "old", "soon", "late"]


def test_a_low_priority_is_overtaken_no_more_once_it_is_old_enough(queue: JobQueue, clock: Clock) -> None:
    queue.submit(Request("gc", name="patient", priority=-2))
    for _ in range(8):
        clock.now += rules.AGE_S / 2
        queue.submit(Request("gc", name="pushing"))
    names = [claim(queue).name for _ in range(9)]
    assert names.index("patient") == 3


def test_jobs_wait_for_what_they_need(queue: JobQueue) -> None:
    steps = [
        Request("fit", name="report", needs={"train": Until.DONE, "check": Until.ENDED}),
        Request("fit", name="train", needs={"load": Until.DONE}),
        Request("gc", name="load"),
        Request("gc", name="check", needs={"load": Until.DONE}),
    ]
    made = queue.submit_all(steps)
    assert [job.name for job in made] == ["report", "train", "load", "check"]
    assert queue.needs(made[0].id) == {made[1].id: Until.DONE, made[3].id: Until.ENDED}
    load = claim(queue)
    assert load.name == "load"
    assert queue.claim(worker()) is None
    end(queue, load)
    train, check = claim(queue), claim(queue)
    assert {train.name, check.name} == {"train", "check"}
    train, check = sorted((train, check), key=lambda job: job.name, reverse=True)
    end(queue, check, "failed", error="no", hopeless=True)
    assert states(queue)["report"] == "waiting"
    end(queue, train)
    assert claim(queue).name == "report"


def test_who_needs_a_failed_job_is_skipped_and_comes_back_with_it(queue: JobQueue) -> None:
    first, second, third, _ = queue.submit_all([
        Request("gc", name="first"),
        Request("gc", name="second", needs={"first": Until.DONE}),
        Request("gc", name="third", needs={"second": Until.DONE}),
        Request("gc", name="cleanup", needs={"third": Until.ENDED}),
    ])  # fmt: skip
    end(queue, claim(queue), "failed", error="no", hopeless=True)
    assert states(queue) == {"first": "failed", "second": "skipped", "third": "skipped", "cleanup": "queued"}
    assert queue.get(second.id).error == f"It needs job {first.id}, which did not succeed."
    with pytest.raises(ConflictError, match=f"needs job {second.id}"):
        queue.retry(third.id)
    queue.retry(first.id)
    assert states(queue) == {"first": "queued", "second": "waiting", "third": "waiting", "cleanup": "queued"}
    names = []
    while (job := queue.claim(worker())) is not None:
        names.append(job.name)
        end(queue, job)
    assert names == ["first", "second", "third", "cleanup"]
    assert set(states(queue).values()) == {"done"}
    late = queue.submit(Request("gc", needs={first.id: Until.DONE}))
    assert late.state is JobState.QUEUED


def test_a_job_that_needs_a_failed_one_is_skipped_at_once(queue: JobQueue) -> None:
    made = queue.submit(Request("gc"))
    queue.cancel(made.id)
    late = queue.submit(Request("gc", needs={made.id: Until.DONE}))
    assert (late.state, late.finished_at is not None) == (JobState.SKIPPED, True)
    with pytest.raises(NotFoundError, match="no job 99"):
        queue.submit(Request("gc", needs={99: Until.DONE}))


def test_a_call_with_one_wrong_job_queues_none(queue: JobQueue) -> None:
    with pytest.raises(NotFoundError):
        queue.submit_all([Request("gc"), Request("gc", needs={99: Until.DONE})])
    assert queue.jobs() == []


def test_cancel_ends_what_waits_at_once_and_asks_what_runs(queue: JobQueue, clock: Clock) -> None:
    first, second = queue.submit_all([Request("gc", name="a"), Request("gc", name="b", needs={"a": Until.DONE})])
    job = claim(queue)
    clock.now += 1
    asked = queue.cancel(first.id)
    assert (asked.state, asked.stop, asked.stop_at) == (JobState.STOPPING, "cancel", clock.now)
    clock.now += 1
    forced = queue.cancel(first.id, force=True)
    assert (forced.stop, forced.stop_at) == ("force", clock.now)
    ended = end(queue, job, "stopped")
    assert (ended.state, states(queue)["b"]) == (JobState.CANCELLED, "skipped")
    with pytest.raises(ConflictError, match="it is cancelled"):
        queue.cancel(first.id)
    third = queue.submit(Request("gc"))
    assert queue.cancel(third.id, by="mia").error == "It was cancelled by mia."
    queue.retry(first.id)
    assert queue.get(second.id).state is JobState.WAITING


def test_what_finishes_while_it_is_asked_to_stop_is_done(queue: JobQueue) -> None:
    job = queue.submit(Request("gc"))
    claim(queue)
    queue.cancel(job.id)
    assert queue.finish(job.id, 1, Ending("done", result=1)).state is JobState.DONE
    with pytest.raises(ConflictError, match="is done"):
        queue.retry(job.id)


def test_a_retried_job_keeps_its_place_and_gets_new_attempts(queue: JobQueue, clock: Clock) -> None:
    job = queue.submit(Request("gc", max_attempts=1))
    end(queue, claim(queue), "failed", error="no")
    clock.now += 100
    queue.submit(Request("gc", name="later"))
    again = queue.retry(job.id, attempts=2)
    assert (again.max_attempts, again.error, again.finished_at) == (3, None, None)
    with pytest.raises(ConflictError, match="has not ended"):
        queue.retry(job.id)
    assert claim(queue).id == job.id


def test_hours_in_which_nobody_spoke_for_a_job_are_not_its_time(queue: JobQueue, clock: Clock) -> None:
    queue.submit(Request("gc", time_s=1000.0))
    job = claim(queue)
    clock.now += 10
    queue.beat([(job.id, 1)])
    clock.now += 9 * 3600
    lost = queue.lose(job)
    assert lost is not None
    assert (lost.state, lost.spent_s) == (JobState.QUEUED, 10 + queue.lease_s)
    clock.now = lost.ready_at
    again = claim(queue)
    assert again.left_s(clock.now) == 1000.0 - 10 - queue.lease_s
    assert queue.attempts(job.id)[0].finished_at == job.started_at + 10 + queue.lease_s


def test_a_lease_that_is_over_loses_the_attempt_unless_somebody_speaks(queue: JobQueue, clock: Clock) -> None:
    queue.submit(Request("gc", max_attempts=2))
    job = claim(queue)
    assert queue.expired() == []
    assert queue.lose(job) is None
    clock.now += queue.lease_s + 1
    assert [j.id for j in queue.expired()] == [job.id]
    queue.beat([(job.id, 1)])
    assert queue.lose(job) is None
    clock.now += queue.lease_s + 1
    lost = queue.lose(job)
    assert lost is not None
    assert (lost.state, lost.attempt) == (JobState.QUEUED, 1)
    assert queue.lose(job) is None
    clock.now += 5
    job = claim(queue, "v")
    assert queue.beat([(job.id, 1), (job.id, 2)]).keys() == {job.id}
    clock.now += queue.lease_s + 1
    final = queue.lose(job)
    assert final is not None
    assert final.state is JobState.LOST
    assert [a.outcome for a in queue.attempts(job.id)] == ["lost", "lost"]


def test_a_job_has_one_worker_also_when_two_want_to_adopt_it(queue: JobQueue) -> None:
    queue.submit(Request("gc"))
    job = claim(queue)
    assert queue.adopt(job, "v") is not None
    assert queue.adopt(job, "u") is None
    assert queue.get(job.id).worker == "v"
    assert [j.id for j in queue.held(host="here")] == [job.id]
    assert queue.held(host="there") == []


def test_a_worker_takes_what_it_can_run_and_has_room_for(queue: JobQueue) -> None:
    queue.submit(Request("other", name="unknown"))
    queue.submit(Request("gc", name="wide", cpus=65))
    queue.submit(Request("gc", name="big", memory_bytes=65 * GB))
    queue.submit(Request("gc", name="device", devices=1, device_bytes=10 * GB))
    queue.submit(Request("gc", name="fits"))
    assert claim(queue).name == "fits"
    assert not queue.anything_for(worker())
    job = queue.claim(worker("d", devices=(8, 12)))
    assert job is not None
    assert (job.name, job.held) == ("device", ("cuda:1",))
    queue.submit(Request("gc", name="second", devices=1, device_bytes=10 * GB))
    assert queue.claim(worker("e", devices=(8, 12))) is None, "another worker of the machine holds the device"
    elsewhere = queue.claim(worker("f", host="there", devices=(8, 12)))
    assert elsewhere is not None


def test_quotas_bound_what_an_owner_has(queue: JobQueue) -> None:
    queue.set_quota("mia", Quota(running=1, queued=3))
    queue.set_quota(EVERYBODY, Quota(running=2))
    queue.submit_all([Request("gc", owner="mia")] * 3)
    with pytest.raises(OptionError, match="mia may have 3 jobs waiting; there are 3"):
        queue.submit(Request("gc", owner="mia"))
    queue.submit_all([Request("gc", owner="ben")] * 3)
    owners = []
    while (job := queue.claim(worker())) is not None:
        owners.append(job.owner)
    assert sorted(owners) == ["ben", "ben", "mia"]
    queue.set_quota("ben", Quota())
    assert claim(queue).owner == "ben"
    queue.set_quota("mia", None)
    assert claim(queue).owner == "mia"
    assert queue.claim(worker()) is None, "two of mia's run: the quota of everybody holds again"
    assert queue.quotas() == {EVERYBODY: Quota(running=2), "ben": Quota()}


def test_an_owner_whose_quota_is_none_runs_nothing(queue: JobQueue) -> None:
    queue.set_quota(EVERYBODY, Quota(running=0))
    queue.submit(Request("gc", owner="mia"))
    assert queue.claim(worker()) is None


def test_a_time_budget_is_for_all_attempts_together(queue: JobQueue, clock: Clock) -> None:
    queue.submit(Request("gc", time_s=30.0))
    job = claim(queue)
    clock.now += 20
    assert end(queue, job, "failed", error="x").spent_s == 20.0
    clock.now += 100
    job = claim(queue)
    clock.now += 9
    assert job.left_s(clock.now) == pytest.approx(1.0)
    clock.now += 2
    assert queue.stop(job.id, job.attempt, "time")
    assert not queue.stop(job.id, job.attempt, "time")
    ended = end(queue, job, "stopped")
    assert (ended.state, ended.error) == (JobState.FAILED, "Its time of 30 s is over.")


def test_lists_are_filtered_and_newest_first(queue: JobQueue) -> None:
    queue.submit_all([Request("gc", owner="mia"), Request("fit", owner="ben"), Request("gc", owner="ben")])
    queue.cancel(1)
    assert [j.id for j in queue.jobs()] == [3, 2, 1]
    assert [j.id for j in queue.jobs(owner="ben", kind="gc")] == [3]
    assert [j.id for j in queue.jobs(states=[JobState.CANCELLED])] == [1]
    assert [j.id for j in queue.jobs(limit=1)] == [3]
    assert queue.position(queue.get(1)) is None
