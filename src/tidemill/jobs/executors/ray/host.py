"""What one worker on a node holds: a process executor, and the files that its steps need."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.core.errors import TrialError
from tidemill.core.protocols import Outcome, Step
from tidemill.jobs._wire import Ended
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.parcels import Folder, Parcel

LOOK_S = 0.05
"""How often a worker that waits for its step looks whether it was cancelled."""


@dataclass(frozen=True)
class Hello:
    """Where a worker is.

    Parameters
    ----------
    node : str
        Ray's name of the node.
    name : str
        The node for people.
    folder : str
        Where files go there.
    """

    node: str
    name: str
    folder: str


@dataclass(frozen=True)
class Blind:
    """A worker did not begin a step, for it does not see a folder that all have to see.

    Parameters
    ----------
    mark : str
        The file that it looked for.
    """

    mark: str


Told = tuple[Ended, bytes] | Outcome | Blind | None
"""How a step ended and the answer that it left; an outcome where it had no process; None where it was cancelled."""


class Host:
    """One step at a time, each in a process of its own, by the same code as on one machine.

    An actor of Ray holds it. `run` blocks; meanwhile `cancel` and `close` may be called from other threads.

    Parameters
    ----------
    session : str
        Names the executor.
    preload : sequence of str
        Modules that steps use.
    threads : int
        Threads of the numeric libraries in most steps.
    """

    def __init__(self, session: str, preload: Sequence[str], threads: int) -> None:
        self._folder = Folder(session)
        self._executor = _Sealed(1, preload, threads=threads)
        self._cancelled: set[int] = set()
        self._closing = False
        self._busy = threading.Lock()

    def hello(self) -> Hello:
        """Say where this is."""
        import ray

        node = str(ray.get_runtime_context().get_node_id())
        return Hello(node, f"{socket.gethostname()} ({node[:8]})", str(self._folder.path))

    def load(self) -> None:
        """Wait until the modules that steps use are loaded here, so that a step would start at once."""
        with self._busy:
            while not self._closing and not self._executor.ready(LOOK_S):
                pass

    def sees(self, mark: str) -> bool:
        """Whether a file of the caller's machine is here, too, as on a shared disk."""
        return os.path.exists(mark)

    def run(self, ticket: int, step: Step, body: bytes, parcels: Sequence[Parcel], marks: Sequence[str] = ()) -> Told:
        """Bring the files, run the step, and give what its process left, unread.

        Parameters
        ----------
        ticket : int
            By which it may be cancelled.
        step : Step
            Its limits.
        body : bytes
            Call and arguments, pickled.
        parcels : sequence of Parcel
            Files that it needs.
        marks : sequence of str
            Files that must be seen from here.
        """
        with self._busy:
            for mark in marks:
                if not self.sees(mark):
                    return Blind(mark)
            try:
                self._folder.place(parcels, _fetch)
            except TrialError as error:
                return Outcome(ticket, error=error)
            except OSError as error:
                message = f"Its files can't be written on {socket.gethostname()}: {error.strerror or error}."
                return Outcome(ticket, error=TrialError(message))
            return self._run(ticket, step, body)

    def _run(self, ticket: int, step: Step, body: bytes) -> Told:
        if self._is_over(ticket):
            return None
        here = self._executor.send(step, body)
        while not self._is_over(ticket):
            for outcome in self._executor.wait(LOOK_S):
                told: Told = outcome if outcome.error is not None else outcome.value
                return told
        self._executor.cancel(here)
        return None

    def _is_over(self, ticket: int) -> bool:
        return self._closing or ticket in self._cancelled

    def cancel(self, ticket: int) -> None:
        """End a step, whether it runs or is yet to come; `run` gives None."""
        self._cancelled.add(ticket)

    def close(self) -> None:
        """End everything, and leave nothing."""
        self._closing = True
        with self._busy:
            self._executor.close()
            self._folder.leave()


class _Sealed(ProcessExecutor):
    """Hands on what steps leave without reading it: that is for who asked."""

    def _told(self, step: Step, ended: Ended, body: bytes) -> Outcome:
        return Outcome(ended.ticket, value=(ended, body))


def _fetch(reference: Any) -> bytes:
    import ray

    data: bytes = ray.get(reference)
    return data
