"""``tidemill pool``: the families that a search can choose from, and whether they still work."""

from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import FAILED, Exit, for_people

_SIGNS = {True: "✓", False: "✗", None: "–"}
"""How a check ended; the last was not tried."""


def group() -> typer.Typer:
    """Give the commands."""
    group = typer.Typer()
    group.command("list", epilog="Example: tidemill pool list --modality image")(list_)
    group.command("show", epilog="Example: tidemill pool show resnet9")(show)
    group.command("check", epilog="Example: tidemill pool check backbone/ViT --weights dinov2/")(check)
    return group


def list_(
    modality: Annotated[
        str | None, typer.Option("--modality", help="Only those for: table, image, text, line.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List all families, with the reason for those that can't be used here."""
    with for_people(as_json):
        from tidemill.cli import show as face
        from tidemill.sdk.pool import list_pool

        rows = list_pool(modality)
        if as_json:
            face.emit_json(rows)
        else:
            face.table(rows, title="Families")


def show(
    family: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY", help="Name of a family, or of one of its architectures: backbone/ViT. See `pool list`."
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Show what is known of a family: tasks, input, licence, weights, parameters and FLOPs, architectures."""
    with for_people(as_json):
        from tidemill.cli import show as face
        from tidemill.sdk.pool import show_architectures, show_pool

        facts, known = show_pool(family), show_architectures(family)
        if as_json:
            face.emit_json({**facts, "architectures": known} if known else facts)
        else:
            rows = [
                {"what": k, "value": ", ".join(map(str, v)) if isinstance(v, list) else v} for k, v in facts.items()
            ]
            face.table(rows)
            if known:
                face.table(known, title="Architectures, at their usual size")


def check(
    families: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAMILY]…", help="Families, or architectures: backbone/ViT. Default: all."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="A folder or file with weights, or a hub name: check those that take them."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Build, train, export and compare each family; exit code 1 where one fails."""
    with for_people(as_json):
        from tidemill.cli import show as face
        from tidemill.sdk.pool_check import check_pool

        done = []
        for each in check_pool(tuple(families or ()), weights):
            done.append(each)
            if not as_json:
                apart = "" if each.max_abs_dp is None else f", at most {each.max_abs_dp:.1e} apart"
                print(f"{_SIGNS[each.ok]} {each.title}: {each.message or f'{each.seconds:.1f} s{apart}'}")
        if as_json:
            face.emit_json([each.to_json() for each in done])
        if any(each.ok is False for each in done):
            raise Exit(FAILED)
