"""Suites of other tools are kept with the dataset that they are about; one of each tool."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.protocols import Record
from tidemill.data.expectations.foreign._base import ForeignSuite
from tidemill.data.versions.governance import audit
from tidemill.store.workspace import Workspace

FOREIGN = "foreign_expectations"
"""Kind of the records; the key is the dataset."""


def keep_foreign(workspace: Workspace, dataset: str, suite: ForeignSuite, *, actor: str = "") -> bool:
    """Keep a suite: it holds for the versions that are judged from now on, in the place of one of the same tool.

    Returns
    -------
    bool
        Whether others hold now than before.

    Raises
    ------
    OptionError
        For a Python file.
    ConflictError
        Where somebody else keeps another at the same moment.
    """
    if suite.is_code:
        raise OptionError(
            "A suite in a Python file can't be kept: a workspace holds no code.",
            hint="Write it as YAML (`schema.to_yaml()`), or name it in each check: tidemill data check … --suite …",
            where=suite.where,
        )
    record = _record(workspace, dataset)
    body: dict[str, Any] = {} if record is None else dict(record.body)
    new = {"text": suite.text, "file": suite.where.replace("\\", "/").rpartition("/")[2]}
    if body.get(suite.kind) == new:
        return False
    _put(workspace, dataset, {**body, suite.kind: new}, record)
    audit(workspace, "dataset_expectations", dataset, actor, {"suite": suite.kind, "file": new["file"]})
    return True


def drop_foreign(workspace: Workspace, dataset: str, kind: str, *, actor: str = "") -> None:
    """Take a suite away; raises `NotFoundError` where there is none of that tool."""
    record = _record(workspace, dataset)
    if record is None or kind not in record.body:
        raise NotFoundError.of("suite", kind, [] if record is None else record.body)
    _put(workspace, dataset, {k: v for k, v in record.body.items() if k != kind}, record)
    audit(workspace, "dataset_expectations", dataset, actor, {"suite": kind, "file": None})


def load_foreign(workspace: Workspace, dataset: str) -> list[ForeignSuite]:
    """Give the suites that are kept with a dataset."""
    record = _record(workspace, dataset)
    found = {} if record is None else record.body
    return [ForeignSuite(kind, b["text"], f"{b['file']} of {dataset}") for kind, b in sorted(found.items())]


def _put(workspace: Workspace, dataset: str, body: dict[str, Any], record: Record | None) -> None:
    workspace.records.put(FOREIGN, dataset, body, expect=0 if record is None else record.version)


def _record(workspace: Workspace, dataset: str) -> Record | None:
    return next((r for r in workspace.records.find(FOREIGN, dataset) if r.key == dataset), None)
