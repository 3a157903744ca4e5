"""What is there, what differs, where it comes from: list, show, verify, log, diff, blame, export."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import FAILED, Exit, for_people


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("list", epilog="Example: tidemill data list")(list_)
    group.command("show", epilog="Example: tidemill data show income@gold")(show_)
    group.command("verify", epilog="Example: tidemill data verify income")(verify)
    group.command("log", epilog="Example: tidemill data log income --out lineage.svg")(log)
    group.command("diff", epilog="Example: tidemill data diff income@1a2b income --key person")(diff)
    group.command("blame", epilog="Example: tidemill data blame --where \"person = 'p17'\"")(blame)
    group.command("export", epilog="Example: tidemill data export income@gold income.parquet")(export)


def list_(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="Only of this one.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """List the dataset versions that you may read."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        rows = sdk.versions(workspace, dataset=dataset, actor=actor)
        if as_json:
            show.emit_json(rows)
        elif rows:
            columns = ["dataset", "hash", "rows", "columns", "operation", "created"]
            show.table(rows, columns=columns, title="Dataset versions")
        else:
            print("No datasets yet. Add one with: tidemill data add DATA")


def show_(
    dataset: words.Dataset,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Show the columns of a dataset version, with what was seen in them and what is said of them."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        facts = sdk.describe(dataset, workspace, actor=actor)
        if as_json:
            show.emit_json(facts)
            return
        columns = ["name", "type", "missing", "distinct", "low", "high", "pii", "reason"]
        show.table(
            facts["columns"],
            columns=columns if any(c["pii"] for c in facts["columns"]) else [c for c in columns if c != "pii"],
            title=f"{facts['dataset']} {facts['hash'][:12]}, {facts['rows']:,} rows",
        )
        for name in ("owner", "description", "tags", "retention_days", "roles"):
            if facts[name]:
                print(f"{name.replace('_', ' ')}: {_said(facts[name])}")


def verify(
    dataset: words.Dataset,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Check every byte that a version needs."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        found = sdk.verify(dataset, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(found)
        else:
            print("\n".join(found["problems"]) or f"{found['version']} is whole.")
        if found["problems"]:
            raise Exit(FAILED)


def log(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="Only what belongs to this one.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Draw a picture: .svg or .html.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Show how versions came about: the graph of operations, newest first."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.log(dataset, out=out, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        else:
            print(told["text"] or "No datasets yet. Add one with: tidemill data add DATA")
            if out is not None:
                print(f"Picture: {out}")


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A dataset version.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    key: words.Key = None,
    label: words.Label = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Compare two versions: rows, labels, columns, distributions."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.diff(a, b, key=key or (), label=label, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        rows, labels = told["rows"], told["labels"]
        print(f"{told['a']} → {told['b']}: {rows['a']:,} → {rows['b']:,} rows")
        print(f"  {rows['removed']:,} removed, {rows['added']:,} added, {rows['common']:,} in both")
        print(f"  {labels['changed']:,} labels changed")
        for move in labels["moves"]:
            print(f"    {move['before']} → {move['after']}: {move['rows']:,}")
        for line in told["columns"]:
            print(f"  {line}")
        shifted = [s for s in told["shifts"] if s["stability_index"] > 0]
        if shifted:
            show.table(shifted[:20], title="Distributions that moved (population stability index)")


def blame(
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="The version that --row counts in.")
    ] = None,
    row: Annotated[int | None, typer.Option("--row", help="Row number, from 0.")] = None,
    where: Annotated[str | None, typer.Option("--where", help="A condition as in SQL.")] = None,
    label: words.Label = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Say which versions hold certain rows, which models saw them, and which label came from whom."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.blame(dataset, row=row, where=where, label=label, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        print(f"{told['rows']:,} stored rows")
        for name, count in told["versions"].items():
            print(f"  {name} holds {count:,}")
        print(f"  studies that saw them: {', '.join(told['studies']) or 'none'}")
        print(f"  bundles that saw them: {', '.join(told['bundles']) or 'none'}")
        for labels in told["labels"]:
            print("  " + " → ".join(_label(x) for x in labels))


def export(
    dataset: words.Dataset,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File or folder to write.")],
    to: Annotated[str | None, typer.Option("--to", help="parquet, csv, jsonl, huggingface or delta.")] = None,
    with_pii: Annotated[bool, typer.Option("--with-pii", help="Personal data, too; for writers and owners.")] = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Write a version as files that other tools read; columns marked as personal data are left out."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.export(dataset, out, form=to, with_pii=with_pii, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        else:
            left = f", without {', '.join(told['without'])}" if told["without"] else ""
            print(f"{told['version']} → {told['path']}{left}")


def _label(label: dict[str, str | None]) -> str:
    return f"{label['value']} ({label['annotator'] or 'unknown'}, {label['at']}, {label['version']})"


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
