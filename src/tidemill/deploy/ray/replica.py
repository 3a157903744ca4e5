"""What one replica runs: the engine of a front without its socket.

The same engine as on one machine, so that a request means the same, is checked in the same way, shares batches, and is
replayed when a worker dies. Which replica gets it, how many there are and where is Ray's affair.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidemill.core.errors import BundleError
from tidemill.deploy.asking import HEADERS, Reply, ask
from tidemill.deploy.engine.app import App
from tidemill.deploy.engine.engine import Engine
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.served import Serving
from tidemill.deploy.engine.sources import StaticSource
from tidemill.deploy.ray.parcel import Parcel, unpack
from tidemill.deploy.types import Endpoint

_KEPT = frozenset(h.encode() for h in (*HEADERS, "content-encoding", "content-type", "inference-header-content-length"))
_START_S = 120.0
_OF_ONE = (b"/v2/repository/models/", b"/metrics")
"""What concerns one process alone; which replica is asked is chance."""
_NOT_HERE = Reply(
    501, {b"content-type": b"application/json"},
    b'{"error":"Replicas of Ray are loaded and watched by Ray, not over this path.","code":"not_here"}',
)  # fmt: skip


class Replica:
    """Models in this process, asked by `ask`. Made on the event loop that it works on.

    Parameters
    ----------
    parcels : mapping of str to Parcel
        The models' files by name.
    settings : Endpoint
        Deadline and determinism; the name does not matter.
    limits : Limits, optional
        Bounds.
    slots : int
        Batches that run side by side.
    """

    def __init__(
        self, parcels: Mapping[str, Parcel], settings: Endpoint, limits: Limits | None = None, *, slots: int = 1
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tidemill-ray-"))
        try:
            facts = {
                name: read_facts(unpack(parcel, self._folder / str(number)))
                for number, (name, parcel) in enumerate(parcels.items())
            }
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._limits = limits or Limits()
        self._engine = Engine(self._limits, slots=slots)
        source = StaticSource(facts, replace(settings, min_replicas=1))
        self._serving = Serving(self._engine, source)
        self._app = App(self._serving)

    async def start(self) -> None:
        """Load the models, and wait until all of them can answer.

        Raises
        ------
        BundleError
            Why one can't.
        """
        self._engine.start()
        await self._serving.start()
        for _ in range(int(_START_S / 0.02)):
            if self._serving.ready:
                return
            if self._serving.problem:
                break
            await asyncio.sleep(0.02)
        await self.close()
        raise BundleError(self._serving.problem or f"The models were not ready within {_START_S:.0f} s.")

    @property
    def ready(self) -> bool:
        """True where every model can answer."""
        return self._serving.ready

    async def answer(self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Reply:
        """Answer one request of HTTP."""
        if target.startswith(_OF_ONE):
            return _NOT_HERE
        if len(body) > self._limits.body_bytes:
            told = b'{"error":"A body may have %d bytes; send it in parts.","code":"body_too_large"}'
            return Reply(413, {b"content-type": b"application/json"}, told % self._limits.body_bytes)
        kept = {name.lower(): value for name, value in headers if name.lower() in _KEPT}
        return await ask(self._app, method.encode("ascii", "replace"), target, kept, body)

    async def close(self) -> None:
        """Let all workers go."""
        await self._serving.close()
        await self._engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def as_response(reply: Reply) -> Any:
    """An answer as Ray Serve wants it: of Starlette, which writes the length itself."""
    from starlette.responses import Response

    headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in reply.headers.items() if n != b"content-length"}
    return Response(reply.body, status_code=reply.status, headers=headers)
