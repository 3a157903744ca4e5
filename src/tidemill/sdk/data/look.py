"""What is there, what differs, where it comes from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import OptionError
from tidemill.sdk.data.doors import Place, enter, words
from tidemill.sdk.data.judge import judge, plain
from tidemill.sdk.data.names import dataset_name

if TYPE_CHECKING:
    from tidemill.data.ingest import RawTable
    from tidemill.sdk.sources import Named


def versions(workspace: Place = None, *, dataset: str | None = None, actor: str | None = None) -> list[dict[str, Any]]:
    """List the dataset versions that the actor may read, oldest first.

    Parameters
    ----------
    workspace : path, optional
        As in `add`.
    dataset : str, optional
        Only of this one; who may not read it is refused.
    actor : str, optional
        As in `add`.
    """
    from tidemill.data.versions import list_versions

    with enter(workspace, actor) as door:
        if dataset is not None:
            door.may_see(dataset)
        found = list_versions(door.workspace, dataset)
        readable = door.readable(v.dataset for v in found)
        return [
            {
                "dataset": v.dataset,
                "hash": v.hash,
                "rows": v.rows,
                "columns": len(v.schema),
                "operation": v.operation,
                "created": dt.datetime.fromtimestamp(v.created_at, dt.timezone.utc).isoformat(" ", "seconds"),
            }
            for v in found
            if v.dataset in readable
        ]


def describe(dataset: str, workspace: Place = None, *, actor: str | None = None) -> dict[str, Any]:
    """Describe a dataset version, by name (its newest), by ``name@tag``, or by the beginning of its hash."""
    from tidemill.data.versions.governance import facts_of, tags_of

    with enter(workspace, actor) as door:
        record = door.version(dataset)
        door.may_see(record.dataset)
        facts = facts_of(door.workspace, record.dataset)
        tags = [name for name, key in tags_of(door.workspace, record.dataset).items() if key == record.hash]
        return {
            "dataset": record.dataset,
            "hash": record.hash,
            "rows": record.rows,
            "operation": record.operation,
            "parameters": dict(record.parameters),
            "parents": list(record.parents),
            "tags": tags,
            **facts.to_json(),
            "columns": [{**c.to_json(), "pii": facts.pii.get(c.name)} for c in record.schema],
        }


def log(
    dataset: str | None = None, *, out: str | Path | None = None, workspace: Place = None, actor: str | None = None
) -> dict[str, Any]:
    """Show how versions came about; those of datasets that the actor may not read are left out.

    Parameters
    ----------
    dataset : str, optional
        With all that it was made from and all that was made of it; default every version.
    out : path, optional
        Draw a picture: ``.svg`` or ``.html``.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``versions``, newest first, and the graph as ``text``; ``picture`` where one was drawn.
    """
    from tidemill.data.versions.lineage import draw_html, draw_svg, draw_text
    from tidemill.data.versions.lineage import log as run

    with enter(workspace, actor) as door:
        nodes = run(door.workspace, dataset)
        if dataset is not None:
            door.may_see(dataset)
        readable = door.readable(n.version.dataset for n in nodes)
        nodes = [n for n in nodes if n.version.dataset in readable]
    told: dict[str, Any] = {"versions": [n.to_json() for n in nodes], "text": draw_text(nodes)}
    if out is not None:
        path = Path(out)
        title = f"Lineage of {dataset}" if dataset else "Lineage of all datasets"
        drawn = {".svg": lambda: draw_svg(nodes), ".html": lambda: draw_html(nodes, title)}.get(path.suffix.lower())
        if drawn is None:
            raise OptionError("A picture ends in .svg or .html.", where=str(path))
        try:
            path.write_text(drawn(), encoding="utf-8")
        except OSError as error:
            raise OptionError(f"The picture can't be written: {error.strerror}.", where=str(path)) from error
        told["picture"] = str(path)
    return told


def diff(
    a: str,
    b: str,
    *,
    key: Sequence[str] | str = (),
    label: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Compare two versions: rows, labels, columns, distributions.

    Parameters
    ----------
    a, b : str
        The versions.
    key : sequence of str
        Columns that tell which rows are the same; default all but the label.
    label : str, optional
        The label column; default the target.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.diff import diff as run

    with enter(workspace, actor) as door:
        door.may_read(a, b)
        return run(door.workspace, a, b, key=words(key), label=label).to_json()


def blame(
    dataset: str | None = None,
    *,
    row: int | None = None,
    where: str | None = None,
    label: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Say which versions hold certain rows, which models saw them, and which label came from whom.

    Parameters
    ----------
    dataset : str, optional
        The version in which ``row`` is counted; without it ``where`` is asked of all.
    row : int, optional
        Row number, from 0.
    where : str, optional
        A condition, for example ``"person = 'p17'"``.
    label : str, optional
        The label column; default the target.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.blame import blame as run

    with enter(workspace, actor) as door:
        if dataset is not None:
            door.may_read(dataset)
        found = run(door.workspace, dataset, row=row, where=where, label=label)
        for name in sorted({ref.rpartition("@")[0] for ref in found.versions}):
            door.may_see(name)
        return found.to_json()


def check(
    source: Any,
    *,
    target: str | None = None,
    test: Any = None,
    expected: str | Path | None = None,
    suite: str | None = None,
    out: str | Path | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> list[dict[str, Any]]:
    """Look for what spoils a model; one dictionary for each finding, worst first.

    Parameters
    ----------
    source : path, table or str
        Rows, or a dataset version. Of a version every byte is checked, too, and what is expected of it: where that
        fails with an error, no model may learn from the version until somebody opens its gate.
    target : str, optional
        The column to predict; default a version's own.
    test : path or table, optional
        Test rows to compare with.
    expected : path, optional
        Of a version: a file of expectations in place of those that are kept for the dataset.
    suite : str, optional
        Of a version: a suite of another tool, ``"pandera:FILE"`` or ``"gx:FILE"``, in place of those that are kept.
    out : path, optional
        Write a report (HTML, one file).
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.checks._base import SEVERITIES
    from tidemill.sdk.sources import read_version

    named = read_version(source, workspace, actor=actor)
    found: list[dict[str, Any]] = []
    if named is not None:
        broken = verify(str(source), workspace=workspace, actor=actor)["problems"]
        found = [_broken(problem) for problem in broken]
        if not found:
            found = judge(str(source), expected=expected, suite=suite, workspace=workspace, actor=actor)["findings"]
            found += _looked_at(named.raw, target or named.target, test, named)
    elif expected is not None or suite is not None:
        hint = "Add the rows first: tidemill data add DATA"
        where = "--expect" if suite is None else "--suite"
        raise OptionError("Expectations are held against dataset versions.", hint=hint, where=where)
    else:
        found = _looked_at(_rows(source), target, test, None)
    found.sort(key=lambda f: SEVERITIES.index(f["severity"]))
    if out is not None:
        _report(Path(out), named.version.ref if named is not None else dataset_name(source), found)
    return found


def _looked_at(raw: RawTable, target: str | None, test: Any, named: Named | None) -> list[dict[str, Any]]:
    """Run the checks on rows; a version says what its columns mean."""
    from tidemill.data.checks import check as run
    from tidemill.data.coerce import to_columns
    from tidemill.data.infer import infer_schema, infer_task

    types = {} if named is None else {k: v for k, v in named.types.items() if k != target}
    schema = infer_schema(raw, target, types=types)
    task = infer_task(raw, schema) if target is not None else None
    return plain(run(raw, schema, task, to_columns(raw, schema), test=None if test is None else _rows(test)))


def _rows(source: Any) -> RawTable:
    """Read rows that are no version."""
    from tidemill.data.ingest import read

    return read(source)


def _report(path: Path, name: str, found: Sequence[dict[str, Any]]) -> None:
    from tidemill.data.checks._base import Finding
    from tidemill.data.drift.page import render_page

    page = render_page(f"Checks of {name}", findings=[Finding(**f) for f in found])
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"The report can't be written: {error.strerror}.", where=str(path)) from error


def verify(dataset: str, *, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """Check every byte that a version needs.

    Parameters
    ----------
    dataset : str
        The version.
    workspace, actor : optional
        As in `add`.
    """
    from tidemill.data.versions.verify import verify as run

    with enter(workspace, actor) as door:
        version = door.version(dataset)
        door.may_see(version.dataset)
        return {"version": version.ref, "problems": run(door.workspace, version)}


def export(
    dataset: str,
    out: str | Path,
    *,
    form: str | None = None,
    with_pii: bool = False,
    most_bytes: int | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Write a version as files that other tools read.

    Parameters
    ----------
    dataset : str
        The version.
    out, form, most_bytes
        As in `tidemill.data.versions.export.export`.
    with_pii : bool
        Columns that are marked as personal data are written, too; only a writer or an owner may ask for it.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``path``, ``version`` and ``without``: the columns that were left out.
    """
    from tidemill.data.versions.export import export as run
    from tidemill.data.versions.governance import audit, facts_of

    with enter(workspace, actor) as door:
        version = door.version(dataset)
        door.may_read(dataset)
        if with_pii:
            door.may_write(version.dataset)
        pii = [] if with_pii else [c for c in facts_of(door.workspace, version.dataset).pii if c in version.schema]
        path = run(door.workspace, dataset, out, form=form, without=pii, most_bytes=most_bytes)
        told = {"version": version.hash, "without": pii}
        audit(door.workspace, "dataset_exported", version.dataset, door.actor, told)
        return {"path": str(path), "version": version.ref, "without": pii}


def _broken(problem: str) -> dict[str, Any]:
    hint = "Restore the file from a copy, or add the data again."
    return {"severity": "error", "code": "damaged", "column": None, "message": problem, "hint": hint}
