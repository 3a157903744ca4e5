"""The tables of the ledger, and how plain values become a column.

The migrations in ``migrations/versions`` build the same tables step by step; a test holds the two together.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

PREFIX = "tidemill_"
"""Every table's name begins so: a PostgreSQL database may hold other programs' tables, too."""

VERSION_TABLE = f"{PREFIX}schema"
"""Holds the revision of the tables, as Alembic writes it."""


def to_json(value: Any) -> str:
    """Write a plain value as JSON text from which `from_json` makes an equal one: NaN and infinities, too.

    Text is escaped to ASCII, because PostgreSQL refuses NUL and SQLite lone surrogates, and both stand in
    tracebacks now and then. Tuples come back as lists.

    Examples
    --------
    >>> to_json({"loss": float("inf")})
    '{"loss":{"$float":"inf"}}'
    """
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))


def from_json(text: str) -> Any:
    """Undo `to_json`.

    Examples
    --------
    >>> from_json('{"loss":{"$float":"inf"}}')
    {'loss': inf}
    """
    return json.loads(text, object_hook=_revive)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        if any(not isinstance(k, str) for k in value):
            raise TypeError(f"Keys must be strings, but got {[k for k in value if not isinstance(k, str)][:3]}.")
        if value.keys() & {"$float", "$dict"}:
            return {"$dict": [[k, _plain(v)] for k, v in value.items()]}
        return {k: _plain(v) for k, v in value.items()}
    return value


def _revive(data: dict[str, Any]) -> Any:
    if "$float" in data:
        return float(data["$float"])
    if "$dict" in data:
        return dict(data["$dict"])
    return data


class Json(TypeDecorator[Any]):
    """A plain value as JSON text; None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write."""
        return None if value is None else to_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read."""
        return None if value is None else from_json(value)


tables = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite numbers rows by itself only where the key is exactly INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

studies = Table(
    f"{PREFIX}studies",
    tables,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("name", String, nullable=False, unique=True),
    Column("task", Json, nullable=False),
    Column("objective", Json, nullable=False),
    Column("space", Json, nullable=False),
    Column("settings", Json, nullable=False),
    Column("dataset_version", String, nullable=False),
    Column("versions", Json, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("artifacts", Json, nullable=False),
)

trials = Table(
    f"{PREFIX}trials",
    tables,
    Column("study_id", _Serial, ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String, nullable=False),
    Column("family", String, nullable=False),
    Column("origin", String, nullable=False),
    Column("config", Json, nullable=False),
    Column("fold_scores", Json, nullable=False),
    Column("scores", Json, nullable=False),
    Column("cost", Json, nullable=False),
    Column("usage", Json, nullable=False),
    Column("curve", Json, nullable=False),
    Column("seed", Json, nullable=False),
    Column("fidelity", Json, nullable=False),
    Column("folds", Integer, nullable=False),
    Column("artifacts", Json, nullable=False),
    Column("error", Json),
    Column("traceback", Json),
    Column("started_at", Double),
    Column("finished_at", Double),
)

dataset_versions = Table(
    f"{PREFIX}dataset_versions",
    tables,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("dataset", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("schema", Json, nullable=False),
    Column("parents", Json, nullable=False),
    Column("operation", String, nullable=False),
    Column("parameters", Json, nullable=False),
    Column("artifacts", Json, nullable=False),
    UniqueConstraint("dataset", "hash"),
)

events = Table(
    f"{PREFIX}events",
    tables,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("study_id", _Serial, ForeignKey(studies.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("kind", String, nullable=False),
    Column("payload", Json, nullable=False),
)

counters = Table(
    f"{PREFIX}counters",
    tables,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

records = Table(
    f"{PREFIX}records",
    tables,
    Column("kind", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

journal = Table(
    f"{PREFIX}journal",
    tables,
    Column("stream", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("payload", Json, nullable=False),
    Column("at", Double, nullable=False),
)

jobs = Table(
    f"{PREFIX}jobs",
    tables,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("arguments", Json, nullable=False),
    Column("owner", String, nullable=False),
    Column("state", String, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("turn", Double, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("device_bytes", BigInteger, nullable=False),
    Column("time_s", Double),
    Column("max_attempts", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("spent_s", Double, nullable=False),
    Column("worker", String, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer),
    Column("mark", String, nullable=False),
    Column("held", Json, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("stop", String, nullable=False),
    Column("stop_at", Double),
    Column("submitted_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("progress", Json, nullable=False),
    Column("result", Json),
    Column("error", Json),
    Index(None, "state", "turn"),
)

job_needs = Table(
    f"{PREFIX}job_needs",
    tables,
    Column("job_id", _Serial, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column(
        "needs_id", _Serial, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False,
        index=True,
    ),
    Column("until", String, nullable=False),
)  # fmt: skip

job_attempts = Table(
    f"{PREFIX}job_attempts",
    tables,
    Column("job_id", _Serial, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("worker", String, nullable=False),
    Column("host", String, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("outcome", String, nullable=False),
    Column("error", Json),
)
