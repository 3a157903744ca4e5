"""The data of a study, kept as dataset versions, so that it can be resumed and exported at any later time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tidemill.core.errors import WorkspaceError
from tidemill.core.schema import SemanticType
from tidemill.data.ingest import RawTable
from tidemill.data.versions import load_version, write_version
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared, prepare_raw
from tidemill.store.workspace import Workspace

SOURCE = "source"
"""Key of a study's settings under which its data are named."""
LIMITS = "limits"
"""Key of a source's options under which the limits of the first fit stand."""


def keep_source(workspace: Workspace, dataset: str, prepared: Prepared) -> dict[str, Any]:
    """Write the dataset versions of a fit.

    Returns
    -------
    dict
        ``dataset``, ``version`` and ``test_version`` (a hash, or None).
    """
    version = write_version(workspace, dataset, prepared.raw, prepared.schema)
    test = prepared.test_raw
    locked = None if test is None else write_version(workspace, f"{dataset}.test", test, prepared.schema)
    return {
        "dataset": dataset,
        "version": version.hash,
        "test_version": None if locked is None else locked.hash,
    }


def load_source(workspace: Workspace, study: str, options: FitOptions) -> tuple[Prepared, dict[str, Any]]:
    """Prepare the data of a study again, exactly as they were.

    Raises
    ------
    WorkspaceError
        If the study was not made by a fit.
    """
    source = workspace.metadata.get_study(study).settings.get(SOURCE)
    if not source:
        raise WorkspaceError(f"The study {study!r} does not say which data it was made from.")
    kept: Mapping[str, Any] = source["options"]
    table, schema = load_version(workspace, source["version"])
    raw = RawTable(table, source["dataset"])
    test = None
    if source["test_version"] is not None:
        test_table, _ = load_version(workspace, source["test_version"])
        test = RawTable(test_table, f"{source['dataset']}.test")
    words = replace(
        options,
        **{key: value for key, value in kept.items() if key not in (LIMITS, "types")},
        types={name: SemanticType(kind) for name, kind in kept["types"].items()},
        test=None,
    )
    versions = {key: source[key] for key in ("dataset", "version", "test_version")}
    return prepare_raw(raw, test, schema, words), versions
