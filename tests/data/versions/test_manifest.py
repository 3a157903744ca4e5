"""The bytes of a manifest are the version."""

from __future__ import annotations

import pytest
from tests.data.versions.conftest import make, rows_of

from tidemill.core.errors import DataError, OptionError
from tidemill.data.versions import Manifest, list_versions, manifest_of
from tidemill.data.versions.manifest import plain
from tidemill.store.workspace import Workspace

ROWS = [("a", 1.0, "p", "u"), ("b", 2.0, "q", "v")]


def test_the_hash_says_rows_columns_and_lineage_and_not_the_time(workspace: Workspace) -> None:
    first = make(workspace, ROWS, "a", at=1.0)
    assert make(workspace, ROWS, "b", at=2.0).hash == first.hash
    other = make(workspace, ROWS, "c", parents=(first.hash,), operation="repair")
    assert other.hash != first.hash
    assert manifest_of(workspace, other).content == manifest_of(workspace, first).content


def test_the_same_rows_are_one_version_however_they_came(workspace: Workspace) -> None:
    first = make(workspace, ROWS)
    assert make(workspace, ROWS, operation="repair").hash == first.hash
    assert len(list_versions(workspace)) == 1


def test_a_large_manifest_is_an_artifact_of_the_versions_name(workspace: Workspace) -> None:
    version = make(workspace, ROWS, parameters={"note": "x" * 40_000})
    assert version.artifacts == {"manifest": version.hash}
    assert rows_of(workspace, version) == ROWS


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":"tidemill dataset 2"}', b"[]", b"\xff"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="can't be read"):
        Manifest.parse(data)


def test_a_newer_format_is_named() -> None:
    with pytest.raises(DataError, match="tidemill dataset 9"):
        Manifest.parse(b'{"format":"tidemill dataset 9"}')


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x"])
def test_parameters_are_plain_json(value: object) -> None:
    with pytest.raises(OptionError, match="plain JSON"):
        plain({"x": value})


def test_a_name_can_be_told_from_a_reference(workspace: Workspace) -> None:
    with pytest.raises(OptionError, match="'@'"):
        make(workspace, ROWS, "a@b")
