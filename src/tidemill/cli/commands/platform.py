"""``tidemill up``: the platform on one machine."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("up", epilog="Example: tidemill up --port 8080")(up)


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
