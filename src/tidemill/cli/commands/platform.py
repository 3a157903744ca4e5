"""``tidemill up`` and ``tidemill keys``: the platform on one machine, and who may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("up", epilog="Example: tidemill up --port 8080")(up)
    group = typer.Typer(no_args_is_help=True, help="API keys: who may do what, how often.")
    group.command("create", epilog="Example: tidemill keys create shop --scope predict --scope feedback --rate 50")(
        create
    )
    group.command("list", epilog="Example: tidemill keys list")(list_)
    group.command("revoke", epilog="Example: tidemill keys revoke shop")(revoke)
    app.add_typer(group, name="keys")


def up(
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any other than loopback demands API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the endpoints; 0 takes a free one.")] = 8080,
    api_port: Annotated[
        int, typer.Option("--api-port", min=0, max=65535, help="Of the platform's API; 0 takes a free one.")
    ] = 8081,
    fronts: Annotated[int, typer.Option("--fronts", min=1, max=64, help="Processes that share the port.")] = 1,
    keys: Annotated[
        bool | None, typer.Option("--keys/--no-keys", help="Demand API keys. Default: not on loopback.")
    ] = None,
    certificate: Annotated[str | None, typer.Option("--certificate", help="TLS certificate, a PEM file.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Its key, a PEM file.")] = None,
    provider: Annotated[str, typer.Option("--provider", help="cpu or cuda.")] = "cpu",
    memory: Annotated[float, typer.Option("--memory", min=0, help="MB that models may hold; 0: four fifths.")] = 0.0,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", min=0, max=65535, help="Answer over gRPC, too; 0 takes a free port.")
    ] = None,
    bodies: Annotated[
        float, typer.Option("--bodies", min=0, help="MB that bodies of requests under way may hold; 0: 268.")
    ] = 0.0,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=64, help="Processes that run queued jobs, at low priority.")
    ] = 1,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Serve the workspace's endpoints until Ctrl-C; fronts, API, gates and job worker are started again if they die."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.up import UpOptions
        from tidemill.sdk.up import up as run

        def tell(name: str, what: str, facts: Mapping[str, Any]) -> None:
            if as_json:
                show.emit_json_line({"program": name, "event": what, **facts})
            elif what == "ready" and facts.get("url"):
                grpc = f" and for gRPC on {facts['grpc']}" if facts.get("grpc") else ""
                print(f"{name} listens on {facts['url']}{grpc}", flush=True)
            elif what == "ended":
                print(f"{name} ended ({facts['why']}); it is started again in {facts['again_s']:.1f} s", flush=True)

        wanted = UpOptions(
            host, port, api_port, fronts, keys, certificate, key, provider, int(memory * 1e6), grpc_port,
            int(bodies * 1e6), workers,
        )  # fmt: skip
        run(workspace, wanted, tell)


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For people: who uses it, for what.")],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="predict, feedback, features, deploy, jobs or admin; several.")
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
