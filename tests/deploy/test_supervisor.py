"""Programs are kept running, ended in order, and outlive a supervisor that is killed until its successor is ready."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tidemill.core.errors import WorkspaceError
from tidemill.deploy.supervisor import MOST_WAIT_S, Program, Supervisor, find_orphans

READY = 'echo \'{"url": "here"}\'; '
STAY = READY + "while true; do sleep 0.05; done"


class Heard:
    """What a supervisor told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Mapping[str, Any]]] = []

    def __call__(self, name: str, what: str, facts: Mapping[str, Any]) -> None:
        self.lines.append((name, what, facts))

    def of(self, what: str) -> list[Mapping[str, Any]]:
        return [facts for _, kind, facts in self.lines if kind == what]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def make(tmp_path: Path, heard: Heard) -> Iterator[Callable[..., Supervisor]]:
    """Make supervisors over one file; what they started is gone after the test."""
    made: list[Supervisor] = []

    def supervisor(*scripts: str, alone: bool = False, drain_s: float = 60.0) -> Supervisor:
        programs = [Program(f"p{n}", ("sh", "-c", s), alone=alone) for n, s in enumerate(scripts)]
        made.append(Supervisor(programs, tmp_path / "up.json", heard, drain_s=drain_s))
        return made[-1]

    yield supervisor
    for one in made:
        one.end()


def until(condition: Callable[[], object], supervisor: Supervisor, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        supervisor.look()
        time.sleep(0.01)


def test_a_program_that_dies_is_started_again(make: Callable[..., Supervisor], heard: Heard) -> None:
    supervisor = make(STAY)
    until(lambda: supervisor.ready, supervisor)
    first = heard.of("started")[0]["pid"]
    os.kill(first, signal.SIGKILL)
    until(lambda: len(heard.of("ready")) == 2, supervisor)
    assert heard.of("ended")[0]["why"] == "SIGKILL"
    assert heard.of("started")[1]["pid"] != first


def test_waits_grow_for_a_program_that_dies_at_once(
    make: Callable[..., Supervisor], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.deploy.supervisor.FIRST_WAIT_S", 0.01)
    supervisor = make("exit 3")
    until(lambda: len(heard.of("ended")) >= 6, supervisor)
    waits = [facts["again_s"] for facts in heard.of("ended")]
    assert waits[:6] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
    assert max(waits) <= MOST_WAIT_S
    assert heard.of("ended")[0]["why"] == "exit code 3"
    assert not supervisor.ready


def test_the_end_lets_programs_finish(make: Callable[..., Supervisor], heard: Heard, tmp_path: Path) -> None:
    mark = tmp_path / "finished"
    supervisor = make(f"trap 'sleep 0.2; echo x > {mark}; exit 0' TERM; " + STAY)
    until(lambda: supervisor.ready, supervisor)
    supervisor.end()
    assert mark.exists()
    assert not (tmp_path / "up.json").exists()


def test_the_end_kills_what_does_not_listen(make: Callable[..., Supervisor], heard: Heard) -> None:
    supervisor = make("trap '' TERM; " + STAY, drain_s=0.3)
    until(lambda: supervisor.ready, supervisor)
    supervisor.end()
    assert not psutil.pid_exists(heard.of("started")[0]["pid"])


def test_run_ends_with_its_event_and_beats_until_then(make: Callable[..., Supervisor], heard: Heard) -> None:
    supervisor, stop, beats = make(STAY), threading.Event(), []

    def beat() -> None:
        beats.append(supervisor.ready)
        if supervisor.ready:
            stop.set()

    supervisor.run(stop, every_s=0.01, beat=beat)
    assert beats[-1] is True
    assert not psutil.pid_exists(heard.of("started")[0]["pid"])


def orphaned(file: Path) -> None:
    """Write what a supervisor leaves that was killed: itself gone, its programs alive."""
    import json

    facts = json.loads(file.read_text())
    facts["supervisor"] = {"pid": 2**22 + 1, "since": 1.0}
    file.write_text(json.dumps(facts))


def test_orphans_serve_until_their_successors_are_ready(
    make: Callable[..., Supervisor], heard: Heard, tmp_path: Path
) -> None:
    first = make(STAY)
    until(lambda: first.ready, first)
    old = heard.of("started")[0]["pid"]
    orphaned(tmp_path / "up.json")

    gate = tmp_path / "gate"
    second = make(f"while [ ! -e {gate} ]; do sleep 0.02; done; " + STAY)
    until(lambda: len(heard.of("started")) == 2, second)
    for _ in range(20):
        second.look()
        time.sleep(0.01)
    assert psutil.Process(old).is_running()
    gate.touch()
    until(lambda: first._running[0].process is not None and first._running[0].process.poll() is not None, second)
    assert second.ready
    first._running[0].process = None  # it is gone; the first supervisor has nothing to end


def test_of_a_program_that_must_be_alone_the_orphan_ends_first(
    make: Callable[..., Supervisor], heard: Heard, tmp_path: Path
) -> None:
    first = make(STAY, alone=True)
    until(lambda: first.ready, first)
    process = first._running[0].process
    assert process is not None
    orphaned(tmp_path / "up.json")
    second = make(STAY, alone=True)
    reaper = threading.Thread(target=process.wait)  # as the system's first process does for orphans
    reaper.start()
    second.look()
    reaper.join(60)
    assert process.poll() is not None
    first._running[0].process = None


def test_a_second_supervisor_is_refused(make: Callable[..., Supervisor], tmp_path: Path) -> None:
    supervisor = make(STAY)
    until(lambda: supervisor.ready, supervisor)
    with pytest.raises(WorkspaceError, match="runs on this workspace already"):
        find_orphans(tmp_path / "up.json")


def test_a_number_that_another_process_has_now_is_no_orphan(tmp_path: Path) -> None:
    mark = f'{{"pid": {os.getpid()}, "since": 12.0}}'
    (tmp_path / "up.json").write_text(f'{{"supervisor": {mark}, "programs": {{"p": {mark}}}}}')
    assert find_orphans(tmp_path / "up.json") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"supervisor": 1}', '{"supervisor": {}, "programs": {"p": {}}}'])
def test_a_broken_file_names_no_orphans(tmp_path: Path, text: str) -> None:
    (tmp_path / "up.json").write_text(text)
    assert find_orphans(tmp_path / "up.json") == {}


def test_a_listener_that_is_gone_ends_nothing(tmp_path: Path, make: Callable[..., Supervisor]) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError

    supervisor = Supervisor([Program("p", ("sh", "-c", STAY))], tmp_path / "other.json", broken, drain_s=60.0)
    try:
        until(lambda: supervisor.ready, supervisor)
    finally:
        supervisor.end()


def test_a_clock_that_jumps_hides_no_orphan_and_no_other_platform(
    make: Callable[..., Supervisor], heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system derives the start of a process from the time of day, which somebody may set."""
    supervisor = make(STAY)
    until(lambda: supervisor.ready, supervisor)
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 3600.0)
    with pytest.raises(WorkspaceError, match="runs on this workspace already"):
        find_orphans(tmp_path / "up.json")
    orphaned(tmp_path / "up.json")
    assert find_orphans(tmp_path / "up.json")["p0"].pid == heard.of("started")[0]["pid"]
