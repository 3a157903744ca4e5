"""Named documents with compare-and-set, on SQLite or PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from tidemill.core.errors import ConflictError, InternalError, NotFoundError, OptionError
from tidemill.core.protocols import Change, Record
from tidemill.store.counting import insert_into, last_number, next_number
from tidemill.store.database import Database
from tidemill.store.tables import records


class SqlRecordStore:
    """A `RecordStore` in the workspace's database; every method is one transaction, on disk when it returns.

    Parameters
    ----------
    database : Database
        Where to.
    clock : callable
        Gives the time in seconds since 1970.

    Examples
    --------
    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = Database(f"sqlite:///{os.path.join(folder, 'metadata.db')}")
    ...     store = SqlRecordStore(database)
    ...     record = store.put("endpoint", "fraud", {"traffic": {}}, expect=0)
    ...     store.put("endpoint", "fraud", {"traffic": {"a1": 1.0}}, expect=record.version).body
    ...     database.close()
    {'traffic': {'a1': 1.0}}
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def put(self, kind: str, key: str, body: Mapping[str, Any], *, expect: int | None = None) -> Record:
        """Write a record; raises `ConflictError` where ``expect`` is not what stands there (see `Change`)."""
        record = self.put_all([Change(kind, key, body, expect)])[0]
        if record is None:
            raise InternalError("A record that was written is gone.")
        return record

    def put_all(self, changes: Sequence[Change]) -> list[Record | None]:
        """Make all changes or, on a conflict, none; gives the new records, None for deleted ones."""
        for change in changes:
            _check(change)
        if len({(c.kind, c.key) for c in changes}) < len(changes):
            raise OptionError("A record can be changed only once in one call of put_all.")
        with self._database.transaction(write=True) as connection:
            # Counters are taken in one order by everyone: no two writers wait for each other.
            numbers = {kind: next_number(connection, _counter(kind)) for kind in sorted({c.kind for c in changes})}
            return [self._apply(connection, change, numbers[change.kind]) for change in changes]

    def get(self, kind: str, key: str) -> Record:
        """Raises `NotFoundError` with the nearest keys."""
        with self._database.transaction() as connection:
            found = _row(connection, kind, key)
            if found is None:
                known = connection.execute(select(records.c.key).where(records.c.kind == kind)).scalars()
                raise NotFoundError.of(kind.replace("_", " "), key, known)
        return _record(found)

    def find(self, kind: str, prefix: str = "") -> list[Record]:
        """Records of a kind whose key begins so, by key."""
        query = select(records).where(records.c.kind == kind)
        if prefix:
            query = query.where(records.c.key.startswith(prefix, autoescape=True))
        with self._database.transaction() as connection:
            found = [_record(row) for row in connection.execute(query)]
        # SQLite's LIKE takes upper and lower case for the same, and databases sort by their own rules.
        return sorted((r for r in found if r.key.startswith(prefix)), key=lambda r: r.key)

    def delete(self, kind: str, key: str, *, expect: int | None = None) -> bool:
        """Remove a record; False if there was none. Raises `ConflictError` as `put` does."""
        with self._database.transaction(write=True) as connection:
            number = next_number(connection, _counter(kind))
            existed = _row(connection, kind, key) is not None
            self._apply(connection, Change(kind, key, None, expect), number)
        return existed

    def change_number(self, kind: str) -> int:
        """A number that grows with every change of that kind, 0 before the first; cheap enough to poll."""
        with self._database.transaction() as connection:
            return last_number(connection, _counter(kind))

    def kinds(self) -> list[str]:
        """Kinds of which there are records, sorted."""
        with self._database.transaction() as connection:
            return sorted(connection.execute(select(records.c.kind).distinct()).scalars())

    def _apply(self, connection: Connection, change: Change, number: int) -> Record | None:
        found = _row(connection, change.kind, change.key)
        standing = 0 if found is None else int(found.version)
        if change.expect is not None and change.expect != standing:
            raise ConflictError(
                f"Somebody else has changed the {change.kind.replace('_', ' ')} {change.key!r} in the meantime.",
                hint="Read it again and repeat.",
            )
        if change.body is None:
            here = (records.c.kind == change.kind) & (records.c.key == change.key)
            connection.execute(delete(records).where(here))
            return None
        now = self._clock()
        created = now if found is None else float(found.created_at)
        values: dict[str, Any] = {
            "kind": change.kind,
            "key": change.key,
            "version": number,
            "body": dict(change.body),
            "created_at": created,
            "updated_at": now,
        }
        added = insert_into(connection, records).values(**values)
        changed = {name: added.excluded[name] for name in ("version", "body", "updated_at")}
        connection.execute(added.on_conflict_do_update(index_elements=["kind", "key"], set_=changed))
        return Record(**values)


def _counter(kind: str) -> str:
    return f"records/{kind}"


def _row(connection: Connection, kind: str, key: str) -> Row[Any] | None:
    return connection.execute(select(records).where(records.c.kind == kind, records.c.key == key)).one_or_none()


def _record(row: Row[Any]) -> Record:
    return Record(**row._mapping)


def _check(change: Change) -> None:
    for noun, text in (("kind", change.kind), ("key", change.key)):
        if not text or not text.isprintable() or len(text) > 512:
            raise OptionError(f"The {noun} of a record must be printable text of up to 512 characters, not {text!r}.")
