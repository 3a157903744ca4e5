"""The ledger of studies, trials, dataset versions and events, on SQLite or PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.trial import Cost, StudyRecord, Trial, TrialState, Usage
from tidemill.store.counting import insert_into
from tidemill.store.database import Database
from tidemill.store.tables import dataset_versions, events, studies, trials

_STUDY_FIELDS = tuple(f.name for f in fields(StudyRecord))
_VERSION_FIELDS = ("hash", "dataset", "created_at", "rows", "schema", "parents", "operation", "parameters", "artifacts")
_VERSION_DEFAULTS: dict[str, Any] = {"parents": [], "operation": "ingest", "parameters": {}, "artifacts": {}}


class SqlMetadataStore:
    """A `MetadataStore` in an SQLite file or a PostgreSQL database; safe for many threads and processes at once.

    Every method is one transaction. When it returns, what it wrote has reached the disk.

    Parameters
    ----------
    url : str
        ``sqlite:////path/to/file`` or ``postgresql://user:password@host/database``; created on first use.
    clock : callable
        Gives the time of an event in seconds since 1970.

    Examples
    --------
    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = SqlMetadataStore(f"sqlite:///{os.path.join(folder, 'metadata.db')}")
    ...     n = len(store.studies())
    ...     store.close()
    >>> n
    0
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(url)
        self._clock = clock

    def __repr__(self) -> str:
        return f"SqlMetadataStore({self._database.where!r})"

    @property
    def database(self) -> Database:
        """The database that it writes to; records and journal of the workspace share it."""
        return self._database

    # ------------------------------------------------------------------------------------------------------- studies

    def create_study(self, record: StudyRecord) -> None:
        """Add a study; raises `OptionError` if the name is taken or can't be printed."""
        _check_name("study", record.name)
        try:
            with self._write() as connection:
                connection.execute(insert(studies).values(**{name: getattr(record, name) for name in _STUDY_FIELDS}))
        except IntegrityError as error:
            raise OptionError(
                f"There is a study {record.name!r} already.", hint="Choose another name, or resume it."
            ) from error

    def get_study(self, name: str) -> StudyRecord:
        """Raises `NotFoundError` with the nearest names."""
        with self._read() as connection:
            row = connection.execute(select(studies).where(studies.c.name == name)).one_or_none()
            if row is None:
                raise _no_study(connection, name)
        return _study(row)

    def studies(self) -> Sequence[StudyRecord]:
        """All studies, oldest first."""
        with self._read() as connection:
            return [_study(row) for row in connection.execute(select(studies).order_by(studies.c.id))]

    def update_study(
        self,
        name: str,
        *,
        state: str | None = None,
        objective: str | None = None,
        artifacts: Mapping[str, str] | None = None,
    ) -> None:
        """Change what may change; ``artifacts`` are merged."""
        with self._write() as connection:
            # The lock keeps another process from merging into the same old artifacts (SQLite has one writer anyhow).
            query = select(studies.c.id, studies.c.artifacts).where(studies.c.name == name).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                raise _no_study(connection, name)
            values: dict[str, Any] = {"artifacts": {**row.artifacts, **(artifacts or {})}}
            if state is not None:
                values["state"] = state
            if objective is not None:
                values["objective"] = objective
            connection.execute(update(studies).where(studies.c.id == row.id).values(**values))

    def delete_study(self, name: str) -> None:
        """Remove a study with its trials and events; raises `NotFoundError`."""
        with self._write() as connection:
            connection.execute(delete(studies).where(studies.c.id == _study_id(connection, name)))

    # -------------------------------------------------------------------------------------------------------- trials

    def put_trial(self, trial: Trial) -> None:
        """Insert or replace the trial of that study and number, in one transaction."""
        with self._write() as connection:
            values = _from_trial(trial, _study_id(connection, trial.study, lock=True))
            added = insert_into(connection, trials).values(**values)
            changes = {name: added.excluded[name] for name in values if name not in ("study_id", "number")}
            connection.execute(added.on_conflict_do_update(index_elements=["study_id", "number"], set_=changes))

    def trials(self, study: str) -> Sequence[Trial]:
        """All trials of a study by number."""
        with self._read() as connection:
            key = _study_id(connection, study)
            rows = connection.execute(select(trials).where(trials.c.study_id == key).order_by(trials.c.number))
            return [_to_trial(row, study) for row in rows]

    # ------------------------------------------------------------------------------------------------------ datasets

    def put_dataset_version(self, record: Mapping[str, Any]) -> bool:
        """Add a version; adding the same hash to the same dataset again changes nothing, and gives False.

        Raises `OptionError` where ``hash``, ``dataset``, ``created_at``, ``rows`` or ``schema`` is missing, or for
        a key that is no part of a version.
        """
        record = {**_VERSION_DEFAULTS, **record}
        wrong = record.keys() ^ set(_VERSION_FIELDS)
        if wrong:
            raise OptionError(f"A dataset version has the fields {list(_VERSION_FIELDS)}; wrong are {sorted(wrong)}.")
        _check_name("dataset", record["dataset"])
        with self._write() as connection:
            added = insert_into(connection, dataset_versions).values(**record)
            anew = added.on_conflict_do_nothing(index_elements=["dataset", "hash"]).returning(dataset_versions.c.id)
            return connection.execute(anew).first() is not None

    def dataset_versions(self, dataset: str | None = None, *, hash: str = "") -> Sequence[Mapping[str, Any]]:
        """Versions, oldest first; of one dataset, or of all. An unknown dataset has none, nor has an unknown hash."""
        query = select(*(dataset_versions.c[name] for name in _VERSION_FIELDS)).order_by(dataset_versions.c.id)
        if dataset is not None:
            query = query.where(dataset_versions.c.dataset == dataset)
        if hash:
            query = query.where(dataset_versions.c.hash.startswith(hash, autoescape=True))
        with self._read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # -------------------------------------------------------------------------------------------------------- events

    def log_event(self, study: str, kind: str, payload: Mapping[str, Any]) -> None:
        """Append to a study's event log."""
        with self._write() as connection:
            key = _study_id(connection, study, lock=True)
            connection.execute(insert(events).values(study_id=key, at=self._clock(), kind=kind, payload=dict(payload)))

    def events(self, study: str) -> Sequence[Mapping[str, Any]]:
        """Events of a study: ``{at, kind, payload}``, oldest first."""
        with self._read() as connection:
            query = select(events.c.at, events.c.kind, events.c.payload).order_by(events.c.id)
            rows = connection.execute(query.where(events.c.study_id == _study_id(connection, study)))
            return [dict(row) for row in rows.mappings()]

    def close(self) -> None:
        """Let the connections go."""
        self._database.close()

    def _read(self) -> AbstractContextManager[Connection]:
        return self._database.transaction()

    def _write(self) -> AbstractContextManager[Connection]:
        return self._database.transaction(write=True)


def _check_name(noun: str, name: str) -> None:
    if not name or not name.isprintable():
        raise OptionError(f"The name of a {noun} must be printable text on one line, but got {name!r}.")


def _study_id(connection: Connection, name: str, *, lock: bool = False) -> int:
    query = select(studies.c.id).where(studies.c.name == name)
    if lock:  # so that it is not deleted before we add to it; others may add at the same time
        query = query.with_for_update(read=True, key_share=True)
    key: int | None = connection.execute(query).scalar_one_or_none()
    if key is None:
        raise _no_study(connection, name)
    return key


def _no_study(connection: Connection, name: str) -> NotFoundError:
    return NotFoundError.of("study", name, connection.execute(select(studies.c.name)).scalars())


def _study(row: Row[Any]) -> StudyRecord:
    return StudyRecord(**{name: row._mapping[name] for name in _STUDY_FIELDS})


def _from_trial(trial: Trial, study_id: int) -> dict[str, Any]:
    plain = {f.name: getattr(trial, f.name) for f in fields(Trial) if f.name != "study"}
    return {
        **plain,
        "study_id": study_id,
        "state": trial.state.value,
        "cost": trial.cost.to_json(),
        "usage": trial.usage.to_json(),
    }


def _to_trial(row: Row[Any], study: str) -> Trial:
    plain = {name: value for name, value in row._mapping.items() if name != "study_id"}
    return Trial(
        **{
            **plain,
            "study": study,
            "state": TrialState(row.state),
            "fold_scores": tuple(row.fold_scores),
            "cost": Cost.from_json(row.cost),
            "usage": Usage(**row.usage),
            "curve": _pairs(row.curve),
        }
    )


def _pairs(values: Iterable[Sequence[Any]]) -> tuple[tuple[int, float], ...]:
    return tuple((step, value) for step, value in values)
