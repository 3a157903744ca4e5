"""Whether what is asked in service looks like what a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, OptionError
from tidemill.sdk.data.doors import Door, Place, enter, words
from tidemill.sdk.data.judge import plain

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.versions import DatasetVersion

_ENDPOINT = "endpoint:"
_ABOUT = "capture."
"""Begins the names of the columns that are about a captured row rather than of it."""


def skew(
    dataset: str,
    served: Any,
    *,
    columns: Sequence[str] | str | None = None,
    out: str | Path | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Hold rows that were asked in service against the version that a model was trained on.

    Parameters
    ----------
    dataset : str
        The version.
    served : path, table or str
        Rows, a dataset version such as one of captured cases, or ``endpoint:NAME`` for what was captured there.
    columns : sequence of str, optional
        What the model asks for; default every column of the version but its target.
    out : path, optional
        Write a report (HTML, one file).
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``version``, ``rows`` (how many were served), ``findings`` (absent columns, other types, what has moved; worst
        first), ``drifted`` (names) and ``columns``; ``report`` where one was written.

    Examples
    --------
    >>> from tidemill.sdk import data
    >>> data.skew("income@1a2b", "endpoint:income")["drifted"]  # doctest: +SKIP
    ['age']
    """
    from tidemill.data.drift.page import render_page
    from tidemill.data.drift.skew import skew as run
    from tidemill.data.versions import find_version

    with enter(workspace, actor) as door:
        door.may_read(dataset)
        version = find_version(door.workspace, dataset)
        rows = _served(door, served, version)
        rows = rows.select([n for n in rows.column_names if not n.startswith(_ABOUT)])
        if not rows.num_rows:
            raise DataError("No rows were served.", hint="Look at the endpoint's capture policy, or wait for some.")
        found = run(door.workspace, version.hash, rows, columns=words(columns) or None)
    told = {
        "version": version.ref,
        "rows": rows.num_rows,
        "findings": plain(found.findings),
        "drifted": [c.column for c in found.drift.drifted],
        "columns": [c.to_json() for c in found.drift.columns],
    }
    if out is None:
        return told
    title = f"Training on {version.ref}, and service"
    page = render_page(title, drift=found.drift, findings=found.findings, names=("in training", "in service"))
    try:
        Path(out).write_text(page, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"The file can't be written: {error.strerror}.", where=str(out)) from error
    return {**told, "report": str(out)}


def _served(door: Door, served: Any, version: DatasetVersion) -> pa.Table:
    from tidemill.data.ingest import read
    from tidemill.deploy.watch.capture import collect
    from tidemill.sdk.sources import read_version

    if isinstance(served, str) and served.startswith(_ENDPOINT):
        return collect(door.workspace, served[len(_ENDPOINT) :])
    named = read_version(served, door.workspace, actor=door.actor)
    return _typed(read(served), version) if named is None else named.raw.table


def _typed(raw: Any, version: DatasetVersion) -> pa.Table:
    """Read the columns of a file as those of the version where they can be; what can't will be told as a type."""
    from tidemill.data.infer import infer_schema
    from tidemill.data.versions import canonical

    known = {c.name: c.type for c in version.schema if c.type.is_feature and c.name in raw.table.column_names}
    try:
        schema = infer_schema(raw, types=known)
        return canonical(raw, schema)
    except DataError:
        return canonical(raw, infer_schema(raw))
