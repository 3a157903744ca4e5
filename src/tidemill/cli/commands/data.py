"""``tidemill data``: dataset versions and checks."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import FAILED, Exit, for_people

Target = Annotated[str | None, typer.Option("--target", "-t", help="The column to predict.")]
Source = Annotated[str, typer.Argument(metavar="DATA", help="CSV, TSV, Parquet, Arrow, JSON lines or Excel.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the program."""
    group = typer.Typer(no_args_is_help=True, help="Dataset versions and checks.")
    group.command("add", epilog="Example: tidemill data add train.csv --name income")(add)
    group.command("list", epilog="Example: tidemill data list")(list_)
    group.command("show", epilog="Example: tidemill data show income")(show_)
    group.command("check", epilog="Example: tidemill data check train.csv --target income --test test.csv")(check)
    app.add_typer(group, name="data")


def add(
    data: Source,
    name: Annotated[str | None, typer.Option("--name", help="Name of the dataset; default the file's.")] = None,
    target: Target = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Keep a version of a dataset; the same rows give the same version."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.data import add as run

        version = run(data, name=name, target=target, workspace=workspace)
        if as_json:
            show.emit_json(version)
        else:
            print(f"{version['dataset']} {version['hash'][:12]}: {version['rows']:,} rows")


def list_(workspace: options.Workspace = None, as_json: options.Json = False) -> None:
    """List the dataset versions of the workspace."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.data import versions

        rows = versions(workspace)
        if as_json:
            show.emit_json(rows)
        elif rows:
            show.table(rows, columns=["dataset", "hash", "rows", "columns", "created"], title="Dataset versions")
        else:
            print("No datasets yet. Add one with: tidemill data add DATA")


def show_(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name, or the beginning of a hash.")],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show the columns of a dataset version, with what was seen in them."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.data import describe

        facts = describe(dataset, workspace)
        if as_json:
            show.emit_json(facts)
        else:
            show.table(
                facts["columns"],
                columns=["name", "type", "missing", "distinct", "low", "high", "reason"],
                title=f"{facts['dataset']} {facts['hash'][:12]}, {facts['rows']:,} rows",
            )


def check(
    data: Source,
    target: Target = None,
    test: Annotated[str | None, typer.Option("--test", help="File with test rows to compare with.")] = None,
    as_json: options.Json = False,
) -> None:
    """Look for what spoils a model: leakage, duplicates, imbalance, drift, missing targets."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.data import check as run

        findings = run(data, target=target, test=test)
        if as_json:
            show.emit_json(findings)
        elif findings:
            show.table(findings, columns=["severity", "column", "message", "hint"])
        else:
            print("Nothing to worry about was found.")
        if any(f["severity"] == "error" for f in findings):
            raise Exit(FAILED)
