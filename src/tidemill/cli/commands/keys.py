"""``tidemill keys``: who may use the platform."""

from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def group() -> typer.Typer:
    """Give the commands."""
    group = typer.Typer()
    group.command("create", epilog="Example: tidemill keys create shop --scope predict --scope feedback --rate 50")(
        create
    )
    group.command("list", epilog="Example: tidemill keys list")(list_)
    group.command("revoke", epilog="Example: tidemill keys revoke shop")(revoke)
    return group


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For people: who uses it, for what.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="predict, feedback, features, data, deploy, jobs or admin; several."),
    ] = None,
    endpoint: Annotated[list[str] | None, typer.Option("--endpoint", help="Only for this one; several.")] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Requests per second; 0: any.")] = 0.0,
    burst: Annotated[int, typer.Option("--burst", min=0, help="Requests at once; 0: one second's worth.")] = 0,
    quota: Annotated[int, typer.Option("--quota", min=0, help="Requests in each period; 0: any.")] = 0,
    period: Annotated[str, typer.Option("--period", help="hour, day or week.")] = "day",
    expires: Annotated[float, typer.Option("--expires", min=0, help="Days until it is void; 0: never.")] = 0.0,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Make an API key. It is shown once; only a hash of it is kept."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.keys import create_key

        made = create_key(
            name, scope or ["predict"], endpoints=endpoint or [], rate=rate, burst=burst, quota=quota, period=period,
            expires_s=expires * 86_400, workspace=workspace,
        )  # fmt: skip
        if as_json:
            show.emit_json(made)
        else:
            print(made["token"])
            print(f"Key {made['id']} ({made['name']}) for {', '.join(made['scopes'])}. Keep it: it is not shown again.")


def list_(workspace: options.Workspace = None, as_json: options.Json = False) -> None:
    """List the API keys, without their secrets."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.keys import list_keys

        rows = list_keys(workspace)
        if as_json:
            show.emit_json(rows)
        elif rows:
            words = [
                {**r, "scopes": ", ".join(r["scopes"]), "endpoints": ", ".join(r["endpoints"]) or "all"} for r in rows
            ]
            columns = ["id", "name", "state", "scopes", "endpoints", "rate", "quota", "used", "created"]
            show.table(words, columns=columns, title="API keys")
        else:
            print("No keys yet. Make one with: tidemill keys create NAME")


def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, or its name.")],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """End an API key; it ends everywhere within a second."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.keys import revoke_key

        ended = revoke_key(key, workspace)
        if as_json:
            show.emit_json(ended)
        else:
            print(f"Key {ended['id']} ({ended['name']}) is revoked.")
