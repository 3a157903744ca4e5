"""Captured rows as a dataset version, for the next turn of the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tidemill.core.errors import DataError
from tidemill.core.schema import EMBEDDED, Column, Schema, SemanticType
from tidemill.core.task import TaskKind
from tidemill.deploy.labels import label_text, labels_told, number
from tidemill.deploy.watch.blobs import BlobFolder
from tidemill.deploy.watch.capture import META, collect
from tidemill.deploy.watch.facts import Facts
from tidemill.deploy.watch.media import Images, in_base64, in_blobs, media_columns, whole_texts
from tidemill.deploy.watch.sources import RecordSources, folder_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.data.versions import DatasetVersion
    from tidemill.store.workspace import Workspace


def as_version(
    workspace: Workspace,
    endpoint: str,
    *,
    name: str | None = None,
    since: float = 0.0,
    reasons: Sequence[str] = (),
    clock: Callable[[], float] = time.time,
) -> DatasetVersion:
    """Write captured rows as a version of a dataset: inputs, the truth where it came, and what is known of each row.

    Rows whose request failed before a model answered have no inputs and are left out. Long texts are texts again;
    images become artifacts, as those of a folder of images, and stay when the endpoint has forgotten them.

    Parameters
    ----------
    workspace : Workspace
        Where they are, and where the version goes.
    endpoint : str
        Of which endpoint.
    name : str, optional
        Name of the dataset; default ``"<endpoint>-cases"``.
    since, reasons : optional
        As for `tidemill.deploy.watch.capture.collect`.
    clock : callable
        Gives the time in seconds since 1970.

    Returns
    -------
    DatasetVersion
        Its operation is ``"capture"``, its parents the versions that the revisions were trained on, where those are
        known here. Its parameter ``lost`` is the number of rows that were left out because an image or a long text of
        theirs is gone or damaged.

    Raises
    ------
    DataError
        If nothing was captured.
    """
    from tidemill.data.versions import write_version

    found = find_cases(workspace, endpoint, since=since, reasons=reasons)
    if not found.table.num_rows:
        raise DataError(f"No rows were captured of {endpoint!r}.", hint="Look at its capture policy, or wait for some.")
    parents = _parents(workspace, [f for f in found.facts.values() if f.spec is not None])
    parameters: dict[str, Any] = {
        "endpoint": endpoint, "revisions": list(found.facts), "since": since, "until": clock(),
        "reasons": list(reasons), "lost": found.lost,
    }  # fmt: skip
    with ExitStack() as stored:
        for images in found.images.values():
            stored.enter_context(images.stored(workspace))
        return write_version(
            workspace, name or f"{endpoint}-cases", found.table, found.schema, parents=parents, operation="capture",
            parameters=parameters, clock=clock,
        )  # fmt: skip


@dataclass(frozen=True)
class Cases:
    """Captured rows that can still be learnt from: those whose values are all there, images and long texts included.

    Parameters
    ----------
    table : pyarrow.Table
        The rows, in the form in which a version keeps them.
    schema : Schema
        What the columns mean.
    lost : int
        Rows that are left out because an image or a long text of theirs is gone or damaged.
    images : mapping of str to Images
        The images that the rows name, by column.
    facts : mapping of str to Facts
        What is known of the revisions that answered, by name.
    """

    table: pa.Table
    schema: Schema
    lost: int
    images: Mapping[str, Images]
    facts: Mapping[str, Facts]


def find_cases(workspace: Workspace, endpoint: str, *, since: float = 0.0, reasons: Sequence[str] = ()) -> Cases:
    """Read captured rows in the types of the bundle that answered; parameters as for `as_version`."""
    import pyarrow as pa

    rows = collect(workspace, endpoint, since=since, reasons=reasons)
    sources = RecordSources(workspace)
    sources.refresh()
    revisions = list(dict.fromkeys(rows[f"{META}revision"].to_pylist()))
    facts = {r: Facts.load(sources.bundle(endpoint, r)) for r in revisions}
    described = next((f for r in reversed(revisions) if (f := facts[r]).spec is not None), Facts())
    blobs = BlobFolder(folder_of(workspace, endpoint) / "captured" / "blobs")
    schema, target = _meant(rows, described)
    rows, kept = whole_texts(rows, blobs)
    images: dict[str, Images] = {}
    lost = ~kept
    for column in _pictures(schema, rows):
        alone = column.unit != EMBEDDED
        cells = rows[column.name].to_pylist()
        images[column.name] = Images(cells, in_blobs(blobs) if alone else in_base64)
        named = np.array([bool(cell) for cell in cells], dtype=np.bool_)
        there = np.array([images[column.name].has(cell) for cell in cells], dtype=np.bool_)
        lost |= named & ~there
        kept &= there if alone else there | ~named
    rows = rows.filter(pa.array(kept & ~lost))
    kind = None if described.spec is None else described.spec.task.kind
    return Cases(*_typed(rows, schema, target, images, kind), int(lost.sum()), images, facts)


def _parents(workspace: Workspace, facts: Sequence[Facts]) -> list[str]:
    known = {r["hash"] for r in workspace.metadata.dataset_versions()}
    named = [str(f.spec.info.lineage.get("dataset_version", "")) for f in facts if f.spec is not None]
    return [h for h in dict.fromkeys(n.rpartition("@")[2] for n in named) if h in known]


def _meant(rows: pa.Table, facts: Facts) -> tuple[list[Column], str]:
    """What inputs mean, and the target's name; without a bundle numbers stay numbers and text becomes categories."""
    if facts.spec is not None:
        return list(facts.spec.schema.features), facts.spec.task.target
    media = media_columns(rows)
    inputs = [n for n in rows.column_names if not n.startswith(META) and n not in media[1:]]
    return [Column(n, SemanticType.IMAGE if n in media else _guess(rows[n].type)) for n in inputs], "truth"


def _pictures(columns: Sequence[Column], rows: pa.Table) -> list[Column]:
    return [c for c in columns if c.type is SemanticType.IMAGE and c.name in rows.column_names]


def _typed(
    rows: pa.Table, features: Sequence[Column], target: str, images: Mapping[str, Images], kind: TaskKind | None
) -> tuple[pa.Table, Schema]:
    """Columns in the types of the bundle's schema, the truth as the target, and what is known of each row."""
    import pyarrow as pa

    used = [c.name for c in features if c.name in rows.column_names]
    keep = np.zeros(rows.num_rows, dtype=np.bool_)
    for name in used:
        keep |= ~np.asarray(rows[name].is_null())
    rows = rows.filter(pa.array(keep))
    arrays: dict[str, Any] = {}
    columns: list[Column] = []
    for column in features:
        held = rows[column.name].to_pylist() if column.name in used else [None] * rows.num_rows
        if column.name in images:
            found = images[column.name]
            alone = column.unit != EMBEDDED
            made, meant = found.alone(column.name, held, beside=target) if alone else found.among(column.name, held)
            arrays |= made
            columns += meant
            continue
        arrays[column.name] = _feature(held, column)
        columns.append(column)
    arrays[target] = _truths(rows[f"{META}truth"].to_pylist(), kind)
    columns.append(Column(target, SemanticType.TARGET))
    for name in (n for n in rows.column_names if n.startswith(META)):
        arrays[name] = rows[name]
        columns.append(Column(name, SemanticType.IGNORED, reason="tells where the row comes from"))
    return pa.table(arrays), Schema(tuple(columns))


def _truths(told: Sequence[str | None], kind: TaskKind | None) -> pa.Array:
    """The target: a number, a label, or of several labels a row the list that `tidemill.data.multilabel` reads."""
    import pyarrow as pa

    if kind is TaskKind.REGRESSION:
        return pa.array([number(v) for v in told], pa.float64())
    if kind is TaskKind.MULTILABEL:
        from tidemill.data.multilabel import join_cell  # loads Arrow, as versions do, and fronts never

        return pa.array([None if v is None else join_cell(labels_told(v)) for v in told], pa.string())
    return pa.array([None if v is None else label_text(v) for v in told], pa.string())


def _guess(kind: pa.DataType) -> SemanticType:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return SemanticType.BOOLEAN
    return SemanticType.NUMBER if pa.types.is_floating(kind) else SemanticType.CATEGORY


def _feature(values: Sequence[Any], column: Column) -> pa.Array:
    import pyarrow as pa

    if column.type.is_string:
        return pa.array([None if v is None or v == "" else str(v) for v in values], pa.string())
    numbers = [number(v) for v in values]
    if column.type is SemanticType.BOOLEAN:
        return pa.array([None if v is None else v != 0 for v in numbers], pa.bool_())
    if column.type is SemanticType.DATETIME:
        return pa.array([None if v is None else round(v * 1e6) for v in numbers], pa.timestamp("us", "UTC"))
    return pa.array(numbers, pa.float64())
