"""The seams between the rooms; each has a conformance suite in `tidemill.testing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.space import Space
from tidemill.core.trial import Config, StudyRecord, Trial, Usage


@dataclass(frozen=True)
class Step:
    """One piece of work for an executor.

    Parameters
    ----------
    call : str
        ``"package.module:function"``; imported where the step runs, called with ``**arguments``.
    arguments : mapping
        Picklable values; large arrays go by path of an ``.npy`` file.
    time_s : float or None
        Ended by force after so many seconds, counted from its start.
    memory_bytes : int or None
        Ended when its resident memory grows past this.
    threads : int
        Threads that numeric libraries may use.
    name : str
        For people.
    """

    call: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    time_s: float | None = None
    memory_bytes: int | None = None
    threads: int = 1
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: ``value`` where it returned, ``error`` (and its traceback) where it didn't."""

    ticket: int
    value: Any = None
    error: BaseException | None = None
    traceback: str | None = None
    usage: Usage = field(default_factory=Usage)


class Executor(Protocol):
    """Runs steps somewhere else. Used from one thread."""

    @property
    def capacity(self) -> int:
        """How many steps run at the same time."""

    def submit(self, step: Step) -> int:
        """Queue a step and return its ticket, 0, 1, 2…; never blocks."""

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        """Return what has ended since the last call, each outcome once.

        Blocks until there is one, until nothing is under way, or until the time is over. A step killed for memory
        gives `TrialMemoryError`, for time `TrialTimeoutError`, one whose process died `TrialError` with the signal's
        name.
        """

    def cancel(self, ticket: int) -> None:
        """End a step, by force if it runs; it gives no outcome. Unknown and ended tickets are ignored."""

    def close(self) -> None:
        """End everything. Twice is allowed."""


class ArtifactStore(Protocol):
    """Bytes by their SHA-256, written once, never changed."""

    def put(self, data: bytes) -> str:
        """Store and return the hash (64 hex digits).

        The same bytes give the same hash and are stored once. Atomic: after a crash an artifact is whole or absent.
        """

    def get(self, key: str) -> bytes:
        """Read; checks the hash. Raises `NotFoundError` or `DataError` (damaged)."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open for reading, unchecked, for large ones."""

    def exists(self, key: str) -> bool:
        """True where the artifact is there."""

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""

    def keys(self) -> Sequence[str]:
        """All hashes, sorted."""


class MetadataStore(Protocol):
    """The transactions of the ledger. Safe for many processes at once."""

    def create_study(self, record: StudyRecord) -> None:
        """Add a study; raises `OptionError` if the name is taken."""

    def get_study(self, name: str) -> StudyRecord:
        """Raises `NotFoundError` with the nearest names."""

    def studies(self) -> Sequence[StudyRecord]:
        """All studies, oldest first."""

    def update_study(
        self,
        name: str,
        *,
        state: str | None = None,
        objective: str | None = None,
        artifacts: Mapping[str, str] | None = None,
    ) -> None:
        """Change what may change; ``artifacts`` are merged."""

    def delete_study(self, name: str) -> None:
        """Remove a study and its trials."""

    def put_trial(self, trial: Trial) -> None:
        """Insert or replace the trial of that study and number, in one transaction."""

    def trials(self, study: str) -> Sequence[Trial]:
        """All trials of a study by number."""

    def put_dataset_version(self, record: Mapping[str, Any]) -> None:
        """Add a version ``{hash, dataset, created_at, rows, schema, parents, operation, parameters, artifacts}``.

        Adding the same hash to the same dataset again changes nothing.
        """

    def dataset_versions(self, dataset: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Versions, oldest first."""

    def log_event(self, study: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Append to a study's event log (stages, objective changes, reports of the locked slice)."""

    def events(self, study: str) -> Sequence[Mapping[str, Any]]:
        """Events of a study: ``{at, kind, payload}``, oldest first."""

    def close(self) -> None:
        """Let the connection go."""


class Sampler(Protocol):
    """Proposes the next config of a study."""

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Return a config and its origin, or None when it has nothing (more) to propose.

        Must depend on its arguments and its seed alone: a study that is resumed asks the same questions.
        """


class Schedule(Protocol):
    """Decides at which fidelity a config is evaluated, and whether it goes on."""

    def rungs(self, rows: int) -> Sequence[float]:
        """Shares of the rows, rising to 1.0."""

    def promote(self, value: float, peers: Sequence[float], rung: int) -> bool:
        """Whether a trial with loss ``value`` goes on to the next rung.

        ``peers`` are the losses of all trials that finished this rung, ``value`` included.
        """


@dataclass(frozen=True)
class Combination:
    """Weights of trials by number; they are positive and sum to 1."""

    weights: Mapping[int, float]
    loss: float


class Ensembler(Protocol):
    """Combines trials for an objective from their out-of-fold predictions alone."""

    def combine(
        self,
        predictions: Mapping[int, NDArray[np.float32]],
        loss: Callable[[NDArray[np.float64]], float],
        penalty: Callable[[Mapping[int, float]], float],
    ) -> Combination:
        """Return the weights with the least loss plus penalty.

        ``predictions`` by trial number, rows aligned; ``loss`` of combined scores; ``penalty`` is ``inf`` where
        a combination breaks a constraint, else a small price of its cost in units of the loss.
        """
