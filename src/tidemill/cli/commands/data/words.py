"""Words that the commands of this group share."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from tidemill.core.errors import OptionError

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A name, NAME@HASH, NAME@TAG, or a hash.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the new dataset; default the same.")]
NewName = Annotated[str | None, typer.Option("--name", help="Name of the new dataset; default one beside the old.")]
Label = Annotated[str | None, typer.Option("--label", help="The label column; default the target.")]
Key = Annotated[str | None, typer.Option("--key", help="Columns that tell which rows are the same, with commas.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same rows.")]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        help="Who does it. Default: TIDEMILL_ACTOR, else the system's user.",
        rich_help_panel="General",
    ),
]


def tell(version: Mapping[str, Any], more: str = "") -> str:
    """Say in one line which version there is now."""
    return f"{version['dataset']} {version['hash'][:12]}: {version['rows']:,} rows{more}"


def pairs(given: Iterable[str], where: str) -> dict[str, str]:
    """Read ``name=value`` words.

    Examples
    --------
    >>> pairs(["train=0.8", "test=0.2"], "--share")
    {'train': '0.8', 'test': '0.2'}
    """
    found: dict[str, str] = {}
    for word in given:
        name, sign, value = word.rpartition("=")
        if not sign or not name:
            raise OptionError(f"This is no NAME=VALUE: {word!r}.", where=where)
        if name in found:
            raise OptionError(f"{name!r} is given twice.", where=where)
        found[name] = value
    return found


def shares(given: Iterable[str]) -> dict[str, float]:
    """Read ``name=share`` words.

    Examples
    --------
    >>> shares(["train=0.8"])
    {'train': 0.8}
    """
    found = {}
    for name, value in pairs(given, "--share").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise OptionError(f"A share is a number, but {name!r} has {value!r}.", where="--share") from None
    return found
