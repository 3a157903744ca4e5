"""Fragments: equal rows give equal bytes, and damage is found and named."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest
from tests.data.versions.conftest import artifact_path, make, rows_of

from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions import fragments, load_version, manifest_of, scan, write_version
from tidemill.data.versions.fragments import render
from tidemill.data.versions.verify import verify
from tidemill.store.fsspec_artifacts import FsspecArtifactStore
from tidemill.store.workspace import Workspace

ROWS = [("a", float(i), "p", "u") for i in range(200)]


def test_the_bytes_do_not_depend_on_chunks_or_slices() -> None:
    table = pa.table({"x": [1.0, None, 3.0, 4.0], "w": ["a", None, "b", "a"], "b": [True, None, False, True]})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    wide = pa.concat_tables([table, table]).slice(4)
    assert render(table) == render(chunked) == render(wide)


def test_a_table_of_several_fragments_is_read_back_in_order(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragments, "fragment_rows", lambda schema: 7)
    version = make(workspace, ROWS)
    assert len(manifest_of(workspace, version).parts) == 29
    assert rows_of(workspace, version) == ROWS
    assert sum(b.num_rows for b in scan(workspace, "d", ["x"])) == 200
    assert load_version(workspace, "d", ["x"])[0]["x"].to_pylist() == [float(i) for i in range(200)]
    with pytest.raises(NotFoundError, match="'word'"):
        load_version(workspace, "d", ["wrd"])


def test_a_scan_holds_a_row_group_at_a_time(workspace: Workspace) -> None:
    schema = Schema((Column("x", SemanticType.NUMBER),))
    write_version(workspace, "long", pa.table({"x": np.arange(200_000.0)}), schema)
    batches = list(scan(workspace, "long"))
    assert max(b.num_rows for b in batches) <= fragments.GROUP_ROWS
    assert np.array_equal(np.concatenate([b.column(0).to_numpy() for b in batches]), np.arange(200_000.0))


@pytest.mark.parametrize("place", [4, 100, -10, -60])
def test_a_changed_byte_is_found_and_the_file_is_named(workspace: Workspace, place: int) -> None:
    version = make(workspace, ROWS)
    key = manifest_of(workspace, version).parts[0].fragment
    path = artifact_path(workspace, key)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    for read in (lambda: load_version(workspace, "d"), lambda: list(scan(workspace, "d"))):
        with pytest.raises(DataError, match="another hash") as caught:
            read()
        assert str(path) in str(caught.value)
    assert any(str(path) in p for p in verify(workspace, version))


def test_a_fragment_that_is_cut_off_or_gone_is_said(workspace: Workspace) -> None:
    version = make(workspace, ROWS)
    path = artifact_path(workspace, manifest_of(workspace, version).parts[0].fragment)
    os.chmod(path, 0o644)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="another hash"):
        load_version(workspace, "d")
    path.unlink()
    with pytest.raises(NotFoundError, match="no artifact"):
        load_version(workspace, "d")
    assert verify(workspace, version)


def test_a_whole_version_has_no_problems(workspace: Workspace) -> None:
    assert verify(workspace, make(workspace, ROWS)) == []


def test_versions_live_on_a_remote_file_system_as_well(workspace: Workspace) -> None:
    remote = FsspecArtifactStore("memory://versions-test")
    away = Workspace(workspace.path, workspace.metadata, remote, workspace.records, workspace.journal)
    version = make(away, ROWS)
    assert rows_of(away, version) == ROWS
    assert sum(b.num_rows for b in scan(away, "d")) == 200
