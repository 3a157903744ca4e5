"""Keeps programs running: starts them, starts again what dies, ends them in order.

Fronts outlive a supervisor that is killed: they need nothing of it. Which programs it started stands in a file, so that
the next supervisor of the workspace starts its own, lets them become ready, and only then ends the orphans, which
answer what is under way first.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tidemill.core.errors import WorkspaceError

FIRST_WAIT_S = 0.2
MOST_WAIT_S = 10.0
STEADY_S = 30.0
"""A program that ran so long is started again without a growing wait."""


@dataclass(frozen=True)
class Program:
    """A program to keep running.

    Parameters
    ----------
    name : str
        Its own among all.
    command : tuple of str
        What to run; it says in one line of JSON on standard output that it is ready.
    alone : bool
        True for one of which no second may run beside it: an orphan is ended before it is started.
    fds : tuple of int
        Open files that are handed over.
    """

    name: str
    command: tuple[str, ...]
    alone: bool = False
    fds: tuple[int, ...] = ()


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    ready: threading.Event = field(default_factory=threading.Event)


class Supervisor:
    """Keeps programs running; used from one thread.

    Parameters
    ----------
    programs : sequence of Program
        What to run.
    file : Path
        Where it stands which processes run.
    tell : callable
        Gets ``(name, what, facts)`` for people: ``started``, ``ready``, ``ended``, ``adopted``.
    drain_s : float
        How long a program may take to end before it is killed.
    environment : mapping, optional
        Variables for the programs in place of this process's own.

    Raises
    ------
    WorkspaceError
        Where another supervisor runs with the same file.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        file: Path,
        tell: Callable[[str, str, Mapping[str, Any]], None],
        *,
        drain_s: float = 40.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._running = [_Running(p) for p in programs]
        self._file = file
        self._hear = tell
        self._drain_s = drain_s
        self._environment = environment
        self._orphans = find_orphans(file)
        for name, process in self._orphans.items():
            self._tell(name, "adopted", {"pid": process.pid})

    def run(self, stop: threading.Event, *, every_s: float = 0.1, beat: Callable[[], None] | None = None) -> None:
        """Run until told to stop, then end everything in order.

        Parameters
        ----------
        stop : threading.Event
            Ends it.
        every_s : float
            How often it looks.
        beat : callable, optional
            Called at every look; its errors are its own affair.
        """
        try:
            while not stop.is_set():
                self.look()
                if beat is not None:
                    beat()
                stop.wait(every_s)
        finally:
            self.end()

    def look(self) -> None:
        """Start what should run and does not; end the orphans once their successors are ready."""
        now = time.monotonic()
        for one in self._running:
            if one.process is not None and (code := one.process.poll()) is not None:
                self._died(one, code, now)
            if one.process is None and now >= one.due:
                self._start(one, now)
        if self._orphans and all(one.ready.is_set() for one in self._running):
            for process in self._orphans.values():
                _end(process)
            self._orphans = {}
            self._note()

    @property
    def ready(self) -> bool:
        """True where every program runs and is ready."""
        return all(one.ready.is_set() for one in self._running)

    def end(self) -> None:
        """Ask all programs to end, wait until they have, and kill what does not."""
        processes = [one.process for one in self._running if one.process is not None]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + self._drain_s
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for orphan in self._orphans.values():
            _end(orphan)
        self._file.unlink(missing_ok=True)

    def _tell(self, name: str, what: str, facts: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # whoever listened is gone: no reason to stop serving
            self._hear(name, what, facts)

    def _start(self, one: _Running, now: float) -> None:
        program = one.program
        if program.alone and (orphan := self._orphans.pop(program.name, None)) is not None:
            _end(orphan)
            with contextlib.suppress(psutil.TimeoutExpired):
                orphan.wait(5)
        one.ready = threading.Event()
        one.started = now
        # A session of its own: Ctrl-C reaches the supervisor alone, which then ends the others in order.
        one.process = subprocess.Popen(
            program.command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True,
            pass_fds=program.fds, env=None if self._environment is None else dict(self._environment),
        )  # fmt: skip
        self._tell(program.name, "started", {"pid": one.process.pid})
        threading.Thread(target=self._listen, args=(one, one.process, one.ready), daemon=True).start()
        self._note()

    def _listen(self, one: _Running, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    facts = json.loads(line)
                    if isinstance(facts, dict):
                        ready.set()
                        self._tell(one.program.name, "ready", facts)

    def _died(self, one: _Running, code: int, now: float) -> None:
        one.process = None
        one.ready = threading.Event()
        one.deaths = 0 if now - one.started > STEADY_S else one.deaths + 1
        wait = min(MOST_WAIT_S, FIRST_WAIT_S * 2 ** max(0, one.deaths - 1))
        one.due = now + wait
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._tell(one.program.name, "ended", {"why": why, "again_s": wait})

    def _note(self) -> None:
        """Write which processes run, so that a successor finds them."""
        mine = {one.program.name: one.process.pid for one in self._running if one.process is not None}
        held = {**{n: p.pid for n, p in self._orphans.items()}, **mine}
        facts = {"supervisor": _mark(os.getpid()), "programs": {n: _mark(pid) for n, pid in held.items()}}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        temporary.replace(self._file)


def find_orphans(file: Path) -> dict[str, psutil.Process]:
    """Programs of a supervisor that was killed, which still run, by name.

    Raises
    ------
    WorkspaceError
        Where the supervisor runs, too.
    """
    try:
        facts = json.loads(file.read_bytes())
        other, programs = facts["supervisor"], dict(facts["programs"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if _find(other) is not None:
        raise WorkspaceError(
            f"A platform runs on this workspace already (process {other['pid']}).", hint="End it first."
        )
    return {name: process for name, mark in programs.items() if (process := _find(mark)) is not None}


def _mark(pid: int) -> dict[str, Any]:
    """What tells a process from another one that gets its number later."""
    try:
        return {"pid": pid, "since": _born(pid), "boot": _boot()}
    except psutil.NoSuchProcess:
        return {"pid": pid, "since": 0.0, "boot": _boot()}


def _born(pid: int) -> float:
    """When a process began, on a clock that nobody sets: were it the time of day, a clock that jumps would hide it."""
    try:
        # Ticks since the machine started: the 22nd field, of which two stand before the name's end.
        return float(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return psutil.Process(pid).create_time()  # no such process, or another system than Linux


def _boot() -> str:
    """What tells this start of the machine from the one before; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _find(mark: Mapping[str, Any]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(mark["pid"]))
        same = abs(_born(process.pid) - float(mark["since"])) < 1.0 and mark.get("boot", "") == _boot()
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return None


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
