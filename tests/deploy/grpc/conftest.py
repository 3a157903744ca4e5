"""A front with both doors, and a plain client of gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.engine.conftest import PATIENT, Running, models, patient  # noqa: F401  the fixture is used here, too

from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.sources import StaticSource
from tidemill.deploy.types import Endpoint


class Caller:
    """Calls by name, with messages of our own protocol."""

    def __init__(self, running: Running, **options: Any) -> None:
        import grpc

        from tidemill.deploy.grpc import protocol

        self.running = running
        self.messages = protocol.messages()
        self._calls = protocol.calls()
        credentials = options.pop("credentials", None)
        settings = [("grpc.enable_http_proxy", 0), *options.items()]
        address = running.server.grpc_address
        self.channel = (
            grpc.insecure_channel(address, options=settings)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=settings)
        )

    def __call__(
        self, name: str, request: Any = None, *, timeout: float | None = 60, metadata: dict[str, str] | None = None
    ) -> Any:
        return self.whole(name, request, timeout=timeout, metadata=metadata)[0]

    def whole(
        self, name: str, request: Any = None, *, timeout: float | None = 60, metadata: dict[str, str] | None = None
    ) -> tuple[Any, dict[str, str]]:
        """Give the answer and its trailing metadata."""
        wanted, given = self._calls[name]
        call = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=lambda r: r if isinstance(r, bytes) else r.SerializeToString(),
            response_deserializer=self.messages[given].FromString,
        )
        sent = self.messages[wanted]() if request is None else request
        answer, told = call.with_call(sent, timeout=timeout, metadata=tuple((metadata or {}).items()))
        return answer, dict(told.trailing_metadata() or ())

    def refused(self, name: str, request: Any = None, **options: Any) -> Any:
        """Give the error that a call ends with."""
        import grpc

        with pytest.raises(grpc.RpcError) as caught:
            self(name, request, **options)
        return caught.value

    def close(self) -> None:
        self.channel.close()


Begin = Callable[..., Caller]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a front with gRPC for this test, and give a caller."""
    pytest.importorskip("grpc")
    from tidemill.deploy.grpc.server import GrpcServer

    running: list[Running] = []
    callers: list[Caller] = []

    def start(
        given: dict[str, Path],
        *,
        limits: Limits | None = None, settings: Endpoint | None = None, credentials: Any = None,
        **options: Any,
    ) -> Caller:  # fmt: skip
        source = StaticSource({n: read_facts(p) for n, p in given.items()}, patient(settings))
        options.setdefault("measure", False)
        one = Running(GrpcServer(source, limits=limits or PATIENT, port=0, **options))
        running.append(one)
        one.wait_ready()
        callers.append(Caller(one, credentials=credentials))
        return callers[-1]

    yield start
    for caller in callers:
        caller.close()
    for one in running:
        one.stop()
