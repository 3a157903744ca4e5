"""What a job knows while it runs: where it may keep things, how long it has, whether it is to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class JobStopped(BaseException):
    """A job ends because it was asked to.

    No ``Exception``: what a job catches to go on with its work must not catch this.
    """


@dataclass
class JobContext:
    """What a job knows while it runs; made by the process that runs it.

    Parameters
    ----------
    job, attempt : int
        Its id, and which time this is, from 1.
    owner : str
        Who wanted it.
    workspace : Path
        Folder of the workspace.
    checkpoint : Path
        Folder for what the next attempt goes on from. It is there, and stays when the attempt ends; a job that died may
        have left half a file in it.
    cpus, memory_bytes : int
        What it was given; 0 bytes where nobody said.
    devices : tuple of str
        Devices that it may use.
    device_bytes : int
        What it may hold on each; 0 for all.
    deadline : float
        `time.monotonic` value at which it must have ended; ``inf`` for none.
    spent_s : float
        Seconds that earlier attempts took.
    """

    job: int
    attempt: int
    owner: str
    workspace: Path
    checkpoint: Path
    cpus: int = 1
    memory_bytes: int = 0
    devices: tuple[str, ...] = ()
    device_bytes: int = 0
    deadline: float = float("inf")
    spent_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _asked: threading.Event = field(default_factory=threading.Event, repr=False)
    _why: str = field(default="", repr=False)
    _told: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def stopping(self) -> bool:
        """True once it was asked to stop: keep what the next attempt needs, and call `stop_here`."""
        return self._asked.is_set()

    @property
    def out_of_time(self) -> bool:
        """True where it was asked to stop because its time is over: what it can still finish in seconds counts."""
        return self.stopping and self._why == "time"

    def stop_here(self) -> None:
        """Call it between two steps, with everything kept: ends the job where it was asked to stop.

        Raises
        ------
        JobStopped
            Where it was asked to stop.
        """
        if self.stopping:
            raise JobStopped

    def left_s(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.deadline - self.clock())

    def progress(self, share: float | None = None, message: str = "") -> None:
        """Say how far it has come; cheap, written to the queue every few seconds.

        Parameters
        ----------
        share : float, optional
            0..1.
        message : str
            In words.
        """
        told: dict[str, Any] = {"message": message} if message else {}
        if share is not None:
            told["share"] = min(1.0, max(0.0, float(share)))
        self._told = told

    def ask_to_stop(self, why: str = "") -> None:
        """Make `stopping` true; for the process that runs the job, with the reason as in `Job.stop`."""
        self._why = why
        self._asked.set()

    def told(self) -> Mapping[str, Any]:
        """What `progress` said last."""
        return self._told
