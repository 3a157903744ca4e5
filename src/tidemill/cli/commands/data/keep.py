"""Rows come in: add, append."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import for_people

Source = Annotated[
    str,
    typer.Argument(metavar="DATA", help="CSV, TSV, Parquet, Arrow, JSON lines, Excel, a database, a folder of media."),
]
Annotator = Annotated[str, typer.Option("--annotator", help="Who gave the labels.")]
Query = Annotated[str | None, typer.Option("--query", help="SQL, where DATA is a database.")]
Sheet = Annotated[str | None, typer.Option("--sheet", help="Sheet of an Excel file.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("add", epilog="Example: tidemill data add train.csv --name income --target y")(add)
    group.command("append", epilog="Example: tidemill data append income june.csv --annotator mia")(append)


def add(
    data: Source,
    name: Annotated[str | None, typer.Option("--name", help="Name of the dataset; default the file's.")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="The column to predict.")] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="A dataset whose meanings of columns are taken over.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Of a folder of media: a table with file and label; of images COCO .json, too."),
    ] = None,
    annotator: Annotator = "",
    query: Query = None,
    sheet: Sheet = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Keep a version of a dataset; the same rows give the same version."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        version = sdk.add(
            data, name=name, target=target, like=like, labels=labels, annotator=annotator, query=query, sheet=sheet,
            workspace=workspace, actor=actor,
        )  # fmt: skip
        if as_json:
            show.emit_json(version)
        else:
            print(words.tell(version))


def append(
    dataset: words.Dataset,
    data: Source,
    name: words.Name = None,
    annotator: Annotator = "",
    query: Query = None,
    sheet: Sheet = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Add rows behind those of a version; what is there is not written again."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        version = sdk.append(
            dataset, data, name=name, annotator=annotator, query=query, sheet=sheet, workspace=workspace, actor=actor
        )
        if as_json:
            show.emit_json(version)
        else:
            print(words.tell(version))
