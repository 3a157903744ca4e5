"""What a step's process does between its fork and its end."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from tidemill.core.errors import TrialError
from tidemill.jobs._call import Answer, answer, write_answer

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Inheritance:
    """What a child takes over from its host."""

    host_pid: int
    body: bytes
    """Pickled ``(call, arguments)``."""
    result: int
    """Memory file for the pickled `Answer`."""
    output: int
    """Where stdout and stderr go."""
    close: Iterable[int]
    """Descriptors of the host that are none of the child's business."""
    threads: int
    limit_threads: bool
    """True where ``threads`` is not what the numeric libraries were loaded with."""


def live(given: Inheritance) -> NoReturn:
    """Run the step and end the process: with 0 where an answer, good or bad, stands in the memory file."""
    status = 1
    try:
        _settle(given)
        if given.limit_threads:
            limit_threads(given.threads)
        with os.fdopen(given.result, "wb") as file:
            write_answer(_run(given.body), file)
        status = 0
    except BaseException:  # noqa: BLE001  the edge of the process: nothing may run the host's loop in the child
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # closed by the step
                continue
        os._exit(status)


def _settle(given: Inheritance) -> None:
    os.setpgid(0, 0)  # one group for the step and all that it starts, so that they end together
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != given.host_pid:  # it died before the line above
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for handle in given.close:
        os.close(handle)
    os.dup2(given.output, 1)
    os.dup2(given.output, 2)
    os.close(given.output)
    gc.enable()


def _run(body: bytes) -> Answer:
    try:
        call, arguments = pickle.loads(body)  # noqa: S301  from our own parent
    except Exception as error:  # noqa: BLE001  a worker's edge: unpickling runs code of the arguments' own
        return Answer(error=TrialError(f"Its arguments can't be read in another process: {error}"))
    return answer(call, arguments)


def limit_threads(threads: int) -> None:
    """Hold loaded numeric libraries, and those that this process will load or start, to so many threads."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    threadpool_limits(threads)
