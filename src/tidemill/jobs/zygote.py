"""The host of a process executor: loads modules once, forks a child for each step, and keeps the limits.

It is a program of its own (``main``), started by `tidemill.jobs.executors.pool.ProcessExecutor`. It has one thread,
so that forking is safe, and never computes. It ends, with all children, when the socket to its parent closes.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidemill.jobs._child import Inheritance, live
from tidemill.jobs._memory import children, family, held, held_at_most
from tidemill.jobs._wire import Cancel, Channel, Ended, Ready, Run, memory_file

TICK_S = 0.05  # how often memory is looked at
IDLE_S = 1.0  # how often an idle host looks whether its parent still lives
MOST_FILES = 8192
OUTPUT_BYTES = 2**14  # how much of a step's last output is kept
_PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Job:
    """A step that runs."""

    step: Run
    pid: int
    started: float
    result: int
    output: int
    tail: bytearray = field(default_factory=bytearray)
    killed: str | None = None
    used: float = 0.0
    peak_bytes: int = 0
    family: list[int] = field(default_factory=list)
    cancelled: bool = False

    @property
    def deadline(self) -> float:
        """When its time is over, on the monotonic clock."""
        return float("inf") if self.step.time_s is None else self.started + self.step.time_s


class Host:
    """The loop: take steps, fork, watch, reap, tell.

    Parameters
    ----------
    channel : Channel
        To the parent.
    workers : int
        Steps that run at the same time.
    threads : int
        Threads that the numeric libraries were loaded with.
    memory_bytes : int or None
        Limit for all running steps together.
    parent : int
        Process id of the parent.
    """

    def __init__(self, channel: Channel, workers: int, threads: int, memory_bytes: int | None, parent: int) -> None:
        self._channel = channel
        self._workers = workers
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._parent = parent
        self._queue: deque[tuple[Run, bytes]] = deque()
        self._jobs: dict[int, Job] = {}
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()

    def serve(self) -> None:
        """Work until the parent is gone."""
        # The parent sends it when it closes: while modules load it ends us, from here on the socket's end does.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # any handler: it makes the wake-up byte come
        self._selector.register(self._channel.socket, selectors.EVENT_READ)
        self._selector.register(self._alarm, selectors.EVENT_READ)
        self._channel.send(Ready())
        try:
            while os.getppid() == self._parent:
                self._turn()
        except (EOFError, BrokenPipeError):
            return
        finally:
            self._end_all()

    def _turn(self) -> None:
        self._channel.flush()
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._channel.waiting else 0)
        self._selector.modify(self._channel.socket, interest)
        for key, _ in self._selector.select(self._patience_s()):
            if isinstance(key.data, Job):
                self._read_output(key.data)
            elif key.fd == self._alarm.fileno():
                _drain(self._alarm)
                self._reap()
        self._take_messages()
        self._watch()
        while self._queue and len(self._jobs) < self._workers:
            self._start(*self._queue.popleft())

    def _patience_s(self) -> float:
        if not self._jobs:
            return IDLE_S
        nearest = min(job.deadline for job in self._jobs.values())
        return max(0.0, min(TICK_S, nearest - time.monotonic()))

    def _take_messages(self) -> None:
        while (received := self._channel.receive()) is not None:
            message, body = received
            if isinstance(message, Run):
                self._queue.append((message, body))
            elif isinstance(message, Cancel):
                self._queue = deque(item for item in self._queue if item[0].ticket != message.ticket)
                for job in self._jobs.values():
                    if job.step.ticket == message.ticket:
                        job.cancelled = True
                        _kill(job.pid)

    # -------------------------------------------------------------------------------------------------- begin and end

    def _start(self, step: Run, body: bytes) -> None:
        result = memory_file()
        output, output_end = os.pipe()
        others = [handle for job in self._jobs.values() for handle in (job.result, job.output) if handle >= 0]
        loop = [end.fileno() for end in (self._channel.socket, self._selector, self._alarm, self._bell)]
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            relearn = step.threads != self._threads
            live(Inheritance(host, body, result, output_end, [*others, *loop, output], step.threads, relearn))
        os.close(output_end)
        os.set_blocking(output, False)
        job = Job(step, pid, time.monotonic(), result, output)
        self._jobs[pid] = job
        self._selector.register(output, selectors.EVENT_READ, job)

    def _reap(self) -> None:
        for job in list(self._jobs.values()):
            if os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                _kill(job.pid)  # the rest of its group; the id can't be reused before it is reaped
                _, status, usage = os.wait4(job.pid, 0)
                self._finish(job, status, usage)
        # What a step started and left behind has become ours: end it where we saw whose it was.
        known = {pid for job in self._jobs.values() for pid in job.family}
        for pid in children(os.getpid()):
            if pid not in self._jobs and pid not in known:
                _kill(pid)
                os.waitpid(pid, os.WNOHANG)

    def _finish(self, job: Job, status: int, usage: resource.struct_rusage) -> None:
        wall_s = time.monotonic() - job.started
        for _ in range(4):  # what the pipe can hold, and no more: something may write to it still
            self._read_output(job)
        self._close_output(job)
        del self._jobs[job.pid]
        if job.cancelled:
            os.close(job.result)
            return
        code = os.waitstatus_to_exitcode(status)
        ended = Ended(
            ticket=job.step.ticket,
            status=code,
            killed=job.killed,
            used=job.used,
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_memory_bytes=max(job.peak_bytes, usage.ru_maxrss * 1024),
            output=job.tail.decode(errors="replace"),
        )
        if code == 0 and job.killed is None:
            self._channel.send(ended, job.result)
        else:
            os.close(job.result)
            self._channel.send(ended)
        self._channel.flush()

    def _end_all(self) -> None:
        for job in self._jobs.values():
            _kill(job.pid)
        for pid in family(os.getpid())[1:]:  # and what fled into a group of its own
            _kill(pid)

    # --------------------------------------------------------------------------------------------------------- watch

    def _watch(self) -> None:
        now = time.monotonic()
        running = [job for job in self._jobs.values() if job.killed is None and not job.cancelled]
        for job in running:
            if now >= job.deadline:
                self._end(job, "time", now - job.started)
            job.family = family(job.pid)
        at_most = {job.pid: held_at_most(job.family) for job in running}
        for job in running:
            job.peak_bytes = max(job.peak_bytes, at_most[job.pid])
            limit = job.step.memory_bytes
            if limit is not None and job.killed is None and at_most[job.pid] > limit:
                used = held(job.family)
                if used > limit:
                    self._end(job, "memory", used)
        # While one is being killed, its memory still counts: look again when it is gone.
        all_run = len(running) == len(self._jobs) and all(job.killed is None for job in running)
        if self._memory_bytes is not None and all_run and sum(at_most.values()) > self._memory_bytes:
            exact = {job.pid: held(job.family) for job in running}
            if sum(exact.values()) > self._memory_bytes:
                largest = max(running, key=lambda job: exact[job.pid])
                self._end(largest, "shared", exact[largest.pid])

    def _end(self, job: Job, why: str, used: float) -> None:
        job.killed = why
        job.used = used
        _kill(job.pid)

    def _read_output(self, job: Job) -> None:
        if job.output < 0:
            return
        try:
            data = os.read(job.output, 2**16)
        except BlockingIOError:
            return
        job.tail += data
        del job.tail[:-OUTPUT_BYTES]
        if not data:
            self._close_output(job)

    def _close_output(self, job: Job) -> None:
        if job.output >= 0:
            self._selector.unregister(job.output)
            os.close(job.output)
            job.output = -1


def _drain(end: socket.socket) -> None:
    try:
        while end.recv(4096):
            pass
    except BlockingIOError:
        return


def _kill(pid: int) -> None:
    """Kill a child, all of its group, and its descendants."""
    for one in family(pid):
        for kill in (os.killpg, os.kill):
            try:
                kill(one, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # gone, no group yet, or (a zombie's group) not ours
                continue


def main(arguments: Sequence[str]) -> None:
    """Run a host; the arguments are descriptor, parent's id, workers, threads, memory limit or 0, and the modules."""
    handle, parent, workers, threads, memory_bytes = map(int, arguments[:5])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of a step stay within reach
    channel = Channel(socket.socket(fileno=handle))
    for module in arguments[5:]:
        importlib.import_module(module)
    # Pages that no one writes stay shared: keep the collector from marking what was loaded.
    gc.disable()
    gc.collect()
    gc.freeze()
    sys.argv = ["tidemill-step"]
    # Large results that nobody has asked for yet are open files.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MOST_FILES) if most >= 0 else MOST_FILES, most))
    Host(channel, workers, threads, memory_bytes or None, parent).serve()
    os._exit(0)  # what the modules do at an exit was never meant for here
