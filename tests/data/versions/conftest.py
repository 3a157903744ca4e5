"""Workspaces, and small versions that are quickly made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import DatasetVersion, load_version, write_version
from tidemill.store.workspace import Workspace

T = SemanticType
SCHEMA = Schema((Column("key", T.CATEGORY), Column("x", T.NUMBER), Column("word", T.CATEGORY), Column("y", T.TARGET)))
Make = Callable[..., DatasetVersion]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


def make(workspace: Workspace, rows: Rows, name: str = "d", at: float = 1.0, **told: Any) -> DatasetVersion:
    """Write rows of key, x, word, y."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    kinds = [pa.string(), pa.float64(), pa.string(), pa.string()]
    table = pa.table({n: pa.array(list(c), k) for n, c, k in zip(SCHEMA.names, columns, kinds, strict=True)})
    return write_version(workspace, name, table, SCHEMA, clock=lambda: at, **told)


def rows_of(workspace: Workspace, version: DatasetVersion | str) -> Rows:
    """Read the rows of a version as tuples, in order."""
    table, _ = load_version(workspace, version if isinstance(version, str) else version.hash)
    return [tuple(row.values()) for row in table.to_pylist()]


def bag(rows: Rows) -> Rows:
    """Rows without their order."""
    return sorted(rows, key=repr)


def artifact_path(workspace: Workspace, key: str) -> Path:
    """The file of an artifact."""
    return workspace.path / "artifacts" / key[:2] / key[2:4] / key
