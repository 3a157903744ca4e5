"""The command `serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people

if TYPE_CHECKING:
    from tidemill.deploy.engine.server import Server


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("serve", epilog="Example: tidemill serve income.tm --port 8080")(serve)


def serve(
    bundle: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE…", help="Bundle folders, or ONNX files; each is a model.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.", min=0, max=65535)] = 8080,
    name: Annotated[str, typer.Option("--name", help="Name of the model; default that of the folder.")] = "",
    replicas: Annotated[int, typer.Option("--replicas", help="Most workers for each model.", min=1)] = 1,
    deadline_ms: Annotated[float, typer.Option("--deadline-ms", help="How long a request may take.")] = 10_000.0,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Never put requests together.")] = False,
    memory: Annotated[float, typer.Option("--memory", help="MB that models may hold; 0: four fifths.")] = 0.0,
    bodies: Annotated[
        float, typer.Option("--bodies", min=0, help="MB that bodies of requests under way may hold; 0: 268.")
    ] = 0.0,
    provider: Annotated[str, typer.Option("--provider", help="cpu or cuda.")] = "cpu",
    certificate: Annotated[str | None, typer.Option("--certificate", help="TLS certificate, a PEM file.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Its key, a PEM file.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Allow an address that others can reach.")] = False,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", min=0, max=65535, help="Answer over gRPC, too; 0 takes a free port.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray for Ray Serve on RAY_ADDRESS.")] = "local",
    as_json: options.Json = False,
) -> None:
    """Serve models until Ctrl-C: Open Inference Protocol v2 over HTTP and gRPC, and rows by column name."""
    with for_people(as_json):
        from tidemill.core.errors import OptionError
        from tidemill.sdk.serve import serve as run

        if name and len(bundle) > 1:
            raise OptionError("One name can't be that of several models.", where="--name")
        models: dict[str, Path] = {}
        for path in bundle:
            called = name or path.expanduser().resolve().stem
            if called in models:
                raise OptionError(f"Two models are called {called!r}.", hint="Serve them from folders of other names.")
            models[called] = path

        def started(server: "Server") -> None:
            from tidemill.cli import show

            served = getattr(server, "names", None) or [s.name for s in server.serving.all()]
            grpc = getattr(server, "grpc_address", None)
            if as_json:
                show.emit_json_line({"url": server.url, "models": served} | ({"grpc": grpc} if grpc else {}))
                return
            print(f"Serving {', '.join(served)} on {server.url}", flush=True)
            print(f"  try it   {server.url}/", flush=True)
            if grpc:
                print(f"  gRPC     {grpc}", flush=True)
            for one in served:
                print(f"  predict  POST {server.url}/v1/predict/{one}", flush=True)

        run(
            models, host=host, port=port, replicas=replicas, deadline_ms=deadline_ms, deterministic=deterministic,
            memory_bytes=int(memory * 1e6), bodies_bytes=int(bodies * 1e6), provider=provider,
            certificate=certificate, key=key, public=public, grpc_port=grpc_port, engine=engine, on_start=started,
        )  # fmt: skip
