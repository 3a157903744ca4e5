"""``tidemill data``: datasets in versions; one file for each kind of use."""

import typer


def group() -> typer.Typer:
    """Give the commands."""
    from tidemill.cli.commands.data import choose, govern, judge, keep, look, make

    group = typer.Typer()
    keep.register(group)
    look.register(group)
    judge.register(group)
    make.register(group)
    choose.register(group)
    govern.register(group)
    return group
