"""Whether rows are fit to learn from: expectations, the gate, drift, what two parts share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import DataError, OptionError
from tidemill.sdk.data.doors import Door, Place, enter, words

if TYPE_CHECKING:
    from tidemill.data.checks import Finding
    from tidemill.data.expectations.expected import Expected
    from tidemill.data.expectations.suite import Suite
    from tidemill.data.versions import DatasetVersion
    from tidemill.sdk.sources import Named


def expect(
    dataset: str,
    *,
    source: str | Path | None = None,
    text: str | None = None,
    suite: str | None = None,
    out: str | Path | None = None,
    anew: bool = False,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Say what is expected of the versions of a dataset: what one of them looks like, then edited by a person.

    Expectations that are kept already are shown as they are, unless they shall be inferred anew or come from a file.

    Parameters
    ----------
    dataset : str
        The version that is looked at.
    source : path, optional
        An edited file (YAML) to keep.
    text : str, optional
        The same as text.
    suite : str, optional
        A suite of another tool to keep beside ours: ``"pandera:FILE"`` (YAML, JSON) or ``"gx:FILE"`` (JSON). It is run
        on the version first. With nothing behind the colon the one of that tool is taken away.
    out : path, optional
        Where to write the expectations, to be edited.
    anew : bool
        Infer them again, though there are some.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``dataset``, ``yaml``, ``columns`` (their number), ``changed`` (whether others hold now than before), ``suites``
        (of other tools: their files), and ``out`` where a file was written; with ``suite`` also ``findings``.

    Examples
    --------
    >>> from tidemill.sdk import data
    >>> data.expect("income@1a2b", out="income.yaml")["columns"]  # doctest: +SKIP
    15
    >>> data.expect("income", source="income.yaml")["changed"]  # doctest: +SKIP
    True
    >>> data.expect("income", suite="gx:income.json")["findings"]  # doctest: +SKIP
    []
    """
    from tidemill.data.expectations.expected import load_expected
    from tidemill.data.expectations.gate import keep_suite
    from tidemill.data.expectations.infer import infer_suite

    if [source is not None, text is not None, anew].count(True) > 1:
        raise OptionError("Expectations come from a file or are inferred anew, not both.", where="--from")
    if suite is not None and (source is not None or text is not None or anew or out is not None):
        raise OptionError("A suite of another tool is kept by itself.", hint="Do one after the other.", where="--suite")
    with enter(workspace, actor) as door:
        door.may_read(dataset)
        version = door.version(dataset)
        if suite is not None:
            return _expect_foreign(door, version, suite)
        kept = load_expected(door.workspace, version.dataset)
        known = kept.suite
        if source is not None:
            wanted = _read_suite(source, version.dataset)
        elif text is not None:
            wanted = _suite_of(text, version.dataset, "yaml")
        else:
            wanted = known if known is not None and not anew else infer_suite(door.workspace, version.hash)
        changed = wanted != known
        if changed:
            door.may_write(version.dataset)
            keep_suite(door.workspace, wanted, actor=door.actor)
    yaml = wanted.to_yaml()
    told = {"dataset": version.dataset, "yaml": yaml, "columns": len(wanted.columns), "changed": changed}
    told["suites"] = {s.kind: s.where for s in kept.foreign}
    return told if out is None else {**told, "out": _write(out, yaml)}


def expectations(*, workspace: Place = None, actor: str | None = None) -> list[dict[str, Any]]:
    """List the datasets of which something is expected, and which the actor may read.

    Parameters
    ----------
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    list of dict
        ``dataset``, ``columns`` (of which something is expected) and ``suites`` (of other tools: their files).
    """
    from tidemill.data.expectations.expected import list_expected

    with enter(workspace, actor) as door:
        found = list_expected(door.workspace)
        readable = door.readable(found)
    return [
        {
            "dataset": name,
            "columns": 0 if kept.suite is None else len(kept.suite.columns),
            "suites": {s.kind: s.where for s in kept.foreign},
        }
        for name, kept in found.items()
        if name in readable
    ]


def judge(
    dataset: str,
    *,
    expected: str | Path | None = None,
    text: str | None = None,
    suite: str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Hold a version against what is expected of it; where an error stands, no model may learn from the version.

    A gate that somebody has opened stays open as long as no other error is found.

    Parameters
    ----------
    dataset : str
        The version.
    expected : path, optional
        A file of expectations; default those that are kept for the dataset. Who brings a file must be allowed to write.
    text : str, optional
        The same as text.
    suite : str, optional
        A suite of another tool, in the place of those that are kept: ``"pandera:FILE"``, a Python file, too, or
        ``"gx:FILE"``. Together with ``expected`` the version is held against both.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``version``, ``findings`` (worst first) and ``blocked``. Without expectations there are no findings.
    """
    from tidemill.data.expectations.expected import Expected, load_expected
    from tidemill.data.expectations.foreign import read_foreign

    with enter(workspace, actor) as door:
        door.may_read(dataset)
        version = door.version(dataset)
        if expected is None and suite is None and text is None:
            wanted = load_expected(door.workspace, version.dataset)
        else:
            door.may_write(version.dataset)
            ours = None if expected is None else _read_suite(expected, version.dataset)
            ours = ours if text is None else _suite_of(text, version.dataset, "yaml")
            wanted = Expected(ours, () if suite is None else (read_foreign(suite),))
        findings = _judge(door, version.dataset, version.hash, wanted) if wanted else []
        return {"version": version.ref, "findings": plain(findings), "blocked": _blocked(door, version.hash)}


def gate(
    dataset: str,
    *,
    opened: bool = False,
    reason: str = "",
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Say whether models may learn from a version, or let them though its checks failed.

    Parameters
    ----------
    dataset : str
        The version.
    opened : bool
        Open the gate; only an owner may.
    reason : str
        Why; it stands in the audit log.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``version``, ``judged``, ``blocked`` and ``findings``.
    """
    from tidemill.data.expectations.gate import open_gate, verdict

    if reason and not opened:
        raise OptionError("A reason is given to open the gate.", hint="Add --open.", where="--reason")
    with enter(workspace, actor) as door:
        door.may_read(dataset)
        version = door.version(dataset)
        ref = f"{version.dataset}@{version.hash}"
        if opened:
            door.may_rule(version.dataset)
            open_gate(door.workspace, ref, reason=reason, actor=door.actor)
        found = verdict(door.workspace, ref)
        return {
            "version": version.ref,
            "judged": found is not None,
            "blocked": found is not None and found.blocked,
            "findings": [] if found is None else plain(found.findings),
        }


def drift(
    a: str,
    b: str,
    *,
    out: str | Path | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Compare the distributions of all columns of two versions, from histograms that are kept with them.

    Parameters
    ----------
    a, b : str
        The version before, and the one after.
    out : path, optional
        Write a report (HTML, one file).
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    dict
        ``before``, ``after``, rows, columns (the most moved first), ``drifted`` (names), ``added``, ``removed``; and
        ``report`` where one was written.
    """
    from tidemill.data.drift.kept import version_drift
    from tidemill.data.drift.page import render_page

    with enter(workspace, actor) as door:
        door.may_read(a, b)
        before, after = (door.version(ref) for ref in (a, b))
        found = version_drift(door.workspace, *(f"{v.dataset}@{v.hash}" for v in (before, after)))
    told = {
        "before": before.ref,
        "after": after.ref,
        "drifted": [c.column for c in found.drifted],
        **found.to_json(),
    }
    if out is None:
        return told
    page = render_page(f"Drift from {before.ref} to {after.ref}", drift=found, names=(before.ref, after.ref))
    return {**told, "report": _write(out, page)}


def overlap(
    train: Any,
    test: Any,
    *,
    entity: str | None = None,
    time: str | None = None,
    by: Sequence[str] | str | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> list[dict[str, Any]]:
    """Look for what test rows share with training rows, and should not: rows, entities, times.

    Parameters
    ----------
    train, test : path, table or str
        Rows, or dataset versions.
    entity : str, optional
        Column that names who or what a row is about; default the group column of the training version.
    time : str, optional
        Column that says when; default the time column of the training version.
    by : sequence of str, optional
        Columns by which rows are compared; default all that both have.
    workspace, actor : optional
        As in `add`.

    Returns
    -------
    list of dict
        What was found, worst first.
    """
    from tidemill.core.schema import SemanticType
    from tidemill.data.checks.across import check_splits
    from tidemill.data.ingest import read
    from tidemill.sdk.sources import read_version

    with enter(workspace, actor) as door:
        named = [read_version(source, door.workspace, actor=door.actor) for source in (train, test)]
        tables = [
            read(source).table if version is None else version.raw.table
            for source, version in zip((train, test), named, strict=True)
        ]
    entity = entity or _role(named, SemanticType.GROUP)
    time = time or _role(named, SemanticType.TIME)
    return plain(check_splits(*tables, features=words(by) or None, entity=entity, time=time))


def plain(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Write findings as plain dictionaries."""
    return [
        {"severity": f.severity, "code": f.code, "column": f.column, "message": f.message, "hint": f.hint}
        for f in findings
    ]


def _expect_foreign(door: Door, version: DatasetVersion, word: str) -> dict[str, Any]:
    """Keep a suite of another tool once it has run, or take one away."""
    from tidemill.data.expectations.expected import load_expected
    from tidemill.data.expectations.foreign import KINDS, check_foreign, drop_foreign, keep_foreign, read_foreign

    name = version.dataset
    door.may_write(name)
    findings: Sequence[Finding] = []
    if word.endswith(":") and word[:-1] in KINDS:
        drop_foreign(door.workspace, name, word[:-1], actor=door.actor)
        changed = True
    else:
        suite = read_foreign(word)
        findings = [] if suite.is_code else check_foreign(door.workspace, version.hash, suite)
        changed = keep_foreign(door.workspace, name, suite, actor=door.actor)
    kept = load_expected(door.workspace, name)
    return {
        "dataset": name,
        "yaml": "" if kept.suite is None else kept.suite.to_yaml(),
        "columns": 0 if kept.suite is None else len(kept.suite.columns),
        "changed": changed,
        "suites": {s.kind: s.where for s in kept.foreign},
        "findings": plain(findings),
    }


def _judge(door: Door, dataset: str, key: str, wanted: Expected) -> Sequence[Finding]:
    from tidemill.data.expectations.gate import judge as run
    from tidemill.data.expectations.gate import verdict
    from tidemill.data.versions.governance import audit

    before = verdict(door.workspace, key)
    if before is not None and not before.blocked and _errors(before.findings):  # somebody has opened it
        findings = wanted.check(door.workspace, key)
        if _errors(findings) <= _errors(before.findings):
            return findings
    found = run(door.workspace, key, wanted)
    if found.blocked != (before is not None and before.blocked):
        told = {"version": key, "blocked": found.blocked, "errors": len(_errors(found.findings))}
        audit(door.workspace, "dataset_judged", dataset, door.actor, told)
    return found.findings


def _errors(findings: Iterable[Finding]) -> set[tuple[str, str | None, str]]:
    return {(f.code, f.column, f.message) for f in findings if f.severity == "error"}


def _blocked(door: Door, key: str) -> bool:
    from tidemill.data.expectations.gate import verdict

    found = verdict(door.workspace, key)
    return found is not None and found.blocked


def _read_suite(source: str | Path, dataset: str) -> Suite:
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"The expectations can't be read: {said}.", where=str(path)) from error
    return _suite_of(text, dataset, str(path))


def _suite_of(text: str, dataset: str, where: str) -> Suite:
    from tidemill.data.expectations.suite import Suite

    suite = Suite.from_yaml(text, where=where)
    if suite.dataset != dataset:
        raise OptionError(
            f"These are expectations of {suite.dataset!r}, not of {dataset!r}.",
            hint=f"Write `dataset: {dataset}` in the first line if they are meant.",
            where=where,
        )
    return suite


def _role(named: Sequence[Named | None], kind: Any) -> str | None:
    first = named[0]
    return None if first is None else next((c.name for c in first.version.schema if c.type is kind), None)


def _write(out: str | Path, text: str) -> str:
    path = Path(out)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"The file can't be written: {error.strerror}.", where=str(path)) from error
    return str(path)
