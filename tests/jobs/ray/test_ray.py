"""The laws of executors on a real Ray: one node first, then two of which one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.ray.test_executor import pids, reading

from tidemill.core.protocols import Executor, Step
from tidemill.jobs._memory import family
from tidemill.jobs.executors.pool import pickled
from tidemill.jobs.executors.ray.cluster import Cluster, connect
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.testing.executor import ForcefulExecutorSuite, alive, collect, only, step, wait_until_dead
from tidemill.testing.steps import begin_again, echo, environment, identify, pause

PRELOAD = ("tidemill.testing.steps",)
ABSENT = "Ray is not installed: pip install 'tidemill[ray]'"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of Ray and what it brings along
]


@pytest.fixture(scope="module")
def one_node() -> Iterator[Cluster]:
    """A Ray of this machine with two cores."""
    pytest.importorskip("ray", reason=ABSENT)
    with connect("local", cores=2) as cluster:
        yield cluster


def parent(pid: int) -> int:
    """The process that started another."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def warm(executor: RayExecutor) -> None:
    """Wait until every worker has loaded its modules, so that seconds can be counted."""
    first = Step("tidemill.testing.steps:echo")
    executor._ray.get([seat.actor.run.remote(-1, first, pickled(first), []) for seat in executor._seats])


class TestRay(ForcefulExecutorSuite):
    @pytest.fixture
    def executor(self, one_node: Cluster) -> Iterator[Executor]:
        with RayExecutor(one_node, preload=PRELOAD) as executor:
            warm(executor)
            yield executor

    def test_it_has_a_worker_for_each_core(self, executor: Executor) -> None:
        assert executor.capacity == 2

    def test_a_step_of_a_killed_worker_runs_again(self, executor: Executor, tmp_path: Path) -> None:
        executor.submit(step(begin_again, path=str(tmp_path / "pids")))
        assert executor.wait(0.1) == []
        [pid] = pids(tmp_path / "pids", 1)
        worker = parent(parent(pid))  # step, host, worker of Ray
        os.kill(worker, 9)
        wait_until_dead([pid])
        assert only(executor).value == 2

    def test_closing_leaves_no_process(self, executor: Executor) -> None:
        executor.submit(step(identify))
        executor.submit(step(pause, seconds=30.0))
        only(executor)
        hosts = [pid for pid in family(os.getpid()) if "tidemill.jobs.zygote" in command(pid)]
        assert len(hosts) >= 2
        executor.close()
        wait_until_dead(hosts)


def command(pid: int) -> str:
    """The words that a process was started with."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@pytest.fixture
def two_nodes(one_node_is_over: None) -> Iterator[tuple[Any, Any]]:
    """A cluster with a head and one more node, with one core each; the other one has a GPU that is none."""
    pytest.importorskip("ray", reason=ABSENT)
    from ray.cluster_utils import Cluster as Local

    made = Local(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield made, made.add_node(num_cpus=1, num_gpus=1)
    finally:
        made.shutdown()


@pytest.fixture
def one_node_is_over() -> None:
    """One process has one Ray."""
    ray = pytest.importorskip("ray", reason=ABSENT)
    if ray.is_initialized():
        ray.shutdown()


def test_two_nodes_share_the_steps_and_their_files(two_nodes: tuple[Any, Any], tmp_path: Path) -> None:
    local, _ = two_nodes
    source = tmp_path / "x.npy"
    source.write_bytes(b"rows" * 10**6)
    with connect(local.address) as cluster:
        assert (cluster.room(1), cluster.gpus) == (2, 1)
        with RayExecutor(cluster, preload=PRELOAD) as executor:
            assert len(executor.nodes) == 2
            for _ in range(6):
                executor.submit(reading(source))
                executor.submit(step(pause, seconds=0.2))
            outcomes = [o for t, o in collect(executor, 12).items() if t % 2 == 0]
            assert all(o.value[2] == [source.read_bytes()] for o in outcomes)
            places = {o.value[0] for o in outcomes}
            assert len(places) == 2
            assert str(source) in places
        (copy,) = places - {str(source)}
        assert not Path(copy).exists()
        with RayExecutor(cluster, preload=PRELOAD, gpus=1) as executor:
            assert executor.capacity == 1
            executor.submit(step(environment, name="CUDA_VISIBLE_DEVICES"))
            assert only(executor).value == "0"


def test_a_killed_node_loses_no_step(two_nodes: tuple[Any, Any], tmp_path: Path) -> None:
    local, other = two_nodes
    with connect(local.address) as cluster, RayExecutor(cluster, preload=PRELOAD) as executor:
        assert len(executor.nodes) == 2
        for number in range(2):
            executor.submit(step(begin_again, path=str(tmp_path / str(number))))
        running = [pids(tmp_path / str(number), 1)[0] for number in range(2)]
        for _ in range(4):
            executor.submit(step(echo, value="waited"))
        began = time.monotonic()
        local.remove_node(other, allow_graceful=False)
        # The other step still waits on the node that lives: what runs again there comes behind it, so end it.
        while executor.capacity == 2 and time.monotonic() - began < 60:
            executor.wait(0.5)
        (survivor,) = [number for number, pid in enumerate(running) if alive([pid])]
        executor.cancel(survivor)
        found = collect(executor, 5, 60.0)
        assert found[1 - survivor].value == 2
        assert [found[n].value for n in range(2, 6)] == ["waited"] * 4


PROGRAM = """
import sys
from tidemill.jobs.executors.ray.cluster import connect
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.testing.executor import step
from tidemill.testing.steps import begin_again
with connect("local", cores=1) as cluster, RayExecutor(cluster, preload=("tidemill.testing.steps",)) as executor:
    executor.submit(step(begin_again, path=sys.argv[1]))
    print("submitted", flush=True)
    try:
        executor.wait()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def start_program(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int], list[int]]:
    """Run a program with a step that waits; return it with the step and its host. What is of Ray goes when it likes."""
    pytest.importorskip("ray", reason=ABSENT)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    program = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "pids")], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    steps = pids(tmp_path / "pids", 1, 120.0)
    return program, steps, [pid for pid in family(program.pid) if "tidemill.jobs.zygote" in command(pid)]


def test_nothing_is_left_of_a_killed_program(tmp_path: Path) -> None:
    program, steps, hosts = start_program(tmp_path)
    program.kill()
    assert program.communicate(timeout=30)[0] == "submitted\n"
    assert hosts
    wait_until_dead([*steps, *hosts], 60.0)


def test_ctrl_c_reaches_the_program_alone(tmp_path: Path) -> None:
    program, steps, hosts = start_program(tmp_path)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    assert program.communicate(timeout=60)[0] == "submitted\ninterrupted\n"
    assert program.returncode == 0
    assert hosts
    wait_until_dead([*steps, *hosts], 60.0)
