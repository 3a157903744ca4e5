"""Whether what is asked in service looks like what a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.sdk.data.doors import Door, Place, enter, words
from tidemill.sdk.data.judge import plain

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.versions import DatasetVersion

_ENDPOINT = "endpoint:"
_ABOUT = "capture."
"""Begins the names of the columns that are about a captured row rather than of it."""
_IMAGES = "Its images are captured as references to files (blob:…), which have no values to compare."
_REDACTED = "The endpoint captures none of its values: it stands under `redact`."


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
        ``version``, ``rows`` (how many were served), ``lost`` (captured rows that are left out because an image or a
        long text of theirs is gone), ``findings`` (absent columns, other types, what has moved, what is left out; worst
        first), ``drifted`` (names) and ``columns``; ``report`` where one was written. Of captured images only width
        and height are compared, where the version has them.

    Raises
    ------
    NotFoundError
        For an unknown version, column or endpoint, with the nearest names.
    DataError
        If no rows were served.

    Examples
    --------
    >>> from tidemill.sdk import data
    >>> data.skew("income@1a2b", "endpoint:income")["drifted"]  # doctest: +SKIP
    ['age']
    """
    from tidemill.data.drift.page import render_page
    from tidemill.data.drift.skew import skew as run

    with enter(workspace, actor) as door:
        door.may_read(dataset)
        version = door.version(dataset)
        rows = _served(door, served, version)
        if not rows.table.num_rows:
            raise DataError("No rows were served.", hint="Look at the endpoint's capture policy, or wait for some.")
        found = run(door.workspace, version.hash, rows.table, columns=words(columns) or None, apart=rows.apart)
    told = {
        "version": version.ref,
        "rows": rows.table.num_rows,
        "lost": rows.lost,
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


@dataclass(frozen=True)
class _Served:
    """Rows, why some of their columns are not compared, and how many rows are left out."""

    table: pa.Table
    apart: Mapping[str, str] = field(default_factory=dict)
    lost: int = 0


def _served(door: Door, served: Any, version: DatasetVersion) -> _Served:
    from tidemill.data.ingest import read
    from tidemill.sdk.sources import read_version

    if isinstance(served, str) and served.startswith(_ENDPOINT):
        return _captured(door, served[len(_ENDPOINT) :], version)
    named = read_version(served, door.workspace, actor=door.actor)
    table = _typed(read(served), version) if named is None else named.raw.table
    return _Served(table.select([n for n in table.column_names if not n.startswith(_ABOUT)]))


def _captured(door: Door, endpoint: str, version: DatasetVersion) -> _Served:
    """What was captured, as the model took it; rows whose request failed before are none."""
    from tidemill.deploy.types import ENDPOINT
    from tidemill.deploy.watch.cases import find_cases
    from tidemill.deploy.watch.media import HEIGHT, WIDTH
    from tidemill.deploy.watch.sources import RecordSources, folder_of

    sources = RecordSources(door.workspace)
    sources.refresh()
    known = sources.endpoint(endpoint)
    if known is None and not folder_of(door.workspace, endpoint).is_dir():
        raise NotFoundError.of("endpoint", endpoint, [r.key for r in door.workspace.records.find(ENDPOINT)])
    found = find_cases(door.workspace, endpoint)
    measured = {n for n in (WIDTH, HEIGHT) if found.images and n not in version.schema}
    hidden = [] if known is None else [n for n in known.capture.redact if n in version.schema]
    apart = {**dict.fromkeys(found.images, _IMAGES), **dict.fromkeys(hidden, _REDACTED)}
    names = [c.name for c in found.schema.features if c.name not in measured]
    return _Served(found.table.select(names), apart, found.lost)


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
