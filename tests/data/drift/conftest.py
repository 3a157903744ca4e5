"""A workspace and a way to write versions into it."""

from __future__ import annotations

import pytest

from tidemill.data.infer import infer_schema
from tidemill.data.ingest._base import RawTable
from tidemill.data.versions import write_version
from tidemill.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


@pytest.fixture
def write(workspace):
    def write(table, name="people", target=None):
        raw = RawTable(table, name)
        return write_version(workspace, name, raw, infer_schema(raw, target))

    return write
