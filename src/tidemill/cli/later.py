"""Groups of commands that are loaded when one of them is asked for: ``tidemill --help`` needs their names alone."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.main import get_group


class LaterGroup(TyperGroup):
    """A group whose commands are made on first sight.

    Its module has a function ``group``, which gives a `typer.Typer`.
    """

    module: ClassVar[str] = ""
    _made: MutableMapping[str, Any] | None = None

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """The commands by name."""
        if self._made is None:
            self._made = get_group(import_module(self.module).group()).commands
        return self._made

    @commands.setter
    def commands(self, given: MutableMapping[str, Any]) -> None:
        """There are none before they are asked for."""


def add_group(app: typer.Typer, name: str, module: str, about: str) -> None:
    """Add a group of commands to the program.

    Parameters
    ----------
    app : typer.Typer
        The program.
    name : str
        What the group is called.
    module : str
        Where it is made.
    about : str
        One sentence for people.
    """
    later = type("LaterGroup", (LaterGroup,), {"module": module})
    app.add_typer(typer.Typer(), name=name, help=about, cls=later, no_args_is_help=True)
