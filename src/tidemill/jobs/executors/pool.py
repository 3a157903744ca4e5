"""Runs steps in child processes that can be ended, for time or for memory."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import IO

from tidemill.core.errors import InternalError, OptionError, TrialError, TrialMemoryError, TrialTimeoutError
from tidemill.core.protocols import Outcome, Step
from tidemill.core.trial import Usage
from tidemill.jobs._call import Answer
from tidemill.jobs._child import THREAD_VARIABLES
from tidemill.jobs._wire import Cancel, Channel, Ended, Ready, Run

# The parent's own search path goes along: what can be imported here can be imported there. ``sys`` is built in, so
# nothing in the current folder can come in its place.
_PROGRAM = "import sys; n = int(sys.argv[1]); sys.path[:] = sys.argv[2:2 + n]; rest = sys.argv[2 + n:]; \
from tidemill.jobs.zygote import main; main(rest)"
_CLOSE_S = 2.0


class ProcessExecutor:
    """An `Executor` that forks one child for each step from a host process in which the modules are loaded already.

    The host starts with the executor and loads ``preload`` while the caller goes on. A step then costs a fork (some
    milliseconds), runs in a process group of its own, and takes everything along that it started when it ends. Your
    program is not imported again, and needs no ``if __name__ == "__main__"``. If your program dies, even by
    ``kill -9``, host and steps end at once. Ctrl-C reaches your program alone. What a step prints is kept off your
    terminal; its last 16 KiB stand behind the traceback of a failed step.

    The host must load modules without computing: OpenMP does not survive a fork once it has run.

    Parameters
    ----------
    workers : int
        Steps that run at the same time.
    preload : sequence of str
        Modules that steps use.
    memory_bytes : int or None
        Memory that all running steps together may hold; when it is passed, the largest is ended. As with a step's
        own limit, memory is what the processes hold for themselves: mapped files and what they share with the host
        count for nothing or in part. It is looked at every 0.05 s.
    threads : int
        Threads of the numeric libraries in most steps; a step with another number costs some milliseconds more.

    Examples
    --------
    >>> with ProcessExecutor(2) as executor:
    ...     ticket = executor.submit(Step("operator:index", {}))
    ...     outcomes = executor.wait()
    >>> outcomes[0].ticket, type(outcomes[0].error).__name__
    (0, 'TypeError')
    """

    def __init__(
        self, workers: int, preload: Sequence[str] = (), memory_bytes: int | None = None, *, threads: int = 1
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise OptionError("Child processes with limits need Linux.", hint="Use InProcessExecutor here.")
        if workers < 1 or threads < 1:
            raise OptionError(f"Workers and threads must be at least 1, but got ({workers=}, {threads=}).")
        if memory_bytes is not None and memory_bytes < 1:
            raise OptionError(f"A memory limit must be positive, but got {memory_bytes}.")
        self._workers = workers
        self._memory_bytes = memory_bytes
        self._arguments = [str(n) for n in (workers, threads, memory_bytes or 0)] + list(preload)
        self._threads = threads
        self._next = 0
        self._pending: dict[int, Step] = {}
        self._ended: list[Outcome] = []
        self._closed = False
        self._host: _Host | None = _Host(self._arguments, threads)

    def __enter__(self) -> ProcessExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def capacity(self) -> int:
        """How many steps run at the same time."""
        return self._workers

    def ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the host has loaded its modules, or died; False where the time is over before."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        self._take_messages()
        while self._host is not None and not self._host.ready:
            left_s = None if deadline is None else deadline - monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._host.sleep(left_s)
            self._take_messages()
        return True

    def submit(self, step: Step) -> int:
        """Queue a step and return its ticket; raises `OptionError` for arguments that can't be pickled."""
        return self.send(step, pickled(step))

    def send(self, step: Step, body: bytes) -> int:
        """Queue a step whose call and arguments are `pickled` already; of ``step`` the limits count."""
        if self._closed:
            raise InternalError("A step was submitted to an executor that is closed.")
        self._take_messages()
        ticket = self._next
        self._next += 1
        if self._host is None:  # it died, and told so by outcomes; the next one may live
            self._host = _Host(self._arguments, self._threads)
        self._pending[ticket] = step
        self._host.channel.send(Run(ticket, step.name, step.time_s, step.memory_bytes, step.threads), body)
        self._host.flush()
        return ticket

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        """Return what has ended since the last call; blocks until there is something, or for the timeout."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            self._take_messages()
            if self._ended or not self._pending or self._host is None:
                ended, self._ended = self._ended, []
                return ended
            left_s = None if deadline is None else deadline - monotonic()
            if left_s is not None and left_s <= 0:
                return []
            self._host.sleep(left_s)

    def cancel(self, ticket: int) -> None:
        """End a step, by force if it runs; it gives no outcome. Unknown and ended tickets are ignored."""
        self._ended = [outcome for outcome in self._ended if outcome.ticket != ticket]
        if self._pending.pop(ticket, None) is not None and self._host is not None:
            self._host.channel.send(Cancel(ticket))
            self._host.flush()

    def close(self) -> None:
        """End everything. Twice is allowed."""
        self._closed = True
        self._pending.clear()
        self._ended.clear()
        if self._host is not None:
            self._host.end()
            self._host = None

    def _take_messages(self) -> None:
        host = self._host
        if host is None:
            return
        host.flush()
        try:
            while (received := host.channel.receive()) is not None:
                message, body = received
                if isinstance(message, Ready):
                    host.ready = True
                elif isinstance(message, Ended) and message.ticket in self._pending:
                    step = self._pending.pop(message.ticket)
                    self._ended.append(self._told(step, message, body))
        except EOFError:
            self._bury()

    def _told(self, step: Step, ended: Ended, body: bytes) -> Outcome:
        return outcome_of(step, ended, body, self._memory_bytes)

    def _bury(self) -> None:
        """Tell of every step that went down with the host."""
        host = self._host
        if host is None:
            return
        self._host = None
        message = f"The process that starts the steps died ({host.cause()})."
        said = host.said()
        host.end()
        for ticket in self._pending:
            error = TrialError(message, hint="Its last words stand in the traceback.")
            self._ended.append(Outcome(ticket, error=error, traceback=said or None))
        self._pending.clear()


@dataclass
class _Host:
    """The host process and our end of its socket."""

    arguments: list[str]
    threads: int
    channel: Channel = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    log: IO[bytes] = field(init=False)
    ready: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the host
        path = [str(entry) for entry in sys.path]
        private = [str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(len(path)), *path, *private, *self.arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                # Libraries read these when they are loaded.
                env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(self.threads))},
                start_new_session=True,  # away from the terminal, so that Ctrl-C is ours alone
            )
        self._finalizer = weakref.finalize(self, _end, self.channel, self.process, self.log, os.getpid())

    def flush(self) -> None:
        """Send what can be sent now."""
        try:
            self.channel.flush()
        except (BrokenPipeError, ConnectionResetError):
            return  # it died; receiving will say so, after what it sent before

    def sleep(self, timeout_s: float | None) -> None:
        """Return when a message has come, when there is room to send one, or after the timeout."""
        with selectors.DefaultSelector() as selector:
            write = selectors.EVENT_WRITE if self.channel.waiting else 0
            selector.register(self.channel.socket, selectors.EVENT_READ | write)
            selector.select(timeout_s)

    def end(self) -> None:
        """End host and steps, and wait until the host is gone."""
        self._finalizer()

    def said(self) -> str:
        """What the host has printed, at most its last 16 KiB."""
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - 2**14))
        return self.log.read().decode(errors="replace")

    def cause(self) -> str:
        """How the host ended, in a few words; waits a moment, because its socket closes before it ends."""
        try:
            return _ending(self.process.wait(_CLOSE_S))
        except subprocess.TimeoutExpired:
            return "it does not answer"


def _end(channel: Channel, process: subprocess.Popen[bytes], log: IO[bytes], owner: int) -> None:
    channel.close()  # the host sees it, kills its children and ends
    log.close()
    if os.getpid() != owner:  # a fork of the program: neither host nor steps belong to it
        return
    process.terminate()  # for a host that still loads modules, and listens to nothing else; later it ignores this
    try:
        process.wait(_CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its children die with it, by the signal they asked the kernel for
        process.wait()


def pickled(step: Step) -> bytes:
    """Call and arguments of a step as they travel.

    Raises
    ------
    OptionError
        For arguments that can't be pickled.
    """
    try:
        return pickle.dumps((step.call, dict(step.arguments)), protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        message = f"The arguments of step {step.name or step.call!r} can't be sent to another process: {error}."
        raise OptionError(message) from error


def outcome_of(step: Step, ended: Ended, body: bytes, shared_bytes: int | None = None) -> Outcome:
    """Turn what a host told of a step, and the answer that its process left, into an outcome."""
    usage = Usage(ended.wall_s, ended.cpu_s, ended.peak_memory_bytes)
    if ended.killed is None and ended.status == 0:
        try:
            answer = pickle.loads(body)  # noqa: S301  from our own child, over a private socket
        except Exception as error:  # noqa: BLE001  unpickling runs code of the value's own
            answer = Answer(error=TrialError(f"What it returned can't be read here: {error}"))
    else:
        answer = Answer(error=_violence(step, ended, shared_bytes))
    told = answer.traceback
    if answer.error is not None and ended.output.strip():
        told = f"{told or ''}The step's last output:\n{ended.output}"
    return Outcome(ended.ticket, answer.value, answer.error, told, usage)


def _violence(step: Step, ended: Ended, shared_bytes: int | None) -> TrialError:
    used = f"{ended.used / 1e6:,.0f} MB"
    if ended.killed == "time":
        return TrialTimeoutError(f"It ran for {ended.used:.1f} s and was ended; its limit is {step.time_s:g} s.")
    if ended.killed == "memory":
        return TrialMemoryError(f"It held {used} and was ended; its limit is {(step.memory_bytes or 0) / 1e6:,.0f} MB.")
    if ended.killed == "shared":
        together = f"{(shared_bytes or 0) / 1e6:,.0f} MB"
        return TrialMemoryError(f"It held {used}, the most of all steps, when together they passed {together}.")
    hint = "The system may have run out of memory." if ended.status == -signal.SIGKILL else None
    return TrialError(f"Its process died ({_ending(ended.status)}).", hint=hint)


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
