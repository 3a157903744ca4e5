"""`tidemill serve`: one model or a few, one process, no platform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core.errors import OptionError

if TYPE_CHECKING:
    from tidemill.deploy.engine.server import Server

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PROVIDERS = ("cpu", "cuda")


def serve(
    models: Mapping[str, str | Path] | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    replicas: int = 1,
    deadline_ms: float = 10_000.0,
    deterministic: bool = False,
    memory_bytes: int = 0,
    provider: str = "cpu",
    certificate: str | None = None,
    key: str | None = None,
    public: bool = False,
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
    provider : str
        ``"cpu"`` or ``"cuda"``.
    certificate, key : str, optional
        Files for TLS.
    public : bool
        Allow another address than loopback: anybody who reaches it may use the models.
    on_start : callable, optional
        Gets the server when it listens.

    Raises
    ------
    OptionError
        For an option that can't be used.
    BundleError
        For a bundle that is damaged.
    """
    from tidemill.deploy.engine.facts import read_facts
    from tidemill.deploy.engine.fleet import launch
    from tidemill.deploy.engine.limits import Limits

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
    ahead = launch()  # it loads onnxruntime while we read
    try:
        from tidemill.deploy.engine.facts import read_facts
        from tidemill.deploy.engine.server import Server, run
        from tidemill.deploy.engine.sources import StaticSource, endpoint_name
        from tidemill.deploy.handover import listening
        from tidemill.deploy.types import Endpoint

        if isinstance(models, Mapping):
            named = {endpoint_name(name): read_facts(path) for name, path in models.items()}
        else:
            facts = read_facts(models)
            named = {endpoint_name(facts.name): facts}
        settings = Endpoint(
            "base", min_replicas=1, max_replicas=replicas, deadline_ms=deadline_ms, deterministic=deterministic
        )
        server = Server(
            StaticSource(named, settings), None, None, replace(Limits(), memory_bytes=memory_bytes), host=host,
            port=port, sockets=listening(), certificate=certificate, key=key, provider=provider, ahead=ahead,
        )  # fmt: skip
        run(server, on_start)
    finally:
        ahead[0].kill()  # it has ended before, where the server has run
        ahead[0].wait()
        ahead[1].close()
