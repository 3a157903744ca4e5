"""``tidemill data``: datasets in versions; one file for each kind of use."""

from __future__ import annotations

import typer

from tidemill.cli.commands.data import choose, govern, judge, keep, look, make


def register(app: typer.Typer) -> None:
    """Add the group of commands to the program."""
    group = typer.Typer(no_args_is_help=True, help="Datasets in versions: kept, combined, compared, governed.")
    keep.register(group)
    look.register(group)
    judge.register(group)
    make.register(group)
    choose.register(group)
    govern.register(group)
    app.add_typer(group, name="data")
