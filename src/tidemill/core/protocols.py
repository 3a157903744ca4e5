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
    files : sequence of str
        Files and folders of the caller's machine that the arguments name. Where a step runs on another machine, they
        are taken along, and every string of the arguments that is one of these paths becomes the path that it has
        there.
    scratch : sequence of str
        Folders that the arguments name, in which steps leave things for one another. Another machine uses one of its
        own in their place.
    """

    call: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    time_s: float | None = None
    memory_bytes: int | None = None
    threads: int = 1
    name: str = ""
    files: Sequence[str] = ()
    scratch: Sequence[str] = ()


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

    def ready(self, timeout_s: float | None = None) -> bool:
        """Wait until a step would start at once, or could not start at all; False where the time is over before."""

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

    def written_at(self, key: str) -> float | None:
        """When it was stored last, seconds since 1970; None where the place doesn't tell. Raises `NotFoundError`."""

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

    def put_dataset_version(self, record: Mapping[str, Any]) -> bool:
        """Add a version ``{hash, dataset, created_at, rows, schema, parents, operation, parameters, artifacts}``.

        Adding the same hash to the same dataset again changes nothing, and gives False.
        """

    def dataset_versions(self, dataset: str | None = None, *, hash: str = "") -> Sequence[Mapping[str, Any]]:
        """Versions, oldest first; of one dataset, and those whose hash begins so, where this is said."""

    def log_event(self, study: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Append to a study's event log (stages, objective changes, reports of the locked slice)."""

    def events(self, study: str) -> Sequence[Mapping[str, Any]]:
        """Events of a study: ``{at, kind, payload}``, oldest first."""

    def close(self) -> None:
        """Let the connection go."""


@dataclass(frozen=True)
class Record:
    """A named document of a workspace, such as an endpoint, a key or a feature group.

    Parameters
    ----------
    kind, key : str
        What it is, and its name among its kind.
    version : int
        Change number of the kind when this was written: grows with every write, and no record has one twice.
    body : mapping
        Plain JSON.
    created_at, updated_at : float
        Seconds since 1970.
    """

    kind: str
    key: str
    version: int
    body: Mapping[str, Any]
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Change:
    """One write of `RecordStore.put_all`.

    Parameters
    ----------
    kind, key : str
        Which record.
    body : mapping or None
        What it becomes; None deletes it.
    expect : int or None
        Version that it must have now, 0 where it must not exist; None writes whatever is there.
    """

    kind: str
    key: str
    body: Mapping[str, Any] | None
    expect: int | None = None


class RecordStore(Protocol):
    """Small named documents that change, with compare-and-set. Safe for many processes at once."""

    def put(self, kind: str, key: str, body: Mapping[str, Any], *, expect: int | None = None) -> Record:
        """Write a record; raises `ConflictError` where ``expect`` is not what stands there (see `Change`)."""

    def put_all(self, changes: Sequence[Change]) -> list[Record | None]:
        """Make all changes or, on a conflict, none; gives the new records, None for deleted ones."""

    def get(self, kind: str, key: str) -> Record:
        """Raises `NotFoundError` with the nearest keys."""

    def find(self, kind: str, prefix: str = "") -> list[Record]:
        """Records of a kind whose key begins so, by key."""

    def delete(self, kind: str, key: str, *, expect: int | None = None) -> bool:
        """Remove a record; False if there was none. Raises `ConflictError` as `put` does."""

    def change_number(self, kind: str) -> int:
        """A number that grows with every change of that kind, 0 before the first; cheap enough to poll."""

    def kinds(self) -> list[str]:
        """Kinds of which there are records, sorted."""


@dataclass(frozen=True)
class Entry:
    """One line of a journal.

    Parameters
    ----------
    seq : int
        1, 2, 3… within its stream, without gaps.
    stream, kind : str
        Which journal, and what happened.
    payload : mapping
        Plain JSON.
    actor, subject : str
        Who did it, to what; may be empty.
    at : float
        Seconds since 1970.
    """

    seq: int
    stream: str
    kind: str
    payload: Mapping[str, Any]
    actor: str
    subject: str
    at: float


class Journal(Protocol):
    """Append-only streams. Safe for many processes at once."""

    def append(self, stream: str, kind: str, payload: Mapping[str, Any], *, actor: str = "", subject: str = "") -> int:
        """Add an entry and give its number; who reads up to a number has seen all entries before it."""

    def read(self, stream: str, *, after: int = 0, limit: int = 1000, subject: str | None = None) -> list[Entry]:
        """Entries of a stream after a number, oldest first; of one subject, or of all."""

    def streams(self, prefix: str = "") -> list[str]:
        """Names of the streams that begin so, sorted."""


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
