"""Takes jobs from the queue, runs each as a process of its own, and sees to it that they end as they should."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.core.errors import ConflictError, TidemillError, WorkspaceError
from tidemill.jobs._child import THREAD_VARIABLES
from tidemill.jobs.queue.folders import job_folder, log_path
from tidemill.jobs.queue.kinds import Kinds
from tidemill.jobs.queue.machine import BY_BUS, ORDER, VISIBLE
from tidemill.jobs.queue.processes import end_group, host_name, kill_group, lives, mark_of, worker_id, worker_lives
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import HELD, Capacity, Claimant, Ending, Job, JobState
from tidemill.store.workspace import Workspace

Tell = Callable[[str, Job | None, str], None]
"""Gets what happened (``claimed``, ``adopted``, ``ended``, ``lost``, ``trouble``), to which job, and more in words."""


@dataclass(frozen=True)
class Pace:
    """How often a worker looks, and how long it waits.

    Parameters
    ----------
    look_s : float
        Between two looks at jobs and queue.
    beat_s : float
        Between two beats for its jobs, and two looks for what others have left behind.
    grace_s : float
        For a job that was asked to stop, until SIGTERM.
    kill_s : float
        From SIGTERM to SIGKILL.
    """

    look_s: float = 0.5
    beat_s: float = 5.0
    grace_s: float = 30.0
    kill_s: float = 10.0


@dataclass
class _Running:
    """A job's process; ours, or one that another worker has left."""

    job: Job
    process: subprocess.Popen[bytes] | None
    pid: int
    mark: str
    termed: bool = False
    why: str | None = None
    disowned: float | None = None

    def ended(self) -> str | None:
        """How it ended, in words; None while it runs. What it left behind in its group is ended, too."""
        if self.process is None:
            return None if lives(self.pid, self.mark) else "it ended without a word"
        if self.process.returncode is None:
            if not _is_over(self.process):
                return None
            kill_group(self.pid)  # its number can't be another's before it is reaped
            self.process.wait()
        code = self.process.returncode
        return f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"


class Worker:
    """Runs jobs of a workspace's queue; used from one thread.

    Each job is a process in a session of its own that goes on when the worker ends, by `run`'s end or by ``kill -9``:
    the next worker of the machine finds it by number and start time, and watches it in its place.

    Parameters
    ----------
    workspace : Workspace
        Whose queue.
    kinds : Kinds
        What it can run; other jobs are left to other workers.
    capacity : Capacity
        What it gives.
    tell : callable
        Hears what happens.
    pace : Pace
        How often it looks.
    queue : JobQueue, optional
        The workspace's, where it has to be one with its own lease or clock.
    """

    def __init__(
        self,
        workspace: Workspace,
        kinds: Kinds,
        capacity: Capacity,
        *,
        tell: Tell | None = None,
        pace: Pace | None = None,
        queue: JobQueue | None = None,
    ) -> None:
        self._workspace = workspace
        self._kinds = kinds
        self._me = Claimant(worker_id(), host_name(), capacity, kinds.names)
        self._hear = tell
        self._pace = pace or Pace()
        self.queue = queue or JobQueue(workspace.database)
        self._running: dict[int, _Running] = {}
        self._beat_due = 0.0

    def run(self, stop: threading.Event, *, until_idle: bool = False) -> None:
        """Work until told to stop; what runs then goes on without it.

        Parameters
        ----------
        stop : threading.Event
            Ends it.
        until_idle : bool
            End where nothing runs, and nothing is in the line that this worker could run.

        Raises
        ------
        WorkspaceError
            Where the queue can't be used at the beginning; later it waits for it to come back.
        """
        try:
            self.look()
            while not stop.is_set():
                try:
                    if until_idle and not self._running and not self.queue.anything_for(self._me):
                        return
                    stop.wait(self._pace.look_s)
                    self.look()
                except WorkspaceError as error:  # a database that is away for a moment
                    self._tell("trouble", None, str(error))
                    stop.wait(self._pace.beat_s)
        finally:
            self._let_go()

    @property
    def running(self) -> list[int]:
        """Ids of the jobs that it watches."""
        return sorted(self._running)

    def _let_go(self) -> None:
        """Leave the processes to themselves: from here on they are watched as those of another worker would be."""
        for one in self._running.values():
            if one.process is not None:
                one.process.returncode = 0  # no warning about a child that is left behind
                one.process = None

    def look(self) -> None:
        """See how its jobs are, press those that are to stop, and take new ones."""
        self._watch()
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat_due = now + self._pace.beat_s
            self._beat(now)
            self._mind()
        self._press()
        self._fill()

    # ---------------------------------------------------------------------------------------------------------- watch

    def _watch(self) -> None:
        for number, one in list(self._running.items()):
            one.why = one.why or one.ended()
            if one.why is not None:
                self._conclude(one, Ending("died", error=f"Its process died ({one.why})."))
                del self._running[number]

    def _conclude(self, one: _Running, ending: Ending) -> None:
        try:
            job = self.queue.finish(one.job.id, one.job.attempt, ending)
        except ConflictError:  # it has told by itself how it ended, as it should
            job = self.queue.get(one.job.id)
        self._tell("ended", job, job.error or "")

    def _beat(self, now: float) -> None:
        if not self._running:
            return
        ours = self.queue.beat([(one.job.id, one.job.attempt) for one in self._running.values()])
        for number, one in self._running.items():
            if number in ours:
                continue
            job = self.queue.get(number)
            one.disowned = one.disowned or now
            told = job.attempt == one.job.attempt and job.state not in HELD
            if not told or now - one.disowned > self._pace.kill_s:  # another's by now, or it lingers after its end
                end_group(one.pid, one.mark, signal.SIGKILL)

    def _mind(self) -> None:
        """Look after what other workers have left behind."""
        for job in self.queue.held(host=self._me.host):
            if job.id not in self._running and (job.worker == self._me.id or not worker_lives(job.worker)):
                self._adopt(job)
        for job in self.queue.expired():
            if job.id in self._running:
                continue
            if job.host == self._me.host and job.pid is not None:  # it hangs: nobody may have it beside the next one
                end_group(job.pid, job.mark, signal.SIGKILL)
            lost = self.queue.lose(job)
            if lost is not None:
                self._tell("lost", lost, lost.error or "")

    def _adopt(self, job: Job) -> None:
        taken = self.queue.adopt(job, self._me.id)
        if taken is None:
            return
        if taken.pid is not None and lives(taken.pid, taken.mark):
            self._running[taken.id] = _Running(taken, None, taken.pid, taken.mark)
            self._tell("adopted", taken, f"process {taken.pid}")
            return
        with contextlib.suppress(ConflictError):
            error = "Its worker has gone, and its process with it."
            # A machine that was off for a night has not worked for a night.
            ending = Ending("lost", error=error, at=job.lease_until)
            lost = self.queue.finish(taken.id, taken.attempt, ending)
            self._tell("lost", lost, error)

    # ---------------------------------------------------------------------------------------------------------- press

    def _press(self) -> None:
        """Stop what is to stop: by its flag, then SIGTERM, then SIGKILL."""
        if not self._running:
            return
        clock = time.time()
        for job in self.queue.held(host=self._me.host):
            one = self._running.get(job.id)
            if one is None or one.job.attempt != job.attempt:
                continue
            if job.state is JobState.RUNNING and job.left_s(clock) <= 0:
                self.queue.stop(job.id, job.attempt, "time")
            elif job.state is JobState.STOPPING and job.stop_at is not None:
                waited = clock - job.stop_at
                if job.stop == "force" or waited > self._pace.grace_s + self._pace.kill_s:
                    end_group(one.pid, one.mark, signal.SIGKILL)
                elif waited > self._pace.grace_s and not one.termed:
                    one.termed = end_group(one.pid, one.mark, signal.SIGTERM)

    # ----------------------------------------------------------------------------------------------------------- fill

    def _fill(self) -> None:
        while (job := self.queue.claim(self._me)) is not None:
            self._tell("claimed", job, "")
            self._clear(job.id)
            try:
                process = self._start(job)
            except (OSError, TidemillError) as error:
                with contextlib.suppress(ConflictError):
                    ending = Ending("failed", error=f"Its process can't be started: {error}")
                    self._tell("ended", self.queue.finish(job.id, job.attempt, ending), str(error))
                continue
            self._running[job.id] = _Running(job, process, process.pid, mark_of(process.pid))

    def _clear(self, number: int) -> None:
        """End what is left of an earlier attempt at a job that we have again."""
        old = self._running.pop(number, None)
        if old is None:
            return
        end_group(old.pid, old.mark, signal.SIGKILL)
        if old.process is not None:
            old.process.wait()

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        kind = self._kinds.get(job.kind)
        folder = job_folder(self._workspace.path, job.id)
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "tidemill.jobs.queue.child", "--workspace", str(self._workspace.path),
            "--job", str(job.id), "--attempt", str(job.attempt), "--call", kind.call,
            "--lease", str(self.queue.lease_s), "--pause", str(self.queue.first_pause_s),
            "--look", str(min(1.0, self.queue.lease_s / 8)), "--cpus", str(self._me.capacity.cores_of(job)),
        ]  # fmt: skip
        with Path(log_path(self._workspace.path, job.id, job.attempt)).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(job),
                start_new_session=True,  # it outlives us, and Ctrl-C is ours alone
            )

    def _environment(self, job: Job) -> Mapping[str, str]:
        cores = str(self._me.capacity.cores_of(job))
        more = {**dict.fromkeys(THREAD_VARIABLES, cores), "TIDEMILL_JOB": str(job.id), "PYTHONUNBUFFERED": "1"}
        if job.owner:
            more["TIDEMILL_ACTOR"] = job.owner
        # Only what it was given, by the numbers of `find_devices`; nothing is what it was given, too.
        more[VISIBLE] = ",".join(name.partition(":")[2] for name in job.held)
        more[ORDER] = BY_BUS
        return {**os.environ, **more}

    def _tell(self, what: str, job: Job | None, words: str) -> None:
        if self._hear is not None:
            self._hear(what, job, words)


def _is_over(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended, without taking its number away from it where the system can tell so."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
