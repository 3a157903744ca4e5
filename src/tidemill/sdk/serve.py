"""`tidemill serve`: one model or a few, one process, no platform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import OptionError

if TYPE_CHECKING:
    from tidemill.deploy.engine.server import Server

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PROVIDERS = ("cpu", "cuda")
ENGINES = ("local", "ray")


def serve(
    models: Mapping[str, str | Path] | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    replicas: int = 1,
    deadline_ms: float = 10_000.0,
    deterministic: bool = False,
    memory_bytes: int = 0,
    bodies_bytes: int = 0,
    provider: str = "cpu",
    certificate: str | None = None,
    key: str | None = None,
    public: bool = False,
    grpc_port: int | None = None,
    engine: str = "local",
    on_start: Callable[[Server], None] | None = None,
) -> None:
    """Serve bundles, or bare ONNX files, until the process is told to end (SIGTERM, Ctrl-C).

    Parameters
    ----------
    models : path, or mapping of str to path
        A bundle's folder or an ONNX file; several of them by name.
    host, port : str, int
        Where to listen; port 0 takes a free one.
    replicas : int
        Most workers for each model; they grow with the load.
    deadline_ms : float
        How long a request may take where its caller does not say.
    deterministic : bool
        Never batch: every answer is bit-equal to a call with that request alone.
    memory_bytes : int
        What all workers may hold; 0 means four fifths of the machine.
    bodies_bytes : int
        What the bodies of all requests under way may hold; 0 means 256 MiB.
    provider : str
        ``"cpu"`` or ``"cuda"``.
    certificate, key : str, optional
        Files for TLS.
    public : bool
        Allow another address than loopback: anybody who reaches it may use the models.
    grpc_port : int, optional
        Answer over gRPC, too (extra ``grpc``); 0 takes a free port.
    engine : str
        ``"local"``, or ``"ray"`` for Ray Serve (extra ``ray``) on the cluster that ``RAY_ADDRESS`` names, else on a Ray
        of this machine; then there are so many ``replicas`` at any time.
    on_start : callable, optional
        Gets the server when it listens; with ``url``, and on Ray with ``names`` of the models.

    Raises
    ------
    OptionError
        For an option that can't be used.
    BundleError
        For a bundle that is damaged.
    MissingExtraError
        Where gRPC or Ray is wanted and its package is absent.
    """
    from tidemill.deploy.engine.launching import end, launch

    if host not in LOOPBACK and not public:
        raise OptionError(
            f"{host} can be reached from elsewhere, and this server asks for no key.",
            hint="Add --public if that is meant, or use the platform with keys: tidemill up.",
        )
    if replicas < 1:
        raise OptionError(f"`replicas` must be at least 1, but got {replicas}.")
    if deadline_ms <= 0:
        raise OptionError(f"`deadline_ms` must be above 0, but got {deadline_ms}.")
    if provider not in PROVIDERS:
        raise OptionError(f"There is no execution provider {provider!r}.", hint=f"Known: {', '.join(PROVIDERS)}.")
    if engine not in ENGINES:
        raise OptionError(f"There is no engine {engine!r}.", hint=f"Known: {', '.join(ENGINES)}.")
    if engine == "ray":
        if grpc_port is not None or certificate or key or memory_bytes or bodies_bytes or provider != "cpu":
            raise OptionError(
                "On Ray there is no gRPC, TLS, memory limit or GPU of ours.", hint="Leave these options out, or Ray."
            )
        _serve_on_ray(models, host, port, replicas, deadline_ms, deterministic, on_start)
        return
    ahead = launch()  # it loads onnxruntime while we load all the rest
    with ExitStack() as held:
        held.callback(end, ahead)
        from tidemill.deploy.safety import looking

        looked = held.enter_context(looking(_graphs(models)))
        from tidemill.deploy.engine.curves import user_folder
        from tidemill.deploy.engine.facts import read_facts
        from tidemill.deploy.engine.limits import Limits
        from tidemill.deploy.engine.server import run
        from tidemill.deploy.engine.sources import StaticSource, endpoint_name
        from tidemill.deploy.grpc.server import server_class
        from tidemill.deploy.handover import listening
        from tidemill.deploy.otel.observer import telemetry
        from tidemill.deploy.types import Endpoint

        make = server_class(grpc_port)
        if isinstance(models, Mapping):
            named = {endpoint_name(name): read_facts(path) for name, path in models.items()}
        else:
            facts = read_facts(models)
            named = {endpoint_name(facts.name): facts}
        settings = Endpoint(
            "base", min_replicas=1, max_replicas=replicas, deadline_ms=deadline_ms, deterministic=deterministic
        )
        server = make(
            StaticSource(named, settings, curves=user_folder(), provider=provider),
            held.enter_context(telemetry(None)), None,
            replace(Limits(), memory_bytes=memory_bytes, bodies_bytes=bodies_bytes or Limits.bodies_bytes),
            host=host, port=port, sockets=listening(),
            certificate=certificate, key=key, provider=provider, ahead=ahead,
        )  # fmt: skip
        looked()
        run(server, on_start)


def _graphs(models: Mapping[str, str | Path] | str | Path) -> list[Path]:
    """The graphs of those models that are bundles; a bare ONNX file is looked at where it is read."""
    places = list(models.values()) if isinstance(models, Mapping) else [models]
    graphs = [Path(place).expanduser() / "1/model.onnx" for place in places]
    return [graph for graph in graphs if graph.is_file()]


def _serve_on_ray(
    models: Mapping[str, str | Path] | str | Path,
    host: str,
    port: int,
    replicas: int,
    deadline_ms: float,
    deterministic: bool,
    on_start: Callable[[Any], None] | None,
) -> None:
    from tidemill.deploy.engine.facts import read_facts
    from tidemill.deploy.engine.sources import endpoint_name
    from tidemill.deploy.ray.run import run
    from tidemill.deploy.safety import looking
    from tidemill.deploy.types import Endpoint

    places = models if isinstance(models, Mapping) else {read_facts(models).name: models}
    named = {endpoint_name(name): path for name, path in places.items()}
    for path in named.values():
        read_facts(path)  # what is damaged is told here, not by a replica
    with looking(_graphs(named)) as looked:
        looked()
    settings = Endpoint("base", deadline_ms=deadline_ms, deterministic=deterministic)
    run(named, settings, on_start, host=host, port=port, replicas=replicas)
