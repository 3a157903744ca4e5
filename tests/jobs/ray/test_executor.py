"""What the executor does with workers that come, go and are lost; on a Ray of threads, with real steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.ray.conftest import FakeNode, FakeRay

from tidemill.core.errors import InternalError, OptionError, TrialError
from tidemill.core.protocols import Executor, Step
from tidemill.jobs.executors.ray import executor as module
from tidemill.jobs.executors.ray import host
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.testing.executor import ForcefulExecutorSuite, collect, occupy, only, step, wait_until_dead
from tidemill.testing.steps import begin_again, echo, environment, pause

PRELOAD = ("tidemill.testing.steps",)


class TestOnThreads(ForcefulExecutorSuite):
    """The laws hold without Ray's help; `test_ray` asks the same of Ray."""

    @pytest.fixture
    def executor(self, fake_cluster: Cluster) -> Iterator[Executor]:
        with RayExecutor(fake_cluster, preload=PRELOAD) as executor:
            yield executor


@pytest.fixture
def executor(fake_cluster: Cluster) -> Iterator[RayExecutor]:
    with RayExecutor(fake_cluster, preload=PRELOAD) as executor:
        yield executor


def pids(path: Path, count: int, timeout_s: float = 60.0) -> list[int]:
    """Wait until a step has begun so often."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = path.read_text(encoding="ascii").split() if path.exists() else []
        if len(found) >= count:
            return [int(pid) for pid in found]
        time.sleep(0.02)
    raise AssertionError(f"the step has not begun {count} times")


def test_workers_are_on_both_nodes(executor: RayExecutor) -> None:
    assert executor.capacity == 2
    assert len(executor.nodes) == 2


def test_it_is_ready_when_the_modules_of_all_workers_are_loaded(
    executor: RayExecutor, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = {"there"}
    loaded = host._Sealed.ready

    def ready(self: Any, timeout_s: float | None = None) -> bool:
        return fake_ray.local.node.name not in loading and loaded(self, timeout_s)

    monkeypatch.setattr(host._Sealed, "ready", ready)
    assert not executor.ready(0.2)
    loading.clear()
    assert executor.ready(60.0)
    assert executor.ready(0.0)


def test_a_lost_worker_is_not_waited_for(executor: RayExecutor, fake_ray: FakeRay) -> None:
    fake_ray.actors[0].end("It crashed.")
    assert executor.ready(60.0)


def test_a_step_of_a_lost_node_runs_again_elsewhere(executor: RayExecutor, fake_ray: FakeRay, tmp_path: Path) -> None:
    ticket = executor.submit(step(begin_again, path=str(tmp_path / "pids")))
    executor.submit(step(pause, seconds=0.5, value="other"))
    [pid] = pids(tmp_path / "pids", 1)
    fake_ray.lose(next(a.node for a in fake_ray.actors if a.node is not None and a.held is not None and busy(a)))
    wait_until_dead([pid])
    found = collect(executor, 2)
    assert found[ticket].value == 2
    assert found[ticket + 1].value == "other"
    assert executor.capacity == 1


def busy(actor: Any) -> bool:
    """Whether the first step, which waits, runs on it."""
    return any(p.call.endswith(":begin_again") for p in actor.held._executor._pending.values())


def test_a_step_that_loses_its_worker_twice_has_failed(
    executor: RayExecutor, fake_ray: FakeRay, tmp_path: Path
) -> None:
    ticket = executor.submit(step(begin_again, path=str(tmp_path / "pids"), times=9))
    for count in (1, 2):
        pids(tmp_path / "pids", count)
        actor = next(a for a in fake_ray.actors if not a.dead and busy(a))
        actor.end("It ran out of memory.")
        fake_ray.seat()
        if count == 1:
            assert executor.wait(0.5) == []
    outcome = only(executor)
    assert outcome.ticket == ticket
    assert type(outcome.error) is TrialError
    assert "Twice the worker that ran it was lost, on" in str(outcome.error)
    assert "It ran out of memory." in str(outcome.error)
    executor.submit(step(echo, value=1))
    assert only(executor).value == 1


def test_a_lost_worker_is_asked_for_anew(executor: RayExecutor, fake_ray: FakeRay) -> None:
    fake_ray.actors[0].end("It crashed.")
    fake_ray.seat()
    executor.submit(step(echo))
    only(executor)
    collected = time.monotonic() + 60
    while executor.capacity < 2 and time.monotonic() < collected:
        executor.submit(step(echo))
        only(executor)
    assert executor.capacity == 2


def test_a_cluster_without_workers_is_given_up_after_a_while(
    executor: RayExecutor, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALONE_S", 0.3)
    monkeypatch.setattr(module, "_LOOK_S", 0.05)
    for node in list(fake_ray.cluster):
        fake_ray.lose(node)
    executor.submit(step(echo))
    error = only(executor).error
    assert type(error) is TrialError
    assert "No worker is left on the cluster" in str(error)
    assert "was lost: The actor is dead" in str(error)


def test_a_node_that_comes_takes_over(executor: RayExecutor, fake_ray: FakeRay, tmp_path: Path) -> None:
    for node in list(fake_ray.cluster):
        fake_ray.lose(node)
    executor.submit(step(echo, value="late"))
    assert executor.wait(0.1) == []
    fake_ray.cluster.append(FakeNode("new", 1))
    fake_ray.seat()
    assert only(executor).value == "late"
    assert len(executor.nodes) == 1


def test_workers_that_do_not_come_up_are_told(fake_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'tidemill'")

    monkeypatch.setattr(host, "_Sealed", broken)
    with pytest.raises(OptionError, match=r"A worker did not come up: .*No module named 'tidemill'"):
        RayExecutor(fake_cluster)


def test_a_busy_cluster_is_told(fake_cluster: Cluster, fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_S", 0.3)
    for node in fake_ray.cluster:
        node.used = 1
    with pytest.raises(OptionError, match=r"No worker \(1 core\) came up within"):
        RayExecutor(fake_cluster)
    assert all(actor.dead for actor in fake_ray.actors)


def test_an_error_of_the_worker_itself_fails_the_step(executor: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug of ours")

    monkeypatch.setattr(host.Host, "_run", broken)
    executor.submit(step(echo))
    error = only(executor).error
    assert type(error) is TrialError
    assert "failed: a bug of ours" in str(error)


def test_a_closed_executor_takes_nothing(fake_cluster: Cluster) -> None:
    executor = RayExecutor(fake_cluster)
    executor.close()
    assert executor.wait() == []
    executor.cancel(0)
    with pytest.raises(InternalError, match="closed"):
        executor.submit(step(echo))


# ------------------------------------------------------------------------------------------------------------- files


def reading(*paths: Path, text: str = "") -> Step:
    """A step that reads files of this machine."""
    names = [str(p) for p in paths]
    return Step("tidemill.testing.steps:read_places", {"text": text or names[0], "paths": names}, files=names)


@pytest.fixture
def two_files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "x.npy").write_bytes(b"rows")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "a").write_bytes(b"first")
    (tmp_path / "net" / "b").write_bytes(b"second")
    return tmp_path / "x.npy", tmp_path / "net"


def test_files_go_along_where_nodes_share_no_disk(
    executor: RayExecutor, fake_ray: FakeRay, two_files: tuple[Path, Path], tmp_path: Path
) -> None:
    occupy(executor, tmp_path).touch()
    collect(executor, 2)  # both have started: neither takes all that follows
    for _ in range(6):
        executor.submit(reading(*two_files))
        executor.submit(step(pause, seconds=0.1))
    outcomes = [o for o in collect(executor, 12).values() if o.value is not None]
    assert all(o.value[2] == [b"rows", b"first|second"] for o in outcomes)
    places = {tuple(o.value[1]) for o in outcomes}
    assert {o.value[0] for o in outcomes} == {place[0] for place in places}
    there = [place for place in places if place[0] != str(two_files[0])]
    assert len(there) == 1
    assert len(places) == 2  # on this node they are read where they lie
    assert fake_ray.puts == [b"rows", b"first", b"second"]
    assert all(Path(p).exists() for p in there[0])
    executor.close()
    assert not any(Path(p).exists() for p in there[0])


def test_a_relative_path_is_found_by_a_worker_that_stands_elsewhere(
    executor: RayExecutor, two_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_files[0].parent)
    for _ in range(2):
        executor.submit(reading(Path("x.npy")))
        executor.submit(step(pause, seconds=0.2))
    outcomes = [o for t, o in collect(executor, 4).items() if t % 2 == 0]
    assert all(Path(o.value[0]).is_absolute() and o.value[2] == [b"rows"] for o in outcomes)


def test_a_folder_for_leavings_is_the_node_s_own(executor: RayExecutor, fake_ray: FakeRay, tmp_path: Path) -> None:
    name = str(tmp_path / "cache")
    fake_ray.lose(fake_ray.cluster[0])
    executor.submit(Step("tidemill.testing.steps:echo", {"value": {"cache": name}}, scratch=(name,)))
    place = only(executor).value["cache"]
    assert place != name
    assert executor._arguments[0] in place  # in the folder that goes with the executor


def test_a_file_that_is_gone_fails_the_step_alone(executor: RayExecutor, fake_ray: FakeRay, tmp_path: Path) -> None:
    fake_ray.lose(fake_ray.cluster[0])  # this node has no worker, so files travel
    executor.submit(reading(tmp_path / "absent"))
    executor.submit(step(echo, value=1))
    found = collect(executor, 2)
    assert type(found[0].error) is TrialError
    assert "can't be sent to a node" in str(found[0].error)
    assert found[1].value == 1


def test_a_full_disk_on_a_node_fails_the_step_alone(
    executor: RayExecutor, fake_ray: FakeRay, two_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fake_ray.lose(fake_ray.cluster[0])
    monkeypatch.setattr(host.Folder, "place", full)
    executor.submit(reading(*two_files))
    error = only(executor).error
    assert type(error) is TrialError
    assert "No space left on device" in str(error)


def test_workers_have_the_threads_that_they_take(fake_ray: FakeRay, fake_cluster: Cluster) -> None:
    fake_ray.cluster.append(FakeNode("large", 4))
    with RayExecutor(fake_cluster, preload=PRELOAD, threads=2) as executor:
        executor.submit(step(environment, name="OMP_NUM_THREADS", limits={"threads": 2}))
        assert only(executor).value == "2"
        assert executor.capacity == 2


def test_no_more_workers_than_asked_for(fake_cluster: Cluster) -> None:
    with RayExecutor(fake_cluster, 1, PRELOAD) as executor:
        assert executor.capacity == 1


# --------------------------------------------------------------------------------------------------------- shared disk


@pytest.fixture
def disk(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Nodes that see the disk of this machine."""
    seeing = {"here", "there"}
    sees = host.Host.sees
    monkeypatch.setattr(host.Host, "sees", lambda self, mark: fake_ray.local.node.name in seeing and sees(self, mark))
    return seeing


def test_nodes_that_do_not_see_a_folder_are_named(executor: RayExecutor, disk: set[str], tmp_path: Path) -> None:
    assert executor.blind(tmp_path / "rungs") == []
    disk.remove("there")
    [name] = executor.blind(tmp_path / "rungs")
    assert name.endswith("(there)")
    assert list((tmp_path / "rungs").iterdir()) == []
    with pytest.raises(OptionError, match=rf"The folder {tmp_path} is not seen by .*\(there\), and steps go on there"):
        executor.require(tmp_path)


def test_a_worker_that_sees_the_folder_no_more_is_let_go_and_its_step_is_not(
    executor: RayExecutor, fake_ray: FakeRay, disk: set[str], tmp_path: Path
) -> None:
    executor.require(tmp_path)
    disk.remove("there")
    for value in range(6):
        executor.submit(step(echo, value=value))
    found = collect(executor, 6)
    assert {ticket: outcome.value for ticket, outcome in found.items()} == {n: n for n in range(6)}
    assert executor.nodes == [name for name in executor.nodes if name.endswith("(here)")] != []
    assert [actor.node.name for actor in fake_ray.actors if not actor.dead] == ["here"]
    executor.close()
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_sees_the_folder_steps_fail_with_the_reason(
    executor: RayExecutor, disk: set[str], tmp_path: Path
) -> None:
    executor.require(tmp_path)
    disk.clear()
    executor.submit(step(echo))
    error = only(executor).error
    assert type(error) is TrialError
    assert f"does not see the folder {tmp_path}" in str(error)
