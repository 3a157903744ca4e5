"""Whether rows are fit to learn from: check, expect, gate, drift, skew, overlap."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import FAILED, Exit, for_people

_SHOWN = 20


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("check", epilog="Example: tidemill data check train.csv --target income --test test.csv")(check)
    group.command("expect", epilog="Example: tidemill data expect income@1a2b --out income.yaml")(expect)
    group.command("gate", epilog='Example: tidemill data gate income --open --reason "a known gap"')(gate)
    group.command("drift", epilog="Example: tidemill data drift income@1a2b income --out drift.html")(drift)
    group.command("skew", epilog="Example: tidemill data skew income@1a2b endpoint:income --out skew.html")(skew)
    group.command("overlap", epilog="Example: tidemill data overlap cases.train cases.test --entity person")(overlap)


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file as `data add` takes it, or a dataset version.")],
    target: Annotated[str | None, typer.Option("--target", "-t", help="The column to predict.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="File with test rows to compare with.")] = None,
    expect: Annotated[
        Path | None, typer.Option("--expect", help="Of a version: expectations (YAML) in place of those kept for it.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Of a version: pandera:FILE or gx:FILE, in place of those kept for it."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a report: HTML, one file.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Look for what spoils a model: damage, broken expectations, leakage, duplicates, imbalance, drift.

    A version that breaks its expectations with an error can't be used for training until its gate is opened.
    """
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        findings = sdk.check(
            data, target=target, test=test, expected=expect, suite=suite, out=out, workspace=workspace, actor=actor
        )
        if as_json:
            show.emit_json(findings)
        else:
            _tell(findings)
            if out is not None:
                print(f"Report: {out}")
        if any(f["severity"] == "error" for f in findings):
            raise Exit(FAILED)


def expect(
    dataset: words.Dataset,
    source: Annotated[Path | None, typer.Option("--from", help="Keep an edited file (YAML).")] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Keep a suite of another tool, too: pandera:FILE or gx:FILE; gx: takes it away."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write them to a file, to be edited.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Infer them again, though there are some.")] = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Say what is expected of the versions of a dataset: inferred from one of them, then edited by a person."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.expect(dataset, source=source, suite=suite, out=out, anew=anew, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        elif suite is not None:
            _tell_suites(told)
        elif out is None and source is None:
            print(told["yaml"].rstrip())
        else:
            kept = "are kept now" if told["changed"] else "are kept as before"
            print(f"Expectations of {told['columns']:,} columns of {told['dataset']} {kept}.")
            if out is not None:
                print(f"File: {out}")


def gate(
    dataset: words.Dataset,
    opened: Annotated[bool, typer.Option("--open", help="Let models learn from it though its checks failed.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.")] = "",
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Say whether models may learn from a version, or open its gate."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.gate(dataset, opened=opened, reason=reason, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        state = "is blocked" if told["blocked"] else "is open" if told["judged"] else "was never judged, and is open"
        print(f"{told['version']} {state}.")
        if told["findings"]:
            _tell(told["findings"])


def drift(
    a: Annotated[str, typer.Argument(metavar="A", help="A dataset version.")],
    b: Annotated[str, typer.Argument(metavar="B", help="A later one.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a report: HTML, one file.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Compare the distributions of all columns of two versions."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.drift(a, b, out=out, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        moved = len(told["drifted"])
        print(f"{told['before']} → {told['after']}: {moved:,} of {len(told['columns']):,} columns have drifted")
        for word in ("added", "removed"):
            if told[word]:
                print(f"  {word}: {', '.join(told[word])}")
        rows = [_row(c) for c in told["columns"] if c["drifted"]]
        if rows:
            show.table(rows[:_SHOWN], title="Columns that moved (population stability index, most first)")
        if out is not None:
            print(f"Report: {out}")


def skew(
    dataset: words.Dataset,
    served: Annotated[
        str, typer.Argument(metavar="SERVED", help="A file, a dataset version, or endpoint:NAME for what was captured.")
    ],
    columns: Annotated[
        str | None, typer.Option("--columns", help="What the model asks for, with commas; default all but the target.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a report: HTML, one file.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Say whether what is asked in service looks like what a model was trained on."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.skew(dataset, served, columns=columns, out=out, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        else:
            lost = f" ({told['lost']:,} more are left out: images or texts of theirs are gone)" if told["lost"] else ""
            print(f"{told['rows']:,} rows in service{lost} beside {told['version']}:")
            _tell(told["findings"])
            if out is not None:
                print(f"Report: {out}")
        if any(f["severity"] == "error" for f in told["findings"]):
            raise Exit(FAILED)


def overlap(
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="A file, or a dataset version.")],
    test: Annotated[str, typer.Argument(metavar="TEST", help="Another one.")],
    entity: Annotated[str | None, typer.Option("--entity", help="Column of who or what a row is about.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Column that says when.")] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Columns by which rows are compared; default all in both.")
    ] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Look for what test rows share with training rows, and should not: rows, entities, times."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        findings = sdk.overlap(train, test, entity=entity, time=time, by=by, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(findings)
        else:
            _tell(findings)
        if any(f["severity"] == "error" for f in findings):
            raise Exit(FAILED)


def _tell_suites(told: Mapping[str, Any]) -> None:
    kept = ", ".join(f"{kind} ({file})" for kind, file in told["suites"].items()) or "none"
    print(f"Suites of other tools kept for {told['dataset']}: {kept}.")
    if told["findings"]:
        print("This version breaks it:")
        _tell(told["findings"])


def _tell(findings: Sequence[Mapping[str, Any]]) -> None:
    from tidemill.cli import show

    if findings:
        show.table([dict(f) for f in findings], columns=["severity", "column", "message", "hint"])
    else:
        print("Nothing to worry about was found.")


def _row(column: Mapping[str, Any]) -> dict[str, Any]:
    row = {"column": column["column"], "index": f"{column['psi']:.3f}", "KS": f"{column['ks']:.3f}"}
    missing = f"{column['missing_before']:.1%} → {column['missing_after']:.1%}"
    return {**row, "missing": missing, "unseen": f"{column['unseen']:.1%}", "p": f"{column['p_adjusted']:.2g}"}
