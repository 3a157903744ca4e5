"""Whether a version is whole: every byte of every file that it needs."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.core.errors import DataError, TidemillError
from tidemill.data.versions.collect import artifacts_of
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.fragments import side_by_side
from tidemill.data.versions.ledger import DatasetVersion, manifest_of
from tidemill.store.workspace import Workspace


def verify(workspace: Workspace, version: DatasetVersion) -> list[str]:
    """Read everything that a version needs and return what is wrong, in words; empty where all is well.

    Parameters
    ----------
    workspace : Workspace
        Where it is.
    version : DatasetVersion
        The version.
    """
    return [*_manifest_problems(workspace, version), *_file_problems(workspace, version)]


def _manifest_problems(workspace: Workspace, version: DatasetVersion) -> Iterator[str]:
    try:
        manifest = manifest_of(workspace, version)
    except TidemillError as error:
        yield str(error)
        return
    if "table" not in version.artifacts and manifest.hash != version.hash:
        yield f"The manifest of {version.ref} has the hash {manifest.hash[:12]}…, not its own."
    if tuple(f.name for f in manifest.fields) != version.schema.names:
        yield f"The manifest of {version.ref} has other columns than its record."


def _file_problems(workspace: Workspace, version: DatasetVersion) -> list[str]:
    store, erased = workspace.artifacts, Erased.of(workspace)
    replaced = {key for key, stone in erased.found.items() if stone.file is not None}
    try:
        keys = sorted(artifacts_of(workspace, version) - replaced)
    except TidemillError as error:
        return [str(error)]
    optional = {version.artifacts.get("profile"), version.parameters.get("review")}

    def problem(key: str) -> str | None:
        if key in optional and not store.exists(key):  # an erasure takes summaries away; they can be made again
            return None
        try:
            data = store.get(key)
            if data[:4] == b"PAR1":
                _whole(data, key)
        except TidemillError as error:
            return str(error)
        return None

    return [p for p in side_by_side(problem, keys) if p is not None]


def _whole(data: bytes, key: str) -> None:
    try:
        pq.read_metadata(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The fragment {key[:12]}… can't be read: {str(error).splitlines()[0]}") from error
