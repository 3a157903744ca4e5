"""The laws of the queue that need no database."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs.queue.conftest import GB, worker

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.jobs.queue import rules
from tidemill.jobs.queue.graph import in_order
from tidemill.jobs.queue.types import ENDED, Ending, Job, JobState, Request, Until

STATES = st.sampled_from(list(JobState))
UNTIL = st.sampled_from(list(Until))


def job(number: int = 1, **changes: object) -> Job:
    fresh = Job(
        id=number, name="fit", kind="fit", arguments={}, owner="mia", state=JobState.QUEUED, priority=0, turn=0.0,
        ready_at=0.0, cpus=1, memory_bytes=0, devices=0, device_bytes=0, time_s=None, max_attempts=3, attempt=1,
        spent_s=0.0, worker="", host="", pid=None, mark="", held=(), lease_until=0.0, stop="", stop_at=None,
        submitted_at=0.0, started_at=None, finished_at=None, progress={}, result=None, error=None,
    )  # fmt: skip
    return dataclasses.replace(fresh, **changes)  # type: ignore[arg-type]  # any field by name


def running(number: int, by: str = "w", host: str = "here", **changes: object) -> Job:
    return job(number, state=JobState.RUNNING, worker=by, host=host, started_at=0.0, **changes)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.floats(0, 1e9), st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_order_of_two_jobs_is_that_of_priority_plus_age_at_any_time(
    first: int, second: int, came: float, later: float, now: float
) -> None:
    def weight(priority: int, submitted: float) -> float:
        return priority + (came + later + now - submitted) / rules.AGE_S

    apart = weight(first, came) - weight(second, came + later)
    if abs(apart) > 1e-4:
        assert (rules.turn(first, came) < rules.turn(second, came + later)) == (apart > 0)


@given(st.integers(1, 10_000))
def test_pauses_grow_up_to_a_bound(attempt: int) -> None:
    assert rules.FIRST_PAUSE_S <= rules.pause_s(attempt) <= rules.pause_s(attempt + 1) <= rules.MOST_PAUSE_S


@given(st.lists(st.tuples(STATES, UNTIL)))
def test_a_job_is_ready_where_all_it_needs_is_met_and_skipped_where_something_never_will(
    needs: list[tuple[JobState, Until]],
) -> None:
    met = [state is JobState.DONE or (until is Until.ENDED and state in ENDED) for state, until in needs]
    never = [until is Until.DONE and state in ENDED and state is not JobState.DONE for state, until in needs]
    expected = JobState.SKIPPED if any(never) else JobState.QUEUED if all(met) else JobState.WAITING
    assert rules.readiness(needs) is expected


OUTCOMES = st.sampled_from(["done", "failed", "died", "stopped", "lost"])


@given(OUTCOMES, st.sampled_from(["", "cancel", "force", "time"]), st.booleans(), st.integers(1, 4), st.integers(1, 4))
def test_an_attempt_ends_a_job_or_lets_it_be_tried_again(
    outcome: str, stop: str, hopeless: bool, attempt: int, most: int
) -> None:
    had = running(1, attempt=attempt, max_attempts=most, stop=stop)
    verdict = rules.after(had, Ending(outcome, error="x", hopeless=hopeless), 50.0)
    again = outcome != "done" and not stop and not hopeless and attempt < most
    assert (verdict.state is JobState.QUEUED) == again
    assert again or verdict.state in ENDED
    assert (verdict.state is JobState.DONE) == (outcome == "done")
    if again:
        assert verdict.ready_at == 50.0 + rules.pause_s(attempt)


def test_a_job_whose_time_is_over_is_not_tried_again() -> None:
    verdict = rules.after(running(1, time_s=60.0, spent_s=30.0), Ending("died"), 31.0)
    assert (verdict.state, verdict.error) == (JobState.FAILED, "Its time of 60 s is over.")
    assert rules.after(running(1, time_s=60.0, spent_s=30.0), Ending("died"), 29.0).state is JobState.QUEUED


def test_time_in_which_nobody_spoke_for_an_attempt_is_not_the_jobs() -> None:
    verdict = rules.after(running(1, time_s=60.0), Ending("lost", at=40.0), 9000.0)
    assert verdict.state is JobState.QUEUED
    assert (verdict.ready_at or 0.0) > 9000.0
    assert rules.after(running(1, time_s=60.0), Ending("lost", at=70.0), 9000.0).state is JobState.FAILED


def test_what_was_lost_for_the_last_time_stays_lost() -> None:
    assert rules.after(running(1, attempt=3), Ending("lost"), 0.0).state is JobState.LOST


# ---------------------------------------------------------------------------------------------------------- resources


def test_a_worker_counts_its_own_jobs_and_shares_the_devices_of_its_machine() -> None:
    by = worker("w", cpus=4, memory_bytes=8 * GB, devices=(10, 10))
    others = [
        running(1, cpus=2, memory_bytes=3 * GB, devices=1, device_bytes=4 * GB, held=("cuda:0",)),
        running(2, by="v", cpus=1, devices=1, device_bytes=2 * GB, held=("cuda:0",)),
        running(3, by="u", host="there", devices=1, device_bytes=9 * GB, held=("cuda:1",)),
        running(4, by="v", devices=1, held=("cuda:1",)),
        job(5, held=("cuda:0",)),
    ]
    left = rules.room(by, others)
    assert (left.cpus, left.memory_bytes) == (2, 5 * GB)
    assert left.devices == {"cuda:0": 3 * GB, "cuda:1": 0}
    idle = rules.room(by, others, idle=True)
    assert (idle.cpus, idle.devices["cuda:0"]) == (4, 7 * GB)


def test_small_jobs_are_packed_and_a_whole_device_is_kept_for_large_ones() -> None:
    by = worker(devices=(10, 10))
    busy = [running(1, devices=1, device_bytes=3 * GB, held=("cuda:1",))]
    left = rules.room(by, busy)
    assert rules.place(job(2, devices=1, device_bytes=6 * GB), left, by.capacity.devices) == ("cuda:1",)
    assert rules.place(job(3, devices=1), left, by.capacity.devices) == ("cuda:0",)
    assert rules.place(job(4, devices=2, device_bytes=GB), left, by.capacity.devices) == ("cuda:1", "cuda:0")
    assert rules.place(job(5, devices=2), left, by.capacity.devices) is None
    assert rules.place(job(6), left, by.capacity.devices) == ()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 8), st.integers(0, 2), st.integers(0, 12)), max_size=20))
def test_what_is_placed_never_holds_more_than_there_is(wishes: list[tuple[int, int, int, int]]) -> None:
    by = worker(cpus=6, memory_bytes=20 * GB, devices=(10, 16))
    held: list[Job] = []
    for number, (cpus, memory, devices, each) in enumerate(wishes):
        wish = job(number, cpus=cpus, memory_bytes=memory * GB, devices=devices, device_bytes=each * GB * bool(devices))
        chosen = rules.choose([wish], by, held, 0.0)
        if chosen is not None:
            held.append(dataclasses.replace(wish, state=JobState.RUNNING, worker="w", host="here", held=chosen[1]))
    left = rules.room(by, held)
    assert min(left.cpus, left.memory_bytes, *left.devices.values()) >= 0
    for device in by.capacity.devices:
        alone = [one for one in held if device.name in one.held and one.device_bytes == 0]
        assert not alone or sum(device.name in one.held for one in held) == 1


def test_a_small_job_overtakes_a_large_one_for_a_while_only() -> None:
    by = worker(cpus=4)
    busy = [running(1, cpus=2)]
    line = [job(2, cpus=4, ready_at=0.0), job(3, cpus=1, ready_at=0.0)]
    early = rules.choose(line, by, busy, rules.PATIENCE_S - 1)
    assert early is not None
    assert early[0].id == 3
    assert rules.choose(line, by, busy, rules.PATIENCE_S + 1) is None
    late = rules.choose(line, by, [], rules.PATIENCE_S + 1)
    assert late is not None
    assert late[0].id == 2


def test_nothing_is_held_back_for_a_job_that_others_keep_out() -> None:
    by = worker(devices=(10,))
    others = [running(1, by="v", devices=1, held=("cuda:0",))]
    line = [job(2, devices=1, ready_at=0.0), job(3, ready_at=0.0)]
    chosen = rules.choose(line, by, others, 10 * rules.PATIENCE_S)
    assert chosen is not None
    assert chosen[0].id == 3


# -------------------------------------------------------------------------------------------------------------- graphs


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_job_comes_after_what_it_needs(size: int, chance: object) -> None:
    needs = {i: [j for j in range(i) if chance.random() < 0.3] for i in range(size)}  # type: ignore[attr-defined]  # random.Random
    places = list(range(size))
    chance.shuffle(places)  # type: ignore[attr-defined]  # random.Random
    requests = [Request("gc", name=f"j{i}", needs={f"j{j}": Until.DONE for j in needs[i]}) for i in places]
    order = in_order(requests)
    assert sorted(order) == list(range(size))
    rank = {requests[place].name: n for n, place in enumerate(order)}
    assert all(rank[f"j{j}"] < rank[f"j{i}"] for i in range(size) for j in needs[i])


def test_a_ring_a_stranger_and_a_double_name_are_refused() -> None:
    ring = [Request("gc", name="a", needs={"b": Until.DONE}), Request("gc", name="b", needs={"a": Until.DONE})]
    with pytest.raises(OptionError, match="wait for each other: a, b"):
        in_order(ring)
    with pytest.raises(NotFoundError, match="Did you mean 'load'"):
        in_order([Request("gc", name="load"), Request("gc", name="x", needs={"laod": Until.DONE})])
    with pytest.raises(OptionError, match="Two jobs are called 'a'"):
        in_order([Request("gc", name="a"), Request("fit", name="a"), Request("gc", name="b", needs={"a": Until.DONE})])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": ""}, "its kind must be"),
        ({"priority": 1001}, "priority must lie"),
        ({"cpus": -1}, "needs cores"),
        ({"memory_bytes": -1}, "must not be negative"),
        ({"device_bytes": 5}, "needs a device"),
        ({"time_s": float("inf")}, "time must be positive"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Request(**{"kind": "gc", **changes})  # type: ignore[arg-type]  # any field by name


def test_a_job_for_all_cores_waits_for_an_idle_worker_and_leaves_none() -> None:
    by = worker(cpus=4)
    everything, small = job(1, cpus=0), job(2, cpus=1)
    chosen = rules.choose([everything, small], by, [], 0.0)
    assert chosen is not None
    assert chosen[0].id == 1
    busy = [running(3, cpus=1)]
    chosen = rules.choose([everything, small], by, busy, 0.0)
    assert chosen is not None
    assert chosen[0].id == 2
    assert rules.choose([everything, small], by, busy, rules.PATIENCE_S + 1) is None, "it is not overtaken for ever"
    assert rules.choose([small], by, [running(3, cpus=0)], 0.0) is None
