"""The program that runs one attempt of a job: ``python -m tidemill.jobs.queue.child``. A worker starts it.

It depends on nobody: where its worker dies it goes on, speaks for itself, and tells the queue how it ended. It never
goes on where the attempt was given to somebody else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tidemill.core.errors import ConflictError, TidemillError
from tidemill.jobs._call import resolve
from tidemill.jobs.queue.context import JobContext, JobStopped
from tidemill.jobs.queue.folders import checkpoint_folder
from tidemill.jobs.queue.processes import kill_group, mark_of
from tidemill.jobs.queue.queue import LEASE_S, JobQueue
from tidemill.jobs.queue.rules import FIRST_PAUSE_S
from tidemill.jobs.queue.types import HELD, Ending, Job
from tidemill.store.tables import to_json
from tidemill.store.workspace import Workspace

GIVEN_UP = 3
"""Exit code of an attempt that was not to be run any more."""
MOST_RESULT = 1 << 20
"""Characters of a result; what is larger belongs into the artifact store."""


class Guard(threading.Thread):
    """Speaks for an attempt while it runs, and hears whether it is to stop.

    Parameters
    ----------
    queue : JobQueue
        The queue.
    job : Job
        The job with this attempt.
    context : JobContext
        What the job knows.
    give_up : callable
        Ends this process at once, with a word on why.
    look_s : float
        How often it looks.
    """

    def __init__(
        self, queue: JobQueue, job: Job, context: JobContext, give_up: Callable[[str], None], *, look_s: float = 1.0
    ) -> None:
        super().__init__(name="guard", daemon=True)
        self._queue = queue
        self._job = job
        self._context = context
        self._give_up = give_up
        self._look_s = look_s
        self._over = threading.Event()
        self._spoken = time.monotonic()
        self._told: object = None

    def run(self) -> None:
        """Look until `end`."""
        while not self._over.wait(self._look_s):
            try:
                found = self._look()
            except TidemillError as error:  # the database is away
                if time.monotonic() - self._spoken > self._queue.lease_s:
                    self._give_up(f"The queue can't be reached, and another may have the job by now: {error}")
                continue
            if self._over.is_set():
                return
            if found is None or found.attempt != self._job.attempt or found.state not in HELD:
                self._give_up("The attempt was given up; another may have the job by now.")
            elif found.stop:
                self._context.ask_to_stop(found.stop)

    def end(self) -> None:
        """Fall silent: what is said now must not be heard after how the attempt ended."""
        self._over.set()
        self.join(2 * self._look_s + 1.0)

    def _look(self) -> Job | None:
        told = self._context.told()
        due = time.monotonic() - self._spoken > self._queue.lease_s / 4
        if not due and told is self._told:
            return self._queue.get(self._job.id)
        found = self._queue.beat([(self._job.id, self._job.attempt)], told).get(self._job.id)
        self._told, self._spoken = told, time.monotonic()
        return found


def run_attempt(
    queue: JobQueue, workspace: Path, number: int, attempt: int, call: str, *, look_s: float = 1.0, cpus: int = 0
) -> int:
    """Run an attempt in this process and tell the queue how it ended; gives the exit code.

    Parameters
    ----------
    queue, workspace : JobQueue, Path
        Where the job stands, and keeps its files.
    number, attempt : int
        Which attempt at which job.
    call : str
        Function of its kind.
    look_s : float
        How often its `Guard` looks.
    cpus : int
        Cores that its worker gives it; 0 for those that it asked for.
    """
    try:
        job = queue.begin(number, attempt, os.getpid(), mark_of(os.getpid()))
    except ConflictError as error:
        _say(str(error))
        return GIVEN_UP
    context = _context(job, workspace, cpus or max(1, job.cpus))
    guard = Guard(queue, job, context, _die, look_s=look_s)
    guard.start()
    ending = _ending(call, job, context)
    guard.end()
    _tell(queue, job, ending)
    return 0 if ending.outcome == "done" else 1


def _context(job: Job, workspace: Path, cpus: int) -> JobContext:
    folder = checkpoint_folder(workspace, job.id)
    folder.mkdir(parents=True, exist_ok=True)
    return JobContext(
        job=job.id,
        attempt=job.attempt,
        owner=job.owner,
        workspace=workspace,
        checkpoint=folder,
        cpus=cpus,
        memory_bytes=job.memory_bytes,
        devices=job.held,
        device_bytes=job.device_bytes,
        deadline=time.monotonic() + job.left_s(time.time()),
        spent_s=job.spent_s,
    )


def _ending(call: str, job: Job, context: JobContext) -> Ending:
    """Run the function and turn whatever happens into how the attempt ended."""
    try:
        with _stopped_by_signal(context):
            value = resolve(call)(context, **job.arguments)
        text = to_json(value)
        if len(text) > MOST_RESULT:
            return Ending("failed", error=f"Its result is too large: {len(text):,} characters.", hopeless=True)
        return Ending("done", result=value)
    except JobStopped:
        return Ending("stopped", error="It stopped when it was asked to.")
    except TidemillError as error:
        traceback.print_exc()
        return Ending("failed", error=str(error), hopeless=error.exit_code == 2)
    except BaseException as error:  # noqa: BLE001  a worker's edge: every failure becomes an ending
        traceback.print_exc()
        return Ending("failed", error=f"{type(error).__name__}: {error}")


@contextmanager
def _stopped_by_signal(context: JobContext) -> Iterator[None]:
    """Let SIGTERM stop the job while it runs, and only then."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        context.ask_to_stop()
        raise JobStopped

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _tell(queue: JobQueue, job: Job, ending: Ending) -> None:
    """Tell the queue how it ended, again and again while the lease lasts; after that it was lost."""
    last = time.monotonic() + queue.lease_s
    while True:
        try:
            queue.finish(job.id, job.attempt, ending)
            return
        except ConflictError as error:
            _say(str(error))
            return
        except TidemillError as error:
            _say(str(error))
            if time.monotonic() > last:
                return
            time.sleep(0.5)


def _die(why: str) -> None:
    _say(why)
    kill_group(os.getpid(), signal.SIGKILL)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an attempt; gives the exit code."""
    parser = argparse.ArgumentParser(prog="tidemill-job", description=__doc__)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--job", required=True, type=int)
    parser.add_argument("--attempt", required=True, type=int)
    parser.add_argument("--call", required=True)
    parser.add_argument("--lease", type=float, default=LEASE_S)
    parser.add_argument("--pause", type=float, default=FIRST_PAUSE_S)
    parser.add_argument("--look", type=float, default=1.0)
    parser.add_argument("--cpus", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        with Workspace.open(options.workspace) as workspace:
            queue = JobQueue(workspace.database, lease_s=options.lease, first_pause_s=options.pause)
            return run_attempt(
                queue, workspace.path, options.job, options.attempt, options.call, look_s=options.look,
                cpus=options.cpus,
            )  # fmt: skip
    except TidemillError as error:
        _say(str(error))
        return error.exit_code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads and pools that a job left behind must not keep the process
